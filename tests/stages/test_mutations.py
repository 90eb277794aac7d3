"""Shows that the tests of a start notice when the property they state is gone.

Each deliberate breakage is made in a copy of the package, and the tests that state the property are
run against it: they must fail. `tests/unix` does the same for what is below.
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

TESTS = Path(__file__).parent.parent
PACKAGE = Path(forkfirst.__file__).parent


class Breakage(NamedTuple):
    """A line of a module, what stands there instead, and the test that must fail then."""

    module: str
    line: str
    instead: str
    test: str


STATE = "system/test_daemon_state.py::"
FAILURES = "system/test_failures.py::"
LAUNCHER = "system/test_launcher.py::"
IDENTITY = "system/test_identity.py::"
SUCCESSOR = "system/test_successor.py::"
KILLED = "stages/test_killed_start.py::test_whoever_dies_after_its_own_step_spoils_nothing"
UPGRADE = "system/test_upgrade.py::"
REUSEPORT = "system/test_reuseport.py::"
BREAKAGES = {
    "no setsid": Breakage(
        "stages/fork_first.py",
        "    session.start_session()\n",
        "    pass\n",
        f"{STATE}test_it_is_in_a_session_of_its_own_and_does_not_lead_it",
    ),
    "no second fork": Breakage(
        "stages/fork_first.py",
        "def _fork_again(_: steps.ForkAgain, forked: Forked) -> None:\n"
        "    forked.child = session.fork()\n",
        "def _fork_again(_: steps.ForkAgain, forked: Forked) -> None:\n    forked.child = 0\n",
        f"{STATE}test_it_is_in_a_session_of_its_own_and_does_not_lead_it",
    ),
    "exit instead of _exit": Breakage(
        "unix/session.py",
        "    os._exit(status)\n",
        "    raise SystemExit(status)\n",
        "stages/test_leaving.py::test_exit_handlers_run_once_and_in_the_service",
    ),
    "the launcher does not wait for READY": Breakage(
        "stages/launch.py",
        "        failure = _wait(step, start)\n",
        "        failure = None\n",
        f"{FAILURES}test_a_program_that_raises_before_it_is_ready",
    ),
    "the leader does not see its launcher die": Breakage(
        "stages/leader.py",
        "        if report_to in events:\n",
        "        if False:\n",
        f"{LAUNCHER}test_a_killed_launcher_leaves_no_service",
    ),
    "a socket that goes is dealt connections": Breakage(
        "plan/fleet/slots.py",
        "    return tuple(served or range(_count_asked(fleet)))\n",
        "    return tuple(range(count_needed(fleet)))\n",
        f"{REUSEPORT}test_no_request_is_lost_when_there_are_fewer_and_more_workers_again",
    ),
    "a socket without a worker is dealt connections": Breakage(
        "plan/fleet/slots.py",
        "    return tuple(served or range(_count_asked(fleet)))\n",
        "    return tuple(range(_count_asked(fleet)))\n",
        f"{REUSEPORT}test_nobody_is_sent_to_a_worker_that_is_not_there",
    ),
    "a socket is left without having been emptied": Breakage(
        "plan/fleet/change.py",
        "            settings.yield_seconds\n            and worker.state",
        "            False\n            and worker.state",
        f"{REUSEPORT}test_who_waits_for_a_worker_that_is_to_leave_is_served_by_it",
    ),
    "the session is not ended": Breakage(
        "stages/running.py",
        "        signalled = children.end_session(sid, signal.SIGKILL)\n",
        "        signalled = ()\n",
        f"{FAILURES}test_what_the_program_had_started_is_ended_too",
    ),
    "nothing is undone": Breakage(
        "stages/start.py",
        "            _try(self._undo.pop())\n",
        "            self._undo.pop()\n",
        f"{FAILURES}test_a_program_that_raises_before_it_is_ready",
    ),
    "the lock is not released": Breakage(
        "stages/start.py",
        "            _try(self.pid_file.release)\n",
        "            pass\n",
        f"{FAILURES}test_a_program_that_raises_before_it_is_ready",
    ),
    "sockets are removed whoever made them": Breakage(
        "stages/start.py",
        "    if (facts.st_ino, facts.st_dev) == (inode, device):\n",
        "    if facts:\n",
        f"{IDENTITY}test_stop_removes_nothing_that_is_not_its_own",
    ),
    "the caller's handlers stay": Breakage(
        "stages/apply.py",
        "    signals.reset_handlers()\n",
        "    pass\n",
        f"{STATE}test_its_signals_are_those_of_a_fresh_interpreter",
    ),
    "the caller's mask stays": Breakage(
        "stages/apply.py",
        "    signals.unblock_all()\n",
        "    pass\n",
        f"{STATE}test_its_signals_are_those_of_a_fresh_interpreter",
    ),
    "an ignored SIGCHLD stays": Breakage(
        "stages/fork_first.py",
        "    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:\n",
        "    if False:\n",
        f"{STATE}test_its_signals_are_those_of_a_fresh_interpreter",
    ),
    "the caller's descriptors stay": Breakage(
        "stages/apply.py",
        "    descriptors.close_all_except(kept)\n",
        "    pass\n",
        f"{STATE}test_its_descriptors_are_exactly_those_that_belong_to_it",
    ),
    "descriptors 0 to 2 are not held": Breakage(
        "stages/fork_first.py",
        "    stdio.hold_standard_descriptors()\n",
        "    pass\n",
        f"{STATE}test_whichever_standard_descriptors_were_closed_it_is_the_same",
    ),
    "variables of others stay": Breakage(
        "stages/apply.py",
        "        os.environ.pop(name, None)\n",
        "        pass\n",
        f"{STATE}test_its_environment_has_nothing_that_was_said_to_others",
    ),
    "the umask stays": Breakage(
        "stages/apply.py",
        "    os.umask(step.umask)\n",
        "    pass\n",
        f"{STATE}test_it_is_in_the_root_directory_with_its_own_umask",
    ),
    "the directory stays": Breakage(
        "stages/apply.py",
        "    os.chdir(step.path)\n",
        "    pass\n",
        f"{STATE}test_it_is_in_the_root_directory_with_its_own_umask",
    ),
    "the launcher's pid stays in the file": Breakage(
        "stages/apply.py",
        "        start.pid_file.rewrite(os.getpid())\n",
        "        pass\n",
        f"{IDENTITY}test_the_pid_file_is_as_the_manual_says",
    ),
    "the fork is not judged": Breakage(
        "stages/fork_first.py",
        "    verdict.assert_fork_safe()\n",
        "    pass\n",
        "stages/test_purity.py::test_a_program_that_has_begun_something_is_not_forked",
    ),
    "asyncio is imported before the fork": Breakage(
        "stages/fork_first.py",
        "from forkfirst.unix import channel, passage, session, stdio\n",
        "import asyncio\nfrom forkfirst.unix import channel, passage, session, stdio\n",
        "stages/test_purity.py::test_at_the_forks_of_a_start_there_is_no_runtime",
    ),
    "a plan is only printed after it was carried out": Breakage(
        "cli/explain.py",
        "    host = probe.read_host(",
        "    import os\n    os.makedirs(os.environ['FORKFIRST_STATE_DIR'])\n"
        "    host = probe.read_host(",
        "system/test_commands.py::test_plan_prints_each_step_and_does_nothing",
    ),
    "stop does not escalate": Breakage(
        "stages/running.py",
        "                killed = True\n",
        "                return Ended(pid=self.pid, seconds=seconds)\n",
        f"{IDENTITY}test_stop_escalates_and_says_so",
    ),
    "every session is the service's": Breakage(
        "stages/running.py",
        "        own_session = session if session and session == self.read_session() else 0\n",
        "        own_session = self.read_session()\n",
        f"{IDENTITY}test_stop_never_touches_the_session_of_whoever_started",
    ),
    "the log is rotated before READY": Breakage(
        "stages/child.py",
        "keep=service.log_keep)",
        "keep=service.log_keep, max_bytes=service.log_size)",
        "system/test_output.py::test_a_failed_start_shows_what_was_said_through_a_rotation",
    ),
    "a killed start leaves its lock": Breakage(
        "unix/pidfile.py",
        "        if file_lock.try_lock(fd):\n",
        "        if False:\n",
        KILLED,
    ),
    "an upgrade without a proof": Breakage(
        "stages/upgrade/upgrading.py",
        "        if raw == 0 and last.startswith(state.PROVED):\n",
        "        if last := last or 'x':\n",
        f"{UPGRADE}test_a_new_version_that_is_broken_changes_nothing",
    ),
    "an upgrade that blocks no signal": Breakage(
        "stages/upgrade/upgrading.py",
        "        mask = signals.block_all()\n",
        "        mask = signals.block(())\n",
        f"{UPGRADE}test_a_stop_that_comes_during_the_exec_is_obeyed",
    ),
    "an upgrade that lets no signal through when it failed": Breakage(
        "stages/upgrade/upgrading.py",
        "        signals.set_mask(mask)\n",
        "",
        f"{UPGRADE}test_an_exec_that_fails_changes_nothing",
    ),
    "an upgrade that forgets a signal": Breakage(
        "stages/upgrade/state.py",
        '        "signals": list(signals),\n',
        '        "signals": [],\n',
        f"{UPGRADE}test_a_signal_that_was_taken_and_not_obeyed_yet_is_handed_over",
    ),
    "an upgrade that forgets half a question": Breakage(
        "control/caller.py",
        '        caller._incoming += data["incoming"].encode("latin-1")\n',
        "",
        f"{UPGRADE}test_who_is_asking_is_answered_by_the_new_supervisor",
    ),
    "an upgrade that leaves its descriptors to every program": Breakage(
        "stages/upgrade/entry.py",
        "        os.set_inheritable(fd, False)  # noqa: FBT003 - its only argument\n",
        "        pass\n",
        f"{UPGRADE}test_everything_works_after_an_upgrade_as_before_it",
    ),
    "a proof that nothing ties to the supervisor": Breakage(
        "stages/upgrade/upgrading.py",
        '(_TIE if role == "prove" else "")',
        '("")',
        f"{UPGRADE}test_a_supervisor_that_is_killed_takes_a_proof_that_hangs_with_it",
    ),
    "an upgrade that forgets the path of modules": Breakage(
        "stages/upgrade/upgrading.py",
        "    return os.pathsep.join(before), os.pathsep.join(after)\n",
        '    return "", ""\n',
        f"{UPGRADE}test_a_program_is_found_as_it_was_before",
    ),
    "a predecessor that drains before anybody is ready": Breakage(
        "stages/succession/predecessor.py",
        "            ready = process.wait_ready(",
        "            self._drain()\n            ready = process.wait_ready(",
        f"{SUCCESSOR}test_bad_code_leaves_the_old_process_serving_and_is_told",
    ),
    "a predecessor that accepts while it leaves": Breakage(
        "stages/succession/predecessor.py",
        "            context.end_accepting()",
        "            context.end_accepting = lambda: None",
        f"{SUCCESSOR}test_nobody_comes_to_the_old_process_after_the_answer",
    ),
    "a predecessor that tidies up after itself": Breakage(
        "stages/succession/predecessor.py",
        "        start.give_away()\n",
        "",
        f"{SUCCESSOR}test_new_code_serves_in_another_process_that_is_the_service",
    ),
    "a predecessor that leaves without a word to who waits": Breakage(
        "stages/succession/predecessor.py",
        "                one.send_on()\n",
        "                pass\n",
        f"{SUCCESSOR}test_a_second_reload_waits_or_is_refused",
    ),
    "a successor that does not write its pid": Breakage(
        "stages/succession/successor.py",
        "            lock.rewrite(os.getpid())\n",
        "            pass\n",
        f"{SUCCESSOR}test_new_code_serves_in_another_process_that_is_the_service",
    ),
    "a successor that dies with its predecessor": Breakage(
        "stages/succession/successor.py",
        "            if not gone or self._told_to_stop:\n",
        "            if True:\n",
        f"{SUCCESSOR}test_the_old_one_is_killed_and_the_successor_becomes_the_service",
    ),
    "a successor that stops before its predecessor has finished": Breakage(
        "stages/succession/successor.py",
        "            children.wait_gone(self._estate.predecessor, self._pidfd, "
        "self._estate.drain_seconds)\n",
        "            pass\n",
        f"{SUCCESSOR}test_a_stop_waits_for_what_the_old_process_still_answers",
    ),
    "a successor in the environment of the program": Breakage(
        "stages/succession/process.py",
        "            environment=start.environment,\n",
        "",
        f"{SUCCESSOR}test_the_new_process_begins_where_the_old_one_began",
    ),
    "a reload that keeps its listeners though it failed": Breakage(
        "stages/succession/predecessor.py",
        "                unlink_if_same(*path)\n",
        "                pass\n",
        f"{SUCCESSOR}test_a_reload_that_fails_takes_its_new_listeners_with_it",
    ),
}


@pytest.fixture
def copy(tmp_path: Path) -> Iterator[Path]:
    shutil.copytree(PACKAGE, tmp_path / "forkfirst", ignore=shutil.ignore_patterns("*.pyc"))
    yield tmp_path / "forkfirst"
    shutil.rmtree(tmp_path / "forkfirst")


def run_tests(copy: Path, *tests: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": f"{copy.parent}{os.pathsep}{TESTS}"}
    places = [str(TESTS / test) for test in tests]
    words = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *places]
    return subprocess.run(
        words, env=environment, capture_output=True, text=True, check=False, timeout=200
    )


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_tests_pass_on_an_unbroken_copy(copy: Path) -> None:
    """Or they would fail for the copying."""
    done = run_tests(copy, *sorted({breakage.test for breakage in BREAKAGES.values()}))
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", BREAKAGES)
def test_a_breakage_is_noticed(copy: Path, name: str) -> None:
    """A test that cannot fail says nothing."""
    breakage = BREAKAGES[name]
    module = copy / breakage.module
    text = module.read_text()
    assert text.count(breakage.line) == 1, "the line to break is there once"
    module.write_text(text.replace(breakage.line, breakage.instead))
    done = run_tests(copy, breakage.test)
    assert done.returncode == 1, done.stdout
