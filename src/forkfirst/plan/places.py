"""Where the files of a service live: decided from the name and the host alone.

Not below `$XDG_RUNTIME_DIR`: that directory is removed when the user's last session ends, and is
not set at all for cron, so a daemon would lose its pid file, or two shells would not see the same
service. What must survive a session lives in the state directory.
"""

from __future__ import annotations

from forkfirst.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from forkfirst.plan.host import Host


class Places(Value):
    """Absolute paths of one service.

    Attributes:
        run_directory: Mode 0700 and ours: pid file, control socket and record are in it.
        log_directory: Holds the log.
        pid_file: The file that is the lock.
        control_socket: Where a running service answers.
        record: How the service was started, so that it can be restarted by its name.
        log: What the program writes.
    """

    run_directory: str
    log_directory: str
    pid_file: str
    control_socket: str
    record: str
    log: str


def find_run_directory(host: Host) -> str:
    """Return the directory that holds the pid files of all of this user's services."""
    if host.state_directory:
        return f"{host.state_directory}/run"
    if host.uid == 0:
        return "/run/forkfirst"
    return f"{_state_home(host)}/forkfirst/run"


def find_places(name: str, host: Host, *, pid_file: str = "", log: str = "") -> Places:
    """Return where service *name* keeps its files; *pid_file* and *log* override, if not ""."""
    run = find_run_directory(host)
    if not log:
        if host.state_directory:
            log = f"{host.state_directory}/{name}.log"
        elif host.uid == 0:
            log = f"/var/log/forkfirst/{name}.log"
        else:
            log = f"{_state_home(host)}/forkfirst/{name}.log"
    return Places(
        run_directory=run,
        log_directory=log.rpartition("/")[0] or "/",
        pid_file=pid_file or f"{run}/{name}.pid",
        control_socket=f"{run}/{name}.sock",
        record=f"{run}/{name}.service",
        log=log,
    )


def _state_home(host: Host) -> str:
    # The base directory specification: a relative value must be ignored.
    return host.state_home if host.state_home.startswith("/") else f"{host.home}/.local/state"
