"""A census of this process's descriptors: what a test compares before and after."""

from __future__ import annotations

import os


def list_open_descriptors() -> dict[int, str]:
    """Return each open descriptor of this process with what it refers to."""
    found: dict[int, str] = {}
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - not a generator that is itself open
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")  # noqa: PTH115 - as above
        except FileNotFoundError:
            continue  # the listing's own
    return found
