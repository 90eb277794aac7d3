"""The other ways to start an application: a file, Python, the foreground, a passed socket."""

from __future__ import annotations

import signal
import socket
import sys
from typing import TYPE_CHECKING

from support import served
from support.service_home import PATIENCE

if TYPE_CHECKING:
    from support.service_home import Home

PASSES = """
import os, socket, sys
listener = socket.create_server(("127.0.0.1", 0))
if listener.fileno() != 3:
    os.dup2(listener.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_FDS="1", LISTEN_FDNAMES="web", LISTEN_PID=str(os.getpid()))
print(listener.getsockname()[1], flush=True)
os.execv(sys.executable, [sys.executable, "-m", "forkfirst", *sys.argv[1:]])
"""
OWN = """
from forkfirst import Service

service = Service(
    program="app:app",
    name="app",
    serve="uvicorn",
    serve_option={"access-log": False, "timeout_keep_alive": 7},
    listen=("web=127.0.0.1:0",),
)

if __name__ == "__main__":
    service.main()
"""


def test_a_file_declares_the_server_and_its_options(home: Home) -> None:
    """Typed, as a table; and a flag goes over it."""
    served.write(home)
    lines = [
        "[service.app]",
        'target = "app:app"',
        'serve = "uvicorn"',
        'listen = "web=127.0.0.1:0"',
    ]
    lines += ["[service.app.serve-option]", "access-log = false", 'log-level = "warning"']
    (home.directory / "forkfirst.toml").write_text("\n".join(lines) + "\n")
    home.start("app", "--serve-option", "log-level=info")
    assert served.ask(home.address("app")) == b"first"
    home.stop("app")
    log = home.log("app")
    assert "Application startup complete" in log, "the flag's level"
    assert "GET /" not in log, "the file's word"


def test_a_program_declares_it_and_carries_the_commands(home: Home) -> None:
    """`python service.py start`, with the application in a module that only the service loads."""
    served.write(home)
    home.program("service.py", OWN)
    done = home.run(sys.executable, "service.py", "start")
    assert done.status == 0, done
    assert served.ask(home.address("app")) == b"first"
    home.stop("app")
    assert "GET /" not in home.log("app")


def test_in_the_foreground_a_passed_socket_is_served(home: Home) -> None:
    """Under systemd with a socket unit there is nothing to say of listeners."""
    served.write(home)
    words = ("run", "app.py:app", "--serve", "uvicorn")
    running = home.open(sys.executable, "-c", PASSES, *words, stdout=-1)
    assert running.stdout is not None
    port = int(running.stdout.readline())
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        served.send(connection, "/")
        assert served.read(connection)[1] == b"first"
        running.send_signal(signal.SIGTERM)
        assert running.wait(PATIENCE) == 0
    assert b"lifespan over" in running.stdout.read()
    running.stdout.close()


def test_without_workers_a_reload_is_a_successors(home: Home) -> None:
    """One process is enough: it is replaced, and the listener is handed over."""
    served.begin(home, "uvicorn asyncio")
    before = home.pid("app")
    served.write(home, "other")
    done = home.forkfirst("reload", "app")
    assert done.status == 0, done
    assert served.ask(home.address("app")) == b"other"
    assert home.pid("app") != before
    home.stop("app")


def test_the_plan_says_who_serves(home: Home) -> None:
    """Before anything is done."""
    served.write(home)
    done = home.forkfirst("plan", "app.py:app", "--serve", "hypercorn", "--listen", "8000")
    assert done.status == 0, done
    assert "check that hypercorn is installed, without importing it" in done.out
    assert "serve it with hypercorn; report READY" in done.out
