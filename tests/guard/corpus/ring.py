"""The least of io_uring that shows what two processes do to one ring.

Source: io_uring_setup(2), io_uring_enter(2).
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct

_SETUP, _ENTER = 425, 426  # the same on every architecture
_GET_EVENTS = 1
_ENTRIES_AT = 0x10000000
_NOP = 0


class Ring:
    """A ring that can do nothing, and say when it is done."""

    def __init__(self, entries: int) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        parameters = ctypes.create_string_buffer(120)
        self._descriptor = self._libc.syscall(_SETUP, entries, parameters)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "io_uring_setup")
        words = struct.unpack("30I", parameters.raw)
        submit, complete = words[10:20], words[20:30]
        self._tail, self._mask, self._array = submit[1], submit[2], submit[6]
        self._done_head, self._done_tail = complete[0], complete[1]
        self._done_mask, self._done = complete[2], complete[5]
        size = max(self._array + 4 * words[0], self._done + 16 * words[1])
        self._ring = mmap.mmap(self._descriptor, size, mmap.MAP_SHARED)
        self._entries = mmap.mmap(
            self._descriptor, 64 * words[0], mmap.MAP_SHARED, offset=_ENTRIES_AT
        )

    def submit_nop(self, number: int) -> None:
        """Submit an operation that does nothing and completes as *number*."""
        tail = self._read(self._tail)
        index = tail & self._read(self._mask)
        struct.pack_into("B31xQ24x", self._entries, 64 * index, _NOP, number)
        struct.pack_into("I", self._ring, self._array + 4 * index, index)
        struct.pack_into("I", self._ring, self._tail, tail + 1)
        assert self._libc.syscall(_ENTER, self._descriptor, 1, 0, 0, None, 0) == 1

    def take(self) -> int:
        """Return the number of a completion, or 0 if there is none."""
        head = self._read(self._done_head)
        if head == self._read(self._done_tail):
            return 0
        place = self._done + 16 * (head & self._read(self._done_mask))
        (number,) = struct.unpack_from("Q", self._ring, place)
        struct.pack_into("I", self._ring, self._done_head, head + 1)
        return int(number)

    def wait(self) -> int:
        """Wait for a completion and return its number."""
        self._libc.syscall(_ENTER, self._descriptor, 0, 1, _GET_EVENTS, None, 0)
        return self.take()

    def _read(self, offset: int) -> int:
        (value,) = struct.unpack_from("I", self._ring, offset)
        return int(value)

    def close(self) -> None:
        """Give everything back."""
        self._ring.close()
        self._entries.close()
        os.close(self._descriptor)
