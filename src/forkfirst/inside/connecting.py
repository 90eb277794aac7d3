"""Connect to a service's own listener, and start the service before if it does not run."""

from __future__ import annotations

import socket
import sys
import time

from forkfirst import errors
from forkfirst.inside import asking, ensuring, waits
from forkfirst.inside.waits import Wait
from forkfirst.values import replace as change

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any

    from forkfirst.inside.waits import Work
    from forkfirst.service import Service

_AGAIN_SECONDS = 0.02
"""Until a listener is tried again that has gone since its service said that it was ready."""


def connect(
    name: str,
    *,
    service: Service | None = None,
    listener: str = "",
    replace: bool = False,
    seconds: float = 60.0,
) -> Connecting:
    """Return a connection to the service *name* that is open inside a `with` or an `async with`.

    What is given there is what each way of working is used to:

    - `with` gives a connected `socket.socket`, which blocks;
    - `async with` on asyncio a pair of `StreamReader` and `StreamWriter`;
    - `async with` on trio a `trio.SocketStream`.

    It is closed when the block is left. With *service* the service is started if it does not run,
    as by `ensure_running`, and only a service that is ready is connected to.

    Args:
        name: The service.
        service: What to start; None to start nothing.
        listener: Which of its listeners, by name; "" if it has one only.
        replace: Whether a running one of another version than *service*'s is replaced.
        seconds: How long all of it may take.

    Raises:
        UsageError: *service* has another name.

    On entering the block, also:

    Raises:
        NotRunningError: It does not run, and there is no *service* to start.
        VersionSkewError: It runs in another version.
        ForkfirstError: As `ensure_running`.
    """
    if service is not None:
        if service.name not in ("", name):
            message = f'cannot connect to "{name}" by starting "{service.name}"'
            raise errors.UsageError(message)
        service = change(service, name=name)
    return Connecting(name, service, listener=listener, replace=replace, seconds=seconds)


class Connecting:
    """A connection to a service, open while its block is entered. Made by `connect`."""

    def __init__(
        self,
        name: str,
        service: Service | None,
        *,
        listener: str,
        replace: bool,
        seconds: float,
    ) -> None:
        self._name = name
        self._service = service
        self._listener = listener
        self._replace = replace
        self._seconds = seconds
        self._opened: Any = None

    def __enter__(self) -> socket.socket:
        stream = waits.run(self._open())
        stream.setblocking(True)  # noqa: FBT003 - its only way
        self._opened = stream
        return stream

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._opened.close()

    async def __aenter__(self) -> Any:
        stream = await waits.run_async(self._open())
        try:
            return await self._wrap(stream)
        except BaseException:
            stream.close()
            raise

    async def _wrap(self, stream: socket.socket) -> Any:
        asyncio: Any = sys.modules.get("asyncio")
        if asyncio is None or asyncio._get_running_loop() is None:  # noqa: SLF001 - public to libraries
            trio: Any = sys.modules["trio"]
            self._opened = trio.SocketStream(trio.socket.from_stdlib_socket(stream))
            return self._opened
        wrap = asyncio.open_connection
        if stream.family == socket.AF_UNIX:
            wrap = asyncio.open_unix_connection
        reader, self._opened = await wrap(sock=stream)
        return reader, self._opened

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if hasattr(self._opened, "aclose"):
            await self._opened.aclose()
            return
        self._opened.close()
        try:
            await self._opened.wait_closed()
        except OSError:
            return  # the service has hung up first

    def _open(self) -> Work[socket.socket]:
        wanted = ensuring.Wanted(
            self._service, name=self._name, replace=self._replace, seconds=self._seconds
        )
        while True:
            yield from ensuring.ensure(wanted)
            address = _choose(wanted, self._listener)
            left = max(0.0, wanted.deadline - time.monotonic())
            stream = yield from asking.open_connection(address, left)
            if stream is not None:
                return stream
            if time.monotonic() >= wanted.deadline:
                message = f'cannot connect to "{self._name}": nobody listens on {address}'
                raise errors.StuckError(message)
            yield Wait(seconds=_AGAIN_SECONDS)  # it has just ended


def _choose(wanted: ensuring.Wanted, name: str) -> str:
    """Return the address of the listener *name*, or of the only one."""
    found = [(each, address) for each, address in wanted.facts["listeners"]]
    chosen = [address for each, address in found if name in ("", each)]
    if len(chosen) == 1:
        return str(chosen[0])
    known = ", ".join(each for each, _ in found) or "none"
    what = f'a listener "{name}"' if name else "one listener"
    message = f'cannot connect to "{wanted.name}": it has not {what}'
    raise errors.UsageError(message, hint=f"it has {known}")
