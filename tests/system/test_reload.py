"""Reloads of real services: new code without a gap, and bad code without a trace."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

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
from support.service_home import PATIENCE, PROGRAMS, talk

if TYPE_CHECKING:
    from pathlib import Path

    from support.service_home import Home

ILL = "    context.healthy = lambda: 'its cache is cold'\n"


def _start(home: Home, *flags: object, word: str = "first", workers: int = 2) -> None:
    program = write(home, word)
    listen = () if "--listen" in flags else ("--listen", "web=127.0.0.1:0")
    home.start(f"{program}:main", *listen, "--workers", workers, *flags)


# -- new code -------------------------------------------------------------------------------------


def test_new_code_serves_and_the_process_to_watch_is_the_same(home: Home) -> None:
    """What a deployment wants; the pid stays, so nobody who supervises is disturbed."""
    _start(home)
    pid, address = home.pid("app"), home.address("app")
    assert ask(address) == b"first"
    write(home, "other")
    done = reload(home)
    assert (done.status, done.err) == (0, ""), done
    assert done.out.startswith("app: reloaded, generation 2 serves after ")
    assert {ask(address) for _ in range(8)} == {b"other"}
    assert home.pid("app") == pid
    found = wait_until(home, lambda found: len(found["workers"]) == 2)
    assert {one["generation"] for one in found["workers"]} == {2}


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_no_request_is_lost_by_reloads_under_load(home: Home, kind: str) -> None:
    """The promise: with new connections and with kept ones, not a single one."""
    address = "127.0.0.1:0" if kind == "tcp" else f"unix:{home.directory}/web"
    _start(home, "--listen", f"web={address}")
    with Load(home.address("app")) as load:
        for word in ("other", "third", "first"):
            write(home, word)
            assert reload(home).status == 0
            load.wait_for_more(100)
    assert load.failures == []
    assert load.words == [b"first\n", b"other\n", b"third\n"]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("runtime", ["asyncio", "uvloop"])
@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_no_request_is_lost_by_twenty_reloads(
    home: Home, kind: str, runtime: str, workers: int
) -> None:
    """The same for long, on every loop that has its own way to accept."""
    address = "127.0.0.1:0" if kind == "tcp" else f"unix:{home.directory}/web"
    _start(home, "--listen", f"web={address}", "--runtime", runtime, workers=workers)
    with Load(home.address("app"), clients=32) as load:
        for _ in range(20):
            assert reload(home).status == 0
            load.wait_for_more(200)
    assert load.failures == []


def test_a_request_that_was_half_sent_is_finished_by_who_began_it(home: Home) -> None:
    """Its connection was accepted by the old worker, who has promised to answer."""
    _start(home, workers=1)
    with connect(home.address("app")) as connection:
        connection.sendall(REQUEST)
        assert read_word(connection) == b"first"  # so it was accepted
        connection.sendall(REQUEST[:10])
        write(home, "other")
        assert reload(home).status == 0
        connection.sendall(REQUEST[10:])
        assert read_word(connection) == b"first"
        assert connection.recv(1) == b"", "and closed after its answer"


def test_a_quiet_connection_is_closed_and_not_kept_for_the_grace_period(home: Home) -> None:
    """Ten thousand idle clients must not keep old code alive."""
    _start(home, workers=1)
    with connect(home.address("app")) as connection:
        connection.sendall(REQUEST)
        assert read_word(connection) == b"first"
        began = time.monotonic()
        assert reload(home).status == 0
        assert connection.recv(1) == b""
        assert time.monotonic() - began < 5
    wait_until(home, lambda found: len(found["workers"]) == 1)


# -- bad code -------------------------------------------------------------------------------------


@pytest.mark.uncovered
@pytest.mark.parametrize(
    ("text", "flags", "said"),
    [
        (FAILS, (), ("no database today", "the program failed before it was ready")),
        ("import nosuch\n", (), ("No module named 'nosuch'",)),
        ("async def other():\n    pass\n", (), ("has no 'main'",)),
        (HANGS, ("--ready-timeout", "0.6s"), ("was not ready after 0.6 seconds", "sleep(3600)")),
    ],
    ids=["raises", "cannot be imported", "is gone", "hangs"],
)
def test_bad_code_leaves_the_old_one_serving_and_is_told(
    home: Home, text: str, flags: tuple[str, ...], said: tuple[str, ...]
) -> None:
    """Whoever deploys reads the cause, whoever asks reads the old answer."""
    _start(home, *flags)
    before = home.status("app")["workers"]
    with Load(home.address("app")) as load:
        write_text(home, text)
        done = reload(home)
        load.wait_for_more(50)
    assert done.status == 70, done
    assert done.out == ""
    for one in said:
        assert one in done.err
    assert done.err.endswith("the workers from before serve on, untouched\n") or "has no" in said[0]
    assert load.failures == []
    assert load.words == [b"first\n"]
    after = wait_until(home, lambda found: len(found["workers"]) == 2)["workers"]
    assert [one["pid"] for one in after] == [one["pid"] for one in before]
    assert write(home, "other")
    assert reload(home).status == 0, "and the next one, mended, goes well"


def test_an_ill_canary_is_the_end_of_a_reload(home: Home) -> None:
    """One worker that starts well and serves badly is better than all of them."""
    _start(home)
    write(home, "other", **{'    context.ready(status="serving")\n': ILL + "    context.ready()\n"})
    with Load(home.address("app")) as load:
        done = reload(home, "--canary", "10%")
        load.wait_for_more(50)
    assert done.status == 70
    assert "worker 3 is not healthy: its cache is cold" in done.err
    assert load.failures == []
    assert ask(home.address("app")) == b"first"


def test_healthy_canaries_are_followed_by_the_rest(home: Home) -> None:
    """And then all of them serve."""
    _start(home, workers=3)
    write(home, "other")
    assert reload(home, "--canary", "34").status == 0
    assert {ask(home.address("app")) for _ in range(6)} == {b"other"}


def test_in_the_commit_window_an_ill_generation_is_rolled_back(home: Home) -> None:
    """The old workers were paused, not gone: they accept again as if nothing had been."""
    _start(home)
    before = home.status("app")["workers"]
    address = home.address("app")
    write(home, "other", **{'    context.ready(status="serving")\n': ILL + "    context.ready()\n"})
    with Load(address) as load:
        done = reload(home, "--commit-window", "20s")
        load.wait_for_more(50)
    assert done.status == 70, done
    assert "is not healthy: its cache is cold" in done.err
    wait_until(home, lambda found: len(found["workers"]) == 2)
    assert {ask(address) for _ in range(8)} == {b"first"}
    after = home.status("app")["workers"]
    assert [one["pid"] for one in after] == [one["pid"] for one in before]
    assert load.failures == []


def test_when_the_commit_window_ends_well_the_old_generation_goes(home: Home) -> None:
    """Until then nobody new is served by it."""
    _start(home)
    write(home, "other")
    began = time.monotonic()
    assert reload(home, "--commit-window", "0.5s").status == 0
    assert time.monotonic() - began >= 0.5
    wait_until(home, lambda found: {one["generation"] for one in found["workers"]} == {2})


# -- new settings ---------------------------------------------------------------------------------


def _configure(home: Home, **settings: object) -> None:
    lines = [f"{key.replace('_', '-')} = {json.dumps(value)}" for key, value in settings.items()]
    (home.directory / "forkfirst.toml").write_text("[service.app]\n" + "\n".join(lines) + "\n")


def test_settings_are_those_of_the_file_as_it_is_now(home: Home) -> None:
    """Listeners come and go in the same motion, and a socket that stays is never closed."""
    write(home, "first", **{'context.listener("web")': "next(iter(context.listeners.values()))[0]"})
    common = {"target": "app.py:main"}
    _configure(
        home, **common, listen=["web=127.0.0.1:0", f"old=unix:{home.directory}/old"], workers=1
    )
    home.start("app")
    address = home.address("app")
    _configure(
        home, **common, listen=["web=127.0.0.1:0", f"new=unix:{home.directory}/new"], workers=3
    )
    with Load(address) as load:
        assert reload(home).status == 0
        load.wait_for_more(50)
    assert load.failures == []
    found = wait_until(home, lambda found: len(found["workers"]) == 3)
    assert [name for name, _ in found["listeners"]] == ["web", "new"]
    assert home.address("app") == address
    assert (home.directory / "new").is_socket()
    assert not (home.directory / "old").exists()
    home.stop("app")
    assert not (home.directory / "new").exists()


def test_a_reload_that_fails_takes_its_new_listeners_with_it(home: Home) -> None:
    """Untouched means that there is no new path either."""
    write(home, "first")
    common = {"target": "app.py:main", "workers": 1}
    _configure(home, **common, listen=["web=127.0.0.1:0"])
    home.start("app")
    _configure(home, **common, listen=["web=127.0.0.1:0", f"new=unix:{home.directory}/new"])
    write_text(home, FAILS)
    assert reload(home).status == 70
    wait_until(home, lambda found: len(found["workers"]) == 1)
    assert not (home.directory / "new").exists()
    _configure(home, **common, listen=["web=127.0.0.1:nonsense"])
    assert reload(home).status == 78
    _configure(home, target="app.py:main", listen=["web=127.0.0.1:0"])
    assert "declared without workers" in reload(home).err


def test_listeners_have_the_order_in_which_they_are_declared_now(home: Home) -> None:
    """A program that counts them finds them where the file says, not where they were opened."""
    order = '    context.status(" ".join(context.listeners))\n    await context.wait_stopping()\n'
    write(home, "first", **{"    await context.wait_stopping()\n": order})
    common = {"target": "app.py:main", "workers": 1}
    _configure(home, **common, listen=["web=127.0.0.1:0", f"b=unix:{home.directory}/b"])
    home.start("app")
    wait_until(home, lambda found: found["status"] == "web b")
    _configure(
        home,
        **common,
        listen=[f"b=unix:{home.directory}/b", f"a=unix:{home.directory}/a", "web=127.0.0.1:0"],
    )
    assert reload(home).status == 0
    wait_until(home, lambda found: found["status"] == "b a web")


def test_what_was_scaled_by_hand_stays_unless_the_file_says_otherwise(home: Home) -> None:
    """An operator's number is not undone by the next deployment of code."""
    _start(home)
    home.forkfirst("scale", "app", 1)
    assert reload(home).status == 0
    assert home.status("app")["asked"] == 1


