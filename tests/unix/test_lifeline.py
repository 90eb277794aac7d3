"""A process that holds a lifeline dies with whoever holds the other end."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

PROGRAM = """
import os, signal, sys
from forkfirst.unix import lifeline
held, other = lifeline.open_lifeline()
told, tell = os.pipe()
child = os.fork()
if child == 0:
    os.close(other)
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    if sys.argv[1] == "held":
        lifeline.hold(held)
    os.write(tell, b"1")
    while True:
        pass
os.read(told, 1)
if sys.argv[2] == "closed":
    os.close(other)
else:
    os.kill(child, signal.SIGUSR1)
signal.signal(signal.SIGALRM, lambda *_: os.kill(child, signal.SIGKILL) or os._exit(99))
signal.alarm(1)
_, raw = os.waitpid(child, 0)
print(os.WTERMSIG(raw))
"""


def _run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *words],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


@pytest.mark.skipif(sys.platform != "linux", reason="F_SETSIG is Linux's own")
def test_it_dies_of_the_other_ends_closing_however_busy_or_deaf_it_is() -> None:
    """A busy loop with every signal blocked: no thread and no handler could do it."""
    assert _run("held", "closed").stdout == f"{int(signal.SIGKILL)}\n"


def test_without_it_the_process_lives_on() -> None:
    """Shown to fail without the property."""
    assert _run("free", "closed").returncode == 99


@pytest.mark.skipif(sys.platform != "linux", reason="F_SETSIG is Linux's own")
def test_it_lives_while_the_other_end_is_open() -> None:
    """Only the end of the other one counts."""
    assert _run("held", "open").returncode == 99


@pytest.mark.skipif(sys.platform != "linux", reason="F_SETSIG is Linux's own")
def test_one_that_was_cut_before_dies_at_once() -> None:
    """The supervisor may be gone before the worker has come so far."""
    program = (
        "import os; from forkfirst.unix import lifeline\n"
        "held, other = lifeline.open_lifeline(); os.close(other); lifeline.hold(held)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], timeout=20, check=False)
    assert done.returncode == -signal.SIGKILL
