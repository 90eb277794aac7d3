"""Reloads of a service without a supervisor: one process after another, and never none."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import threading
import time
from typing import TYPE_CHECKING

import pytest

from forkfirst.unix import pidfile
from support.hello import (
    FAILS,
    HANGS,
    ask,
    connect,
    read_word,
    reload,
    wait_until,
    write,
    write_text,
)
from support.load import REQUEST, Load
from support.service_home import PATIENCE, PROGRAMS, holding, talk, wait_gone

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.service_home import Home, Told

TELL = (
    "import os\n"
    "def tell(text):\n"
    "    with open(os.environ['TELL'], 'w') as fifo:\n"
    "        fifo.write(f'{text}\\n')\n"
)
SLOW_START = (
    TELL + "import asyncio\n"
    "async def main(context):\n"
    "    tell(f'starting {os.getpid()}')\n"
    "    with open(os.environ['GO']) as fifo:\n"
    "        fifo.read()\n"
    "    context.ready('slow')\n"
    "    await context.wait_stopping()\n"
)
"""It says that it starts, and is ready when somebody has opened the fifo $GO."""

LINGERS = (
    "import asyncio, os\n"
    "async def answer(reader, writer):\n"
    "    await reader.readuntil(b'\\r\\n\\r\\n')\n"
    "    writer.write(b'HTTP/1.1 200 OK\\r\\nContent-Length: 6\\r\\n\\r\\nfirst\\n')\n"
    "    await writer.drain()\n"
    "    writer.close()\n"
    "def wait():\n"
    "    with open(os.environ['GO']) as fifo:\n"
    "        fifo.read()\n"
    "async def main(context):\n"
    "    async with await asyncio.start_server(answer, sock=context.listener('web')):\n"
    "        context.ready()\n"
    "        await context.wait_stopping()\n"
    "        await asyncio.to_thread(wait)\n"
)
"""When it is to stop it keeps its server open, until somebody has opened the fifo $GO."""


def _start(home: Home, *flags: object, word: str = "first") -> None:
    program = write(home, word)
    listen = () if "--listen" in flags else ("--listen", "web=127.0.0.1:0")
    home.start(f"{program}:main", *listen, *flags)


def _wait_alone(home: Home) -> None:
    """Wait until the service is one process: the old one has drained, and its launcher is gone."""
    deadline = time.monotonic() + PATIENCE
    while len(found := home.list_processes()) != 1:
        assert time.monotonic() < deadline, found


@contextlib.contextmanager
def _reloading(home: Home, *flags: str) -> Iterator[subprocess.Popen[bytes]]:
    """Give the command and do not wait for it."""
    process = home.open(
        *home.words("reload", "app", *flags), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


@contextlib.contextmanager
def _repeating(act: Callable[[], None]) -> Iterator[list[BaseException]]:
    """Do *act* again and again in a thread, meanwhile; give what it raised."""
    over = threading.Event()
    raised: list[BaseException] = []

    def run() -> None:
        while not over.is_set():
            try:
                act()
            except BaseException as error:  # noqa: BLE001 - each is one of what is counted
                raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield raised
    finally:
        over.set()
        thread.join()


# -- new code -------------------------------------------------------------------------------------


def test_new_code_serves_in_another_process_that_is_the_service(home: Home) -> None:
    """Whatever is asked of the service afterwards, the new process does it."""
    _start(home)
    old, address = home.pid("app"), home.address("app")
    assert ask(address) == b"first"
    write(home, "other")
    done = reload(home)
    assert (done.status, done.err) == (0, ""), done
    new = home.pid("app")
    assert new != old
    assert re.fullmatch(rf"app: reloaded, pid {new} serves after \d+ ms\n", done.out)
    assert ask(address) == b"other"
    found = home.status("app")
    assert (found["pid"], found["state"], found["mode"]) == (new, "ready", "daemon")
    assert home.address("app") == address
    assert "wait_stopping" in home.forkfirst("stacks", "app").out
    assert home.forkfirst("rotate", "app").status == 0
    _wait_alone(home)
    assert list(home.list_processes()) == [new]
    assert home.forkfirst("start", "app.py:main").status == 75, "the lock is held"
    assert home.stop("app").out == f"app: stopped (pid {new})\n"
    assert home.list_processes() == {}
    assert not (home.state / "run" / "app.pid").exists()
    assert not (home.state / "run" / "app.sock").exists()


def test_nobody_comes_to_the_old_process_after_the_answer(home: Home) -> None:
    """Whoever deploys, and then looks, must see the new code, however long the old one takes."""
    os.mkfifo(home.directory / "go")
    write_text(home, LINGERS)
    environment = ("--env", f"GO={home.directory / 'go'}")
    home.start("app.py:main", "--listen", "web=127.0.0.1:0", "--name", "app", *environment)
    old, address = home.pid("app"), home.address("app")
    assert ask(address) == b"first"
    write(home, "other")
    assert reload(home).status == 0
    assert {ask(address) for _ in range(50)} == {b"other"}
    assert old in home.list_processes()
    _go(home)
    _wait_alone(home)


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_no_request_is_lost_by_reloads_under_load(home: Home, kind: str) -> None:
    """The same promise as with workers, for new connections and for kept ones."""
    address = "127.0.0.1:0" if kind == "tcp" else f"unix:{home.directory}/web"
    _start(home, "--listen", f"web={address}")
    with Load(home.address("app")) as load:
        for word in ("other", "third"):
            write(home, word)
            assert reload(home).status == 0
            load.wait_for_more(100)
    assert load.failures == []
    assert load.words == [b"first\n", b"other\n", b"third\n"]
    home.stop("app")
    assert not (home.directory / "web").exists()


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["asyncio", "uvloop"])
@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_no_request_is_lost_by_twenty_reloads(home: Home, kind: str, runtime: str) -> None:
    """For long, and at the end nothing has grown."""
    address = "127.0.0.1:0" if kind == "tcp" else f"unix:{home.directory}/web"
    _start(home, "--listen", f"web={address}", "--runtime", runtime)
    opened = []
    with Load(home.address("app"), clients=32) as load:
        for _ in range(20):
            assert reload(home).status == 0
            load.wait_for_more(200)
            opened.append(len(os.listdir(f"/proc/{home.pid('app')}/fd")))  # noqa: PTH208 - names
    assert load.failures == []
    _wait_alone(home)
    assert max(opened) - 34 <= min(opened), opened


def test_a_request_that_was_half_sent_is_finished_by_who_began_it(home: Home) -> None:
    """Its connection was accepted by the old process, which is the service no more and stays."""
    _start(home)
    old = home.pid("app")
    with connect(home.address("app")) as connection:
        connection.sendall(REQUEST)
        assert read_word(connection) == b"first"
        connection.sendall(REQUEST[:10])
        write(home, "other")
        assert reload(home).status == 0
        assert old in home.list_processes()
        connection.sendall(REQUEST[10:])
        assert read_word(connection) == b"first"
        assert connection.recv(1) == b"", "and closed after its answer"


def test_a_stop_waits_for_what_the_old_process_still_answers(home: Home) -> None:
    """It has accepted the connection, so it has promised."""
    _start(home)
    with connect(home.address("app")) as connection:
        connection.sendall(REQUEST)
        assert read_word(connection) == b"first"
        connection.sendall(REQUEST[:10])
        assert reload(home).status == 0
        stop = home.open(*home.words("stop", "app"), stdout=subprocess.DEVNULL)
        wait_until(home, lambda found: found["state"] == "stopping")
        connection.sendall(REQUEST[10:])
        assert read_word(connection) == b"first"
        assert stop.wait(PATIENCE) == 0
    assert home.list_processes() == {}


RUNTIMES = {
    "uvloop": ("serve", "uvloop"),
    "trio": ("serve_on_trio", "trio"),
    "none": ("serve_plainly", "none"),
}


@pytest.mark.parametrize("way", RUNTIMES)
def test_every_runtime_can_be_reloaded(home: Home, way: str) -> None:
    """What is handed over is below all of them."""
    name, runtime = RUNTIMES[way]
    target = f"{PROGRAMS / 'daemons.py'}:{name}"
    home.start(target, "--name", "app", "--runtime", runtime, "--listen", "web=127.0.0.1:0")
    old = home.pid("app")
    assert talk(home.address("app")) == b"hello\n"
    assert reload(home).status == 0
    assert home.pid("app") != old
    assert talk(home.address("app")) == b"hello\n"
    _wait_alone(home)


def test_a_command_can_be_reloaded(home: Home) -> None:
    """Whatever its language: the new one gets the listeners, and the old one a SIGTERM."""
    command = (home.words()[0], PROGRAMS / "daemons.py", "serve")
    flags = ("--name", "app", "--listen", "web=127.0.0.1:0", "--settle", "0.1")
    home.start(*flags, "--", *command)
    assert reload(home).status == 0
    assert talk(home.address("app")) == b"hello\n"
    home.stop("app")
    assert home.list_processes() == {}


def test_a_program_that_declares_itself_reloads_with_its_new_declaration(home: Home) -> None:
    """The function that runs was forked with the launcher; the new one is found by its name."""
    text = (
        "from forkfirst import Service\n"
        "async def main(context):\n"
        "    context.ready('WORD')\n"
        "    await context.wait_stopping()\n"
        "service = Service(program=main, name='app')\n"
        "if __name__ == '__main__':\n"
        "    service.main()\n"
    )
    program = home.program("app.py", text.replace("WORD", "one"))
    python = home.words()[0]
    assert home.run(python, program, "start").status == 0
    home.program("app.py", text.replace("WORD", "three"))
    assert home.run(python, program, "reload").status == 0
    assert home.status("app")["status"] == "three"
    home.program("app.py", text.replace("WORD", "twelve"))
    assert reload(home).status == 0
    assert home.status("app")["status"] == "twelve"


def test_the_new_process_begins_where_the_old_one_began(home: Home) -> None:
    """Not where the old program has gone since: its directory, its variables, its modules' path."""
    lines = (
        "import os, sys\n"
        "async def main(context):\n"
        "    word, late = os.environ.get('WORD'), os.environ.get('LATE')\n"
        "    where = (os.getcwd(), word, late, 'late' in sys.path)\n"
        "    os.chdir('/tmp')\n"
        "    os.environ['LATE'] = 'yes'\n"
        "    sys.path.insert(0, 'late')\n"
        "    context.ready(repr(where))\n"
        "    await context.wait_stopping()\n"
    )
    home.program("app.py", lines)
    config = home.directory / "forkfirst.toml"
    service = "[service.app]\ntarget = 'app.py:main'\n"
    config.write_text(f"{service}env = {{ WORD = 'one' }}\n")
    home.start("app")
    assert home.status("app")["status"] == "('/', 'one', None, False)"
    config.write_text(service)
    assert reload(home).status == 0
    assert home.status("app")["status"] == "('/', None, None, False)"


