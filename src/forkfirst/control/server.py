"""Answers, in one small thread, whoever may ask a running service.

The thread is not the loop's: it answers while the program is stuck in code that never awaits. It
cannot answer while C code keeps the interpreter's lock; then the client's deadline says so.

Invariants: nothing here blocks but poll(2); each connection holds at most one request and one
answer; a request is read only when the answer before it was sent; nothing that a client sends, or
that an answer raises, ends the loop. Until somebody connects, only cheap modules are loaded.
"""

from __future__ import annotations

import errno
import os
import select
import stat
import time

from forkfirst.control.caller import Caller, read_peer_uid, refuse
from forkfirst.control.protocol import decode_request, encode, encode_error, open_address
from forkfirst.errors import CannotCreateError, ForkfirstError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any, TypeAlias

    Answers: TypeAlias = Mapping[str, Callable[[Mapping[str, Any]], Mapping[str, Any]]]

THREAD_NAME = "forkfirst-control"

_BACKLOG = 128
_STACK_BYTES = 256 * 1024  # of the thread; the default of 8 MiB can become huge pages of 2 MiB
_ACCEPT_PAUSE = 0.5  # seconds without accept(2) after the process ran out of descriptors
_SPARES = 2  # descriptors kept: one for a caller, one for the files that answering it may read
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


def open_socket(path: str) -> int:
    """Listen at *path*, with mode 0600 from its first moment, and return the descriptor.

    A socket that is there already is stale and is replaced: the caller holds the service's lock,
    and has checked that nobody else can write the directory. The process must have one thread,
    because the umask, which is changed for a moment, is the process's. Does not remove the path
    later: that is `remove_socket`.

    Raises:
        CannotCreateError: Something that is no socket is there, or the kernel refused.

    Source: unix(7), bind(2), umask(2).
    """
    import _socket  # noqa: PLC0415 - `socket` costs 3-6 ms, and this is on the path to READY

    listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        address, directory = open_address(path)
        try:
            # Not chmod(2) after bind(2): in between, whoever may pass the directory could connect.
            umask = os.umask(0o177)
            try:
                _bind(listener, address)
            finally:
                os.umask(umask)
        finally:
            if directory is not None:
                os.close(directory)
        try:
            listener.listen(_BACKLOG)
        except OSError:
            os.unlink(path)
            raise
        return listener.detach()
    except OSError as error:
        message = f"cannot listen at {path}: {(error.strerror or str(error)).lower()}"
        raise CannotCreateError(message) from error
    finally:
        listener.close()  # nothing after detach()


def _bind(listener: Any, address: str) -> None:
    try:
        listener.bind(address)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        if not stat.S_ISSOCK(os.lstat(address).st_mode):
            raise OSError(errno.EEXIST, "something that is not a socket is there") from error
        os.unlink(address)
        listener.bind(address)


def remove_socket(path: str) -> None:
    """Remove *path* if a socket is there; the caller holds the service's lock.

    Raises:
        OSError: It is a socket and cannot be removed.
    """
    try:
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            os.unlink(path)
    except (FileNotFoundError, NotADirectoryError):
        pass


