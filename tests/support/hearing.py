"""What a service tells its manager, one message after the other."""

from __future__ import annotations

import select
import time
from typing import TYPE_CHECKING

from support.service_home import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from forkfirst.systemd.notify_receiver import Message, Receiver


def each_message(receiver: Receiver) -> Iterator[Message]:
    """Give each message as it comes; end when none has come for too long since the beginning."""
    waiting = select.poll()
    waiting.register(receiver.fileno(), select.POLLIN)
    deadline = time.monotonic() + PATIENCE
    while waiting.poll(max(0.0, deadline - time.monotonic()) * 1000):
        message = receiver.receive()
        if message is not None:
            yield message