# -- bad code -------------------------------------------------------------------------------------


@pytest.mark.uncovered
@pytest.mark.parametrize(
    ("text", "flags", "said"),
    [
        (FAILS, (), ("no database today", "the program failed before it was ready")),
        ("import nosuch\n", (), ("No module named 'nosuch'",)),
        ("async def other():\n    pass\n", (), ("has no 'main'",)),
        (HANGS, ("--ready-timeout", "2s"), ("was not ready after 2 seconds", "sleep(3600)")),
        (
            "import os\nos.kill(os.getpid(), 9)\n",
            (),
            ("the program was killed by SIGKILL before it was ready",),
        ),
    ],
    ids=["raises", "cannot be imported", "is gone", "hangs", "is killed"],
)
def test_bad_code_leaves_the_old_process_serving_and_is_told(
    home: Home, text: str, flags: tuple[str, ...], said: tuple[str, ...]
) -> None:
    """Whoever deploys reads the cause, whoever asks reads the old answer."""
    _start(home, *flags)
    old = home.pid("app")
    with Load(home.address("app")) as load:
        write_text(home, text)
        done = reload(home)
        load.wait_for_more(50)
    assert (done.status, done.out) == (70, ""), done
    for one in said:
        assert one in done.err
    assert load.failures == []
    assert load.words == [b"first\n"]
    assert home.status("app")["pid"] == home.pid("app") == old
    assert list(home.list_processes()) == [old]
    write(home, "other")
    assert reload(home).status == 0, "and the next one, mended, goes well"
    assert ask(home.address("app")) == b"other"


