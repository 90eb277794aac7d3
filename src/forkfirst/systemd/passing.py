"""The other side of socket activation: what a program is told of the sockets that it is passed."""

from __future__ import annotations

from forkfirst.systemd.activation import FIRST_FD, VARIABLES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["FIRST_FD", "make_environment", "with_own_pid"]

_NOT_INHERITED = frozenset({*VARIABLES, "NOTIFY_SOCKET"})

# LISTEN_PID must hold the pid of the program itself, which only the new process knows. A shell
# costs 1 ms for that, a second Python 6.
_SET_OWN_PID = 'LISTEN_PID=$$; export LISTEN_PID; exec "$@"'


def make_environment(
    environ: Mapping[str, str], names: Sequence[str], *, pid: int | None = None
) -> dict[str, str]:
    """Return *environ* for a program whose sockets, called *names*, are at 3, 4, ….

    Nothing of what was said to this process is left in it: another's sockets, or another's
    notification socket. Without *names* nothing is passed, and nothing is said.

    Args:
        environ: The environment of this process.
        names: A name for each socket, in order.
        pid: Whom they are for; None leaves LISTEN_PID to `with_own_pid`, or out.

    Source: sd_listen_fds(3).
    """
    made = {key: value for key, value in environ.items() if key not in _NOT_INHERITED}
    if names:
        made["LISTEN_FDS"] = str(len(names))
        made["LISTEN_FDNAMES"] = ":".join(name.replace("\\", "\\\\") for name in names)
        if pid is not None:
            made["LISTEN_PID"] = str(pid)
    return made


def with_own_pid(argv: Sequence[str]) -> tuple[str, ...]:
    """Return a command line that executes *argv* with LISTEN_PID set to the pid of the process.

    It is the same process in the end. A shell may drop variables whose names it could not use.
    """
    return ("/bin/sh", "-c", _SET_OWN_PID, "sh", *argv)
