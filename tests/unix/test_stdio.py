"""The laws of descriptors 0, 1 and 2.

Deliberate breakages of this room, and who notices each (test_mutations makes them):

redirect does nothing                test_dev_null_is_on_all_three_whichever_were_closed
the spare leaks                      test_dev_null_is_on_all_three_whichever_were_closed
the spare is closed even if <= 2     test_dev_null_is_on_all_three_whichever_were_closed
close instead of dup2                test_dev_null_is_on_all_three_whichever_were_closed
a close is retried after EINTR       test_an_interrupted_close_is_not_repeated
EBADF is an error                    test_closing_what_is_closed_is_no_error
no setsid                            test_daemon: test_a_daemon_has_no_terminal_and_cannot_get_one
no second fork                       test_daemon: test_a_daemon_has_no_terminal_and_cannot_get_one
nochdir=False is ignored             test_daemon: test_a_daemon_does_what_it_was_not_told_to_leave
noclose=False is ignored             test_daemon: test_a_daemon_does_what_it_was_not_told_to_leave
exit() in the place of _exit()       test_daemon: test_only_the_daemon_runs_exit_handlers
waitpid gives up on EINTR            test_children: test_a_signal_does_not_end_the_wait
"""

from __future__ import annotations

import errno
import itertools
from typing import TYPE_CHECKING

import pytest

from forkfirst.unix import stdio
from support.fresh import run_fresh

if TYPE_CHECKING:
    from pathlib import Path

SUBSETS = [subset for size in range(4) for subset in itertools.combinations((0, 1, 2), size)]
by_closed = pytest.mark.parametrize("closed", SUBSETS, ids=lambda some: f"closed{some}")

LOOK = """
from forkfirst.unix import descriptors, stdio
null = os.stat(os.devnull).st_rdev
def look():
    return [os.fstat(fd).st_rdev == null and os.get_inheritable(fd) for fd in (0, 1, 2)]
"""


@by_closed
def test_dev_null_is_on_all_three_whichever_were_closed(closed: tuple[int, ...]) -> None:
    """A supervisor may start a service with any of them closed; the spare is then one of them."""
    outcome = run_fresh(
        LOOK
        + """
before = {*descriptors.list_open(), 0, 1, 2}
stdio.redirect_stdio()
tell(null=look(), leaked=sorted({*descriptors.list_open()} ^ before))
stdio.redirect_stdio()
tell(null=look(), leaked=sorted({*descriptors.list_open()} ^ before))
""",
        closed=closed,
    )
    assert outcome.told == [{"null": [True, True, True], "leaked": []}] * 2, outcome.err


@by_closed
def test_holding_fills_exactly_the_holes(closed: tuple[int, ...]) -> None:
    """A pid file that became descriptor 1 would be replaced by the log; an open terminal stays."""
    outcome = run_fresh(
        """
from forkfirst.unix import descriptors, stdio
def identify(fd):
    status = os.fstat(fd)
    return [status.st_dev, status.st_ino]
before = descriptors.list_open()
kept = {fd: identify(fd) for fd in before if fd <= 2}
stdio.hold_standard_descriptors()
tell(
    kept=all(identify(fd) == was for fd, was in kept.items()),
    new=sorted({*descriptors.list_open()} - {*before}),
    null=[os.fstat(fd).st_rdev == os.stat(os.devnull).st_rdev for fd in (0, 1, 2)],
    inheritable=[os.get_inheritable(fd) for fd in (0, 1, 2)],
    next=os.open("/", os.O_RDONLY),
)
""",
        closed=closed,
    )
    (facts,) = outcome.told
    assert facts["kept"]
    assert facts["new"] == list(closed)
    assert all(facts["null"][descriptor] for descriptor in closed)
    assert facts["inheritable"] == [True, True, True]
    assert facts["next"] > 2