# -- new settings ---------------------------------------------------------------------------------


def _configure(home: Home, **settings: object) -> None:
    lines = [f"{key.replace('_', '-')} = {json.dumps(value)}" for key, value in settings.items()]
    (home.directory / "forkfirst.toml").write_text("[service.app]\n" + "\n".join(lines) + "\n")


def test_listeners_come_and_go_and_one_that_stays_is_never_closed(home: Home) -> None:
    """A path is removed by who has it last, and by nobody before."""
    write(home, "first", **{'context.listener("web")': "next(iter(context.listeners.values()))[0]"})
    path = f"unix:{home.directory}"
    common = {"target": "app.py:main"}
    _configure(home, **common, listen=["web=127.0.0.1:0", f"old={path}/old", f"own={path}/own"])
    home.start("app")
    address = home.address("app")
    _configure(home, **common, listen=["web=127.0.0.1:0", f"new={path}/new", f"own={path}/own"])
    with Load(address) as load:
        assert reload(home).status == 0
        load.wait_for_more(50)
    assert load.failures == []
    assert [name for name, _ in home.status("app")["listeners"]] == ["web", "new", "own"]
    assert home.address("app") == address
    _wait_alone(home)
    assert (home.directory / "new").is_socket()
    assert (home.directory / "own").is_socket()
    assert not (home.directory / "old").exists()
    home.stop("app")
    assert not (home.directory / "new").exists()
    assert not (home.directory / "own").exists()


