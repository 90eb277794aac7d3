"""Where the files of a service live: decided from the name and the host alone.

Not below `$XDG_RUNTIME_DIR`: that directory is removed when the user's last session ends, and is
not set at all for cron, so a daemon would lose its pid file, or two shells would not see the same
service. What must survive a session lives in the state directory.
"""

from __future__ import annotations

from forkfirst.values import Value, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from forkfirst.plan.host import Host


class Places(Value):
    """Absolute paths of one service.

    Attributes:
        run_directory: Mode 0700: pid file and control socket are in it.
        log_directory: Holds the log.
        pid_file: The file that is the lock.
        control_socket: Where a running service answers.
        record: How the service was started, so that it can be restarted by its name.
        log: What the program writes.
        state: What the program must not lose, unless a manager says another place.
        runtime: What may go with the next boot.
        cache: What it can make anew.
        logs: Its logs beside the service's own.
    """

    run_directory: str
    log_directory: str
    pid_file: str
    control_socket: str
    record: str
    log: str
    state: str = ""
    runtime: str = ""
    cache: str = ""
    logs: str = ""


def find_run_directory(host: Host) -> str:
    """Return the directory that holds the pid files of all of this user's services."""
    if host.state_directory:
        return f"{host.state_directory}/run"
    if host.uid == 0:
        return "/run/forkfirst"
    return f"{_state_home(host)}/forkfirst/run"


def find_places(name: str, host: Host, *, pid_file: str = "", log: str = "") -> Places:
    """Return where service *name* keeps its files; *pid_file* and *log* override, if not "".

    A service that becomes another user keeps them where that user can remove, replace and find
    them: in a run directory and a log directory of that user's, which only root can make. Only the
    record of how it was started stays with whoever started it.
    """
    records = find_run_directory(host)
    run = records if host.identity is None else f"{records}-{host.identity.uid}"
    return Places(
        run_directory=run,
        log_directory=(log or _default_log(name, host)).rpartition("/")[0] or "/",
        pid_file=pid_file or f"{run}/{name}.pid",
        control_socket=f"{run}/{name}.sock",
        record=f"{records}/{name}.service",
        log=log or _default_log(name, host),
        state=f"{_find_base('state', host)}/{name}",
        runtime=f"{run}/{name}.d",
        cache=f"{_find_base('cache', host)}/{name}",
        logs=f"{_find_base('log', host)}/{name}",
    )


def find_granted_places(name: str, host: Host) -> Places:
    """Return where a service that root started for this very user keeps its files."""
    from forkfirst.plan.host import Identity  # noqa: PLC0415 - the service itself never asks

    user = Identity(name="", uid=host.uid, gid=0, groups=(), home="")
    return find_places(name, replace(host, uid=0, identity=user))


def _default_log(name: str, host: Host) -> str:
    if host.identity is not None:  # a rotation makes a file in the directory, and renames others
        directory = f"{_find_base('log', host)}/{name}"
    elif host.uid == 0 and not host.state_directory:
        directory = "/var/log/forkfirst"
    else:
        directory = host.state_directory or f"{_state_home(host)}/forkfirst"
    return f"{directory}/{name}.log"


def _find_base(what: str, host: Host) -> str:
    """Return the directory in which each service has one of its own for *what*."""
    if host.state_directory:
        return f"{host.state_directory}/{what}"
    if host.uid == 0:
        return f"/var/{'lib' if what == 'state' else what}/forkfirst"
    return f"{_state_home(host)}/forkfirst/{what}"


def _state_home(host: Host) -> str:
    # The base directory specification: a relative value must be ignored.
    return (
        host.state_home
        if host.state_home.startswith("/")
        else f"{host.home.rstrip('/')}/.local/state"
    )
