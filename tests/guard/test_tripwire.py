"""The tripwire refuses before the fork happens, whoever forks, and whatever they do about it."""

from __future__ import annotations

import pytest

from forkfirst.errors import UsageError
from forkfirst.guard import tripwire
from support.child_program import run_child

_THREAD = """
import json, os, sys, threading, time, warnings
warnings.simplefilter("ignore")
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
from forkfirst.errors import UnsafeFork
from forkfirst.guard import tripwire
def children():
    return open("/proc/thread-self/children").read().split()
"""
_END = """
sys.stdout.flush()
os._exit(0)
"""


def test_the_veto_cannot_be_swallowed() -> None:
    """A bare `except` keeps the exception from its caller, but no child comes of it."""
    program = f"""{_THREAD}
tripwire.tripwire()
swallowed = []
for _ in range(3):
    try:
        os.fork()
    except BaseException as error:
        swallowed.append(type(error).__name__)
print(json.dumps([swallowed, children()]))
{_END}"""
    assert run_child(program) == [["UnsafeFork"] * 3, []]


def test_an_at_fork_hook_could_not_have_vetoed() -> None:
    """Why it is an audit hook: an exception in an at-fork hook is printed and forgotten."""
    program = """
import json, os, sys
sys.stderr = open(os.devnull, "w")
sys.unraisablehook = lambda _: None
def refuse(): raise RuntimeError("no")
os.register_at_fork(before=refuse)
pid = os.fork()
if pid == 0:
    os._exit(7)
print(json.dumps(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])))
"""
    assert run_child(program) == 7


@pytest.mark.parametrize(
    "fork",
    [
        "os.fork()",
        "os.forkpty()",
        "__import__('pty').fork()",
        "__import__('multiprocessing').get_context('fork').Process(target=int).start()",
        "__import__('multiprocessing').get_context('fork').Pool(1)",
        "exec('try: os.fork()\\nfinally: raise SystemExit')",
    ],
)
def test_every_way_to_fork_is_judged(fork: str) -> None:
    """The fork that hurts is in somebody's library."""
    program = f"""{_THREAD}
tripwire.tripwire()
try:
    {fork}
except (UnsafeFork, SystemExit) as error:
    print(json.dumps([type(error.__context__ or error).__name__, children()]))
{_END}"""
    assert run_child(program) == ["UnsafeFork", []]


@pytest.mark.parametrize(
    "call",
    [
        "subprocess.run(['true'], check=True)",
        "subprocess.run(['true'], check=True, preexec_fn=int)",
        "os.waitpid(os.posix_spawn('/bin/true', ['true'], {}), 0)",
        "multiprocessing.get_context('spawn').Process(target=int).start()",
        "os.system('true')",
        "asyncio.run(shell())",
        "with_uvloop()",
    ],
)
def test_a_start_of_another_program_is_never_flagged(call: str) -> None:
    """The child executes at once: nothing of this process is left in it."""
    program = f"""{_THREAD}
import asyncio, multiprocessing, subprocess, uvloop
async def shell():
    process = await asyncio.create_subprocess_exec("true")
    assert await process.wait() == 0
def with_uvloop():
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(shell())
if __name__ == "__main__":
    tripwire.tripwire()
    {call}
    print(json.dumps("started"))
    for child in multiprocessing.active_children():
        child.join()
    {_END.strip().replace(chr(10), chr(10) + "    ")}
"""
    assert run_child(program) == "started"


def test_a_safe_fork_passes() -> None:
    """A tripwire that cried at every fork would be cut on the first day."""
    program = """
import json, os
from forkfirst.guard import tripwire
tripwire.tripwire()
pid = os.fork()
if pid == 0:
    os._exit(7)
print(json.dumps(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])))
"""
    assert run_child(program) == 7


def test_one_known_fork_can_be_allowed() -> None:
    """One: the second in the same block is judged again."""
    program = f"""{_THREAD}
tripwire.tripwire()
refused = 0
with tripwire.allow_fork("the child leaves at once"):
    pid = os.fork()
    if pid == 0:
        os._exit(7)
    os.waitpid(pid, 0)
    try:
        os.fork()
    except UnsafeFork:
        refused += 1
try:
    with tripwire.allow_fork("not used up"):
        pass
    os.fork()
except UnsafeFork:
    refused += 1
print(json.dumps([refused, children()]))
{_END}"""
    assert run_child(program) == [2, []]


def test_an_allowance_is_one_thread_s() -> None:
    """Another thread's fork at the same time is not the one that was thought about."""
    program = f"""{_THREAD}
tripwire.tripwire()
seen = []
def other():
    try:
        os.fork()
    except UnsafeFork:
        seen.append("refused")
with tripwire.allow_fork("mine alone"):
    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
print(json.dumps(seen))
{_END}"""
    assert run_child(program) == ["refused"]


def test_it_can_be_disarmed_and_armed_again() -> None:
    """An audit hook stays for ever; what it does is a variable."""
    program = f"""{_THREAD}
def fork():
    try:
        pid = os.fork()
    except UnsafeFork:
        return "refused"
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return "forked"
tripwire.tripwire()
seen = [fork()]
tripwire.disarm()
seen.append(fork())
tripwire.tripwire()
seen.append(fork())
tripwire.tripwire(allowed={{"python-threads": "it only sleeps"}})
seen.append(fork())
print(json.dumps(seen))
{_END}"""
    assert run_child(program) == ["refused", "forked", "refused", "forked"]


def test_it_can_warn_at_the_line_that_forks() -> None:
    """For a program that is not ready to be refused."""
    program = f"""{_THREAD}
tripwire.tripwire("warn")
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always", tripwire.ForkHazardWarning)
    pid = os.fork()
    if pid == 0:
        os._exit(0)
os.waitpid(pid, 0)
found = [w for w in seen if w.category is tripwire.ForkHazardWarning]
print(json.dumps([len(found), found[0].filename, str(found[0].message).splitlines()[0]]))
{_END}"""
    assert run_child(program) == [
        1,
        "<string>",
        "cannot fork: other threads are alive in this process",
    ]


def test_it_can_write_to_a_log() -> None:
    """For production."""
    program = f"""{_THREAD}
import logging
records = []
class Keep(logging.Handler):
    def emit(self, record): records.append((record.name, record.levelname))
logging.getLogger().addHandler(Keep())
tripwire.tripwire("log")
pid = os.fork()
if pid == 0:
    os._exit(0)
os.waitpid(pid, 0)
print(json.dumps(records))
{_END}"""
    assert run_child(program) == [["forkfirst.guard", "WARNING"]]


def test_a_child_is_guarded_as_well() -> None:
    """A daemon forks twice."""
    program = """
import json, os, threading, time
from forkfirst.errors import UnsafeFork
from forkfirst.guard import tripwire
tripwire.tripwire()
pid = os.fork()
if pid == 0:
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    try:
        os.fork()
    except UnsafeFork:
        os._exit(7)
    os._exit(1)
print(json.dumps(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])))
"""
    assert run_child(program) == 7


def test_what_makes_no_sense_is_refused() -> None:
    """An allowance without a reason, an action that does not exist."""
    with pytest.raises(UsageError, match="without a reason"):
        tripwire.allow_fork(" ")
    with pytest.raises(UsageError, match="'explode' is not one of raise, warn, log"):
        tripwire.tripwire("explode")  # type: ignore[arg-type]
