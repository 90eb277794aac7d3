"""An upgrade: the supervisor is replaced in place by a new forkfirst, with everything it has.

`upgrading` is what the old supervisor does: prove, then execute. `entry` is what the new one does
first. Between them goes a `state`, in a file in memory, whose values are written as `plain` data:
the two may be of different versions.
"""
