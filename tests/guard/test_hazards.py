"""What the guard finds, how it names it, and that looking changes nothing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from forkfirst.errors import ConfigError, UnsafeFork
from forkfirst.guard import verdict
from forkfirst.guard.descriptors import DEVICE_PREFIXES
from forkfirst.guard.hazard import Hazard, Origin, describe_hazards, weigh
from forkfirst.guard.kinds import KINDS, check_allowed, describe_kinds
from support.child_program import run_child

_LOOK = """
import json, sys
{prepare}
from forkfirst.guard import verdict
found = verdict.find_hazards(thorough={thorough})
print(json.dumps([[h.kind, h.certainty, h.subject, h.detail, h.name, h.things] for h in found]))
sys.stdout.flush()
import os
os._exit(0)
"""


def _look(prepare: str, *, thorough: bool = False) -> dict[str, list[str]]:
    found = run_child(_LOOK.format(prepare=prepare, thorough=thorough))
    return {kind: rest for kind, *rest in found}


def test_a_bare_process_has_no_hazard() -> None:
    """Or else every start would be refused."""
    assert _look("") == {}


def test_a_thread_is_told_with_its_name_and_what_it_runs() -> None:
    """A person must be able to find it."""
    found = _look(
        "import threading, time\n"
        "threading.Thread(target=time.sleep, args=(60,), name='metrics', daemon=True).start()"
    )
    certainty, subject, detail, name, things = found["python-threads"]
    assert (certainty, subject) == ("danger", "1 Python thread: metrics")
    assert (detail, name) == ("running time.sleep", "metrics")
    assert re.fullmatch(r"tid \d+", things[0])


def test_threads_of_one_name_are_told_once_with_their_number() -> None:
    """Forty lines would hide the one that matters."""
    found = _look(
        "import threading, time\n"
        "for n in range(3): threading.Thread(target=time.sleep, args=(60,),"
        " name=f'worker-{n}', daemon=True).start()"
    )
    assert found["python-threads"][1] == "3 Python threads: worker ×3"


def test_a_thread_that_threading_does_not_know_is_still_python_s() -> None:
    """Only the interpreter's count tells it from a native one."""
    found = _look("import _thread, time; _thread.start_new_thread(time.sleep, (60,))")
    assert found["python-threads"][0] == "danger"


def test_a_pool_is_told_as_a_pool() -> None:
    """What to do about it is another thing: it can be shut down."""
    found = _look(
        "from concurrent.futures import ThreadPoolExecutor\n"
        "pool = ThreadPoolExecutor(1, thread_name_prefix='pool'); pool.submit(int).result()"
    )
    assert found["executor-threads"][1] == "1 Python thread: pool"


def test_the_watchdog_of_faulthandler_is_recognised() -> None:
    """No list of threads has it, and a child that only exits hangs for it."""
    found = _look("import faulthandler; faulthandler.dump_traceback_later(600)")
    assert found["watchdog-thread"][0] == "fatal"


def test_a_running_loop_is_fatal() -> None:
    """It is the very thing this project exists for."""
    program = """
import asyncio, json
from forkfirst.guard import verdict
async def main():
    print(json.dumps([h.kind for h in verdict.find_hazards()]))
asyncio.run(main())
"""
    assert run_child(program) == ["running-loop"]


def test_a_loop_that_is_the_current_one_is_told_with_its_epoll() -> None:
    """One line for one thing: the epoll is not told a second time."""
    found = _look("import asyncio; loop = asyncio.new_event_loop(); asyncio.set_event_loop(loop)")
    certainty, subject, detail, _, things = found["idle-loop"]
    assert certainty == "fatal"
    assert re.fullmatch(r"1 epoll descriptor with 1 registration \(fd \d+\)", subject)
    assert detail == "an asyncio loop created, not running"
    assert things[0] in subject.replace("(", "").replace(")", "")
    assert list(found) == ["idle-loop"]