class Server:
    """Answers requests on the listening descriptor *fd*, which is the server's from now on.

    Each answer is a function from the request to the fields of its answer, called in the thread
    that runs the server; one that takes long keeps other callers waiting, one that raises is
    answered with its error. Only *allowed_uids* and root are answered, by the credentials that
    the kernel has of them. A connection is closed after *close_idle_after* seconds without a
    byte; one more than *max_connections* closes the one that was idle longest.

    Either `start` a thread, or call `run_once` in a loop of one's own, or `handle` what poll(2)
    said of `descriptors()`.
    """

    def __init__(
        self,
        fd: int,
        answers: Answers,
        *,
        allowed_uids: frozenset[int],
        close_idle_after: float = 30,
        max_connections: int = 64,
    ) -> None:
        if fd >= 0:  # else it has no place, and nobody can ask
            os.set_blocking(fd, False)
        self._listener = fd
        self._answers = answers
        self._allowed_uids = allowed_uids | {0}
        self._close_idle_after = close_idle_after
        self._max_connections = max_connections
        self._callers: dict[int, Caller] = {}
        self._spares: list[int] = []
        self._accept_after = 0.0
        self._paused = False
        self._wake: tuple[int, int] | None = None
        self._thread: threading.Thread | None = None
        self._stopping = False

    # -- a thread of its own ----------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread, which waits in poll(2) until somebody connects.

        A child that the program forks closes the descriptors of the server, or callers would
        wait for a service that has gone.

        Raises:
            RuntimeError: The thread cannot be started, or was started before.
        """
        import signal  # noqa: PLC0415 - after the fork only, and asyncio has both
        import threading  # noqa: PLC0415

        if self._thread is not None:
            message = "a control server starts once"
            raise RuntimeError(message)
        self._wake = os.pipe()
        self._keep_spares()
        self._thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)
        usual = threading.stack_size(_STACK_BYTES)
        mask = _block_signals()  # which a thread inherits
        try:
            self._thread.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            threading.stack_size(usual)
        os.register_at_fork(after_in_child=self._close_in_child)

    def stop(self, *, seconds: float = 2.0) -> bool:
        """Let the answer that is being given be sent, then close everything, the listener too.

        Returns:
            False if an answer took longer than *seconds*: then nothing is closed yet, and
            the thread closes it when that answer is done, or ends with the process.
        """
        self._stopping = True
        if self._thread is None:
            self._close()
            return True
        self._rouse()
        self._thread.join(seconds)
        if self._thread.is_alive():
            return False
        self._close_wake()
        return True

    def pause(self, *, paused: bool) -> None:
        """Accept nobody new, for others share the socket; or again. Any thread may call it."""
        self._paused = paused
        self._rouse()

    def _rouse(self) -> None:
        if self._wake is not None:
            os.write(self._wake[1], b"\0")

    def _run(self) -> None:
        while not self._stopping:
            self.run_once(None)
        self._close()

    def _close(self) -> None:
        for caller in list(self._callers.values()):
            self._hang_up(caller)
        self._close_spares()
        listener, self._listener = self._listener, -1
        if listener >= 0:
            os.close(listener)

    def _close_in_child(self) -> None:
        self._close()
        self._close_wake()

    def _close_wake(self) -> None:
        wake, self._wake = self._wake, None
        for descriptor in wake or ():
            os.close(descriptor)

    # -- one turn ----------------------------------------------------------------------------------

    def run_once(self, timeout: float | None) -> None:
        """Wait until something happens, *timeout* seconds at most, and deal with it."""
        waits = [seconds for seconds in (timeout, self.seconds_until_due()) if seconds is not None]
        poll = select.poll()
        for descriptor, events in self.descriptors().items():
            poll.register(descriptor, events)
        self.handle(poll.poll(min(waits) * 1000 if waits else None))

    def descriptors(self) -> dict[int, int]:
        """Return the descriptors to wait for now, each with its poll(2) events."""
        wanted = {
            descriptor: select.POLLOUT if caller.wants_to_read else select.POLLIN
            for descriptor, caller in self._callers.items()
        }
        may_accept = self._listener >= 0 and not self._paused
        if may_accept and time.monotonic() >= self._accept_after:
            wanted[self._listener] = select.POLLIN
        if self._wake is not None:
            wanted[self._wake[0]] = select.POLLIN
        return wanted

    def list_callers(self) -> list[Caller]:
        """Return whoever is connected."""
        return list(self._callers.values())

    def adopt(self, caller: Caller) -> None:
        """Go on serving one whom another server has accepted."""
        self._callers[caller.stream.fileno()] = caller

    def seconds_until_due(self) -> float | None:
        """Return after how many seconds `handle` must be called though nothing happened."""
        now = time.monotonic()
        due = [each.active + self._close_idle_after for each in self._callers.values()]
        if self._accept_after > now:
            due.append(self._accept_after)
        return max(0.0, min(due) - now) if due else None

    def handle(self, ready: Iterable[tuple[int, int]]) -> None:
        """Deal with *ready*, as poll(2) returns it, and with who has been idle for too long."""
        # Taken first: who asked while another's answer took long has not been idle.
        idle_since = time.monotonic() - self._close_idle_after
        for descriptor, events in ready:
            caller = self._callers.get(descriptor)
            if caller is not None:
                self._serve(caller, events)
            elif events & select.POLLNVAL:
                self._give_up(descriptor)
            elif descriptor == self._listener:
                self._try_accept()
            elif self._wake is not None and descriptor == self._wake[0]:
                os.read(descriptor, 16)
        for caller in list(self._callers.values()):
            if caller.active <= idle_since:
                self._hang_up(caller)
        self._keep_spares()

    def _give_up(self, descriptor: int) -> None:
        """End, because the program closed *descriptor*, which is not its own; poll(2) would spin.

        It is forgotten, not closed: by now its number may be somebody else's.
        """
        self._stopping = True
        if descriptor == self._listener:
            self._listener = -1
        else:
            self._wake = None

    # -- callers ---------------------------------------------------------------------------------

    def _accept(self) -> None:
        import _socket  # noqa: PLC0415 - its Python half costs time, and 0.7 MiB for ever
        import json  # noqa: F401, PLC0415 - while a spare descriptor may be had for it

        # A view of the listener that closes nothing: the descriptor stays the server's.
        listener: Any = _socket.socket(fileno=self._listener)
        try:
            accepted, _ = listener._accept()  # noqa: SLF001 - what socket.accept calls
        finally:
            listener.detach()
        stream = _socket.socket(fileno=accepted)
        stream.setblocking(False)  # noqa: FBT003 - its only way
        uid = read_peer_uid(stream)
        if uid not in self._allowed_uids:
            who = "a caller this system says nothing of" if uid is None else f"uid {uid}"
            refuse(stream, encode_error(f"not permitted for {who}", refused=True))
            return
        while len(self._callers) >= self._max_connections:
            self._hang_up(min(self._callers.values(), key=lambda each: each.idleness))
        self._callers[stream.fileno()] = Caller(stream)

    def _try_accept(self) -> None:
        """Accept a caller; of a process that has no descriptor left, on one kept for that.

        Such a service is one to look at. If the program takes what was let go, accept later.
        """
        while True:
            try:
                self._accept()
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    return  # it has hung up already
                if not self._spares:
                    self._accept_after = time.monotonic() + _ACCEPT_PAUSE
                    return
                self._close_spares()
            except Exception:  # noqa: BLE001 - no memory, say: accept later, rather than spin
                self._accept_after = time.monotonic() + _ACCEPT_PAUSE
                return
            else:
                return

    def _keep_spares(self) -> None:
        try:
            while len(self._spares) < _SPARES and self._listener >= 0:
                self._spares.append(os.dup(self._listener))
        except OSError:
            pass  # later, when a caller or the program has let go of some

    def _close_spares(self) -> None:
        while self._spares:
            os.close(self._spares.pop())

    def _serve(self, caller: Caller, events: int) -> None:
        """Receive, answer and send what can be without waiting; hang up on any failure."""
        if events & select.POLLNVAL:
            self._hang_up(caller)
            return
        try:
            if not caller.wants_to_read:
                caller.receive()
            caller.send()
            while not caller.wants_to_read and (line := caller.take_line()) is not None:
                caller.put(self._answer(line, caller.descriptors))
                caller.close_descriptors()
                caller.send()
        except Exception:  # noqa: BLE001 - it has hung up, or there is no memory for it
            self._hang_up(caller)
            return
        if caller.ending and not caller.wants_to_read:
            self._hang_up(caller)

    def _answer(self, line: bytearray, passed: list[int]) -> bytes:
        self._close_spares()  # until the end of this turn they are the answer's
        try:
            request = decode_request(line)
            request.pop("descriptors", None)  # those are never numbers that somebody wrote
            if passed:
                request["descriptors"] = passed  # an answer takes out what it keeps
            answer = self._answers.get(request["ask"])
            if answer is None:
                known = ", ".join(sorted(self._answers))
                return encode_error(f"there is no request {request['ask']!r}, only {known}")
            return encode({"ok": True, **answer(request)})
        except ForkfirstError as error:
            return encode_error(str(error))
        except BaseException as error:  # noqa: BLE001 - SystemExit too: the thread must outlive it
            return encode_error(f"{type(error).__name__}: {error}")

    def _hang_up(self, caller: Caller) -> None:
        self._callers.pop(caller.stream.fileno(), None)
        caller.close_descriptors()
        caller.stream.close()


def _block_signals() -> set[int]:
    """Block all signals but those of a fault in this very thread, and return the mask before.

    For the thread to inherit: a signal that the kernel gave to it would set a flag for the main
    thread without waking it.

    Source: pthread_sigmask(3), signal(7).
    """
    import signal  # noqa: PLC0415 - loaded by the caller

    faults = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT}
    return signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - faults)
