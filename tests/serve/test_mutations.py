"""What is promised of served applications, seen to be lost when what keeps it is taken away."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from support import served

if TYPE_CHECKING:
    from support.service_home import Home

pytestmark = pytest.mark.slow

WITHOUT_THE_MOMENT = """
from forkfirst.runtime.serve import parting
parting.LINGER_SECONDS = 0.0
"""
ENDS_THE_LISTENER = """
    import socket
    for name in os.listdir("/proc/self/fd"):
        try:
            one = socket.socket(fileno=os.dup(int(name)))
        except OSError:
            continue
        with one:
            if one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                one.shutdown(socket.SHUT_RDWR)
"""


def test_without_the_moment_a_kept_connection_is_cut(home: Home) -> None:
    """So `test_what_was_begun_is_finished` sees it: a request on its way would be lost."""
    served.write(home, **{"import asyncio\n": "import asyncio\n" + WITHOUT_THE_MOMENT})
    home.start("app.py:app", "--serve", "uvicorn", "--listen", "web=127.0.0.1:0")
    with served.connect(home.address("app")) as kept:
        served.send(kept, "/")
        assert served.read(kept)[1] == b"first"
        os.kill(home.pid("app"), signal.SIGTERM)
        assert kept.recv(1) == b""
    home.wait_alone()


def test_a_worker_that_shut_its_listener_down_would_make_the_others_deaf(home: Home) -> None:
    """So `test_a_worker_that_leaves_takes_nothing_from_the_others` would not pass with one."""
    begins = "async def http(scope: Any, _: Any, send: Any) -> None:"
    served.write(home, **{begins: begins + ENDS_THE_LISTENER})
    flags = ("--serve", "uvicorn", "--listen", "web=127.0.0.1:0", "--workers", "2")
    home.start("app.py:app", *flags)
    address = home.address("app")
    assert served.ask(address) == b"first"
    with pytest.raises(ConnectionRefusedError):
        served.ask(address)
