"""Shows that the tests of this room notice when the property they state is gone.

Each deliberate breakage is made in a copy of the package, and the tests that state the property are
run against it: they must fail. (The fork crate's own 102 tests notice 3 of these 12.)
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

import forkfirst

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
PACKAGE = Path(forkfirst.__file__).parent


class Breakage(NamedTuple):
    """A line of a module, what stands there instead, and the test that must fail then."""

    module: str
    line: str
    instead: str
    test: str


WHICHEVER = "test_stdio.py::test_dev_null_is_on_all_three_whichever_were_closed"
TERMINAL = "test_daemon.py::test_a_daemon_has_no_terminal_and_cannot_get_one"
NOT_TOLD = "test_daemon.py::test_a_daemon_does_what_it_was_not_told_to_leave"
BREAKAGES = {
    "redirect does nothing": Breakage(
        "stdio", "        redirect(spare, spare, spare)\n", "        pass\n", WHICHEVER
    ),
    "the spare leaks": Breakage(
        "stdio", "            os.close(spare)\n", "            pass\n", WHICHEVER
    ),
    "the spare is closed even if it is standard": Breakage(
        "stdio", "if spare > _STANDARD[-1]:", "if True:", WHICHEVER
    ),
    "close instead of dup2": Breakage(
        "stdio", "os.dup2(source, target, inheritable=True)", "os.close(target)", WHICHEVER
    ),
    "a close is retried after EINTR": Breakage(
        "stdio",
        "if error.errno not in (errno.EBADF, errno.EINTR):",
        "close(descriptor)\n        if error.errno != errno.EBADF:",
        "test_stdio.py::test_an_interrupted_close_is_not_repeated",
    ),
    "EBADF is an error": Breakage(
        "stdio",
        "(errno.EBADF, errno.EINTR)",
        "(errno.EINTR,)",
        "test_stdio.py::test_closing_what_is_closed_is_no_error",
    ),
    "no setsid": Breakage(
        "daemon", "        session.start_session()\n", "        pass\n", TERMINAL
    ),
    "no second fork": Breakage("daemon", "second = session.fork()", "second = 0", TERMINAL),
    "nochdir=False is ignored": Breakage("daemon", "if not nochdir:", "if False:", NOT_TOLD),
    "noclose=False is ignored": Breakage("daemon", "if not noclose:", "if False:", NOT_TOLD),
    "exit instead of _exit": Breakage(
        "session",
        "os._exit(status)",
        "raise SystemExit(status)",
        "test_daemon.py::test_only_the_daemon_runs_exit_handlers",
    ),
    "waitpid gives up on EINTR": Breakage(
        "children",
        "return os.waitpid(pid, 0)[1]",
        "import ctypes\n    raw = ctypes.c_int()\n"
        "    ctypes.CDLL(None).waitpid(pid, ctypes.byref(raw), 0)\n    return raw.value",
        "test_children.py::test_a_signal_does_not_end_the_wait",
    ),
    # And of what is not the crate's.
    "a fork does not flush": Breakage(
        "session",
        "    stdio.flush_standard_streams()\n",
        "",
        "test_session.py::test_a_fork_writes_what_was_buffered_once",
    ),
    "a stale file is taken though its name is another's": Breakage(
        "pidfile",
        "if trust.is_same_file(fd, named):\n                kept",
        "if named:\n                kept",
        "test_pidfile.py::test_a_name_that_changed_hands_while_it_was_looked_at_is_not_taken",
    ),
    "a pid file has its name before it is marked": Breakage(
        "pidfile",
        "    file_lock.mark(fd)\n",
        "",
        "test_pidfile.py::test_where_there_was_none_there_is_one",
    ),
    "looking takes the lock": Breakage(
        "file_lock",
        "    marked = _ask_mark(fd)\n",
        "    marked = None\n",
        "test_pidfile.py::test_who_looks_takes_no_lock",
    ),
    "a new pid is used without asking again": Breakage(
        "pidfile",
        "if _has_open(pid, fd) and",
        "if",
        "test_pidfile.py::test_a_pid_used_again_while_others_hold_the_lock_is_not_signalled",
    ),
    "a failed write to the log raises": Breakage(
        "log_file",
        "            self._log.dropped_bytes += len(rest)\n",
        "            raise\n",
        "test_log_file.py::test_a_full_disk_does_not_raise_and_is_counted",
    ),
}


@pytest.fixture
def copy(tmp_path: Path) -> Iterator[Path]:
    shutil.copytree(PACKAGE, tmp_path / "forkfirst", ignore=shutil.ignore_patterns("*.pyc"))
    yield tmp_path / "forkfirst"
    shutil.rmtree(tmp_path / "forkfirst")


def run_tests(copy: Path, test: str) -> int:
    environment = {**os.environ, "PYTHONPATH": f"{copy.parent}{os.pathsep}{HERE.parent}"}
    test = str(HERE / test)
    words = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", test]
    return subprocess.run(
        words, env=environment, capture_output=True, check=False, timeout=50
    ).returncode


@pytest.mark.slow
def test_the_tests_pass_on_an_unbroken_copy(copy: Path) -> None:
    """Or they would fail for the copying."""
    assert run_tests(copy, "test_stdio.py") == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", BREAKAGES)
def test_a_breakage_is_noticed(copy: Path, name: str) -> None:
    """A test that cannot fail says nothing."""
    breakage = BREAKAGES[name]
    module = copy / "unix" / f"{breakage.module}.py"
    text = module.read_text()
    assert text.count(breakage.line) == 1, "the line to break is there once"
    module.write_text(text.replace(breakage.line, breakage.instead))
    assert run_tests(copy, breakage.test) == 1
