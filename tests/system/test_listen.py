"""`forkfirst listen`: any command gets its sockets, as systemfd would have it, and as it should be.

The faults that are named were measured with systemfd 0.4.6.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from forkfirst import errors
from forkfirst.cli.hold.socket_form import parse_socket
from forkfirst.plan.listener import parse_listener
from support.service_home import PROGRAMS

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from support.service_home import Done, Home

USAGE = errors.UsageError.exit_status
CONFIG = errors.ConfigError.exit_status
IN_USE = errors.AddressInUseError.exit_status
NOT_FOUND = errors.TargetError.exit_status
CANNOT_CREATE = errors.CannotCreateError.exit_status
NOT_ALLOWED = errors.PermissionRefusedError.exit_status

PYTHONS_OWN = 1 << (signal.SIGPIPE - 1) | 1 << (signal.SIGXFSZ - 1)

# A shell that says where it is, then stays until its input ends.
STAY = ("sh", "-c", "echo up; read line")


def look(home: Home, *words: str, **options: Any) -> dict[str, Any]:
    """Run `listen` and return what its command found."""
    done = listen(home, *words, *command(), **options)
    assert done.status == 0, done
    found: dict[str, Any] = json.loads(done.out)
    return {**found, "said": done.err}


def command() -> tuple[str, ...]:
    return ("--", sys.executable, "-I", "-S", str(PROGRAMS / "passed_sockets.py"))


def listen(home: Home, *words: str, **options: Any) -> Done:
    return home.forkfirst("listen", *words, **options)


@contextmanager
def staying(home: Home, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run `listen` with a command that holds the sockets until the test is done."""
    with home.open(*home.words("listen", *words, "--", *STAY), stdin=-1, stdout=-1) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        yield process
        process.communicate(b"\n")
        assert process.returncode == 0


# -- every form -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "family", "kind", "name", "shown"),
    [
        ("0", "AF_INET", "SOCK_STREAM", "tcp", "tcp: 127.0.0.1:{port} is"),
        ("127.0.0.1:0", "AF_INET", "SOCK_STREAM", "tcp", "tcp: 127.0.0.1:{port} is"),
        ("[::1]:0", "AF_INET6", "SOCK_STREAM", "tcp", "tcp: [::1]:{port} is"),
        ("tcp::0", "AF_INET", "SOCK_STREAM", "tcp", "tcp: 127.0.0.1:{port} is"),
        ("tcp::[::1]:0", "AF_INET6", "SOCK_STREAM", "tcp", "tcp: [::1]:{port} is"),
        ("http::0", "AF_INET", "SOCK_STREAM", "http", "http: http://127.0.0.1:{port}/ is"),
        ("HTTPS::[::1]:0", "AF_INET6", "SOCK_STREAM", "https", "https: https://[::1]:{port}/ is"),
        ("http::*:0", "AF_INET6", "SOCK_STREAM", "http", "http: http://localhost:{port}/ is"),
        ("udp::0", "AF_INET", "SOCK_DGRAM", "udp", "udp: udp:127.0.0.1:{port} is"),
        ("udp::127.0.0.1:0", "AF_INET", "SOCK_DGRAM", "udp", "udp: udp:127.0.0.1:{port} is"),
        ("localhost:0", "AF_INET", "SOCK_STREAM", "tcp", "tcp: 127.0.0.1:{port} is"),
        ("web=http::localhost:0", "AF_INET", "SOCK_STREAM", "web", "web: http://127.0.0.1:{port}/"),
        ("*:0", "AF_INET6", "SOCK_STREAM", "tcp", "tcp: *:{port} is"),
        ("db=127.0.0.1:0", "AF_INET", "SOCK_STREAM", "db", "db: 127.0.0.1:{port} is"),
        ("udp:0", "AF_INET", "SOCK_DGRAM", "udp", "udp: udp:127.0.0.1:{port} is"),
    ],
)
def test_an_internet_socket_in_every_form(  # noqa: PLR0913, PLR0917 - what is asked, what comes
    home: Home, form: str, family: str, kind: str, name: str, shown: str
) -> None:
    """What systemfd takes and what it refuses; port 0 is shown as what it became."""
    found = look(home, "-s", form)
    (only,) = found["sockets"]
    assert (only["family"], only["type"]) == (family, kind)
    assert only["listens"] is (kind == "SOCK_STREAM")
    assert found["variables"]["LISTEN_FDNAMES"] == name
    assert shown.format(port=only["name"][1]) in found["said"]


