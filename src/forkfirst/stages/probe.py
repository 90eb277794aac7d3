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


def read_host(*, detaching: bool, service: Declaration | None = None) -> Host:
    """Observe the caller and the machine; changes nothing.

    Args:
        detaching: Whether a daemon will be made. A daemon is a process that no manager watches,
            so every variable of a manager's protocols is foreign to it.
        service: What is to be started, where that is so: it may name a user to become.

    Raises:
        ConfigError: The service names a user, group, limit or capability that there is not.
    """
    environ = os.environ
    uid = os.geteuid()
    return Host(
        uid=uid,
        pid=os.getpid(),
        home=_home(uid),
        directory=os.getcwd(),
        state_directory=_absolute(environ.get("FORKFIRST_STATE_DIR", "")),
        state_home=environ.get("XDG_STATE_HOME", ""),
        program=(sys.executable, "-m", "forkfirst"),
        manager=_manager(),
        foreign_variables=tuple(
            name for name in _ADDRESSED if name in environ and (detaching or _is_foreign(name))
        ),
        identity=_look_up_identity(service),
    )


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
    return ""


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
