"""What the person asks for, as a value. A service declares; it never acts."""

from __future__ import annotations

from forkfirst.errors import ConfigError
from forkfirst.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from forkfirst.plan.listener import Listener

RUNTIMES = ("auto", "asyncio", "uvloop", "trio", "none")
"""`auto`: asyncio for a coroutine function, none for a plain one."""

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
    """

    name: str
    target: str = ""
    command: tuple[str, ...] = ()
    listeners: tuple[Listener, ...] = ()
    source_directory: str = "/"
    runtime: str = "auto"
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
    for field in ("ready_seconds", "grace_seconds"):
        if not 0 < getattr(service, field) < float("inf"):
            message = f'service "{service.name}": {field} must be a positive number of seconds'
            raise ConfigError(message)
    for key, value in service.environment:
        if not key or "=" in key or "\0" in key + value:
            message = f'service "{service.name}": {key!r} cannot name an environment variable'
            raise ConfigError(message)


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
