"""What a manager hears of a service, and when: each message as a receiver gets it, in order."""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from forkfirst.systemd.notify_receiver import Message, Receiver, open_receiver
from support.hearing import each_message
from support.service_home import PATIENCE

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from support.service_home import Home, Told

NUMBER = 217
"""A descriptor that is surely free."""

LOADED = """
import os
async def main(context):
    with open(os.environ["TELL"], "w") as fifo:
        fifo.write("started\\n")
    with open(os.environ["GATE"]) as gate:
        gate.read()
    context.ready("at last")
    await context.wait_stopping()
    with open(os.environ["TELL"], "w") as fifo:
        fifo.write("stopping\\n")
"""
RELOADING = """
{imports}
async def main(context):
    async def reload():
        while True:
            await context.wait_reload()
            context.status("loading")
    {begin}
async def wait(context):
    await {turn}
    context.ready()
    await context.wait_stopping()
"""
ON_ASYNCIO = {
    "imports": "import asyncio",
    "begin": "task = asyncio.create_task(reload())\n    await wait(context)\n    task.cancel()",
    "turn": "asyncio.sleep(0)",
}
ON_TRIO = {
    "imports": "import trio",
    "begin": "async with trio.open_nursery() as nursery:\n        nursery.start_soon(reload)\n"
    "        await wait(context)\n        nursery.cancel_scope.cancel()",
    "turn": "trio.testing.wait_all_tasks_blocked()",
}


class Manager:
    """A receiver, and a service that is told to tell it."""

    def __init__(self, home: Home, receiver: Receiver) -> None:
        self._home = home
        self._receiver = receiver
        self.heard: list[Message] = []

    @property
    def address(self) -> str:
        """What to put into NOTIFY_SOCKET."""
        return self._receiver.address

    def run(self, *words: object, **variables: str) -> subprocess.Popen[bytes]:
        """Run `forkfirst run` with *words*, and do not wait for it."""
        environment = {
            **self._home.environment,
            "NOTIFY_SOCKET": self._receiver.address,
            **variables,
        }
        return self._home.open(*self._home.words("run", *words), env=environment)

    def hear(self, name: str, value: str | None = None) -> dict[str, str]:
        """Wait for a message with the field *name*; return its fields."""
        for message in each_message(self._receiver):
            self.heard.append(message)
            for fd in message.fds:
                os.close(fd)
            if message.fields.get(name) is not None and value in (None, message.fields[name]):
                return message.fields
        raise AssertionError(self.heard)

    def hear_nothing_yet(self, name: str) -> None:
        """Make sure that no message with the field *name* has come."""
        while (message := self._receiver.receive()) is not None:
            self.heard.append(message)
        assert not any(name in message.fields for message in self.heard), self.heard


@pytest.fixture
def manager(home: Home) -> Iterator[Manager]:
    with open_receiver(str(home.directory / "notify")) as receiver:
        yield Manager(home, receiver)


def _end(running: subprocess.Popen[bytes]) -> int:
    running.send_signal(signal.SIGTERM)
    return running.wait(PATIENCE)


def test_ready_is_said_when_the_program_is_and_not_before(
    home: Home, manager: Manager, told: Told
) -> None:
    """Gunicorn says it before the application is imported, and also if it cannot be."""
    home.program("app.py", LOADED)
    gate = home.directory / "gate"
    os.mkfifo(gate)
    running = manager.run("app.py", GATE=str(gate))
    assert told.wait() == "started"
    manager.hear_nothing_yet("READY")
    with gate.open("w"):
        pass
    fields = manager.hear("READY")
    assert fields["STATUS"] == "at last"
    assert {message.pid for message in manager.heard} == {running.pid}
    assert _end(running) == 0
    manager.hear("STOPPING")


def test_stopping_is_said_at_the_first_moment_of_it(
    home: Home, manager: Manager, told: Told
) -> None:
    """Aiomisc says it when it has stopped. And the drain gets the time that was declared for it."""
    home.program("app.py", LOADED)
    running = manager.run("app.py", "--grace-period", "30", GATE=os.devnull)
    assert told.wait() == "started"
    manager.hear("READY")
    running.send_signal(signal.SIGTERM)
    assert told.wait() == "stopping"  # the program was told after the manager
    manager.hear("STOPPING")
    assert int(manager.hear("EXTEND_TIMEOUT_USEC")["EXTEND_TIMEOUT_USEC"]) == 32_000_000
    assert running.wait(PATIENCE) == 0