# -- who asks, and how many at once ----------------------------------------------------------------


def test_sighup_is_a_reload(home: Home) -> None:
    """For every manager whose word for it is a signal."""
    _start(home)
    write(home, "other")
    os.kill(home.pid("app"), signal.SIGHUP)
    wait_until(home, lambda found: {one["generation"] for one in found["workers"]} == {2})
    assert ask(home.address("app")) == b"other"
    write_text(home, FAILS)
    os.kill(home.pid("app"), signal.SIGHUP)
    _wait_for_log(home, "the reload that SIGHUP asked for exited with status 70")
    assert ask(home.address("app")) == b"other"


def _wait_for_log(home: Home, text: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while text not in home.log("app"):
        assert time.monotonic() < deadline, home.log("app")


def test_a_second_reload_waits_or_is_refused(home: Home) -> None:
    """One at a time: two generations that both come up would be nobody's wish."""
    _start(home, "--ready-timeout", "3s")
    write_text(home, HANGS)
    with subprocess.Popen(
        home.words("reload", "app"),
        cwd=home.directory,
        env=home.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as first:
        wait_until(home, lambda found: found["state"] == "reloading")
        refused = reload(home, "--no-wait")
        assert refused.status == 70
        assert "another reload is in progress" in refused.err
        write(home, "other")
        waited = reload(home)
        assert waited.status == 0, waited
        assert first.wait(PATIENCE) == 70
    assert ask(home.address("app")) == b"other"


def test_a_stop_lets_the_requests_finish(home: Home) -> None:
    """The half-sent request of one client is answered, though the service is to end."""
    _start(home, workers=1)
    with connect(home.address("app")) as connection:
        connection.sendall(REQUEST)
        assert read_word(connection) == b"first"
        connection.sendall(REQUEST[:10])
        stop = home.open(*home.words("stop", "app"), stdout=subprocess.DEVNULL)
        wait_until(home, lambda found: found["state"] == "stopping")
        connection.sendall(REQUEST[10:])
        assert read_word(connection) == b"first"
        assert stop.wait(PATIENCE) == 0
    assert home.list_processes() == {}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_every_process_at_once_is_one_stop(home: Home, number: int) -> None:
    """A terminal and a service manager signal them all; with the supervisor's that makes two."""
    program = write(home, "first")
    words = (f"{program}:main", "--listen", "web=127.0.0.1:0", "--workers", 1)
    service = home.open(*home.words("run", *words), start_new_session=True)
    wait_until(home, lambda found: found["state"] == "ready")
    with connect(home.address("app")) as connection:
        connection.sendall(REQUEST)
        assert read_word(connection) == b"first"
        connection.sendall(REQUEST[:10])
        os.killpg(service.pid, number)
        wait_until(home, lambda found: found["state"] == "stopping")
        connection.sendall(REQUEST[10:])
        assert read_word(connection) == b"first"
    assert service.wait(PATIENCE) == 0


RUNTIMES = {
    "uvloop": ("serve", "uvloop"),
    "trio": ("serve_on_trio", "trio"),
    "none": ("serve_plainly", "none"),
}


@pytest.mark.parametrize("way", RUNTIMES)
def test_every_runtime_can_be_reloaded(home: Home, way: str) -> None:
    """The supervisor does not know what its workers run."""
    name, runtime = RUNTIMES[way]
    target = f"{PROGRAMS / 'daemons.py'}:{name}"
    words = ("--name", "app", "--runtime", runtime, "--listen", "web=127.0.0.1:0")
    home.start(target, *words, "--workers", 2)
    assert talk(home.address("app")) == b"hello\n"
    assert reload(home).status == 0
    assert talk(home.address("app")) == b"hello\n"
    wait_until(home, lambda found: {one["generation"] for one in found["workers"]} == {2})


def test_a_command_can_have_workers_and_be_reloaded(home: Home) -> None:
    """Whatever its language: it gets the listeners as a service manager would pass them."""
    command = (home.words()[0], PROGRAMS / "daemons.py", "serve")
    flags = ("--name", "app", "--listen", "web=127.0.0.1:0", "--settle", "0.1", "--workers", 2)
    home.start(*flags, "--", *command)
    assert talk(home.address("app")) == b"hello\n"
    assert reload(home).status == 0
    assert talk(home.address("app")) == b"hello\n"
    home.stop("app")
    assert home.list_processes() == {}


# -- under a manager, and from the program itself ---------------------------------------------


def test_a_manager_is_told_of_each_reload_and_of_its_end(home: Home) -> None:
    """`Type=notify-reload` waits for READY after RELOADING: also when nothing came of it."""
    path = str(home.directory / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.settimeout(PATIENCE)
        program = write(home, "first")
        words = (f"{program}:main", "--listen", "web=127.0.0.1:0", "--workers", 2)
        environment = {**home.environment, "NOTIFY_SOCKET": path}
        service = home.open(*home.words("run", *words), env=environment)
        assert _hear(manager, b"READY=1") == b"READY=1\nSTATUS=serving"
        service.send_signal(signal.SIGHUP)
        _hear(manager, b"RELOADING=1")
        assert _hear(manager, b"READY=1") == b"READY=1\nSTATUS=generation 2 serves"
        write_text(home, FAILS)
        service.send_signal(signal.SIGHUP)
        _hear(manager, b"RELOADING=1")
        assert b"not reloaded: the program failed" in _hear(manager, b"READY=1")
        service.send_signal(signal.SIGTERM)
        _hear(manager, b"STOPPING=1")
        assert service.wait(PATIENCE) == 0


def _hear(manager: socket.socket, beginning: bytes) -> bytes:
    while not (message := manager.recv(4096)).startswith(beginning):
        pass
    return message


def test_a_program_that_declares_itself_reloads_with_its_new_declaration(home: Home) -> None:
    """Its supervisor has never imported it, so its module is as new as its settings."""
    text = (
        "from forkfirst import Service\n"
        "async def main(context):\n"
        "    context.ready('WORD')\n"
        "    await context.wait_stopping()\n"
        "service = Service(program=main, name='app', workers=WORKERS)\n"
        "if __name__ == '__main__':\n"
        "    service.main()\n"
    )

    def declare(word: str, workers: int) -> Path:
        text_ = text.replace("WORD", word).replace("WORKERS", str(workers))
        return home.program("app.py", text_)

    program = declare("one", 1)
    python = home.words()[0]
    assert home.run(python, program, "start").status == 0
    assert (home.status("app")["status"], home.status("app")["asked"]) == ("one", 1)
    declare("three", 2)
    assert home.run(python, program, "reload").status == 0
    found = wait_until(home, lambda found: len(found["workers"]) == 2)
    assert found["status"] == "three"
    declare("twelve", 1)
    assert reload(home).status == 0
    wait_until(home, lambda found: found["status"] == "twelve")
    assert home.run(python, program, "run").status == 64
