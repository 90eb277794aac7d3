"""What the person asks for, as a value. A service declares; it never acts."""

from __future__ import annotations

from forkfirst.errors import ConfigError
from forkfirst.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from forkfirst.plan.fleet.state import Settings
    from forkfirst.plan.listener import Listener

RUNTIMES = ("auto", "asyncio", "uvloop", "trio", "none")
"""`auto`: asyncio for a coroutine function, none for a plain one."""

RESTART_POLICIES = ("always", "on-failure", "never")
MOST_WORKERS = 1024
"""Three descriptors and a process each: more is a slip of the finger."""

_CANCEL_SECONDS = 1.5
"""After the grace period a worker cancels what is left, and ends within a second by itself."""

_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.@-")
_NAME_LENGTH = 64


class Declaration(Value):
    """One service, whole: what to run, on what, and how.

    Attributes:
        name: Unique among one user's services; letters, digits and ``_ . @ -``.
        target: `package.module:name` or `/path/to/file.py:name`; "" for a command.
        command: A program of any language and its arguments, instead of a target.
        listeners: Opened before the fork, in this order.
        source_directory: Where a target's module or file is looked for, absolute.
        runtime: One of `RUNTIMES`.
        serve: The server that the target, an application, is served by; "" for a program.
        serve_options: What that server is told: names of its own, and values.
        directory: Where the program runs; "" for the mode's own default (see `order`).
        umask: Bits that new files never have.
        environment: Variables to set, in order, over those inherited.
        log: The log file, absolute; "" for the default place (or, in the foreground, no file).
        log_size: Bytes at which the log is rotated; 0 for never.
        log_keep: How many rotated logs are kept.
        ready_seconds: How long the program may take to be ready.
        grace_seconds: How long the program may take to stop.
        settle_seconds: A command that says nothing is ready when it has lived so long.
        notify_fd: The descriptor on which a command writes a newline when ready, or -1.
        pid_file: The pid file, absolute; "" for the default place.
        workers: How many processes run the program, under a supervisor; 0 for one without.
        preload: Whether workers are forked from a process that has imported the program: "" for
            no; "prefer" for yes, if that can be forked; "require" for yes, or not at all.
        restart_policy: Which workers that end are replaced: one of `RESTART_POLICIES`.
        crash_limit: So many failures in a row, and no worker is replaced any more.
        hang_seconds: A worker whose runtime has not turned for so long is replaced; 0 for never.
        max_age_seconds: A worker that has been ready for so long is replaced; 0 for never.
        max_memory: A worker that has so many bytes is replaced; 0 for never.
        max_requests: A worker that has answered so many requests is replaced; 0 for never.
        canary_percent: How many workers a reload starts first, to hear of their health.
        commit_seconds: How long a reload keeps the old workers paused, and not gone.
        user: Whom the program runs as, by name or number; "" for whoever starts it.
        group: The group instead of that user's own, by name or number; "" for the user's own.
        supplementary: Groups beside those of the user, by name or number.
        keep_capabilities: What of root's powers stays, by the names of capabilities(7).
        no_new_privileges: Whether nothing that is executed can ever give privileges; None is yes
            for a service that gives up its own, and no for any other.
        chroot: The directory that becomes the root, absolute; "" for none.
        limits: Resource limits, as NAME=SOFT:HARD.
        version: What the program calls the code that is meant, for `status` and for clients.
        inetd: Whether it is started anew for each connection, which is passed to it.
    """

    name: str
    target: str = ""
    command: tuple[str, ...] = ()
    listeners: tuple[Listener, ...] = ()
    source_directory: str = "/"
    runtime: str = "auto"
    serve: str = ""
    serve_options: tuple[tuple[str, object], ...] = ()
    directory: str = ""
    umask: int = 0o027
    environment: tuple[tuple[str, str], ...] = ()
    log: str = ""
    log_size: int = 0
    log_keep: int = 5
    ready_seconds: float = 60.0
    grace_seconds: float = 10.0
    settle_seconds: float = 1.0
    notify_fd: int = -1
    pid_file: str = ""
    workers: int = 0
    preload: str = ""
    restart_policy: str = "always"
    crash_limit: int = 8
    hang_seconds: float = 0.0
    max_age_seconds: float = 0.0
    max_memory: int = 0
    max_requests: int = 0
    canary_percent: float = 0.0
    commit_seconds: float = 0.0
    user: str = ""
    group: str = ""
    supplementary: tuple[str, ...] = ()
    keep_capabilities: tuple[str, ...] = ()
    no_new_privileges: bool | None = None
    chroot: str = ""
    limits: tuple[str, ...] = ()
    version: str = ""
    inetd: bool = False

    @property
    def confined(self) -> bool:
        """Whether the program is to have less than whoever starts it."""
        return bool(self.user or self.chroot or self.limits or self.no_new_privileges)


