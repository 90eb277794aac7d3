"""Reads the machine once, into a `Host`. The only place where a plan's facts come from."""

from __future__ import annotations

import os
import sys

from forkfirst.plan.host import Host

TYPE_CHECKING = False
if TYPE_CHECKING:
    from forkfirst.plan.host import Identity
    from forkfirst.plan.service import Declaration

_ADDRESSED = {
    "LISTEN_FDS": "LISTEN_PID",
    "LISTEN_FDNAMES": "LISTEN_PID",
    "LISTEN_PIDFDID": "LISTEN_PID",
    "LISTEN_FDS_FIRST_FD": "LISTEN_PID",
    "LISTEN_PID": "LISTEN_PID",
    "WATCHDOG_USEC": "WATCHDOG_PID",
    "WATCHDOG_PID": "WATCHDOG_PID",
    "NOTIFY_SOCKET": "",
}
"""Variables of the service manager's protocols, each with the one that says whom it is for."""


_PASSED = [name for name in _ADDRESSED if name.startswith("LISTEN")]


def read_host(*, detaching: bool, service: Declaration | None = None) -> Host:
    """Observe the caller and the machine; changes nothing, unless a *service* is passed something.

    Args:
        detaching: Whether a daemon will be made. A daemon is a process that no manager watches,
            so every variable of a manager's protocols is foreign to it.
        service: What is to be started, where that is so: it may name a user to become. Then what
            was passed to this process is taken, and the variables that say so are removed.

    Raises:
        ConfigError: The service names a user, group, limit or capability that there is not, or
            what was passed is not as it should be.
    """
    environ = os.environ
    uid = os.geteuid()
    host = Host(
        uid=uid,
        pid=os.getpid(),
        home=_home(uid),
        directory=_read_directory(),
        state_directory=_absolute(environ.get("FORKFIRST_STATE_DIR", "")),
        state_home=environ.get("XDG_STATE_HOME", ""),
        program=(sys.executable, "-m", "forkfirst"),
        manager=_manager(),
        foreign_variables=tuple(
            name for name in _ADDRESSED if name in environ and (detaching or _is_foreign(name))
        ),
        identity=_look_up_identity(service),
        forks_well=forks_well(),
        notified=bool(environ.get("NOTIFY_SOCKET")) and not detaching,
        keeps=_count_keepable(environ.get("FDSTORE", "")),
        runtime_directory=environ.get("RUNTIME_DIRECTORY", "").partition(":")[0],
    )
    if service is None or not (service.inetd or any(map(environ.__contains__, _PASSED))):
        return host
    from forkfirst.stages.managed import passed  # noqa: PLC0415 - only where something is passed

    return passed.take(host, service)


def forks_well() -> bool:
    """Return whether a process that was forked here can do more than exec(2).

    On macOS the system's own libraries refuse to work in it, or end it.

    Source: fork(2) of macOS, "CAVEATS".
    """
    system: str = sys.platform  # a copy, or type checkers see only the system they run on
    return system != "darwin"


def _look_up_identity(service: Declaration | None) -> Identity | None:
    if service is None or not service.confined:
        return None
    from forkfirst.stages import confining  # noqa: PLC0415 - only for such a service

    return confining.look_up(service)


def _is_foreign(name: str) -> bool:
    """Whether a variable names another process as its reader."""
    whom = os.environ.get(_ADDRESSED[name], "")
    return bool(_ADDRESSED[name]) and whom not in ("", str(os.getpid()))


def _manager() -> str:
    if os.environ.get("LISTEN_PID") == str(os.getpid()):
        return "socket activation"
    if os.environ.get("NOTIFY_SOCKET"):
        return "sd_notify"
    if os.environ.get("SYSTEMD_EXEC_PID") == str(os.getpid()):
        return "systemd"
    return ""


def _count_keepable(said: str) -> int:
    """Return how many descriptors the manager says that it keeps.

    systemd says so from 254 on. Before, nothing tells a unit with FileDescriptorStoreMax= from one
    without, and to be sent what it cannot keep is worth a warning in the journal to systemd. So
    nothing is sent unasked there, unless the unit says it itself (`Environment=FDSTORE=16`).
    """
    return int(said) if said.isascii() and said.isdecimal() else 0


def _read_directory() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:
        return "/"  # it was removed under us: no reason not to stop a service


def _home(uid: int) -> str:
    home = os.environ.get("HOME", "")
    if home.startswith("/"):
        return home
    import pwd  # noqa: PLC0415 - rarely needed: only without HOME

    try:
        return pwd.getpwuid(uid).pw_dir
    except KeyError:
        return "/"


def _absolute(path: str) -> str:
    return os.path.abspath(path) if path else ""
