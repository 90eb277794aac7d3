"""A service declared in Python: the value, and the command line that a program carries with it."""

from __future__ import annotations

import os
import sys

from forkfirst.values import Value, replace

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
        serve: The server of a program that is an ASGI or WSGI application: "uvicorn", "hypercorn",
            "granian", or "aiohttp" for a `web.Application`.
        serve_option: What that server is told, by its own names.
        chdir: Where the program runs; None for the mode's default.
        umask: Bits that new files never have.
        env: Variables to set.
        env_file: A file of NAME=VALUE lines, or None.
        log: The log file; None for the default place.
        log_size: Bytes at which the log is rotated; 0 for never.
        log_keep: How many rotated logs are kept.
        ready_timeout: Seconds that it may take to be ready.
        grace_period: Seconds that it may take to stop.
        pid_file: The pid file; None for the default place.
        workers: How many processes run the program, under a supervisor; 0 for one without.
        preload: True forks workers from one process that has imported the program; "require"
            refuses to start where that cannot be forked.
        restart_policy: Which workers that end are replaced: "always", "on-failure" or "never".
        crash_limit: So many failures in a row, and no worker is replaced any more.
        hang_timeout: Seconds without a turn of its loop, and a worker is replaced; 0 for never.
        max_age: Seconds after which a worker is replaced; 0 for never.
        max_memory: Bytes at which a worker is replaced; 0 for never.
        max_requests: Answers after which a worker is replaced; 0 for never. A program says them
            with `Context.served`; for an application (*serve*) they are counted.
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
    serve: str = ""
    serve_option: Mapping[str, object] = {}
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
    preload: bool | str = False
    restart_policy: str = "always"
    crash_limit: int = 8
    hang_timeout: float = 0.0
    max_age: float = 0.0
    max_memory: int = 0
    max_requests: int = 0
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

        Leaves by `SystemExit`, with the statuses of the `forkfirst` command; after a start by
        `_exit`, as a daemon's parent does: exit handlers are the service's now.
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


def declare_by_name(service: Service) -> Declaration:
    """Return the declaration of *service* for a fresh interpreter, which imports the program.

    Raises:
        TargetError: The program cannot be imported there; the text says why.
        ConfigError: A field's value is not possible.
    """
    target = service.program
    if not isinstance(target, str):
        target = name_program(target)
    declared = make_declaration(service, target=target)
    # What is first on the path already is not put there again, and nothing is shadowed.
    first = os.path.abspath(sys.path[0]) if sys.path else ""
    return replace(declared, source_directory=first) if os.path.isdir(first) else declared


def name_program(program: Callable[..., object]) -> str:
    """Return the text by which another interpreter finds *program*: its module or file, and name.

    Raises:
        TargetError: No interpreter but this one can have it.
    """
    from forkfirst import errors  # noqa: PLC0415 - as in `Service.main`

    name = getattr(program, "__qualname__", "")
    module = sys.modules.get(getattr(program, "__module__", None) or "")
    found: object = module
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is program and module is not None:
        if module.__name__ != "__main__":
            return f"{module.__name__}:{name}"
        if module.__spec__ is not None:  # python -m package.module
            return f"{module.__spec__.name}:{name}"
        file = getattr(module, "__file__", None)
        if file and os.path.isfile(file) and file.endswith(".py"):
            return f"{os.path.abspath(file)}:{name}"
        why = "it is defined in no file, but at a prompt, in a notebook or in a text"
    elif "<lambda>" in name:
        why = "it is a lambda, which has no name"
    elif "<locals>" in name:
        why = "it is defined inside another function"
    else:
        why = f"no module has it under the name {name!r}" if name else "it has no name"
    message = f"a fresh interpreter cannot import {name or program!r}: {why}"
    hint = "define it at the top of a file, or name it: Service(program='package.module:main')"
    raise errors.TargetError(message, hint=hint)


def make_declaration(service: Service, *, target: str = "") -> Declaration:
    """Return the declaration that *service* stands for.

    Args:
        service: What was declared.
        target: The name of its program; "" finds one that is good enough to be shown.

    Raises:
        ConfigError: A field's value is not possible.
    """
    from forkfirst import config  # noqa: PLC0415 - as in `Service.main`

    program = service.program
    code = getattr(program, "__code__", None)
    file = os.path.abspath(code.co_filename if code else sys.argv[0])
    if isinstance(program, str):
        target = target or program
    target = target or f"{file}:{getattr(program, '__qualname__', 'main')}"
    settings = {
        field.replace("_", "-"): value
        for field, value in zip(type(service).__fields__, service, strict=True)
        if field not in ("program", "name")
    }
    return config.make_declaration(
        service.name,
        [({"target": target, **settings}, config.Origin(file, os.getcwd()))],
    )
