"""The protocols, spoken with the genuine manager: this machine's version, and a newer one."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from support.real_systemd import PROGRAMS_INSIDE, PYTHON_INSIDE, RealSystemd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.real

PROGRAM = f"{PYTHON_INSIDE} {PROGRAMS_INSIDE}/systemd_service.py"
ASK = """
import socket, sys
family = socket.AF_UNIX if sys.argv[1].startswith("/") else socket.AF_INET
address = sys.argv[1] if family == socket.AF_UNIX else ("127.0.0.1", int(sys.argv[1]))
with socket.socket(family) as connection:
    connection.settimeout(30)
    connection.connect(address)
    print(connection.makefile().read())
"""


@pytest.fixture
def unit(real_systemd: RealSystemd) -> Iterator[Callable[..., str]]:
    """Install one service that runs a part of the program; it is stopped at the end."""
    made: list[str] = []

    def unit(does: str, settings: str = "", *, kind: str = "notify") -> str:
        name = does.split(maxsplit=1)[0].replace("_", "-") + f"{len(made)}-{os.getpid()}"
        text = f"[Service]\nType={kind}\nExecStart={PROGRAM} {does}\n{settings}"
        real_systemd.install(**{f"{name.replace('-', '_')}_service": text})
        made.append(f"{name}.service")
        return made[-1]

    yield unit
    for name in made:
        real_systemd.run("systemctl", "stop", name, check=False)
        real_systemd.run("systemctl", "reset-failed", name, check=False)


class Gate:
    """A pipe inside that a service waits at."""

    def __init__(self, systemd: RealSystemd, name: str) -> None:
        self.inside = f"/run/{name}"
        self._path = systemd.path(self.inside)
        os.mkfifo(self._path)

    def open(self) -> None:
        """Let the service through; also one that is not there yet."""
        fd = os.open(self._path, os.O_RDWR)  # for reading too: it does not wait for the service
        self._kept = fd
        os.write(fd, b"\n")

    def close(self) -> None:
        """Remove the pipe."""
        self._path.unlink()
        os.close(self._kept)


@pytest.fixture
def gate(real_systemd: RealSystemd, request: pytest.FixtureRequest) -> Iterator[Gate]:
    made = Gate(real_systemd, f"gate-{abs(hash(request.node.name))}")
    yield made
    made.close()


def _ask(systemd: RealSystemd, address: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(systemd.run(PYTHON_INSIDE, "-c", ASK, address))
    return told


SOCKETS = {
    "web_socket": "FileDescriptorName=web\nListenStream=127.0.0.1:8001\n"
    "ListenStream=127.0.0.1:8002",
    "local_socket": "FileDescriptorName=local\nListenStream=/run/local.sock",
    "packet_socket": "FileDescriptorName=packet\nListenSequentialPacket=/run/packet.sock",
    "gram_socket": "FileDescriptorName=gram\nListenDatagram=/run/gram.sock",
}


def test_sockets_of_four_units_are_taken_by_their_names(real_systemd: RealSystemd) -> None:
    """Two of one name, four kinds, no order between units; and no variable is left for a child."""
    real_systemd.install(
        **{
            name: f"[Socket]\nService=activated.service\n{text}\n" for name, text in SOCKETS.items()
        },
        activated_service=f"[Service]\nType=notify\nExecStart={PROGRAM} serve\n",
    )
    units = [name.replace("_", ".") for name in SOCKETS]
    real_systemd.run("systemctl", "start", *units)
    try:
        assert real_systemd.show("activated.service", "ActiveState") == "inactive"
        told = _ask(real_systemd, "8002")
        assert told["kinds"] == [
            ["gram", "unixgram"],
            ["local", "unix"],
            ["packet", "seqpacket"],
            ["web", "tcp"],
            ["web", "tcp"],
        ]
        assert told["left"] == []
        assert told["untaken"] == 0
        assert str(told["pid"]) == real_systemd.show("activated.service", "MainPID")
        assert real_systemd.show("activated.service", "StatusText") == "serving 3 listeners"
        real_systemd.run("systemctl", "restart", "activated.service")
        assert _ask(real_systemd, "/run/local.sock")["pid"] != told["pid"]
        assert real_systemd.path("/run/local.sock").is_socket()  # the manager's, not ours to remove
    finally:
        real_systemd.run("systemctl", "stop", *units, "activated.service")
    assert real_systemd.show("activated.service", "Result") == "success"
    assert real_systemd.show("activated.service", "StatusText") in ("until the next time", "")


def test_an_accepting_unit_s_instance_serves_its_connection(real_systemd: RealSystemd) -> None:
    """`Accept=yes` passes the connection itself, on descriptor 3 or on the standard streams."""
    real_systemd.install(
        one_socket="[Socket]\nListenStream=/run/one.sock\nAccept=yes\n",
        **{"one@_service": f"[Service]\nExecStart={PROGRAM} accept\n"},
        inetd_socket="[Socket]\nListenStream=/run/inetd.sock\nAccept=yes\n",
        **{"inetd@_service": f"[Service]\nStandardInput=socket\nExecStart={PROGRAM} accept\n"},
    )
    real_systemd.run("systemctl", "start", "one.socket", "inetd.socket")
    try:
        assert _ask(real_systemd, "/run/one.sock")["left"] == []
        assert _ask(real_systemd, "/run/inetd.sock")["pid"] > 1
    finally:
        real_systemd.run("systemctl", "stop", "one.socket", "inetd.socket")


def test_a_start_returns_when_the_service_says_ready_and_not_before(
    real_systemd: RealSystemd, unit: Callable[..., str], gate: Gate
) -> None:
    """This is what readiness is for."""
    name = unit(f"gate {gate.inside}")
    real_systemd.run("systemctl", "start", "--no-block", name)
    gate_status = real_systemd.show(name, "ActiveState")
    assert gate_status == "activating"
    gate.open()
    real_systemd.run("systemctl", "start", name)  # joins the job, and returns with it
    assert real_systemd.show(name, "ActiveState") == "active"
    assert real_systemd.show(name, "StatusText") == "through the gate"


def test_what_is_stored_comes_back_after_a_restart(
    real_systemd: RealSystemd, unit: Callable[..., str]
) -> None:
    """State survives in a memory file, by name, until it is removed."""
    name = unit("store", "FileDescriptorStoreMax=4\n")
    real_systemd.run("systemctl", "start", name)
    assert real_systemd.show(name, "StatusText") == "start 1, after nothing"
    assert real_systemd.show(name, "NFileDescriptorStore") == "1"
    real_systemd.run("systemctl", "restart", name)
    assert real_systemd.show(name, "StatusText") == "start 2, after count"
    real_systemd.run("systemctl", "restart", name)
    assert real_systemd.show(name, "StatusText") == "start 3, after count"
    assert real_systemd.show(name, "NFileDescriptorStore") == "0"
    real_systemd.run("systemctl", "restart", name)
    assert real_systemd.show(name, "StatusText") == "start 1, after nothing"


def test_a_slow_start_may_ask_for_more_time(
    real_systemd: RealSystemd, unit: Callable[..., str]
) -> None:
    """The same start, without the question, is killed."""
    patient = unit("start_slowly extend", "TimeoutStartSec=1\n")
    real_systemd.run("systemctl", "start", patient)
    assert real_systemd.show(patient, "ActiveState") == "active"
    silent = unit("start_slowly silently", "TimeoutStartSec=1\n")
    real_systemd.run("systemctl", "start", silent, check=False)
    assert real_systemd.show(silent, "Result") == "timeout"


def test_a_loop_that_stands_still_is_killed_and_says_so_before(
    real_systemd: RealSystemd, unit: Callable[..., str], gate: Gate
) -> None:
    """Fed by turns of the loop and not by a thread's clock, though a thread does the feeding."""
    name = unit(f"block {gate.inside}", "WatchdogSec=1\nTimeoutAbortSec=5\nLimitCORE=0\n")
    real_systemd.run("systemctl", "start", name)
    started = int(real_systemd.show(name, "ActiveEnterTimestampMonotonic"))
    real_systemd.run("sleep", "2.5")  # more than twice the limit: it was fed, or it would be dead
    assert real_systemd.show(name, "ActiveState") == "active"
    assert int(real_systemd.show(name, "WatchdogTimestampMonotonic")) > started + 1_000_000
    gate.open()
    real_systemd.run("systemctl", "start", "--wait", name, check=False)  # until it has ended
    assert real_systemd.show(name, "Result") == "watchdog"
    lines = real_systemd.read_journal(name)
    stuck = [number for number, line in enumerate(lines) if line == "the loop is stuck"]
    killed = [number for number, line in enumerate(lines) if "Watchdog timeout" in line]
    assert len(stuck) == 1
    assert stuck[0] < killed[0]


