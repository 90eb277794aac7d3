"""A service declared in Python: the value, and the command line that a program carries with it."""

from __future__ import annotations

import os
import sys

from forkfirst.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, NoReturn

    from forkfirst.plan.service import Declaration


class Service(Value):
    """One service. The fields are the flags of `forkfirst start`, and mean the same.

    Frozen, and does nothing until `main` is called with what a person typed:

        service = Service(program=serve, name="hello", listen=("web=127.0.0.1:8000",))

        if __name__ == "__main__":
            service.main()

    The program is the function itself, so its module is loaded before the fork. That is safe for
    as long as the module only defines things; if importing it starts a thread or a loop, the start
    is refused and says so.

    Attributes:
        program: `async def main()`, `async def main(context)`, or a plain function of either form;
            or the name of one, as `package.module:main` or `path/to/file.py:main`, which is then
            imported by the service alone.
        name: What the service is called; "" for the name of the program's file.
        listen: Listeners, each as NAME=ADDRESS.
        runtime: "auto", "asyncio", "uvloop", "trio" or "none".
        chdir: Where the program runs; None for the mode's default.
        umask: Bits that new files never have.
        env: Variables to set.
        env_file: A file of K=V lines, or None.
        log: The log file; None for the default place.
        log_size: Bytes at which the log is rotated; 0 for never.
        log_keep: How many rotated logs are kept.
        ready_timeout: Seconds that it may take to be ready.
        grace_period: Seconds that it may take to stop.
        pid_file: The pid file; None for the default place.
        workers: How many processes run the program, under a supervisor; 0 for one without.
        restart_policy: Which workers that end are replaced: "always", "on-failure" or "never".
        crash_limit: So many failures in a row, and no worker is replaced any more.
        hang_timeout: Seconds without a turn of its loop, and a worker is replaced; 0 for never.
        max_age: Seconds after which a worker is replaced; 0 for never.
        max_memory: Bytes at which a worker is replaced; 0 for never.
        canary: The percentage of workers that a reload starts first.
        commit_window: Seconds that a reload keeps the old workers paused, and not gone.
        user: Whom to become when everything is open; None for nobody else.
        group: The group instead of that user's own.
        supplementary: Groups beside the user's.
        keep_capability: Powers of root's to keep, such as "net_bind_service".
        no_new_privileges: None is yes with *user*.
        chroot: The directory that becomes the root.
        limit: Resource limits, each as NAME=SOFT:HARD.
        version: What the program calls this code of its own; `status` and `connect` show it.
        inetd: Whether it is started for one connection, which is passed to it.
    """

    program: Callable[..., object] | str
    name: str = ""
    listen: tuple[str, ...] = ()
    runtime: str = "auto"
    chdir: str | None = None
    umask: int = 0o027
    env: Mapping[str, str] = {}
    env_file: str | None = None
    log: str | None = None
    log_size: int = 0
    log_keep: int = 5
    ready_timeout: float = 60.0
    grace_period: float = 10.0
    pid_file: str | None = None
    workers: int = 0
    restart_policy: str = "always"
    crash_limit: int = 8
    hang_timeout: float = 0.0
    max_age: float = 0.0
    max_memory: int = 0
    canary: float = 0.0
    commit_window: float = 0.0
    user: str | None = None
    group: str | None = None
    supplementary: tuple[str, ...] = ()
    keep_capability: tuple[str, ...] = ()
    no_new_privileges: bool | None = None
    chroot: str | None = None
    limit: tuple[str, ...] = ()
    version: str = ""
    inetd: bool = False

    def main(self, argv: Sequence[str] | None = None) -> NoReturn:
        """Be the program's command line: start, run, stop, restart, status, logs, ….

        Args:
            argv: The arguments without the program's name; `sys.argv[1:]` if None.

        Leaves by `SystemExit`, with the statuses of the `forkfirst` command.
        """
        from forkfirst.cli import own  # noqa: PLC0415 - a declaration that is only imported is free

        sys.exit(own.main(self, list(sys.argv[1:] if argv is None else argv)))


def run(program: Callable[..., object], **settings: Any) -> NoReturn:
    """Run *program* as a service in the foreground, and exit with its status.

    Does what `forkfirst run` does: readiness for whoever supervises, signals, grace period,
    listeners, control socket. *settings* are the fields of `Service`.

    Raises:
        ForkfirstError: It could not be started; nothing is left.
    """
    from forkfirst.cli import own  # noqa: PLC0415 - as in `Service.main`

    sys.exit(own.run(Service(program=program, **settings)))


def make_declaration(service: Service) -> Declaration:
    """Return the declaration that *service* stands for.

    Raises:
        ConfigError: A field's value is not possible.
    """
    from forkfirst import config  # noqa: PLC0415 - as in `Service.main`

    directory = os.getcwd()
    code = getattr(service.program, "__code__", None)
    file = os.path.abspath(code.co_filename if code else sys.argv[0])
    name = getattr(service.program, "__qualname__", "main")
    settings = {
        field.replace("_", "-"): value
        for field, value in zip(type(service).__fields__, service, strict=True)
        if field not in ("program", "name")
    }
    return config.make_declaration(
        service.name,
        [({"target": f"{file}:{name}", **settings}, config.Origin(file, directory))],
    )