@pytest.mark.parametrize("runtime", ["asyncio", "uvloop", "trio"])
def test_a_reload_is_told_from_its_beginning_to_its_end(
    home: Home, manager: Manager, runtime: str
) -> None:
    """RELOADING with the moment of the signal; READY when the program waits for the next one."""
    home.program("app.py", RELOADING.format(**(ON_TRIO if runtime == "trio" else ON_ASYNCIO)))
    if runtime == "trio":
        home.program("app.py", "import trio.testing\n" + RELOADING.format(**ON_TRIO))
    running = manager.run("app.py", "--runtime", runtime)
    manager.hear("READY")
    for _ in range(2):
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        running.send_signal(signal.SIGHUP)
        stamp = int(manager.hear("RELOADING")["MONOTONIC_USEC"])
        assert before <= stamp <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        manager.hear("STATUS", "loading")
        assert "STATUS" not in manager.hear("READY")
    assert _end(running) == 0


def test_a_program_that_waits_for_no_reload_is_not_ended_by_one(
    home: Home, manager: Manager
) -> None:
    """The manager must hear both words, or it waits; SIGHUP would end any other process."""
    home.program("app.py", "async def main(c):\n    c.ready()\n    await c.wait_stopping()\n")
    running = manager.run("app.py")
    manager.hear("READY")
    running.send_signal(signal.SIGHUP)
    manager.hear("RELOADING")
    manager.hear("READY")
    assert _end(running) == 0


@pytest.mark.parametrize(
    ("text", "status", "number", "reason"),
    [
        ("import no_such_module", 70, None, "ModuleNotFoundError: No module named"),
        ("async def main(c):\n    open('/no/such')", 70, 2, "FileNotFoundError: "),
        ("async def main(c):\n    c.ready()\n    raise ValueError('x')", 1, None, "ValueError: x"),
        ("import sys\nasync def main(c):\n    sys.exit(5)", 5, None, "exit status 5"),
    ],
)
def test_a_failure_is_told_with_its_reason(  # noqa: PLR0913, PLR0917 - a table
    home: Home, manager: Manager, text: str, status: int, number: int | None, reason: str
) -> None:
    """`systemctl status` shows it without the log."""
    home.program("app.py", text)
    running = manager.run("app.py")
    assert manager.hear("EXIT_STATUS")["EXIT_STATUS"] == str(status)
    assert running.wait(PATIENCE) == status
    said = [message.fields for message in manager.heard]
    assert any(one.get("STATUS", "").startswith(f"failed: {reason}") for one in said)
    numbers = [one["ERRNO"] for one in said if "ERRNO" in one]
    assert numbers == ([] if number is None else [str(number)])
    assert ("READY" in str(said)) == (status == 1)


def test_no_child_of_the_program_can_speak_for_it(home: Home, manager: Manager) -> None:
    """Neither to the manager, nor to its watchdog."""
    home.program(
        "app.py",
        "import os\nasync def main(c):\n"
        "    names = [n for n in os.environ if n.startswith(('NOTIFY', 'WATCHDOG', 'LISTEN'))]\n"
        "    c.ready(f'left: {names}')\n    await c.wait_stopping()\n",
    )
    running = manager.run("app.py", WATCHDOG_USEC="60000000")
    assert manager.hear("READY")["STATUS"] == "left: []"
    assert _end(running) == 0


def test_a_watchdog_of_another_process_is_left_alone(home: Home, manager: Manager) -> None:
    """WATCHDOG_PID says whose it is."""
    home.program("app.py", "async def main(c):\n    c.ready()\n    await c.wait_stopping()\n")
    running = manager.run("app.py", WATCHDOG_USEC="100000", WATCHDOG_PID="1")
    manager.hear("READY")
    assert _end(running) == 0
    manager.hear("STOPPING")
    assert not any("WATCHDOG" in message.fields for message in manager.heard)


def test_a_command_speaks_through_us(home: Home, manager: Manager) -> None:
    """The manager listens to its main process only; what the command says is said in our name."""
    program = home.program(
        "speaker.py",
        "import os, signal, socket\n"
        "def say(text):\n"
        "    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:\n"
        "        path = os.environ['NOTIFY_SOCKET']\n"
        "        s.connect('\\0' + path[1:] if path[0] == '@' else path)\n"
        "        s.send(text)\n"
        "say(b'READY=1\\nSTATUS=serving')\n"
        "say(b'WATCHDOG=1')\n"
        "say(b'RELOADING=1\\nMONOTONIC_USEC=17')\n"
        "say(b'READY=1')\n"
        "say(b'MAINPID=1\\nERRNO=5')\n"
        "signal.pause()\n",
    )
    words = ("--name", "app", "--settle", "60", "--", sys.executable, program)
    running = manager.run(*words)
    assert manager.hear("READY")["STATUS"] == "serving"
    manager.hear("WATCHDOG")
    assert manager.hear("RELOADING")["MONOTONIC_USEC"] == "17"
    manager.hear("READY")
    assert "MAINPID" not in manager.hear("ERRNO", "5")  # who is the main process is ours to say
    assert {message.pid for message in manager.heard} == {running.pid}
    assert _end(running) == 0