@pytest.mark.parametrize(
    ("form", "path", "kind"),
    [
        ("unix::{here}/a.sock", "{here}/a.sock", "SOCK_STREAM"),
        ("{here}/a.sock", "{here}/a.sock", "SOCK_STREAM"),
        ("unix:{here}/a.sock?mode=0600", "{here}/a.sock", "SOCK_STREAM"),
        ("unix::a.sock", "{here}/a.sock", "SOCK_STREAM"),
        ("./a.sock", "{here}/a.sock", "SOCK_STREAM"),
        ("below/a.sock", "{here}/below/a.sock", "SOCK_STREAM"),
        ("web=unix::a.sock", "{here}/a.sock", "SOCK_STREAM"),
        ("unixgram:{here}/a.sock", "{here}/a.sock", "SOCK_DGRAM"),
        ("seqpacket::a.sock", "{here}/a.sock", "SOCK_SEQPACKET"),
        ("unix:@forkfirst-test-{pid}", "\0forkfirst-test-{pid}", "SOCK_STREAM"),
    ],
)
def test_a_unix_socket_in_every_form(home: Home, form: str, path: str, kind: str) -> None:
    """A relative path too, for the command is where the person is."""
    (home.directory / "below").mkdir()
    here = home.directory.resolve()
    (only,) = look(home, "-s", form.format(here=here, pid=os.getpid()))["sockets"]
    assert only["name"] == path.format(here=here, pid=os.getpid())
    assert only["type"] == kind


@given(st.text(max_size=40) | st.from_regex(r"([a-z]+=)?[a-z]{3,5}:{1,2}[][a-z0-9:./*?=]*"))
@example("http::http::1")
@example("a=unix::")
@example("unix::?mode=7")
def test_every_text_is_a_socket_or_an_error_that_points(text: str) -> None:
    """And what our own grammar takes means the same here."""
    try:
        found = parse_socket(text, directory="/where").listener
    except errors.AddressError:
        found = None
    try:
        ours = parse_listener(text)
    except errors.AddressError:
        return
    assert found == ours


def test_several_keep_their_order_and_their_names(home: Home) -> None:
    """Descriptor 3 is the first that was asked for."""
    found = look(home, "-s", "a=0", "--socket", "udp::0", "-s", "a=./x.sock")
    assert found["variables"] == {
        "LISTEN_FDS": "3",
        "LISTEN_FDNAMES": "a:udp:a",
        "LISTEN_PID": str(found["pid"]),
    }
    families = [one["family"] for one in found["sockets"]]
    assert families == ["AF_INET", "AF_INET", "AF_UNIX"]
    assert found["opened"] == [3, 4, 5]
    assert [one["blocking"] for one in found["sockets"]] == [True, True, True]


def test_what_was_passed_can_be_passed_on(home: Home) -> None:
    """By a name, by its number, and beside new ones."""
    inner = home.words("listen", "-s", "0", "-s", "mine=systemd:web", "-s", "fd:3", *command())
    done = listen(home, "-s", "db=0", "-s", "web=./web.sock", "--", *inner)
    assert done.status == 0, done
    found = json.loads(done.out)
    assert found["variables"]["LISTEN_FDNAMES"] == "tcp:mine:fd"
    assert [one["family"] for one in found["sockets"]] == ["AF_INET", "AF_UNIX", "AF_INET"]
    assert found["opened"] == [3, 4, 5]
    assert "is replaced" not in done.err


@pytest.mark.parametrize("address", ["systemd:web", "fd:web"])
def test_what_was_not_passed_is_an_error(home: Home, address: str) -> None:
    """Not a socket somewhere else."""
    done = listen(home, "-s", address, *command())
    assert done.status == CONFIG
    assert "was not passed to this process" in done.err


# -- every flag -----------------------------------------------------------------------------------


def test_the_command_is_this_process(home: Home) -> None:
    """Nothing stands between it and whoever started it: no second process, no changed pid."""
    with home.open(*home.words("listen", "-s", "0", *command()), stdout=-1) as process:
        out, _ = process.communicate()
        found = json.loads(out)
    assert found["pid"] == process.pid
    assert found["variables"]["LISTEN_PID"] == str(process.pid)


@pytest.mark.parametrize(("text", "status"), [("exit 7", 7), ("kill -KILL $$", -signal.SIGKILL)])
def test_its_status_is_the_commands(home: Home, text: str, status: int) -> None:
    """Also of a death by signal: it is not translated."""
    assert listen(home, "-s", "0", "--", "sh", "-c", text).status == status


