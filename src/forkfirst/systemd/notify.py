"""What a service tells its manager: the sd_notify protocol, all of it, without the C library.

One message is one datagram. Each is sent through a socket of its own: so nothing is held open that
a daemon's closing of descriptors, or a fork, could break, and several threads may send at once.

A message is either in the manager's queue when a method returns, or the method raises. Whether the
manager accepts it is another question, which the protocol does not answer: `barrier` says only that
everything sent before was read. Nothing here waits longer than `timeout` seconds, which matters to
an event loop only while the manager is stuck with a full queue.
"""

from __future__ import annotations

import os
import select
import time

from forkfirst import errors
from forkfirst.systemd.notify_address import parse_address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, MutableMapping, Sequence
    from typing import Literal

VARIABLE = "NOTIFY_SOCKET"
MOST_FDS = 253  # SCM_MAX_FD of the kernel, which would say no more than EINVAL
LONGEST_MESSAGE = 4096  # systemd reads PIPE_BUF octets, and drops what is longer as a whole
LONGEST_STATUS = 2048
LONGEST_NAME = 255
_MICROSECONDS = 1_000_000


class Notifier:
    """Tells one service manager what becomes of this service.

    Attributes:
        address: Where the messages go, as NOTIFY_SOCKET has it.
        timeout: The most seconds that one message may wait for room in the manager's queue.
        pid: In whose name everything is sent, if that may be done; None for this process's own.
    """

    def __init__(self, address: str, *, timeout: float = 5.0) -> None:
        self.address = address
        self.timeout = timeout
        self.pid: int | None = None
        self._parsed = parse_address(address)

    @classmethod
    def from_environment(
        cls, environ: Mapping[str, str], *, timeout: float = 5.0
    ) -> Notifier | None:
        """Return a notifier for NOTIFY_SOCKET, or None where nobody listens.

        Does not remove the variable: see `remove_variable`.

        Raises:
            ConfigError: NOTIFY_SOCKET is not an address.
        """
        address = environ.get(VARIABLE)
        return cls(address, timeout=timeout) if address else None

    # -- the life of the service ----------------------------------------------------------------

    def ready(self, status: str | None = None) -> None:
        """Say that the service is ready, or that its reload is done (READY=1)."""
        self._send("READY=1", *_status(status))

    def reloading(self, monotonic_usec: int | None = None, status: str | None = None) -> None:
        """Say that a reload begins (RELOADING=1); `ready` must follow.

        Args:
            monotonic_usec: When it began, in microseconds of CLOCK_MONOTONIC; now, if not given.
                `Type=notify-reload` waits for ever for a reload that does not say so.
            status: What to show to people.
        """
        if monotonic_usec is None:
            monotonic_usec = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send("RELOADING=1", f"MONOTONIC_USEC={monotonic_usec}", *_status(status))

    def stopping(self, status: str | None = None) -> None:
        """Say that the service is ending (STOPPING=1): final from systemd 259 on."""
        self._send("STOPPING=1", *_status(status))

    def status(self, text: str) -> None:
        """Show *text* to people, as one line of at most 2048 octets (STATUS=)."""
        self._send(*_status(text))

    def errno(self, number: int) -> None:
        """Say with which errno the service fails (ERRNO=)."""
        self._send(f"ERRNO={number:d}")

    def bus_error(self, name: str) -> None:
        """Say with which D-Bus error the service fails (BUSERROR=)."""
        self._send(f"BUSERROR={_line(name)}")

    def varlink_error(self, name: str) -> None:
        """Say with which Varlink error the service fails (VARLINKERROR=, systemd 257)."""
        self._send(f"VARLINKERROR={_line(name)}")

    def exit_status(self, number: int) -> None:
        """Say with which status the service ends (EXIT_STATUS=, systemd 254)."""
        self._send(f"EXIT_STATUS={number:d}")

    def mainpid(self, pid: int, *, pidfd: int | None = None, pidfd_id: int | None = None) -> None:
        """Say that *pid* is the main process of the service from now on (MAINPID=).

        Args:
            pid: The process.
            pidfd: A pidfd of it, which cannot be mistaken (MAINPIDFD=1, systemd 257).
            pidfd_id: The inode of one (MAINPIDFDID=, systemd 257).
        """
        fields = [f"MAINPID={pid:d}"]
        if pidfd_id is not None:
            fields.append(f"MAINPIDFDID={pidfd_id:d}")
        if pidfd is None:
            self._send(*fields)
        else:
            self._send(*fields, "MAINPIDFD=1", fds=(pidfd,))

    def succeeded(self, pid: int, pidfd_id: int | None, status: str) -> None:
        """Say that *pid* is the main process from now on, and ready: both, or neither.

        After it this process may not be listened to any more (`NotifyAccess=main`), and the other
        was not until then, so the watchdog's time begins anew.
        """
        identity = () if pidfd_id is None else (f"MAINPIDFDID={pidfd_id:d}",)
        self._send(f"MAINPID={pid:d}", *identity, "READY=1", "WATCHDOG=1", *_status(status))

    def notify_access(self, who: Literal["none", "main", "exec", "all"]) -> None:
        """Choose whose messages count from now on (NOTIFYACCESS=, systemd 254).

        Raises:
            UsageError: *who* is none of these.
        """
        if who not in ("none", "main", "exec", "all"):
            message = f"cannot set the notify access to {who!r}: it is none, main, exec or all"
            raise errors.UsageError(message)
        self._send(f"NOTIFYACCESS={who}")

    def restart_reset(self) -> None:
        """Begin the restart delay anew at `RestartSec=` (RESTART_RESET=1, systemd 258)."""
        self._send("RESTART_RESET=1")

    # -- time -----------------------------------------------------------------------------------

    def watchdog(self) -> None:
        """Say that the service is alive (WATCHDOG=1)."""
        self._send("WATCHDOG=1")

    def watchdog_trigger(self) -> None:
        """Ask to be treated as if the watchdog had run out (WATCHDOG=trigger)."""
        self._send("WATCHDOG=trigger")

    def watchdog_usec(self, microseconds: int) -> None:
        """Set another watchdog interval, in microseconds (WATCHDOG_USEC=)."""
        self._send(f"WATCHDOG_USEC={microseconds:d}")

    def extend_timeout(self, seconds: float) -> None:
        """Ask for *seconds* from now to start, run or stop (EXTEND_TIMEOUT_USEC=).

        It must be said again before they are over, and counts only beyond the unit's own limit.

        Raises:
            UsageError: *seconds* is not positive.
        """
        microseconds = int(seconds * _MICROSECONDS)
        if microseconds <= 0:
            message = f"cannot extend a timeout by {seconds} seconds: it must be positive"
            raise errors.UsageError(message)
        self._send(f"EXTEND_TIMEOUT_USEC={microseconds}")

    def barrier(self, seconds: float = 5.0) -> None:
        """Return when the manager has read everything that was sent before (BARRIER=1).

        A short-lived helper must do this before it exits, or the manager cannot tell any more whose
        messages they were.

        Raises:
            StuckError: It did not within *seconds*.
            SystemRefusedError: The message could not be sent.

        Source: sd_notify_barrier(3).
        """
        reader, writer = os.pipe()
        try:
            try:
                self._send("BARRIER=1", fds=(writer,))
            finally:
                os.close(writer)
            waiting = select.poll()
            waiting.register(reader, 0)  # a hang-up is reported unasked
            if not waiting.poll(seconds * 1000):
                message = f"the service manager did not read its messages in {seconds:g} s"
                raise errors.StuckError(message)
        finally:
            os.close(reader)

    # -- descriptors that outlive the process --------------------------------------------------

    def store(self, fds: Iterable[int], name: str, *, poll: bool = True) -> None:
        """Have the manager keep copies of *fds* for the next start (FDSTORE=1).

        All get the one *name*, and come back in no particular order. Needs
        `FileDescriptorStoreMax=` in the unit; without it, the manager closes them and says nothing.

        Args:
            fds: At most 253 descriptors.
            name: ASCII, without control characters and colons, 1 to 255 characters.
            poll: Drop one that hangs up. Unwanted for one that is expected to.

        Raises:
            UsageError: The name is not one, which systemd would ignore; or too many descriptors.
        """
        fields = ["FDSTORE=1", f"FDNAME={check_name(name)}"]
        self._send(*fields, *(() if poll else ("FDPOLL=0",)), fds=tuple(fds))

    def remove_stored(self, name: str) -> None:
        """Have the manager close every descriptor stored as *name* (FDSTOREREMOVE=1).

        Raises:
            UsageError: The name is not one.
        """
        self._send("FDSTOREREMOVE=1", f"FDNAME={check_name(name)}")

    # -- the message ------------------------------------------------------------------------------

    def send(self, text: str, fds: Sequence[int] = (), *, pid: int | None = None) -> None:
        """Send *text*, lines of NAME=value, as it stands.

        Args:
            text: The message; at most 4096 octets.
            fds: Descriptors to send along; they stay open here.
            pid: In whose name to send it; it needs CAP_SYS_ADMIN, and is sent in our own without.

        Raises:
            UsageError: The message is too long, holds a NUL, or has more than 253 descriptors.
            StuckError: The manager's queue was full for `timeout` seconds.
            SystemRefusedError: It could not be sent; the OSError is the cause.

        Source: sd_notify(3), unix(7), vsock(7).
        """
        message = text.encode("utf-8", "surrogateescape")
        if len(fds) > MOST_FDS:
            refusal = f"cannot send {len(fds)} descriptors at once: {MOST_FDS} is the most"
            raise errors.UsageError(refusal)
        if len(message) > LONGEST_MESSAGE or b"\0" in message:
            refusal = f"cannot notify: {len(message)} octets, or a NUL among them, is no message"
            raise errors.UsageError(refusal)
        from forkfirst.systemd.notify_delivery import deliver  # noqa: PLC0415 - it needs socket

        try:
            deliver(self._parsed, message, fds, pid, self.timeout)
        except TimeoutError as error:
            refusal = f"the service manager at {self.address} took no message in {self.timeout:g} s"
            raise errors.StuckError(refusal) from error
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            refusal = f"cannot notify the service manager at {self.address}: {reason}"
            raise errors.SystemRefusedError(refusal) from error

    def _send(self, *fields: str, fds: Sequence[int] = ()) -> None:
        if fields:
            self.send("\n".join(fields), fds, pid=self.pid)


