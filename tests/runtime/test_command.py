"""A command of any language gets its listeners, says that it is ready, and is stopped in time."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import sys
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from forkfirst import errors
from forkfirst.runtime import command
from support.runtime_child import start_driver

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.runtime_child import Child, Ended

HOUR = 3600.0
TELL_STATUS = "import socket, os, sys\ns = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n"


@contextmanager
def start(*argv: str, fds: tuple[int, ...] = (), **options: Any) -> Iterator[Child]:
    with start_driver("command_driver.py", json.dumps(options), "REPORT", *argv, fds=fds) as child:
        yield child


def run(*argv: str, fds: tuple[int, ...] = (), **options: Any) -> Ended:
    with start(*argv, fds=fds, **options) as child:
        return child.finish()


def python(text: str) -> tuple[str, ...]:
    return (sys.executable, "-I", "-S", "-c", text)


# -- its end -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "status"),
    [("exit 0", 0), ("exit 3", 3), ("kill -KILL $$", 137), ("kill -TERM $$", 143)],
)
def test_the_status_is_what_a_shell_would_show(text: str, status: int) -> None:
    """Its own, or 128 and the signal: an end by SIGTERM that nobody asked for is a failure."""
    ended = run("sh", "-c", text)
    assert ended.status == status
    assert "ready" not in ended.words
    assert ended.fact("ended")["left"] == []


def test_a_command_that_is_not_there_is_refused() -> None:
    """Before anything is started."""
    ended = run("forkfirst-no-such-command")
    assert ended.status == errors.TargetError.exit_status
    assert ended.fact("refused")["text"] == "there is no command 'forkfirst-no-such-command'"
    assert ended.fact("ended")["left"] == []


def test_a_script_without_its_interpreter_says_which_file(tmp_path: Path) -> None:
    """The kernel's "no such file" is about a file that the person did not name."""
    script = tmp_path / "script"
    script.write_text("#!/nowhere/sh\n")
    script.chmod(0o755)
    ended = run(str(script))
    assert f"{script} cannot be executed" in ended.fact("refused")["text"]
    assert "#!" in ended.fact("refused")["hint"]


def test_a_file_that_may_not_be_executed_is_refused(tmp_path: Path) -> None:
    """With the command that mends it."""
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\n")
    ended = run(str(script))
    assert ended.status == errors.PermissionRefusedError.exit_status
    assert ended.fact("refused")["hint"] == f"chmod +x {script}"


# -- what it starts with -------------------------------------------------------------------------


LOOK = """
import json, os, signal, sys
def status(name):
    for line in open("/proc/self/status"):
        if line.startswith(name): return int(line.split()[1], 16)
print(json.dumps({
    "fds": sorted(int(fd) for fd in os.listdir("/proc/self/fd"))[:-1],
    "inodes": [os.fstat(fd).st_ino for fd in json.loads(sys.argv[1])],
    "blocking": [os.get_blocking(fd) for fd in json.loads(sys.argv[1])],
    "environment": {k: v for k, v in os.environ.items() if k.startswith(("LISTEN", "NOTIFY"))},
    "pid": os.getpid(), "blocked": status("SigBlk:"), "ignored": status("SigIgn:"),
    "group": os.getpgrp(), "parent_group": os.getpgid(os.getppid()),
}))
"""
# What Python itself ignores, and what glibc's posix_spawn leaves of the threads library's own.
_NOT_OURS = 1 << (signal.SIGPIPE - 1) | 1 << (signal.SIGXFSZ - 1) | 3 << 31


def look(*fds: int, **options: Any) -> dict[str, Any]:
    places = json.dumps([3 + index for index in range(len(options.get("listeners", ())))])
    ended = run(*python(LOOK), places, fds=fds, settle_seconds=HOUR, **options)
    assert (ended.status, ended.err) == (0, "")
    found: dict[str, Any] = json.loads(ended.out)
    return found


def test_it_starts_with_nothing_of_ours() -> None:
    """No descriptor but 0, 1, 2; no signal blocked; in our group, so that whoever ends it does."""
    found = look()
    assert found["fds"] == [0, 1, 2]
    assert found["environment"] == {}
    assert found["blocked"] == 0
    assert found["ignored"] & ~_NOT_OURS == 0
    assert found["group"] == found["parent_group"]


