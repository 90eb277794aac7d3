"""A lock file that is no lock: lockf() locks belong to a process, and the daemon is another one."""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import tempfile

from scene import ask_guard, say


def start_daemon(path: str, take: str) -> int:
    """Lock the pid file the way many daemons do, fork, and return the daemon's pid."""
    receive, send = os.pipe()
    launcher = os.fork()
    if launcher == 0:
        descriptor = os.open(path, os.O_RDWR)
        getattr(fcntl, take)(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        ask_guard(take)
        daemon = os.fork()
        if daemon == 0:
            os.close(send)
            signal.pause()
            os._exit(0)
        os.write(send, str(daemon).encode())
        os._exit(0)  # with the launcher, its locks are gone
    os.waitpid(launcher, 0)
    os.close(send)
    pid = int(os.read(receive, 20))
    os.close(receive)
    return pid


def can_start_again(path: str, take: str) -> bool:
    """Return whether a second instance gets the lock."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        getattr(fcntl, take)(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def main() -> int:
    """Start a daemon with either kind of lock, and then a second one."""
    seen = {}
    for take in ("lockf", "flock"):
        with tempfile.NamedTemporaryFile() as file:
            daemon = start_daemon(file.name, take)
            seen[take] = can_start_again(file.name, take)
            os.kill(daemon, 9)
        end = "starts as well" if seen[take] else "is refused"
        say(f"{take}(): the daemon runs (pid {daemon}); a second instance {end}\n")
    return 0 if seen == {"lockf": True, "flock": False} else 1


if __name__ == "__main__":
    sys.exit(main())
