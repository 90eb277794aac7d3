"""`forkfirst run` under the genuine manager: the whole life of a service, as its unit sees it."""

from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from support.real_systemd import PROGRAMS_INSIDE, PYTHON_INSIDE, SOURCE_INSIDE, RealSystemd
from support.real_units import FORKFIRST, LOAD, TARGET, ask, start

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.real


# -- sockets ---------------------------------------------------------------------------------------


def test_it_takes_the_sockets_of_its_units_by_their_names(
    real_systemd: RealSystemd, unit: Callable[..., str]
) -> None:
    """One is declared, with an address for a start by hand; the other is only passed."""
    name = unit(
        f"{TARGET}:serve --name sockets --listen web=127.0.0.1:9",
        sockets=(
            "FileDescriptorName=web\nListenStream=127.0.0.1:8101\nListenStream=127.0.0.1:8102",
            "FileDescriptorName=local\nListenStream=/run/ff-local.sock",
            "FileDescriptorName=gram\nListenDatagram=/run/ff-gram.sock",
        ),
    )
    assert real_systemd.show(name, "ActiveState") == "inactive"
    told = ask(real_systemd, "8102")
    assert told["name"] == "web"
    assert told["listeners"] == {
        "web": ["AF_INET SOCK_STREAM"] * 2,
        "local": ["AF_UNIX SOCK_STREAM"],
        "gram": ["AF_UNIX SOCK_DGRAM"],
    }
    assert told["left"] == []
    assert str(told["pid"]) == real_systemd.show(name, "MainPID")
    assert ask(real_systemd, "/run/ff-local.sock")["name"] == "local"
    real_systemd.run("systemctl", "restart", name)
    assert real_systemd.path("/run/ff-local.sock").is_socket()  # systemd's, not ours to remove
    assert not real_systemd.path("/run/forkfirst/sockets.pid").exists()
    assert not real_systemd.path("/run/forkfirst/sockets.service").exists()


def test_a_socket_unit_without_a_name_is_understood(
    real_systemd: RealSystemd, unit: Callable[..., str]
) -> None:
    """Systemd calls its descriptor as it calls the unit."""
    unit(f"{TARGET}:serve --listen web=127.0.0.1:9", sockets=("ListenStream=127.0.0.1:8103",))
    assert ask(real_systemd, "8103")["name"] == "web"


def test_a_wrong_kind_of_socket_fails_the_start_and_says_why(
    real_systemd: RealSystemd, unit: Callable[..., str]
) -> None:
    """What is declared as TCP cannot be served on datagrams."""
    sockets = ("FileDescriptorName=web\nListenDatagram=127.0.0.1:8104",)
    name = unit(f"{TARGET}:serve --listen web=127.0.0.1:9", sockets=sockets)
    real_systemd.run("systemctl", "start", name, check=False)
    text = "\n".join(real_systemd.read_journal(name))
    assert "is declared as tcp, but what was passed as web (descriptor 3) is udp" in text
    assert real_systemd.show(name, "ExecMainStatus") == "78"


def test_the_same_command_serves_by_hand(real_systemd: RealSystemd) -> None:
    """With no manager at all it binds what it was declared with, and has a pid file."""
    words = (*FORKFIRST.split(), "run", f"{TARGET}:serve", "--listen", "web=127.0.0.1:8105")
    command = real_systemd.enter(
        "env", f"PYTHONPATH={SOURCE_INSIDE}", "PYTHONDONTWRITEBYTECODE=1", *words
    )
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as running:
        asking = (*FORKFIRST.split(), "status", "managed", "--json")
        while True:  # it is ready when it says so: there is no manager to be told
            told = real_systemd.run("env", f"PYTHONPATH={SOURCE_INSIDE}", *asking, check=False)
            if '"ready"' in told:
                break
            assert running.poll() is None
        assert ask(real_systemd, "8105")["name"] == "web"
        stopping = (*FORKFIRST.split(), "stop", "managed")
        real_systemd.run("env", f"PYTHONPATH={SOURCE_INSIDE}", *stopping)
    assert running.returncode == 0


