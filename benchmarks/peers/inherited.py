"""examples/hello.py for supervisors that pass a listening socket: `inherited.py DESCRIPTOR`."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent.parent / "examples"))

import hello


class Context:
    """As much of forkfirst's as the example needs."""

    stopping = False


async def main() -> None:
    """Serve until SIGTERM, and finish what was begun."""
    context: Any = Context()
    wanted = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, wanted.set)
    serving = hello.Hello(context)
    server = await asyncio.start_server(
        serving.answer, sock=socket.socket(fileno=int(sys.argv[1])), backlog=socket.SOMAXCONN
    )
    await wanted.wait()
    context.stopping = True
    server.close()
    await serving.finish()


asyncio.run(main())
