"""Every exception of forkfirst, sorted by who must act, each with its exit status.

The statuses are those of sysexits(3) where one fits, 128 + n for a death by signal n, as a shell
reports it, and 124 for a time limit, as timeout(1) does.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar


class ForkfirstError(Exception):
    """Something was attempted and failed; the text says what, on what, and why.

    Attributes:
        exit_status: What a command that ends with this error exits with.
        hint: What to do about it, or "" where that is not certain.
    """

    exit_status: int = 70
    meaning: ClassVar[str] = "an error of forkfirst itself"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint
        if hint:
            self.add_note(hint)  # where it is not caught, the traceback tells it


# -- the caller must act: the command or the declaration is wrong --------------------------------


class UsageError(ForkfirstError):
    """The command line, or a call, asks for something that does not exist."""

    exit_status = 64
    meaning = "the command line is wrong (EX_USAGE)"


class ConfigError(ForkfirstError):
    """A configuration file, or a declared value, is not valid."""

    exit_status = 78
    meaning = "the configuration is wrong (EX_CONFIG)"


class AddressError(ConfigError, ValueError):
    """A text is not an address; the message points at the character.

    Attributes:
        text: The whole text as it was given.
        position: Index of the first character that is wrong; `len(text)` where something is
            missing at the end.
    """

    def __init__(self, message: str, *, text: str = "", position: int = 0, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.text = text
        self.position = position


class TargetError(ForkfirstError):
    """The program that was named cannot be found."""

    exit_status = 66
    meaning = "the target was not found (EX_NOINPUT)"


class AlreadyRunningError(ForkfirstError):
    """The service runs already; nothing was changed.

    Attributes:
        pid: The process that holds the lock.
    """

    exit_status = 75
    meaning = "the service is already running, or is being started (EX_TEMPFAIL)"

    def __init__(self, message: str, *, pid: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.pid = pid


class VersionSkewError(ForkfirstError):
    """The service runs, but its code is of another version than the one that was asked for."""

    exit_status = 75
    meaning = "the running service is of another version (EX_TEMPFAIL)"


class NotRunningError(ForkfirstError):
    """The service does not run."""

    exit_status = 3
    meaning = "the service is not running (as LSB's status has it)"


# -- the operator must act: the machine refused ---------------------------------------------------


class SystemRefusedError(ForkfirstError):
    """The kernel refused a step; the OSError is the cause."""

    exit_status = 71
    meaning = "the operating system refused: fork, memory, descriptors (EX_OSERR)"


class AddressInUseError(ForkfirstError):
    """Somebody else listens there, or the address is not this machine's."""

    exit_status = 69
    meaning = "an address is in use or not available (EX_UNAVAILABLE)"


class CannotCreateError(ForkfirstError):
    """A file, directory or socket could not be created."""

    exit_status = 73
    meaning = "a log, pid file, socket or directory cannot be created (EX_CANTCREAT)"


class DiskFullError(ForkfirstError):
    """A write failed for want of space, quota or inodes."""

    exit_status = 74
    meaning = "the disk is full, or a read or write failed (EX_IOERR)"


class PermissionRefusedError(ForkfirstError):
    """This user may not do that."""

    exit_status = 77
    meaning = "not permitted (EX_NOPERM)"


class UnsafePathError(PermissionRefusedError):
    """A path is under somebody else's control, so nothing was trusted to it."""


class StuckError(ForkfirstError):
    """A running service did not answer, or did not end, in the time given."""

    exit_status = 124
    meaning = "a time limit passed: not ready, not answering, or not gone in time"


# -- the program must be changed -------------------------------------------------------------------


class ProgramFailedError(ForkfirstError):
    """The program ended, or raised, before it was ready.

    Attributes:
        exit_status: 70 for an exception, the program's own status for `sys.exit(n)`, and
            128 + n where signal n ended it.
    """

    exit_status = 70
    meaning = "the program failed before it was ready (EX_SOFTWARE)"

    def __init__(self, message: str, *, exit_status: int = 70, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.exit_status = exit_status


class UnsafeFork(ForkfirstError):  # noqa: N818 - the name of the public interface: a verdict, not a mishap
    """A fork now would break the child; the hazards are named."""

    exit_status = 70
    meaning = "a fork would have been unsafe"

    def __init__(self, message: str, *, hazards: tuple[object, ...] = (), hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.hazards = hazards