def test_no_pid_is_for_a_command_that_starts_another(home: Home) -> None:
    """What is in between would make LISTEN_PID wrong."""
    variables = look(home, "-s", "0", "--no-pid")["variables"]
    assert variables == {"LISTEN_FDS": "1", "LISTEN_FDNAMES": "tcp"}


@pytest.mark.parametrize("flag", ["-q", "--quiet"])
def test_quiet_says_nothing(home: Home, flag: str) -> None:
    """But an error is said."""
    assert look(home, flag, "-s", "0")["said"] == ""
    assert "not an address" in listen(home, flag, "-s", "!", *command()).err


def test_color_is_for_terminals(home: Home) -> None:
    """A file gets none unless it is asked for."""
    assert "\x1b" not in look(home, "-s", "0")["said"]
    assert "\x1b" not in look(home, "--color", "never", "-s", "0")["said"]
    assert look(home, "--color", "always", "-s", "0")["said"].startswith("\x1b[36mforkfirst:")


def test_no_reuse_minds_old_connections(home: Home) -> None:
    """Without the flag a server can be started again while its last connections are remembered."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        with socket.create_connection(address):
            server.accept()[0].close()  # who closes first remembers it: TIME_WAIT
    form = f"127.0.0.1:{address[1]}"
    assert listen(home, "--no-reuse", "-s", form, "--", "true").status == IN_USE
    assert listen(home, "-s", form, "--", "true").status == 0


@pytest.mark.parametrize("words", [(), ("-b", "5"), ("--backlog", "5")])
def test_the_backlog_is_of_those_that_do_not_say_it(words: tuple[str, ...]) -> None:
    """One number for all is what systemfd has; ours may also be said of one."""
    given = int(words[1]) if words else None
    said = [
        parse_socket(text, directory="/", backlog=given).listener.options.backlog
        for text in ("http::0", "0?backlog=9", "udp::0", "/x")
    ]
    assert said == [given, 9, None, given]


@pytest.mark.parametrize("number", ["0", "-1", "x", "99999999999"])
def test_a_backlog_that_is_none_is_refused(home: Home, number: str) -> None:
    """As systemfd does from its version 0.4.1 on, but with a status."""
    done = listen(home, f"--backlog={number}", "-s", "0", *command())
    assert (done.status, done.out) == (USAGE, "")


def test_version(home: Home) -> None:
    """As systemfd has it."""
    assert listen(home, "-V").out == home.forkfirst("--version").out


def test_what_python_ignores_is_not_the_commands(home: Home) -> None:
    """SIGPIPE ignored would be a `yes | head` that never ends. What nohup set stays."""
    words = home.words("listen", "-q", "-s", "0", "--", "grep", "SigIgn", "/proc/self/status")
    ignored = [int(home.run(*before, *words).out.split()[1], 16) for before in ((), ("nohup",))]
    assert [mask & PYTHONS_OWN for mask in ignored] == [0, 0]
    assert [bool(mask & 1 << (signal.SIGHUP - 1)) for mask in ignored] == [False, True]


# -- the faults of systemfd, by the letters of the research ---------------------------------------


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("-s", "0"), USAGE),
        (("-s", "0", "--"), USAGE),
        (("-s", "0", "--", "/nonexistent"), NOT_FOUND),
        (("-s", "0", "--", "forkfirst-no-such-command"), NOT_FOUND),
        (("-s", "0", "--", "/etc/passwd"), NOT_ALLOWED),
        (("-s", "127.0.0.1:x", "--", "true"), CONFIG),
        (("-s", "foo::5000", "--", "true"), CONFIG),
        (("-s", "http::unix:/x", "--", "true"), CONFIG),
        (("-s", "tcp::", "--", "true"), CONFIG),
        (("-s", "unix::", "--", "true"), CONFIG),
        (("-s", "192.0.2.1:0", "--", "true"), IN_USE),
        (("-s", "/nonexistent/x.sock", "--", "true"), CANNOT_CREATE),
    ],
)
def test_a_every_failure_has_a_status_and_is_said_on_stderr(
    home: Home, words: tuple[str, ...], status: int
) -> None:
    """(a) Status 0 and the message on stdout, for whatever went wrong."""
    done = listen(home, *words)
    assert (done.status, done.out) == (status, "")
    assert done.err.startswith("forkfirst: ")
    assert "Traceback" not in done.err


def test_b_a_regular_file_is_never_deleted(home: Home) -> None:
    """(b) `-s unix::precious.txt` deleted it."""
    precious = home.program("precious.txt", "years of work")
    done = listen(home, "-s", f"unix::{precious}", *command())
    assert done.status == CANNOT_CREATE
    assert precious.read_text() == "years of work"


def test_c_a_living_socket_is_never_replaced(home: Home) -> None:
    """(c) A second instance took the path of a running one."""
    with staying(home, "-s", "./x.sock"):
        before = (home.directory / "x.sock").lstat().st_ino
        assert listen(home, "-s", "./x.sock", *command()).status == IN_USE
        assert (home.directory / "x.sock").lstat().st_ino == before


def test_c_a_dead_socket_is_replaced(home: Home) -> None:
    """What a command leaves behind must not keep the next one from starting."""
    with staying(home, "-s", "./x.sock"):
        pass
    assert (home.directory / "x.sock").is_socket()
    assert look(home, "-s", "./x.sock")["sockets"][0]["listens"]


def test_d_two_instances_never_share_a_port(home: Home) -> None:
    """(d) With SO_REUSEPORT each got some of the connections."""
    (found,) = look(home, "-s", "0")["sockets"]
    form = f"127.0.0.1:{found['name'][1]}"
    assert not found["reuseport"]
    with staying(home, "-s", form):
        done = listen(home, "-s", form, *command())
        assert done.status == IN_USE
        assert "in use by pid" in done.err


@pytest.mark.parametrize(("words", "all_of_them"), [((), True), (("-b", "1"), False)])
def test_e_sixty_four_clients_at_once(
    home: Home,
    words: tuple[str, ...],
    all_of_them: bool,  # noqa: FBT001 - one of two
) -> None:
    """(e) With a backlog of 1 it was 2 of 64, before the command is even there."""
    with staying(home, *words, "-s", "./x.sock"):
        connected = 0
        with ExitStack() as clients:
            for _ in range(64):
                client = clients.enter_context(socket.socket(socket.AF_UNIX))
                client.setblocking(False)  # noqa: FBT003 - the call has no name for it
                try:
                    client.connect(str(home.directory / "x.sock"))
                except BlockingIOError:
                    continue
                connected += 1
    assert (connected == 64) is all_of_them


def test_f_sockets_are_at_3_and_4_whatever_was_there(home: Home) -> None:
    """(f) With 3 and 5 busy they were at 4 and 6, where nobody looks."""
    words = home.words("listen", "-s", "0", "-s", "udp::0", *command())
    done = home.run("sh", "-c", 'exec "$@" 3</dev/null 5</dev/null', "sh", *words)
    assert done.status == 0, done
    found = json.loads(done.out)
    assert [one["type"] for one in found["sockets"]] == ["SOCK_STREAM", "SOCK_DGRAM"]
    assert found["opened"] == [3, 4, 5]
    assert "descriptor 3 was open, and is replaced by a socket" in done.err
    assert "descriptor 4 was" not in done.err


STALE = {
    "LISTEN_FDS": "7",
    "LISTEN_PID": "1",
    "LISTEN_FDNAMES": "a:b",
    "LISTEN_PIDFDID": "9",
    "LISTEN_FDS_FIRST_FD": "4",
}


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (("-s", "0", "--no-pid"), {"LISTEN_FDS": "1", "LISTEN_FDNAMES": "tcp"}),
        ((), {}),
    ],
)
def test_g_nothing_stale_is_passed_on(
    home: Home, words: tuple[str, ...], kept: dict[str, str]
) -> None:
    """(g) Another's pid, names and count stayed in the environment."""
    found = look(home, *words, env={**home.environment, **STALE})
    assert found["variables"] == kept
    assert ("no sockets" in found["said"]) == (not words)


# -- nothing is left ------------------------------------------------------------------------------


def test_a_path_is_gone_again_when_the_command_cannot_be_executed(home: Home) -> None:
    """The kernel finds out last of all that a script's interpreter is not there."""
    script = home.program("script", "#!/nowhere/sh\n")
    script.chmod(0o755)
    done = listen(home, "-s", "./x.sock", "-s", "0", "--", str(script))
    assert done.status == NOT_FOUND
    assert "cannot be executed" in done.err
    assert sorted(one.name for one in home.directory.iterdir()) == ["script"]


def test_a_path_is_gone_again_when_a_later_socket_fails(home: Home) -> None:
    """All or nothing."""
    done = listen(home, "-s", "./x.sock", "-s", "192.0.2.1:0", *command())
    assert done.status == IN_USE
    assert list(home.directory.iterdir()) == []