def check_service(service: Declaration) -> None:
    """Refuse a service that could not run.

    Raises:
        ConfigError: A field's value is not possible; the text names it and what was expected.
    """
    check_name(service.name)
    if bool(service.target) == bool(service.command):
        message = f'service "{service.name}": give either a target or a command'
        raise ConfigError(message)
    if service.runtime not in RUNTIMES:
        message = (
            f'service "{service.name}": runtime {service.runtime!r} is not one of '
            + ", ".join(RUNTIMES)
        )
        raise ConfigError(message)
    if not 0 <= service.umask <= 0o777:  # noqa: PLR2004 - all permission bits, umask(2)
        message = f'service "{service.name}": umask {service.umask:#o} is not between 0 and 0o777'
        raise ConfigError(message)
    for field, key in (("ready_seconds", "ready-timeout"), ("grace_seconds", "grace-period")):
        if not 0 < getattr(service, field) < float("inf"):
            message = f'service "{service.name}": {key} must be a positive number of seconds'
            raise ConfigError(message)
    for field in ("group", "supplementary", "keep_capabilities", "chroot"):
        if getattr(service, field) and not service.user:
            key = field.replace("_", "-").replace("capabilities", "capability")
            message = f'service "{service.name}": {key} means nothing without user'
            raise ConfigError(message, hint="root that is not given up is not confined by it")
    for key, value in service.environment:
        if not key or "=" in key or "\0" in key + value:
            message = f'service "{service.name}": {key!r} cannot name an environment variable'
            raise ConfigError(message)
    _check_fleet(service)
    _check_serving(service)


def _check_serving(service: Declaration) -> None:
    if service.serve or service.serve_options or service.target.endswith("()"):
        from forkfirst.plan import serving  # noqa: PLC0415 - only for an application

        serving.check(service)


_OF_WORKERS = {
    "hang_seconds": "hang-timeout",
    "max_age_seconds": "max-age",
    "max_memory": "max-memory",
    "max_requests": "max-requests",
    "canary_percent": "canary",
    "commit_seconds": "commit-window",
}
_NEVER_NEGATIVE = {
    **_OF_WORKERS,
    "settle_seconds": "settle",
    "log_size": "log-size",
    "log_keep": "log-keep",
}
"""Fields, each with the key by which a person knows it."""


def _check_fleet(service: Declaration) -> None:
    message = ""
    if not 0 <= service.workers <= MOST_WORKERS:
        message = f"workers must be between 0 and {MOST_WORKERS}, not {service.workers}"
    elif service.restart_policy not in RESTART_POLICIES:
        policies = ", ".join(RESTART_POLICIES)
        message = f"restart policy {service.restart_policy!r} is not one of {policies}"
    elif service.crash_limit < 1:
        message = f"crash limit {service.crash_limit} is not at least 1"
    elif not 0 <= service.canary_percent <= 100:  # noqa: PLR2004 - all of them
        message = f"canary {service.canary_percent:g} is not between 0 and 100 percent"
    elif service.command:
        message = _find_unfit_for_commands(service)
    for field, key in _NEVER_NEGATIVE.items():
        if not 0 <= getattr(service, field) < float("inf"):
            message = f"{key} must be 0 or more, and finite"
    if message:
        message = f'service "{service.name}": {message}'
        raise ConfigError(message)
    if not service.workers:
        _refuse_what_needs_workers(service)


def _find_unfit_for_commands(service: Declaration) -> str:
    if service.commit_seconds:
        return "a commit window needs workers that can be paused, and a command cannot be"
    if service.preload:
        return "preload means nothing for a command: it is no Python program to import"
    return ""


def _refuse_what_needs_workers(service: Declaration) -> None:
    for field, key in {"preload": "preload", **_OF_WORKERS}.items():
        if getattr(service, field):
            message = f'service "{service.name}": {key} means nothing without workers'
            raise ConfigError(message, hint="with --workers 1 a supervisor keeps it")


def make_settings(service: Declaration, processors: int) -> Settings:
    """Return how the workers of *service* are to be kept, on so many *processors*.

    A reload starts half as many workers at a time as there are processors: the other half is for
    those who serve. (Four at once on two made the slowest request wait 24 ms longer; one, 3 ms.)
    """
    from forkfirst.plan.fleet.state import Settings  # noqa: PLC0415 - only a supervisor has a fleet

    return Settings(
        workers=max(1, service.workers),
        restart=service.restart_policy,
        crash_limit=service.crash_limit,
        ready_timeout=service.ready_seconds,
        health_timeout=service.ready_seconds,
        grace_seconds=service.grace_seconds,
        cancel_seconds=_CANCEL_SECONDS,
        max_age=service.max_age_seconds,
        max_memory=service.max_memory,
        max_requests=service.max_requests,
        canary=service.canary_percent,
        commit_window=service.commit_seconds,
        starts_at_once=max(1, processors // 2),
        yield_seconds=_compute_yield_seconds(service),
    )


def is_spread(service: Declaration, listener: Listener) -> bool:
    """Return whether each worker is to have a socket of its own on *listener*; see `spreading`."""
    return bool(service.workers and listener.kind == "tcp" and listener.options.reuseport)


def _compute_yield_seconds(service: Declaration) -> float:
    if not any(is_spread(service, one) for one in service.listeners):
        return 0.0
    from forkfirst.plan import spreading  # noqa: PLC0415 - few services are spread

    return spreading.compute_yield_seconds(service)


def check_name(name: str) -> None:
    """Refuse a name that could not be a file's name, or could be taken for an option.

    Raises:
        ConfigError: With the rule.
    """
    if (
        not name
        or len(name) > _NAME_LENGTH
        or name[0] in ".-"
        or not _NAME_CHARACTERS.issuperset(name)
    ):
        message = (
            f"{name!r} cannot name a service: expected 1 to {_NAME_LENGTH} letters, digits or "
            '"_ . @ -", not beginning with "." or "-"'
        )
        raise ConfigError(message)


def name_from_target(target: str, command: tuple[str, ...]) -> str:
    """Return the name that a service has when the person gave none.

    The file's stem, the last part of the module, or the command's own name.
    """
    place = command[0] if command else target.partition(":")[0]
    last = place.rstrip("/").rpartition("/")[2]
    if last.endswith(".py"):
        last = last[:-3]
    elif not command:
        last = last.rpartition(".")[2]
    return last