def identify(pidfd: int | None) -> int | None:
    """Return the inode that tells the process behind *pidfd* from another with its pid, if any.

    Only where the kernel gives each process one of its own (pidfs, Linux 6.9).

    Source: sd_notify(3) MAINPIDFDID.
    """
    if pidfd is None:
        return None
    own = os.pidfd_open(os.getpid())
    try:
        found = os.fstat(pidfd).st_ino
        return None if found == os.fstat(own).st_ino else found
    finally:
        os.close(own)


def remove_variable(environ: MutableMapping[str, str]) -> None:
    """Remove NOTIFY_SOCKET, so that no child of this process speaks for it."""
    environ.pop(VARIABLE, None)


def check_name(name: str) -> str:
    """Return *name* if it can name a stored descriptor.

    Raises:
        UsageError: It cannot; systemd would silently call it "stored".

    Source: sd_notify(3), FDNAME=.
    """
    fits = 0 < len(name) <= LONGEST_NAME
    if fits and all(" " <= character < "\x7f" and character != ":" for character in name):
        return name
    message = f"{name!r} cannot name a descriptor: 1 to {LONGEST_NAME} of ASCII, without colons"
    raise errors.UsageError(message)


def _status(text: str | None) -> tuple[str, ...]:
    """Make one line of *text*, cut between characters: systemd ignores a broken one."""
    if text is None:
        return ()
    octets = _line(text).encode("utf-8", "replace")[:LONGEST_STATUS]
    return (f"STATUS={octets.decode('utf-8', 'ignore')}",)


def _line(text: str) -> str:
    return " ".join(text.replace("\0", " ").splitlines())