def test_it_ignores_no_sigpipe() -> None:
    """Python does, and a command that inherits it goes on writing into a closed pipe for ever."""
    ended = run("sh", "-c", "grep SigIgn /proc/$$/status")
    mask = int(ended.out.split()[1], 16)
    assert not mask & 1 << (signal.SIGPIPE - 1)


def test_listeners_are_passed_as_systemd_passes_them() -> None:
    """At 3 and on, blocking, with names, and with the pid of the command itself."""
    with (
        closing(socket.create_server(("127.0.0.1", 0))) as first,
        closing(socket.create_server(("127.0.0.1", 0))) as second,
    ):
        first.setblocking(False)  # noqa: FBT003 - it has no name
        given = [("a", first.fileno()), ("b", second.fileno()), ("a", first.fileno())]
        inodes = [os.fstat(fd).st_ino for _, fd in given]
        found = look(first.fileno(), second.fileno(), listeners=given)
    assert found["inodes"] == inodes
    assert found["blocking"] == [True, True, True]
    assert found["fds"] == [0, 1, 2, 3, 4, 5]
    assert found["environment"] == {
        "LISTEN_FDS": "3",
        "LISTEN_FDNAMES": "a:b:a",
        "LISTEN_PID": str(found["pid"]),
    }


def test_listeners_keep_apart_when_places_and_numbers_cross() -> None:
    """The one for 3 is number 4 here, and the one for 4 is 3: a plain dup2 would lose one."""
    with (
        closing(socket.create_server(("127.0.0.1", 0))) as first,
        closing(socket.create_server(("127.0.0.1", 0))) as second,
    ):
        numbers = (second.fileno(), first.fileno())
        given = [("b", numbers[0]), ("a", numbers[1])]
        inodes = [os.fstat(fd).st_ino for fd in numbers]
        found = look(*numbers, listeners=given)
    assert found["inodes"] == inodes


# -- readiness -----------------------------------------------------------------------------------


def test_it_is_ready_when_it_has_lived_so_long() -> None:
    """Whatever it is: most commands say nothing."""
    with start("sleep", "3600", settle_seconds=0.05) as child:
        child.wait_for("ready")
        child.signal(signal.SIGTERM)
        assert child.finish().status == 0


def test_it_is_ready_when_it_says_so_with_a_newline() -> None:
    """The protocol of s6: one newline on a descriptor, which may be closed then."""
    text = "echo early >&5; echo >&5; exec 5>&-; exec sleep 3600"
    with start("sh", "-c", text, notify_fd=5, settle_seconds=None) as child:
        child.wait_for("ready")
        child.signal(signal.SIGTERM)
        assert child.finish().status == 0


def test_a_descriptor_that_is_closed_without_a_word_says_nothing() -> None:
    """It never becomes ready by that, and watching the closed pipe must not spin."""
    with start("sh", "-c", "exec 5>&-; exec sleep 0.2", notify_fd=5, settle_seconds=None) as child:
        ended = child.finish()
    assert "ready" not in ended.words
    assert ended.status == 0
    assert ended.fact("ended")["cpu"] < 0.1


def test_it_is_ready_when_it_tells_the_manager(tmp_path: Path) -> None:
    """And its status is passed on, before and after."""
    text = TELL_STATUS + (
        "to = os.environ['NOTIFY_SOCKET']\n"
        "for one in (b'STATUS=loading', b'READY=1\\nSTATUS=serving', b'STATUS=busy'):\n"
        "    s.sendto(one, to)\n"
    )
    path = str(tmp_path / "notify")
    ended = run(*python(text), notify_path=path, settle_seconds=None)
    assert [(one["what"], one.get("text", one.get("status"))) for one in ended.told[:3]] == [
        ("status", "loading"),
        ("ready", "serving"),
        ("status", "busy"),
    ]
    assert not Path(path).exists()


@pytest.mark.skipif(sys.platform != "linux", reason="abstract names are Linux's")
def test_a_stranger_is_not_believed() -> None:
    """An abstract name can be written to by everybody; the kernel says who did."""
    name = f"@forkfirst-test-{secrets.token_hex(8)}"
    text = TELL_STATUS + "sys.stdout.write('up\\n'); sys.stdout.flush(); sys.stdin.readline()\n"
    text += "s.sendto(b'STATUS=mine', '\\0' + os.environ['NOTIFY_SOCKET'][1:])\n"
    with (
        start(*python(text), notify_path=name, settle_seconds=None) as child,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger,
    ):
        assert child.process.stdout is not None
        assert child.process.stdout.readline() == "up\n"
        stranger.sendto(b"STATUS=theirs", "\0" + name[1:])
        assert child.process.stdin is not None
        child.process.stdin.write("\n")
        child.process.stdin.flush()
        ended = child.finish()
    assert [one["text"] for one in ended.told if one["what"] == "status"] == ["mine"]


