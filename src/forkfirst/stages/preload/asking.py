"""The words that a supervisor has for a template and its spare."""

from __future__ import annotations

import signal

FORK = b"fork "
"""What the supervisor sends to whoever is spare, with the number of the worker that it becomes."""

REOPEN = b"reopen"
"""What it sends when the log was rotated."""

STACKS = getattr(signal, "SIGRTMIN", signal.SIGUSR2)
"""What the supervisor sends to a template that imports, to hear where it is."""
