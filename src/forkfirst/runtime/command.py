"""The program as a process of its own: any command, in any language.

This process has no runtime. It waits in one `poll` for three things: signals, which it passes on;
the command's word that it is ready; and its end. The command stays in the same process group, so
that whoever ends the group (the launcher, the session leader, a terminal) reaches it too.

What cannot be had: a command that dies with this process when that is killed by SIGKILL. The kernel
offers it (PR_SET_PDEATHSIG), but only to code that runs in the new process before its `exec`, and
no code of ours may run between a fork and an exec where there may be threads.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from contextlib import ExitStack

from forkfirst import errors
from forkfirst.systemd import passing
from forkfirst.unix.spawn import find_program, spawn
from forkfirst.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from forkfirst.runtime.context import Context
    from forkfirst.systemd.notify_receiver import Receiver

    class Declared(Protocol):
        """What of a service's declaration concerns a command."""

        @property
        def command(self) -> tuple[str, ...]: ...  # noqa: D102 - see plan.service
        @property
        def settle_seconds(self) -> float: ...  # noqa: D102
        @property
        def notify_fd(self) -> int: ...  # noqa: D102


FIRST_LISTENER = passing.FIRST_FD
_STOP_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT})
_FROM_TERMINAL = frozenset({signal.SIGINT, signal.SIGQUIT, signal.SIGWINCH})
_FORWARDED = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGWINCH,
    signal.SIGCONT,
)
_HURRY_SECONDS = 1.0
_NEVER = float("inf")


class Command(Value):
    """A command, and how it says that it is ready.

    Attributes:
        argv: The program and its arguments. The program is looked up on PATH.
        notify_path: Where to listen for sd_notify messages, a path or an `@name`; the command finds
            it in NOTIFY_SOCKET. "" does not listen.
        notify_fd: The descriptor to which the command writes a newline when it is ready (the
            protocol of s6), or None.
        settle_seconds: A command that has lived this long is ready, unless it said so earlier.
            None: only its own word counts.
    """

    argv: tuple[str, ...]
    notify_path: str = ""
    notify_fd: int | None = None
    settle_seconds: float | None = 1.0


def make_main(service: Declared, *, notify_path: str | None = None) -> Command:
    """Return what `run` wants for a declared *service*.

    Without *notify_path* the command's messages are received at an abstract name of our own, which
    leaves no file, where there are such names: on Linux.
    """
    if notify_path is None:
        is_linux = sys.platform == "linux"
        notify_path = f"@forkfirst-{os.getpid()}-{os.urandom(8).hex()}" if is_linux else ""
    return Command(
        argv=service.command,
        notify_path=notify_path,
        notify_fd=None if service.notify_fd < 0 else service.notify_fd,
        settle_seconds=service.settle_seconds,
    )


def run(command: Command, context: Context) -> int:
    """Run *command* until it ends, and return its exit status, or 128 + the signal that ended it.

    Stdin, stdout, stderr, the directory and the environment are this process's; the listeners are
    at 3, 4, … with LISTEN_FDS, LISTEN_FDNAMES and LISTEN_PID. SIGTERM, SIGINT, SIGHUP, SIGQUIT,
    SIGUSR1, SIGUSR2, SIGWINCH and SIGCONT are passed on, except those that a terminal has sent to
    the whole group already. The first SIGTERM or SIGINT starts the grace period, at whose end the
    command is killed; the second leaves it one second. A command that such a signal ends, when it
    was asked to stop, has status 0: a stop is no failure.

    Call it in the main thread, which must not have children of its own.

    Raises:
        TargetError: There is no such program, or it cannot be executed by this machine.
        UsageError: `notify_fd` is where the listeners are.
    """
    with ExitStack() as resources:
        wakeup, sender = _open_pipe(resources)
        for number in (*_FORWARDED, signal.SIGCHLD):
            signal.signal(number, _take)
        signal.set_wakeup_fd(sender, warn_on_full_buffer=False)
        resources.callback(signal.set_wakeup_fd, -1)
        receiver = _open_receiver(command.notify_path)
        if receiver is not None:
            resources.callback(receiver.close)
        said = None
        if command.notify_fd is None:
            pid = _spawn(command, context, None)
        else:
            with ExitStack() as only_for_the_command:
                said, say = os.pipe()
                resources.callback(os.close, said)
                only_for_the_command.callback(os.close, say)
                pid = _spawn(command, context, say)
        return _Watch(command, context, pid, wakeup, said, receiver).run()