def test_a_descriptor_for_readiness_must_not_be_a_listeners() -> None:
    """Before anything is started, with one that is free."""
    with closing(socket.create_server(("127.0.0.1", 0))) as bound:
        fd = bound.fileno()
        ended = run("true", fds=(fd,), listeners=[("a", fd)], notify_fd=3)
    assert ended.status == errors.UsageError.exit_status
    assert ended.fact("refused")["hint"] == "choose 4"


# -- signals -------------------------------------------------------------------------------------

NAMES = ["SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGWINCH", "SIGCONT"]
REPEAT = """
import signal, sys
wanted = [signal.Signals[name] for name in sys.argv[1:]] + [signal.SIGTERM]
signal.pthread_sigmask(signal.SIG_BLOCK, wanted)
print("up", flush=True)
while (number := signal.sigwait(wanted)) != signal.SIGTERM:
    print(signal.Signals(number).name, flush=True)
sys.exit(9)
"""


def test_signals_are_passed_on() -> None:
    """All that mean something to a service, each once."""
    with start(*python(REPEAT), *NAMES, settle_seconds=HOUR) as child:
        out = child.process.stdout
        assert out is not None
        assert out.readline() == "up\n"
        for name in NAMES:
            child.signal(signal.Signals[name])
            assert out.readline() == f"{name}\n"
        child.signal(signal.SIGTERM)
        ended = child.finish()
    assert ended.status == 9
    assert ended.words == ["stopping", "ended"]


def test_what_a_terminal_sends_to_all_is_not_passed_on() -> None:
    """Many programs take a second Ctrl-C as "at once"; but the grace period begins."""
    ours, theirs = os.openpty()
    try:
        argv = (*python(REPEAT), "SIGINT", "SIGUSR1")
        with start(*argv, terminal=os.ttyname(theirs), settle_seconds=HOUR) as child:
            out = child.process.stdout
            assert out is not None
            assert out.readline() == "up\n"
            os.write(ours, b"\x03")
            assert out.readline() == "SIGINT\n"
            child.wait_for("stopping")
            child.signal(signal.SIGUSR1)  # would be behind a second SIGINT
            assert out.readline() == "SIGUSR1\n"
            child.signal(signal.SIGTERM)
            assert child.finish().status == 9
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_end_by_the_stop_is_no_failure(number: int) -> None:
    """A command without a handler dies by the signal, as it was asked to."""
    with start("sleep", "3600", settle_seconds=0.0) as child:
        child.wait_for("ready")
        child.signal(number)
        ended = child.finish()
    assert ended.status == 0
    assert ended.words == ["ready", "stopping", "ended"]


def test_a_command_that_does_not_stop_is_killed() -> None:
    """At the end of the grace period, with a line in the log."""
    with start(
        "sh", "-c", "trap '' TERM; echo >&5; exec sleep 3600", notify_fd=5, grace=0.1
    ) as child:
        child.wait_for("ready")
        child.signal(signal.SIGTERM)
        ended = child.finish()
    assert ended.status == 128 + signal.SIGKILL
    assert "tested: the grace period ran out: killing process" in ended.err


def test_a_second_signal_shortens_the_grace_period() -> None:
    """Whoever asks twice does not want to wait."""
    with start(
        "sh", "-c", "trap '' TERM; echo >&5; exec sleep 3600", notify_fd=5, grace=HOUR
    ) as child:
        child.wait_for("ready")
        child.signal(signal.SIGTERM)
        child.wait_for("stopping")
        child.signal(signal.SIGTERM)
        ended = child.finish()
    assert ended.status == 128 + signal.SIGKILL


def test_a_declared_service_becomes_a_command() -> None:
    """What stages passes; -1 is the declaration's "none"."""

    class Declared:
        command = ("sleep", "1")
        settle_seconds = 0.5
        notify_fd = -1

    made = command.make_main(Declared(), notify_path="/run/x")
    assert made == command.Command(
        argv=("sleep", "1"), notify_path="/run/x", notify_fd=None, settle_seconds=0.5
    )
    assert command.make_main(Declared()).notify_path.startswith("@forkfirst-")
