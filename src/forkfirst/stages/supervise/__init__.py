"""The supervisor: one thread, no runtime, and so free to fork for ever.

`loop` waits and carries out what `plan.fleet` decides; `process` is a worker as seen from here, and
`worker` the same as seen from inside; `kit` is what a generation of workers has in common.
"""