def test_a_reload_that_fails_takes_its_new_listeners_with_it(home: Home) -> None:
    """Untouched means that there is no new path either, and no old one less."""
    write(home, "first")
    path = f"unix:{home.directory}"
    common = {"target": "app.py:main"}
    _configure(home, **common, listen=["web=127.0.0.1:0", f"old={path}/old"])
    home.start("app")
    _configure(home, **common, listen=["web=127.0.0.1:0", f"new={path}/new"])
    write_text(home, FAILS)
    assert reload(home).status == 70
    assert not (home.directory / "new").exists()
    assert (home.directory / "old").is_socket()
    _configure(home, **common, listen=["web=127.0.0.1:nonsense"])
    assert reload(home).status == 78
    _configure(home, **common, listen=["web=127.0.0.1:0"], workers=2)
    assert "it is now declared with workers" in reload(home).err


# -- who asks, and how many at once ----------------------------------------------------------------


def test_sighup_is_a_reload(home: Home) -> None:
    """For every manager whose word for it is a signal; a failure is in the log."""
    _start(home)
    old = home.pid("app")
    write(home, "other")
    os.kill(old, signal.SIGHUP)
    wait_until(home, lambda found: found["pid"] != old)
    assert ask(home.address("app")) == b"other"
    write_text(home, FAILS)
    os.kill(home.pid("app"), signal.SIGHUP)
    deadline = time.monotonic() + PATIENCE
    while "the reload that SIGHUP asked for exited with status 70" not in home.log("app"):
        assert time.monotonic() < deadline, home.log("app")
    assert ask(home.address("app")) == b"other"


def test_a_program_that_waits_for_reloads_has_sighup_to_itself(home: Home) -> None:
    """It loads its settings anew in its own way, and `forkfirst reload` is still there."""
    home.program(
        "app.py",
        "import asyncio\n"
        "async def main(context):\n"
        "    reload = asyncio.ensure_future(context.wait_reload())\n"
        "    await asyncio.sleep(0)  # it waits now; a signal before that would be a reload\n"
        "    context.ready('first')\n"
        "    await reload\n"
        "    context.status('heard')\n"
        "    await context.wait_stopping()\n",
    )
    home.start("app.py:main")
    old = home.pid("app")
    os.kill(old, signal.SIGHUP)
    wait_until(home, lambda found: found["status"] == "heard")
    assert home.pid("app") == old
    assert reload(home).status == 0
    assert home.pid("app") != old