def test_no_connection_is_refused_or_reset_while_it_restarts(
    real_systemd: RealSystemd, unit: Callable[..., str]
) -> None:
    """The socket is the manager's: who connects in between waits in its queue."""
    sockets = ("FileDescriptorName=web\nListenStream=127.0.0.1:8106",)
    name = unit(f"{TARGET}:serve --listen web=127.0.0.1:9", sockets=sockets)
    first = ask(real_systemd, "8106")["pid"]
    command = real_systemd.enter(PYTHON_INSIDE, "-c", LOAD, "8106")
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as loading:
        for _ in range(3):
            real_systemd.run("systemctl", "restart", name)
        out, _ = loading.communicate("\n", timeout=60)
    served, failed = out.split(maxsplit=1)
    assert failed.strip() == "[]"
    assert int(served) > 20
    assert ask(real_systemd, "8106")["pid"] != first


@pytest.mark.parametrize("settings", ["", "StandardInput=socket\nStandardError=journal\n"])
def test_an_instance_serves_its_one_connection(
    real_systemd: RealSystemd, unit: Callable[..., str], settings: str
) -> None:
    """`Accept=yes`: on descriptor 3, or on the standard streams as inetd has it."""
    path = "/run/ff-accept.sock"
    sockets = (f"Accept=yes\nListenStream={path}",)
    unit(f"{TARGET}:converse --inetd", settings, kind="exec", template="@", sockets=sockets)
    for _ in range(2):
        told = ask(real_systemd, path)
        assert (told["name"], told["left"]) == ("connection", [])


# -- what the manager is told --------------------------------------------------------------------


def test_it_is_active_when_the_program_says_so_and_inactive_after_a_stop(
    real_systemd: RealSystemd, unit: Callable[..., str]
) -> None:
    """READY with the program's own words; a stop is no failure."""
    name = unit(f"{TARGET}:serve --listen 127.0.0.1:8107")
    start(real_systemd, name)
    assert real_systemd.show(name, "StatusText") == "start 1"
    assert ask(real_systemd, "8107")["left"] == []
    real_systemd.run("systemctl", "stop", name)
    assert real_systemd.show(name, "Result") == "success"
    assert real_systemd.show(name, "ActiveState") == "inactive"


def test_a_slow_start_and_a_slow_drain_get_the_time_that_the_service_declares(
    real_systemd: RealSystemd, unit: Callable[..., str]
) -> None:
    """The unit's limits are shorter than --ready-timeout and --grace-period."""
    limits = "TimeoutStartSec=1\nTimeoutStopSec=1\nEnvironment=SLOWLY=2.5\n"
    name = unit(f"{TARGET}:start_slowly", limits)
    start(real_systemd, name)
    real_systemd.run("systemctl", "stop", name)
    assert real_systemd.show(name, "Result") == "success"
    hasty = unit(f"{TARGET}:start_slowly --ready-timeout 0.5s", limits)
    real_systemd.run("systemctl", "start", hasty, check=False)
    assert real_systemd.show(hasty, "Result") == "timeout"


def test_a_reload_is_told_from_its_beginning_to_its_end(
    real_systemd: RealSystemd, unit: Callable[..., str]
) -> None:
    """`Type=notify-reload` sends SIGHUP, waits for RELOADING with its stamp, and then for READY."""
    if real_systemd.version < 253:
        pytest.skip("Type=notify-reload came with systemd 253")
    name = unit(f"{TARGET}:serve", kind="notify-reload")
    start(real_systemd, name)
    for count in (1, 2):
        real_systemd.run("systemctl", "reload", name)
        assert real_systemd.show(name, "StatusText") == f"reloads: {count}"
        assert real_systemd.show(name, "ActiveState") == "active"
    deaf = unit(f"{TARGET}:start_slowly", "Environment=SLOWLY=0\n", kind="notify-reload")
    real_systemd.run("systemctl", "start", deaf)
    real_systemd.run("systemctl", "reload", deaf)  # nothing to load, and no hour of waiting for it
    assert real_systemd.show(deaf, "ActiveState") == "active"


def test_an_upgrade_is_no_event_for_the_manager(
    real_systemd: RealSystemd, unit: Callable[..., str]
) -> None:
    """The main process is the same, is not restarted, feeds the watchdog, and stops as ever."""
    name = unit(
        f"{TARGET}:serve --name upgraded --workers 2 --listen web=127.0.0.1:9",
        f"{WATCHED}RuntimeDirectory=upgraded\n",
        sockets=("FileDescriptorName=web\nListenStream=127.0.0.1:8112",),
    )
    start(real_systemd, name)
    before = real_systemd.show(name, "MainPID")
    for _ in range(2):
        path = f"PYTHONPATH={SOURCE_INSIDE}"
        said = real_systemd.run("env", path, *FORKFIRST.split(), "upgrade", "upgraded")
        assert said.startswith("upgraded: upgraded, forkfirst ")
    real_systemd.run("sleep", "2.5")  # more than twice the limit of the watchdog
    assert real_systemd.show(name, "ActiveState") == "active"
    assert real_systemd.show(name, "MainPID") == before
    assert real_systemd.show(name, "NRestarts") == "0"
    assert ask(real_systemd, "8112")["name"] == "web"
    real_systemd.run("systemctl", "stop", name)
    assert real_systemd.show(name, "Result") == "success"
    assert any("upgraded: forkfirst " in line for line in real_systemd.read_journal(name))


