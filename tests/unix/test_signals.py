"""The signal actions and the mask that a service starts with."""

from __future__ import annotations

import pytest

from support.fresh import run_fresh

SPOIL = """
import signal, socket
from forkfirst.unix import signals
untouchable = {signal.SIGKILL, signal.SIGSTOP, 32, 33}
numbers = sorted({*map(int, signal.valid_signals())} - untouchable)
def show():
    with open("/proc/self/status") as status:
        masks = dict(line.split(":") for line in status)
    # glibc's posix_spawn leaves 32 and 33 ignored: the thread library's matter.
    return {key: int(masks[key], 16) & ~bits(32, 33) for key in ("SigBlk", "SigIgn", "SigCgt")}
def bits(*numbers):
    return sum(1 << (int(number) - 1) for number in numbers)
for number in numbers:
    signal.signal(number, signal.SIG_IGN if number % 2 else lambda *_: None)
signal.pthread_sigmask(signal.SIG_SETMASK, numbers)
left, right = socket.socketpair()
right.setblocking(False)
signal.set_wakeup_fd(right.fileno())
"""


def test_a_service_starts_as_a_fresh_interpreter_does() -> None:
    """What nohup, a shell's job or a careless parent ignored and blocked is not inherited."""
    outcome = run_fresh(
        SPOIL
        + """
signals.reset_handlers()
signals.unblock_all()
tell(wakeup=signal.set_wakeup_fd(-1), **show())
tell(SigBlk=0, SigIgn=bits(signal.SIGPIPE, signal.SIGXFSZ), SigCgt=bits(signal.SIGINT))
tell(interrupt=signal.getsignal(signal.SIGINT) is signal.default_int_handler)
"""
    )
    found, wanted, interrupt = outcome.told
    assert found == {"wakeup": -1, **wanted}, outcome.err
    assert interrupt == {"interrupt": True}


def test_another_program_gets_every_default() -> None:
    """An ignored SIGPIPE is Python's own habit: `head` in a pipe would never end its writer."""
    outcome = run_fresh(
        SPOIL + "signals.reset_handlers(for_exec=True); signals.unblock_all(); tell(**show())"
    )
    assert outcome.told == [{"SigBlk": 0, "SigIgn": 0, "SigCgt": 0}], outcome.err


def test_the_fault_handler_stays() -> None:
    """Reset behind its back it could not be enabled again, and a crash would leave no stack."""
    outcome = run_fresh("""
import faulthandler, signal
from forkfirst.unix import signals
faulthandler.enable()
signals.reset_handlers()
os.kill(os.getpid(), signal.SIGSEGV)
""")
    assert outcome.status == -11
    assert "Fatal Python error: Segmentation fault" in outcome.err


def test_a_block_is_taken_back_exactly() -> None:
    """A signal that comes in between is delivered after, once."""
    outcome = run_fresh("""
import signal
from forkfirst.unix import signals
signal.signal(signal.SIGUSR1, lambda *_: tell(delivered=True))
before = signals.block({signal.SIGUSR2})
outer = signals.block({signal.SIGUSR1, signal.SIGTERM})
os.kill(os.getpid(), signal.SIGUSR1)
tell(pending=signal.SIGUSR1 in signal.sigpending())
signals.set_mask(outer)
tell(mask=sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ()))), before=sorted(before))
""")
    assert outcome.told == [
        {"pending": True},
        {"delivered": True},
        {"mask": [12], "before": []},
    ], outcome.err


@pytest.mark.parametrize("number", [32, 33])
def test_the_thread_library_keeps_its_signals(number: int) -> None:
    """Whatever they are set to, setuid and thread cancellation work through them."""
    outcome = run_fresh(f"""
from forkfirst.unix import signals
tell(touched={number} in signals._list_catchable())
""")
    assert outcome.told == [{"touched": False}]