def test_a_second_reload_waits_or_is_refused(home: Home) -> None:
    """One at a time; who waited asks the process that is the service by then."""
    _start(home, "--ready-timeout", "5s")
    old = home.pid("app")
    write_text(home, HANGS)
    with _reloading(home) as first:
        _wait_for_successor(home)
        refused = reload(home, "--no-wait")
        assert refused.status == 70
        assert "another reload is in progress" in refused.err
        write(home, "other")
        os.kill(_wait_for_successor(home), signal.SIGKILL)
        assert reload(home).status == 0
        assert first.wait(PATIENCE) == 70
    write(home, "third")
    with _reloading(home) as first, _reloading(home) as second:
        assert (first.wait(PATIENCE), second.wait(PATIENCE)) == (0, 0)
    assert ask(home.address("app")) == b"third"
    assert home.pid("app") != old


@pytest.mark.parametrize("flag", ["--canary", "--commit-window"])
def test_what_only_workers_can_do_is_refused(home: Home, flag: str) -> None:
    """With one process there is no tenth of it, and nobody who would watch over the new one."""
    _start(home)
    done = reload(home, flag, "5")
    assert done.status == 64
    assert f'cannot reload "app" with {flag}: it runs as one process' in done.err
    assert "start it with --workers 1, or more" in done.err
    assert ask(home.address("app")) == b"first"


def test_in_the_foreground_it_is_refused(home: Home) -> None:
    """Whoever started it waits for that very pid: a terminal, a container, s6, runit."""
    program = write(home, "first")
    service = home.open(*home.words("run", f"{program}:main", "--listen", "web=127.0.0.1:0"))
    wait_until(home, lambda found: found["state"] == "ready")
    done = reload(home)
    assert done.status == 64
    assert done.err == (
        'forkfirst: cannot reload "app": it runs in the foreground, where whoever started it waits '
        "for this very pid\n  run it with --workers 1, whose supervisor keeps the pid\n"
    )
    service.terminate()
    assert service.wait(PATIENCE) == 0
    assert reload(home).status == 3


OF_TWO_VERSIONS = """
from forkfirst.stages.succession import process
process.spawn = lambda start: start.what_only_the_new_version_has
"""


def test_a_process_of_two_versions_says_so_and_serves_on(home: Home) -> None:
    """What was not loaded yet when pip replaced forkfirst may not fit what was."""
    program = write(home, "first")
    program.write_text(program.read_text() + OF_TWO_VERSIONS)
    home.start(f"{program}:main", "--listen", "web=127.0.0.1:0")
    done = reload(home)
    assert done.status == 70
    assert "has no attribute 'what_only_the_new_version_has'\n" in done.err
    assert (
        "forkfirst itself was replaced since this process was started: forkfirst restart app"
        in (done.err)
    )
    assert ask(home.address("app")) == b"first"


# -- whoever is killed, and whenever ---------------------------------------------------------------


def _wait_for_successor(home: Home) -> int:
    """Return the process of the new code, as soon as there is one."""
    old = home.pid("app")
    deadline = time.monotonic() + PATIENCE
    while True:
        assert time.monotonic() < deadline, home.list_processes()
        named = [pid for pid, text in home.list_processes().items() if " succeed" in text]
        if len(named) == 2 + (old in named):  # its parent, too, until it has taken over
            return max(pid for pid in named if pid != old)


@pytest.fixture
def slow(home: Home, told: Told) -> Iterator[int]:
    """Start a service, and a reload of it that stands still; give the new process."""
    os.mkfifo(home.directory / "go")
    home.environment["GO"] = str(home.directory / "go")
    _start(home)
    write_text(home, SLOW_START)
    with _reloading(home):
        yield int(told.wait().split()[1])


def _go(home: Home) -> None:
    """Let the new process become ready."""
    with (home.directory / "go").open("w"):
        pass