def test_why_it_fails_is_shown(real_systemd: RealSystemd, unit: Callable[..., str]) -> None:
    """`systemctl status` has the reason, the errno and the status, without reading the log."""
    name = unit(f"{TARGET}:fail")
    real_systemd.run("systemctl", "start", name, check=False)
    assert real_systemd.show(name, "StatusErrno") == "2"
    assert real_systemd.show(name, "ExecMainStatus") == "70"
    taken = unit(f"{TARGET}:serve --listen 203.0.113.1:80")
    real_systemd.run("systemctl", "start", taken, check=False)
    assert real_systemd.show(taken, "ExecMainStatus") == "69"
    assert real_systemd.show(taken, "StatusErrno") == "99"
    assert "not an address of this machine" in real_systemd.show(taken, "StatusText")


# -- the watchdog ----------------------------------------------------------------------------------

WATCHED = "WatchdogSec=1\nTimeoutAbortSec=5\nLimitCORE=0\n"


@pytest.mark.parametrize("runtime", ["asyncio", "none"])
def test_a_healthy_service_is_fed(
    real_systemd: RealSystemd, unit: Callable[..., str], runtime: str
) -> None:
    """An idle loop is a healthy one, though it does not turn."""
    target = "managed.py:serve" if runtime == "asyncio" else "daemons.py:serve_plainly"
    words = f"{PROGRAMS_INSIDE}/{target} --runtime {runtime} --listen 127.0.0.1:8108"
    name = unit(words, WATCHED)
    start(real_systemd, name)
    started = int(real_systemd.show(name, "ActiveEnterTimestampMonotonic"))
    real_systemd.run("sleep", "2.5")  # more than twice the limit: it was fed, or it would be dead
    assert real_systemd.show(name, "ActiveState") == "active"
    assert int(real_systemd.show(name, "WatchdogTimestampMonotonic")) > started + 1_000_000


def test_a_blocked_loop_is_killed_and_its_stacks_are_in_the_journal_before(
    real_systemd: RealSystemd, unit: Callable[..., str]
) -> None:
    """The thread that feeds lives on: it feeds only for turns of the loop."""
    name = unit(f"{TARGET}:serve --listen 127.0.0.1:8109", WATCHED)
    start(real_systemd, name)
    ask(real_systemd, "8109", "block")
    real_systemd.run("systemctl", "start", "--wait", name, check=False)  # until it has ended
    assert real_systemd.show(name, "Result") == "watchdog"
    lines = real_systemd.read_journal(name)
    shown = [number for number, line in enumerate(lines) if "in block_here" in line]
    killed = [number for number, line in enumerate(lines) if "Watchdog timeout" in line]
    assert shown[0] < killed[0]
    assert any("the loop has not turned for" in line for line in lines)


def test_a_program_that_is_not_well_is_killed(
    real_systemd: RealSystemd, unit: Callable[..., str]
) -> None:
    """The loop turns, but `context.healthy` disagrees, and the journal has its reason."""
    name = unit(f"{TARGET}:serve --listen 127.0.0.1:8110", WATCHED)
    start(real_systemd, name)
    ask(real_systemd, "8110", "be unwell")
    real_systemd.run("systemctl", "start", "--wait", name, check=False)
    assert real_systemd.show(name, "Result") == "watchdog"
    told = [line for line in real_systemd.read_journal(name) if "the database is gone" in line]
    assert len(told) == 1


# -- state -----------------------------------------------------------------------------------------


def test_state_is_kept_over_restarts_and_crashes(
    real_systemd: RealSystemd, unit: Callable[..., str]
) -> None:
    """By name, in the manager's store; a stop gives it up."""
    settings = "FileDescriptorStoreMax=4\nEnvironment=FDSTORE=4\nRestart=on-failure\nRestartSec=0\n"
    name = unit(f"{TARGET}:serve --listen 127.0.0.1:8111", settings)
    start(real_systemd, name)
    real_systemd.run("systemctl", "restart", name)
    assert ask(real_systemd, "8111", "be killed")["count"] == 2
    while real_systemd.show(name, "StatusText") != "start 3":
        assert real_systemd.show(name, "Result") in ("success", "signal")
    assert real_systemd.show(name, "NFileDescriptorStore") == "2", "that, and the listener"
    real_systemd.run("systemctl", "stop", name)
    start(real_systemd, name)
    assert real_systemd.show(name, "StatusText") == "start 1"