def test_an_argument_may_itself_be_a_standard_descriptor(tmp_path: Path) -> None:
    """All 27 ways to take three from three, exchanges included, give what was asked for."""
    outcome = run_fresh(
        """
import itertools
from forkfirst.unix import descriptors, stdio
files = [os.open(f"{sys.argv[1]}/{number}", os.O_CREAT | os.O_RDWR) for number in range(3)]
inodes = [os.fstat(fd).st_ino for fd in files]
before = descriptors.list_open()
for triple in itertools.product(range(3), repeat=3):
    for number in range(3):
        os.dup2(files[number], number, inheritable=False)
    stdio.redirect(*triple)
    found = [inodes.index(os.fstat(fd).st_ino) for fd in range(3)]
    tell(wanted=triple, found=found, inherited=[os.get_inheritable(fd) for fd in range(3)],
         leaked=descriptors.list_open() != before)
""",
        tmp_path,
    )
    assert len(outcome.told) == 27, outcome.err
    for facts in outcome.told:
        assert facts["found"] == facts["wanted"]
        assert facts["inherited"] == [True, True, True]
        assert not facts["leaked"]


def test_a_redirect_from_a_closed_descriptor_is_an_error_and_leaks_nothing() -> None:
    """A service must not go on without knowing where its output goes."""
    outcome = run_fresh("""
from forkfirst.unix import descriptors, stdio
before = descriptors.list_open()
try:
    stdio.redirect(1, 0, 99)
except OSError as error:
    tell(errno=error.errno, same=descriptors.list_open() == before)
""")
    assert outcome.told == [{"errno": errno.EBADF, "same": True}], outcome.err


def test_a_command_of_the_service_has_a_standard_input() -> None:
    """A dup2(0, 0) leaves close-on-exec set: the command would start without descriptor 0."""
    program = """
from forkfirst.unix import stdio
stdio.redirect_stdio()
os.set_inheritable(TELL, True)
text = "import json, os, sys; os.fstat(0); os.write(int(sys.argv[1]), b'{}')"
os.execv(sys.executable, [sys.executable, "-c", text, str(TELL)])
"""
    assert run_fresh(program, closed=(0,)).told == [{}]
    without = program.replace("stdio.redirect_stdio()", "os.dup2(os.open(os.devnull, 2), 0)")
    assert run_fresh(without, closed=(0,)).told == []


def test_closing_what_is_closed_is_no_error() -> None:
    """`close_fd` twice is the same as once, and the next opens really get 0 to 2."""
    outcome = run_fresh("""
from forkfirst.unix import stdio
stdio.close_fd()
stdio.close_fd()
tell(next=[os.open("/", os.O_RDONLY) for _ in range(3)])
""")
    assert outcome.told == [{"next": [0, 1, 2]}], outcome.err


@pytest.mark.parametrize("number", [errno.EINTR, errno.EBADF])
def test_an_interrupted_close_is_not_repeated(number: int) -> None:
    """After EINTR the number may be another thread's new file already."""
    calls: list[int] = []

    def close(descriptor: int) -> None:
        calls.append(descriptor)
        raise OSError(number, "as the kernel says it")

    stdio.close_once(7, close=close)
    assert calls == [7]


def test_another_failure_of_a_close_is_told() -> None:
    """EIO on close can be the only word of a lost write."""

    def close(_: int) -> None:
        raise OSError(errno.EIO, "as the kernel says it")

    with pytest.raises(OSError, match="as the kernel"):
        stdio.close_once(7, close=close)


@pytest.mark.parametrize(
    "spoil",
    [
        "sys.stdout = None",
        "sys.stdout.close()",
        "os.dup2(os.open('/dev/full', os.O_WRONLY), 1); sys.stdout.write('lost')",
        "sys.stdout = object()",
    ],
)
def test_a_stream_that_cannot_be_flushed_stops_nothing(spoil: str) -> None:
    """A service must not fail to start because somebody closed the terminal."""
    outcome = run_fresh(f"""
from forkfirst.unix import stdio
{spoil}
sys.stderr.write("kept")
stdio.flush_standard_streams()
tell(done=True)
os._exit(0)
""")
    assert outcome.told == [{"done": True}]
    assert outcome.err == "kept"