def test_the_successor_is_killed_and_the_old_one_serves_on(home: Home, slow: int) -> None:
    """It had promised nothing to anybody."""
    old = home.pid("app")
    os.kill(slow, signal.SIGKILL)
    _wait_alone_with(home, old)
    assert ask(home.address("app")) == b"first"
    write(home, "other")
    assert reload(home).status == 0


def test_the_old_one_is_killed_and_the_successor_becomes_the_service(home: Home, slow: int) -> None:
    """It has the lock, the listeners and the log already: all that is missing is its name."""
    with holding(home.pid("app")) as pidfd:
        os.kill(home.pid("app"), signal.SIGKILL)
        assert pidfd is not None
        wait_gone(pidfd)
    found = wait_until(home, lambda found: found.get("pid") == slow)
    assert found["state"] == "starting"
    _go(home)
    wait_until(home, lambda found: found["state"] == "ready")
    assert home.pid("app") == slow
    assert home.stop("app").out == f"app: stopped (pid {slow})\n"
    assert home.list_processes() == {}


def test_the_command_is_killed_and_the_reload_goes_on(home: Home, slow: int) -> None:
    """It only waits for the answer."""
    for pid, text in home.list_processes().items():
        if " reload app" in text:
            os.kill(pid, signal.SIGKILL)
    _go(home)
    wait_until(home, lambda found: found["pid"] == slow)
    _wait_alone_with(home, slow)
    assert home.status("app")["status"] == "slow"


def test_a_stop_meanwhile_is_the_end_of_both(home: Home, slow: int) -> None:
    """Whoever stops a service wants none of it, and nothing is left."""
    assert home.stop("app").out.startswith("app: stopped (pid ")
    deadline = time.monotonic() + PATIENCE
    while slow in home.list_processes():
        assert time.monotonic() < deadline
    assert not (home.state / "run" / "app.pid").exists()
    assert not (home.state / "run" / "app.sock").exists()


def _wait_alone_with(home: Home, pid: int) -> None:
    _wait_alone(home)
    assert list(home.list_processes()) == [pid]


@pytest.mark.slow
@pytest.mark.parametrize("whom", ["old", "new", "parent of the new"])
def test_whoever_is_killed_at_any_moment_one_process_is_the_service(home: Home, whom: str) -> None:
    """Moments that nobody has thought of: each round kills a little later."""
    _start(home)
    for number in range(30):
        before = home.pid("app")
        with _reloading(home) as command:
            time.sleep(0.004 * number)  # the moment is what varies; nothing is expected of it
            named = [pid for pid, text in home.list_processes().items() if " succeed" in text]
            others = sorted(pid for pid in named if pid != before)
            new = dict(zip(("parent of the new", "new"), others, strict=True)) if others[1:] else {}
            victims = [pid for name, pid in {"old": before, **new}.items() if name == whom]
            for victim in victims:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(victim, signal.SIGKILL)
            command.wait(PATIENCE)
        found = home.forkfirst("status", "app", "--json")
        if found.status != 0:  # the one that had taken over was the one that was killed
            assert whom != "parent of the new"
            home.forkfirst("stop", "app")
            home.wait_alone()
            home.start(home.directory / "app.py:main", "--listen", "web=127.0.0.1:0")
        _wait_alone_with(home, home.pid("app"))
        assert ask(home.address("app")) == b"first"


# -- what others see of it -------------------------------------------------------------------------


def test_who_looks_meanwhile_sees_one_of_the_two_and_is_never_refused(home: Home) -> None:
    """The pid file, the lock and the control socket: there is no moment without them."""
    _start(home)
    path = str(home.state / "run" / "app.pid")
    pids = {home.pid("app")}
    seen: set[int] = set()

    def look() -> None:
        holder = pidfile.look_up_holder(path)
        assert holder is not None, "nobody held the lock"
        seen.add(holder.pid)

    def call() -> None:
        from forkfirst.control import client  # noqa: PLC0415 - as a command does

        client.ask(str(home.state / "run" / "app.sock"), "ping")

    with _repeating(look) as unseen, _repeating(call) as unheard:
        for _ in range(3):
            assert reload(home).status == 0
            pids.add(home.pid("app"))
    assert (unseen, unheard) == ([], [])
    assert seen <= pids
    assert len(seen) > 1
