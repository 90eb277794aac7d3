"""An upgrade, from the side of the supervisor that runs: prove the new one, then become it.

The new forkfirst is started twice. First beside this process, with copies of everything: it loads
what it needs, reads the state, rebuilds the supervisor, looks at each descriptor, and ends. Only if
it says that it could take over does this process execute it, in its own place: with its pid, its
children, its lock, its listeners. Whatever fails before that leaves everything as it was.

No signal is lost: they are blocked from before the state is written until the new supervisor
listens, and the kernel keeps them. What workers say meanwhile stays in their channels.
"""

from __future__ import annotations

import os
import signal
import sys
import time

from forkfirst import errors
from forkfirst.stages.fresh import interpreter
from forkfirst.stages.taking import explain
from forkfirst.stages.upgrade import outcome, state
from forkfirst.unix import children, descriptors, lifeline, signals, spawn, stdio

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from forkfirst.stages.supervise.loop import Supervisor

PROOF_SECONDS = 30.0
"""How long the new forkfirst may take to prove itself, unless who asks says otherwise."""

_SHOWN = 16 * 1024
"""Bytes of what a proof wrote, the last ones, that are shown: never more than a pipe holds."""

_STDOUT, _STDERR = 1, 2

# The path first: what the new interpreter has by itself, and what this one was given besides. Then
# a proof ties itself to this process, as `unix.lifeline` does, before it imports what could hang.
_CODE = (
    "import os, sys; own = sys.path[not sys.flags.safe_path:]; "
    "first, last = (one.split(os.pathsep) if one else [] for one in sys.argv[1:3]); "
    "sys.path[:] = [one for one in first if one not in own] + own"
    " + [one for one in last if one not in own]; "
)
_TIE = (
    "import fcntl, select; tie = int(sys.argv[5]); set_signal = getattr(fcntl, 'F_SETSIG', None); "
    "set_signal and (fcntl.fcntl(tie, fcntl.F_SETOWN, os.getpid()), "
    "fcntl.fcntl(tie, set_signal, 9), fcntl.fcntl(tie, fcntl.F_SETFL, os.O_ASYNC)); "
    "poll = select.poll(); poll.register(tie, select.POLLIN); poll.poll(0) and os._exit(1); "
)
_WORDS = 5  # two of the path, the role, two descriptors
_ENTER = "from forkfirst.stages.upgrade.entry import main; main()"


class Upgrade:
    """One upgrade under way.

    Attributes:
        pid: The proof's process; 0 when it has ended.
        deadline: When all must be over, by the monotonic clock.
        version: The new version, once it has proved itself; "" before.
    """

    def __init__(self, answer: int, seconds: float) -> None:
        self.pid = 0
        self.deadline = time.monotonic() + seconds
        self.version = ""
        self._answer = answer
        self._seconds = seconds
        self._is_late = False
        self._said = self._trouble = self._tie = -1

    def descriptors(self) -> list[int]:
        """Return what no worker may have."""
        mine = (self._answer, self._said, self._trouble, self._tie)
        return [fd for fd in mine if fd >= 0]

    def prove(self, supervisor: Supervisor) -> None:
        """Start the new forkfirst to the point of taking over.

        Raises:
            ForkfirstError: It cannot be started.
            OSError: No memory, or no descriptor.
        """
        _check_interpreter()
        written = state.describe(supervisor, answer=self._answer)
        self._said = descriptors.open_memory_file("said")
        self._trouble = descriptors.open_memory_file("trouble")
        tied, self._tie = lifeline.open_lifeline()
        file = state.write(written)
        kept_back = state.list_lifelines(written)
        given = {fd: fd for fd, *_ in written["files"] if fd not in kept_back}
        given |= {_STDOUT: self._said, _STDERR: self._trouble, file: file, tied: tied}
        command = _make_command("prove", file, tied)
        try:
            self.pid = spawn.spawn(command, os.environ, given)
        finally:
            os.close(file)
            os.close(tied)

    def give_up(self, supervisor: Supervisor) -> None:
        """End what takes too long: a proof, which is then judged; or the wait after it."""
        self.deadline = float("inf")
        if self.pid:
            self._is_late = True
            os.kill(self.pid, signal.SIGKILL)  # not reaped yet: that would have made it 0
        else:
            self.fail(supervisor, "a worker is still waiting to be forked")

    def judge(self, supervisor: Supervisor, raw: int) -> None:
        """Learn from the end of the proof, which wait(2) described as *raw*, whether to go on."""
        self.pid = 0
        last = _read_end(self._said).rstrip("\n").rpartition("\n")[2]
        if raw == 0 and last.startswith(state.PROVED):
            self.version = last.removeprefix(state.PROVED)
            return
        how = children.describe_status(raw)
        reason = f"the new forkfirst {how} before it could take over"
        if self._is_late:
            reason = f"the new forkfirst could not take over in {self._seconds:g} s"
        self.fail(supervisor, reason, output=_read_end(self._trouble))

    def take_place(self, supervisor: Supervisor) -> None:
        """Execute the new forkfirst in the place of this process; return only if that failed.

        Or if a template is just forking: it will speak, so the loop comes here again.
        """
        if any(one.is_busy for one in supervisor.templates.values()):
            return
        reason = find_obstacle(supervisor)
        if reason:
            self.fail(supervisor, f"meanwhile {reason}")
            return
        mask = signals.block_all()
        numbers = supervisor.take_signals()
        try:
            self._execute(supervisor, numbers)
        except Exception as error:  # noqa: BLE001 - whatever it is, the service must go on
            reason = _describe("execute", error)
        signals.set_mask(mask)
        self.fail(supervisor, reason)
        supervisor.obey(numbers)

    def fail(
        self, supervisor: Supervisor, reason: str, *, hint: str = "", output: str = ""
    ) -> None:
        """Say that everything is as it was, and let go of what was for this upgrade alone."""
        supervisor.upgrade = None
        supervisor.say(f"not upgraded: {reason}")
        outcome.send(self._answer, outcome.Outcome(reason=reason, hint=hint, output=output))
        for fd in self.descriptors():
            os.close(fd)

    def _execute(self, supervisor: Supervisor, numbers: bytes) -> None:
        written = state.describe(supervisor, answer=self._answer, signals=numbers)
        file = state.write(written)
        command = _make_command("take over", file, -1)
        stdio.flush_standard_streams()
        kept = [file, *(fd for fd, *_ in written["files"])]
        try:
            # Beside those that whoever started us has passed on purpose; ours are close-on-exec.
            for fd in kept:
                os.set_inheritable(fd, True)  # noqa: FBT003 - the call has no name for it
            os.execve(command[0], command, os.environ)  # noqa: S606 - our own interpreter, no shell
        finally:  # it comes back only with an error
            for fd in kept:
                os.set_inheritable(fd, False)  # noqa: FBT003 - the call has no name for it
            os.close(file)