def test_a_service_can_ask_for_what_the_watchdog_does(
    real_systemd: RealSystemd, unit: Callable[..., str]
) -> None:
    """It knows best that it is broken, and needs no WatchdogSec= for it."""
    name = unit("trigger", "LimitCORE=0\n")
    real_systemd.run("systemctl", "start", "--wait", name, check=False)
    assert real_systemd.show(name, "Result") == "watchdog"


@pytest.mark.parametrize("how", ["pid", "pidfd"])
def test_another_process_becomes_the_main_one(
    how: str, real_systemd: RealSystemd, unit: Callable[..., str]
) -> None:
    """An upgrade in place does this; the unit lives on when the first process ends."""
    name = unit(f"hand_over {how}", "NotifyAccess=all\n")
    real_systemd.run("systemctl", "start", name)
    assert real_systemd.show(name, "ActiveState") == "active"
    main = real_systemd.show(name, "MainPID")
    processes = real_systemd.run("ps", "-o", "pid=,ppid=", "-C", "python3").split()
    assert processes == [main, "1"]  # the first process has ended, and the manager adopted this one


def test_a_helper_with_a_barrier_is_known_as_the_unit_s(
    real_systemd: RealSystemd, unit: Callable[..., str]
) -> None:
    """Without one, the manager reads the message when its sender has gone, and ignores it."""
    name = unit("help_out", "NotifyAccess=all\n")
    real_systemd.run("systemctl", "start", name)
    assert real_systemd.show(name, "StatusText") == "said by the helper"