def test_a_loop_in_a_variable_is_seen_by_its_epoll() -> None:
    """Nobody may search the heap for it; the kernel knows."""
    assert list(_look("import asyncio; loop = asyncio.new_event_loop()")) == ["epoll"]


def test_a_loop_is_seen_without_the_private_name_that_holds_it() -> None:
    """Python 3.14 moves it; a guard must not crash, and must not miss."""
    prepare = (
        "import asyncio; loop = asyncio.new_event_loop(); asyncio.set_event_loop(loop)\n"
        "del asyncio.events._event_loop_policy"
    )
    assert list(_look(prepare)) == ["epoll"]


@pytest.mark.parametrize(
    "broken",
    [
        "import multiprocessing.process as m; del m._children",
        "import concurrent.futures.thread as m; del m._threads_queues",
        "import concurrent.futures.thread as m; del m._global_shutdown_lock",
        "import logging as m; del m._lock",
        "import weakref as m; del m.finalize._registry",
        "import multiprocessing.resource_tracker as m; del m._resource_tracker",
        "import asyncio.events as m; m._event_loop_policy = object()",
        "import asyncio.events as m; del m._get_running_loop",
        "import threading as m; m._active = {}",
        "import trio; del sys.modules['trio._core._thread_cache'].THREAD_CACHE",
        "import trio; del sys.modules['trio._core._run'].GLOBAL_RUN_CONTEXT",
    ],
)
def test_a_private_name_that_is_gone_is_only_not_seen(broken: str) -> None:
    """Other people's insides change; a fork must not fail for that."""
    thread = "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True)"
    found = _look(f"{thread}.start()\nimport sys\n{broken}", thorough=True)
    assert "python-threads" in found


def test_a_record_lock_is_told_with_its_file(tmp_path: Path) -> None:
    """So that the pid file that is no lock is found by its name."""
    path = f"{tmp_path}/daemon.pid"
    found = _look(f"import fcntl; f = open({path!r}, 'w'); fcntl.lockf(f, fcntl.LOCK_EX)")
    assert found["record-lock"][2] == path


def test_what_is_only_worth_a_notice_is_told_on_a_thorough_look_alone() -> None:
    """A fork is not the place to hear of a timer."""
    prepare = "import signal; signal.setitimer(signal.ITIMER_REAL, 600)"
    assert _look(prepare) == {}
    assert list(_look(prepare, thorough=True)) == ["timer"]


def test_a_thorough_look_tells_of_connections_children_events_and_directories() -> None:
    """They make no child hang, and each surprises somebody."""
    prepare = (
        "import socket, subprocess, tempfile, os\n"
        "listener = socket.create_server(('127.0.0.1', 0))\n"
        "client = socket.create_connection(listener.getsockname())\n"
        "child = subprocess.Popen(['sleep', '60'])\n"
        "folder = tempfile.TemporaryDirectory()\n"
        "watch = os.pidfd_open(os.getpid())\n"
        "import atexit; atexit.register(child.kill)\n"
    )
    found = run_child(
        _LOOK.format(prepare=prepare, thorough=True).replace(
            "os._exit(0)", "child.kill(); child.wait(); folder.cleanup(); os._exit(0)"
        )
    )
    assert {"connected-socket", "child-process", "event-descriptor", "temporary-directory"} == {
        kind for kind, *_ in found
    }


def test_looking_starts_no_thread_imports_no_runtime_and_leaves_no_descriptor() -> None:
    """A guard that makes the process worse would have to refuse because of itself."""
    program = """
import json, os, sys
import socket, logging, threading, time
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
from forkfirst.guard import verdict
before = set(sys.modules), sorted(os.listdir("/proc/self/fd")), threading.active_count()
verdict.find_hazards(thorough=True)
after = set(sys.modules), sorted(os.listdir("/proc/self/fd")), threading.active_count()
new = sorted(name for name in after[0] - before[0] if not name.startswith("forkfirst"))
print(json.dumps([new, before[1:] == after[1:]]))
sys.stdout.flush()
os._exit(0)
"""
    new, same = run_child(program)
    assert same
    assert not {name.partition(".")[0] for name in new} & {
        *("asyncio", "uvloop", "trio", "anyio", "gevent", "twisted", "gc"),
        *("typing", "dataclasses", "enum", "inspect", "subprocess", "multiprocessing"),
    }