def begin(supervisor: Supervisor, request: Mapping[str, Any]) -> dict[str, Any]:
    """Begin the upgrade that *request* asks for; its outcome goes to the pipe that came with it."""
    passed: list[int] = request.get("descriptors", [])
    if len(passed) != 1:
        message = f"{len(passed)} descriptors came for an answer"
        raise ValueError(message)
    upgrade = Upgrade(passed.pop(), float(request.get("proof_seconds", PROOF_SECONDS)))
    in_progress = supervisor.upgrade
    reason, hint = find_obstacle(supervisor), "try again when that is over"
    if not reason and in_progress is not None:
        reason = "another upgrade is in progress"
    if not reason:
        try:
            upgrade.prove(supervisor)
        except Exception as error:  # noqa: BLE001 - whatever it is, the service must go on
            reason, hint = _describe("start", error), getattr(error, "hint", "")
    if reason:
        upgrade.fail(supervisor, reason, hint=hint)
        supervisor.upgrade = in_progress
    else:
        supervisor.upgrade = upgrade
    return {}


def find_obstacle(supervisor: Supervisor) -> str:
    """Return why *supervisor* cannot be replaced now, or ""."""
    if supervisor.finished is not None:
        return "the service is stopping"
    return {
        "starting": "the service is still starting",
        "reloading": "a reload is in progress",
        "deciding": "a reload is in progress: its commit window is still open",
        "stopping": "the service is stopping",
    }.get(supervisor.fleet.state, "a reload is in progress" if supervisor.tickets else "")


def _describe(attempted: str, error: Exception) -> str:
    if isinstance(error, errors.ForkfirstError):
        return str(error)
    if isinstance(error, OSError):
        return str(explain(f"{attempted} the new forkfirst", error))
    import traceback  # noqa: PLC0415 - only for a bug of ours

    traceback.print_exception(error)
    return f"{type(error).__name__}: {error}"


def _check_interpreter() -> None:
    if not os.access(sys.executable, os.X_OK):
        path = sys.executable or "it does not know by which path, and it"
        message = f"the interpreter of the supervisor, {path}, is not there any more"
        raise errors.TargetError(message, hint="put it back, or restart the service with another")


def _make_command(role: str, file: int, tie: int) -> list[str]:
    """Return the command line of the new forkfirst; its last words are for who looks at it."""
    flags = list(interpreter.list_flags())
    if sys.flags.ignore_environment:
        flags.append("-E")
    first, last = _split_path()
    code = _CODE + (_TIE if role == "prove" else "") + _ENTER
    command = [sys.executable, *flags, "-c", code, first, last, role, str(file), str(tie)]
    return [*command, *_list_own_words()]


def _list_own_words() -> list[str]:
    """Return the words that the service was started with, whatever was executed since."""
    words = sys.orig_argv
    codes = [index for index, word in enumerate(words) if word.endswith(_ENTER)]
    return words[codes[0] + _WORDS + 1 :] if codes else words


def _split_path() -> tuple[str, str]:
    """Return what is on `sys.path` before the interpreter's own library, and what is after it.

    Its own part is left out, because the new interpreter may be of another version.
    """
    major, minor, *_ = sys.version_info
    own, archive = f"python{major}.{minor}", f"python{major}{minor}.zip"
    library = os.path.dirname(os.__file__)
    path = [one for one in sys.path if isinstance(one, str) and os.pathsep not in one]
    at = path.index(library) if library in path else len(path)
    before = [os.path.abspath(one) for one in path[:at] if not one.endswith(archive)]
    after = [one for one in path[at + 1 :] if own not in one]
    return os.pathsep.join(before), os.pathsep.join(after)


def _read_end(fd: int) -> str:
    size = os.fstat(fd).st_size
    return os.pread(fd, _SHOWN, max(0, size - _SHOWN)).decode(errors="replace")