class _Watch:
    """Waits for the end of one process, and does what is due meanwhile."""

    def __init__(  # noqa: PLR0913, PLR0917 - the resources of one run
        self,
        command: Command,
        context: Context,
        pid: int,
        wakeup: int,
        said: int | None,
        receiver: Receiver | None,
    ) -> None:
        self._context = context
        self._pid = pid
        self._wakeup = wakeup
        self._said = said
        self._receiver = receiver
        self._settled_at = _NEVER
        if command.settle_seconds is not None:
            self._settled_at = time.monotonic() + command.settle_seconds
        self._kill_at = _NEVER
        self._stops = 0
        self._stop_signal = 0
        self._poll = select.poll()
        for fd in (wakeup, said, receiver.fileno() if receiver else None):
            if fd is not None:
                self._poll.register(fd, select.POLLIN)

    def run(self) -> int:
        """Wait until the process has ended; return its exit status."""
        while True:
            ended, raw = os.waitpid(self._pid, os.WNOHANG)
            if ended:
                self._hear()  # its last words: it may have said READY and ended at once
                self._context.ended_by_itself = not self._stops
                return self._make_status(raw)
            now = time.monotonic()
            if now >= self._settled_at:
                self._become_ready()
            if now >= self._kill_at:
                self._kill_at = _NEVER
                _say(self._context, f"the grace period ran out: killing process {self._pid}")
                os.kill(self._pid, signal.SIGKILL)
            due = min(self._settled_at, self._kill_at)
            timeout = None if due == _NEVER else max(0.0, due - now) * 1000 + 1
            for fd, _ in self._poll.poll(timeout):
                if fd == self._wakeup:
                    for number in os.read(fd, 4096):
                        self._on_signal(number)
            self._hear()

    def _hear(self) -> None:
        if self._said is not None:
            self._read_said(self._said)
        if self._receiver is None:
            return
        for message in iter(self._receiver.receive, None):
            known = _is_of_our_session(message.pid)  # anybody may write to an abstract name
            if known:
                was_ready = self._context.is_ready
                self._context.relay(message.fields, message.fds, was_ready=was_ready)
            for fd in message.fds:
                os.close(fd)
            if not known:
                continue
            status = message.fields.get("STATUS", "")
            if message.fields.get("READY") == "1":
                self._become_ready(status)
            elif status:
                self._context.status(status)

    def _read_said(self, said: int) -> None:
        poll = select.poll()
        poll.register(said, select.POLLIN)
        if not poll.poll(0):
            return
        octets = os.read(said, 4096)
        if b"\n" in octets:
            self._become_ready()
        if not octets:  # closed: to go on watching it would be to spin
            self._poll.unregister(said)
            self._said = None

    def _become_ready(self, status: str = "") -> None:
        self._settled_at = _NEVER
        self._context.ready(status)

    def _on_signal(self, number: int) -> None:
        if number in _STOP_SIGNALS:
            self._on_stop(number)
        if number in _FORWARDED and not (number in _FROM_TERMINAL and _owns_terminal()):
            os.kill(self._pid, number)  # still ours: nobody has waited for it

    def _on_stop(self, number: int) -> None:
        self._stops += 1
        self._stop_signal = number
        if self._stops == 1:
            self._kill_at = time.monotonic() + self._context.grace_seconds
            self._context.begin_stopping()
        elif self._kill_at != _NEVER:
            self._kill_at = min(self._kill_at, time.monotonic() + _HURRY_SECONDS)

    def _make_status(self, raw: int) -> int:
        status = os.waitstatus_to_exitcode(raw)
        if status >= 0:
            return status
        return 0 if self._stops and -status in _STOP_SIGNALS else 128 - status


def _spawn(command: Command, context: Context, say: int | None) -> int:
    """Start the process and return its pid."""
    argv = (find_program(command.argv[0]), *command.argv[1:])
    listeners = context.descriptors
    places = {FIRST_LISTENER + index: fd for index, (_, fd) in enumerate(listeners)}
    if say is not None and command.notify_fd is not None:
        if command.notify_fd in places:
            message = f"descriptor {command.notify_fd} is a listener, not one for readiness"
            raise errors.UsageError(message, hint=f"choose {FIRST_LISTENER + len(listeners)}")
        places[command.notify_fd] = say
    environment = passing.make_environment(os.environ, [name for name, _ in listeners])
    if command.notify_path:
        environment["NOTIFY_SOCKET"] = command.notify_path
    if listeners:
        argv = passing.with_own_pid(argv)
    for _, fd in listeners:
        os.set_blocking(fd, True)  # as systemd passes them; ours are shared non-blocking
    return spawn(argv, environment, places)


def _open_pipe(resources: ExitStack) -> tuple[int, int]:
    """Return a pipe, both ends non-blocking, which is closed with *resources*."""
    ends = os.pipe()
    for fd in ends:
        resources.callback(os.close, fd)
        os.set_blocking(fd, False)
    return ends


def _open_receiver(path: str) -> Receiver | None:
    if not path:
        return None
    from forkfirst.systemd import notify_receiver  # noqa: PLC0415 - only where it is asked for

    return notify_receiver.open_receiver(path)


def _is_of_our_session(pid: int) -> bool:
    if pid == 0:  # elsewhere the kernel tells nobody; on Linux it is in another pid namespace
        return sys.platform != "linux"
    try:
        return os.getsid(pid) == os.getsid(0)
    except OSError:
        return False  # gone, or another user's


def _owns_terminal() -> bool:
    """Return whether a terminal sends its signals to our whole group, the command included."""
    try:
        return os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False


def _take(_number: int, _frame: object) -> None:
    """Exist: a signal with a Python handler writes its number to the wake-up descriptor."""


def _say(context: Context, text: str) -> None:
    os.write(2, f"forkfirst: {context.name}: {text}\n".encode(errors="replace"))