def test_a_fork_that_is_fine_loads_little_of_the_guard() -> None:
    """Start-up is measured in milliseconds; naming, origins and remedies wait for their turn."""
    program = """
import json, sys
from forkfirst.guard import verdict
verdict.assert_fork_safe()
print(json.dumps(sorted(n for n in sys.modules if n.startswith("forkfirst.guard"))))
"""
    assert run_child(program) == [
        *("forkfirst.guard", "forkfirst.guard.glance", "forkfirst.guard.verdict"),
    ]


def test_the_ended_are_waited_for_only_as_long_as_they_are_seen() -> None:
    """A joined thread is counted for up to some milliseconds; a hundred times in a row."""
    program = """
import json, threading
from forkfirst.guard import verdict
refused = 0
for _ in range(100):
    threads = [threading.Thread(target=int) for _ in range(4)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    refused += bool(verdict.find_hazards())
print(json.dumps(refused))
"""
    assert run_child(program) == 0


def test_without_the_grace_the_ended_would_be_refused() -> None:
    """The property above is the grace period's: a look without one does see such a thread."""
    program = """
import json, threading
from forkfirst.guard import glance
seen = 0
for _ in range(20000):
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()
    seen += glance.count_threads() > 1
    if seen:
        break
print(json.dumps(bool(seen)))
"""
    if not run_child(program):
        pytest.skip("this machine and Python ended every one of 20000 threads in time")


def test_assert_fork_safe_raises_with_the_whole_text() -> None:
    """The message is what a person sees; the values are for a program."""
    program = """
import json, os, sys, threading, time
from forkfirst.guard import verdict
from forkfirst.errors import UnsafeFork
threading.Thread(target=time.sleep, args=(60,), name="metrics", daemon=True).start()
try:
    verdict.assert_fork_safe(service="web")
except UnsafeFork as error:
    print(json.dumps([str(error), [h.kind for h in error.hazards]]))
verdict.assert_fork_safe({"python-threads": "it only counts"})
verdict.assert_fork_safe({"python-threads:metrics": "it only counts"})
try:
    verdict.assert_fork_safe({"python-threads:other": "it only counts"})
except UnsafeFork:
    sys.stdout.flush()
    os._exit(0)
os._exit(1)
"""
    text, kinds = run_child(program)
    assert kinds == ["python-threads"]
    assert text == (
        'cannot fork "web": other threads are alive in this process\n'
        "  1 Python thread: metrics   running time.sleep\n"
        "  a forked child would hang: these threads and their locks do not exist in it\n"
        "  do: start the threads inside main(),"
        " or start with --spawn (a fresh interpreter instead of a fork)"
    )


def test_assert_fork_safe_says_nothing_when_all_is_well() -> None:
    """It stands before every fork."""
    assert run_child(
        "import json\nfrom forkfirst.guard import verdict\n"
        "print(json.dumps([verdict.assert_fork_safe(), verdict.judge().safe]))"
    ) == [None, True]


def _hazard(kind: str, certainty: str, name: str = "") -> Hazard:
    return Hazard(kind=kind, certainty=certainty, subject=kind, name=name)  # type: ignore[arg-type]


def test_a_danger_can_be_allowed_and_a_fatal_cannot() -> None:
    """What was seen to hang in every case must not be switched off by a line of configuration."""
    danger, fatal = _hazard("epoll", "danger"), _hazard("running-loop", "fatal")
    judged = weigh([danger, fatal], {"epoll": "our selector", "running-loop": "I know better"})
    assert judged.refusing == (fatal,)
    assert judged.allowed == ((danger, "our selector"),)
    assert not judged.safe


