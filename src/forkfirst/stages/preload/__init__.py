"""Preloading: a template imports the program once, and forks the workers that share its memory.

`template` is what the template does, `preloading` what the supervisor knows of it; between them go
the words of `asking`.
"""