@pytest.mark.real
def test_the_first_process_of_a_container_is_the_one_that_speaks(
    home: Home, manager: Manager
) -> None:
    """Its manager listens to that one only; the program is its child, and says it in its name."""
    home.program("app.py", "async def main(c):\n    c.ready()\n    await c.wait_stopping()\n")
    unshare = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
    environment = {**home.environment, "NOTIFY_SOCKET": manager.address}
    running = home.open(*unshare, *home.words("run", "app.py"), env=environment)
    manager.hear("READY")
    children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
    assert {message.pid for message in manager.heard} == set(map(int, children))
    os.kill(int(children[0]), signal.SIGTERM)
    assert running.wait(PATIENCE) == 0


PLAIN = """
import sys
SELDOM = ("managed", "confin", "adoption", "systemd", "outside", "unix.privileges", "unix.prctl")
async def main(context):
    context.ready()
    found = sorted(one for one in sys.modules if one.startswith("forkfirst"))
    print([one for one in found if any(word in one for word in SELDOM)])
"""


@pytest.mark.parametrize("command", ["run", "start"])
def test_a_service_without_a_manager_pays_for_none_of_this(home: Home, command: str) -> None:
    """Each module is a fifth of a millisecond of every start."""
    home.program("app.py", PLAIN)
    done = home.forkfirst(command, "app.py")
    assert done.status == 0
    home.wait_alone()
    assert (done.out if command == "run" else home.log("app")) == "[]\n"


# -- the other language: a newline on a descriptor ------------------------------------------------


@pytest.mark.parametrize("what", ["a program", "a command"])
def test_a_newline_says_ready_to_whoever_passed_the_descriptor(home: Home, what: str) -> None:
    """s6 waits for that; the command of another language writes to its own, and we to ours."""
    home.program("app.py", "async def main(c):\n    c.ready()\n    await c.wait_stopping()\n")
    script = f"import os, signal; os.write({NUMBER}, bytes([10])); signal.pause()"
    command = ("--name", "app", "--settle", "60", "--", sys.executable, "-c", script)
    words = ("app.py",) if what == "a program" else command
    reading, writing = os.pipe()
    held = fcntl.fcntl(writing, fcntl.F_DUPFD, NUMBER)
    os.close(writing)
    try:
        assert held == NUMBER
        asked = home.words("run", "--notify-fd", NUMBER, *words)
        running = home.open(*asked, pass_fds=(NUMBER,))
    finally:
        os.close(held)
    with open(reading, "rb") as said:  # noqa: PTH123 - a descriptor
        assert said.read() == b"\n"  # and then the end of file: it was closed
    assert _end(running) == 0


def test_a_descriptor_that_is_not_open_is_noticed(home: Home) -> None:
    """Or the newline would go into whatever has that number later."""
    home.program("app.py", "async def main(c):\n    c.ready()\n")
    done = home.forkfirst("run", "--notify-fd", NUMBER, "app.py")
    assert done.status == 78
    assert "cannot say READY on descriptor 217: it is not open" in done.err


# -- without anybody ------------------------------------------------------------------------------

ALONE = """
import json
async def main(context):
    directories = {name: str(getattr(context, f"{name}_directory"))
                   for name in ("state", "runtime", "cache", "logs", "credentials")}
    kept = [context.store(0, "x"), context.store_state("x", b"1"), context.stored_state("x")]
    print(json.dumps([directories, kept, context.journal_handler()]))
"""


def test_without_a_manager_nobody_keeps_anything_and_the_directories_are_ours(home: Home) -> None:
    """The same program runs, and is told the truth."""
    home.program("app.py", ALONE)
    done = home.forkfirst("run", "app.py")
    state = home.state
    directories = {
        "state": f"{state}/state/app",
        "runtime": f"{state}/run/app.d",
        "cache": f"{state}/cache/app",
        "logs": f"{state}/log/app",
        "credentials": "None",
    }
    expected = f"[{directories!r}, [False, False, None], None]\n".replace("'", '"')
    assert done.out == expected.replace("None", "null").replace('"null"', '"None"').replace(
        "False", "false"
    )
    for name in ("state/app", "run/app.d", "cache/app", "log/app"):
        assert (state / name).stat().st_mode & 0o777 == 0o700


def test_a_manager_that_cannot_be_told_does_not_end_the_service(home: Home) -> None:
    """Its socket is gone, say: one line in the log, and the program goes on."""
    home.program("app.py", "async def main(c):\n    c.ready()\n    print('served')\n")
    environment = {**home.environment, "NOTIFY_SOCKET": "/no/such/socket"}
    done = home.forkfirst("run", "app.py", env=environment)
    assert (done.status, done.out) == (0, "served\n")
    assert done.err.count("cannot notify the service manager at /no/such/socket") == 1