def test_a_dynamic_user_with_a_low_port_and_a_state_directory(
    real_systemd: RealSystemd, unit: Callable[..., str]
) -> None:
    """Nothing of root's but one capability, and no directory but the unit's own."""
    settings = (
        "DynamicUser=yes\nAmbientCapabilities=CAP_NET_BIND_SERVICE\n"
        "StateDirectory=ff-state\nRuntimeDirectory=ff-run\nSetCredential=token:secret\n"
    )
    name = unit(f"{TARGET}:serve --listen 127.0.0.1:81", settings)
    start(real_systemd, name)
    told = ask(real_systemd, "81")
    assert "0" not in told["uids"]
    assert told["capabilities"] == "0000000000000400"
    assert told["state_directory"] == "/var/lib/ff-state"
    assert re.fullmatch(rf"/run/credentials/{name}", told["credentials"])
    assert real_systemd.path("/run/ff-run/managed.sock").is_socket()  # to be asked by root


def test_root_s_service_opens_a_low_port_and_becomes_another_user(
    real_systemd: RealSystemd, unit: Callable[..., str]
) -> None:
    """The drop is ours here, and the manager still hears of everything after it."""
    name = unit(f"{TARGET}:serve --name dropped --user nobody --listen 127.0.0.1:82")
    start(real_systemd, name)
    told = ask(real_systemd, "82")
    assert told["uids"] == ["65534"] * 4
    assert told["capabilities"] == "0000000000000000"
    assert real_systemd.show(name, "StatusText") == "start 1"
    real_systemd.run("systemctl", "stop", name)
    assert real_systemd.show(name, "Result") == "success"


# -- start -----------------------------------------------------------------------------------------


def test_start_under_a_manager_that_is_told_does_not_detach(
    real_systemd: RealSystemd, unit: Callable[..., str]
) -> None:
    """It would be ended with its launcher; and it says that it stays."""
    name = unit(f"{TARGET}:serve --listen 127.0.0.1:8112", command="start")
    start(real_systemd, name)
    assert str(ask(real_systemd, "8112")["pid"]) == real_systemd.show(name, "MainPID")
    assert "managed: supervised, so not detaching" in real_systemd.read_journal(name)


@pytest.mark.parametrize("sockets", [(), ("FileDescriptorName=web\nListenStream=127.0.0.1:8113",)])
def test_start_in_a_forking_unit_detaches(
    real_systemd: RealSystemd, unit: Callable[..., str], sockets: tuple[str, ...]
) -> None:
    """`Type=forking` waits for that; the passed socket goes along."""
    words = f"{TARGET}:serve --name forking --listen web=127.0.0.1:8113"
    settings = "PIDFile=/run/forkfirst/forking.pid\n"
    name = unit(words, settings, kind="forking", command="start", sockets=sockets)
    start(real_systemd, name)
    told = ask(real_systemd, "8113")
    assert str(told["pid"]) == real_systemd.show(name, "MainPID")
    assert (told["name"], told["left"]) == ("web", [])
    real_systemd.run("systemctl", "stop", name)
    assert real_systemd.show(name, "Result") == "success"


# -- the journal -----------------------------------------------------------------------------------


def test_what_is_logged_without_a_configuration_has_its_level(
    real_systemd: RealSystemd, unit: Callable[..., str]
) -> None:
    """Where stderr is the journal; a handler is there for who configures."""
    name = unit(f"{TARGET}:warn", kind="oneshot")
    start(real_systemd, name)
    real_systemd.run("journalctl", "--sync")
    text = real_systemd.run("journalctl", "--all", "--output=json", f"_SYSTEMD_UNIT={name}")
    levels = {
        entry["MESSAGE"]: (entry["PRIORITY"], entry.get("REQUEST"), entry.get("LOGGER"))
        for entry in map(json.loads, text.splitlines())
    }
    assert levels["from an unconfigured logger"] == ("4", None, "app")
    assert levels["by the handler"] == ("3", "17", "own")
    assert levels["printed"] == ("6", None, None)
    assert "too small to be seen" not in levels