def test_a_reload_is_waited_for(real_systemd: RealSystemd, unit: Callable[..., str]) -> None:
    """`Type=notify-reload` sends SIGHUP, and waits for RELOADING with its stamp, then READY."""
    if real_systemd.version < 253:
        pytest.skip("Type=notify-reload came with systemd 253")
    name = unit("reload", kind="notify-reload")
    real_systemd.run("systemctl", "start", name)
    for count in (1, 2):
        real_systemd.run("systemctl", "reload", name)
        assert real_systemd.show(name, "StatusText") == f"reloads: {count}"
        assert real_systemd.show(name, "ActiveState") == "active"


def test_why_a_service_fails_is_shown(real_systemd: RealSystemd, unit: Callable[..., str]) -> None:
    """`systemctl status` shows it to people; what a version does not know, it ignores."""
    name = unit("fail")
    real_systemd.run("systemctl", "start", name, check=False)
    assert real_systemd.show(name, "StatusErrno") == "2"
    assert real_systemd.show(name, "ExecMainStatus") == "3"
    if real_systemd.version >= 254:
        assert real_systemd.show(name, "StatusBusError") == "org.example.Failed"


def test_the_journal_has_the_fields(real_systemd: RealSystemd, unit: Callable[..., str]) -> None:
    """Read back with the journal's own tool."""
    name = unit("log", kind="oneshot")
    real_systemd.run("systemctl", "start", name)
    real_systemd.run("journalctl", "--sync")
    text = real_systemd.run("journalctl", "--all", "--output=json", f"_SYSTEMD_UNIT={name}")
    entries = [json.loads(line) for line in text.splitlines()]
    (warning,) = (entry for entry in entries if entry.get("REQUEST") == "17")
    assert (warning["MESSAGE"], warning["PRIORITY"]) == ("two\nlines", "4")
    (large,) = (entry for entry in entries if entry.get("LARGE") == "yes")
    assert large["MESSAGE"] == "x" * 400_000
    (lost,) = (entry for entry in entries if entry.get("REQUEST") == "18")
    assert lost["SYSLOG_IDENTIFIER"] == "forkfirst-test"
    assert lost["MESSAGE"].startswith("lost\nTraceback")
    assert (lost["PRIORITY"], lost["CODE_FUNC"]) == ("3", "log")