def test_an_allowance_without_a_reason_allows_nothing() -> None:
    """The reason is the point of the list."""
    danger = _hazard("epoll", "danger")
    assert weigh([danger], {"epoll": ""}).refusing == (danger,)


def test_a_notice_never_refuses() -> None:
    """It is told on a check, so that somebody can think about it."""
    notice = _hazard("timer", "notice")
    judged = weigh([notice], {})
    assert judged.safe
    assert judged.notices == (notice,)


def test_the_message_names_what_where_and_what_to_do() -> None:
    """The form that the documents promise."""
    hazards = (
        Hazard(
            kind="runtime-threads",
            certainty="fatal",
            subject="3 native threads: tokio-rt-worker ×3",
            origin=Origin(file="/srv/legacy.py", line=12, module="obstore"),
            consequence="a forked child would hang: no threads",
            remedy="create the store inside main()",
        ),
        Hazard(
            kind="idle-loop",
            certainty="fatal",
            subject="1 epoll descriptor with 2 registrations (fd 7)",
            detail="an asyncio loop created, not running",
            origin=Origin(file="/srv/legacy.py", line=31, call="get_event_loop"),
            consequence="a forked child would hang: no threads",
            remedy="create the loop inside main()",
        ),
    )
    assert describe_hazards(hazards, service="legacy") == (
        'cannot fork "legacy": a runtime is alive in this process\n'
        "  3 native threads: tokio-rt-worker ×3          "
        "   started while importing obstore (legacy.py:12)\n"
        "  1 epoll descriptor with 2 registrations (fd 7)"
        "   an asyncio loop created, not running: get_event_loop() at legacy.py:31\n"
        "  a forked child would hang: no threads\n"
        "  do: create the store inside main(); create the loop inside main(),"
        " or start with --spawn (a fresh interpreter instead of a fork)"
    )


def test_every_kind_that_the_guard_can_find_is_documented() -> None:
    """An undocumented refusal is a riddle."""
    names = {kind.name for kind in KINDS}
    used: set[str] = set()
    for path in Path(verdict.__file__).parent.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        used |= set(re.findall(r'kind="([a-z-]+)"', text))
        if path.name == "threads.py":
            used |= set(re.findall(r'return "([a-z]+-[a-z]+)", ', text))
    assert used == names


def test_the_page_of_the_hazards_has_every_kind_once() -> None:
    """It is printed from the values."""
    page = describe_kinds()
    assert re.findall(r"^### `(.+)`$", page, flags=re.MULTILINE) == [
        kind.name
        for certainty in ("fatal", "danger", "notice")
        for kind in KINDS
        if kind.certainty == certainty
    ]


@pytest.mark.parametrize("name", ["thread", "running-loop", "timer", "epol"])
def test_an_allowance_that_can_do_nothing_is_an_error(name: str) -> None:
    """A misspelt line in a configuration would be believed to work."""
    with pytest.raises(ConfigError, match=f"cannot allow '{name}'"):
        check_allowed([name])
    check_allowed(["epoll", "python-threads:metrics"])


def test_devices_are_known_by_the_path_behind_the_descriptor() -> None:
    """No driver is needed to say what /dev/nvidia0 is; nothing else under /dev is one."""
    prefixes = tuple(DEVICE_PREFIXES)
    assert "/dev/nvidiactl".startswith(prefixes)
    assert not "/dev/null".startswith(prefixes)
    assert not "/dev/pts/3".startswith(prefixes)


def test_a_hazard_is_comparable_and_says_whether_it_refuses() -> None:
    """Two looks are compared by value."""
    assert _hazard("epoll", "danger") == _hazard("epoll", "danger")
    assert _hazard("epoll", "danger").refuses
    assert not _hazard("timer", "notice").refuses


def test_unsafe_fork_is_an_error_of_forkfirst() -> None:
    """Whoever catches the base class gets it, with its exit status."""
    assert UnsafeFork("no").exit_status == 70
    assert verdict.GRACE == 0.05
