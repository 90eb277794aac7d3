"""A service that becomes another user: what it keeps, what it cannot, and who may still stop it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.other_user import (
    FACTS,
    NOBODY,
    PYTHON,
    SERVICE,
    SOMEBODY,
    forkfirst_as,
    open_home,
    own_address,
    read_answer,
)
from support.service_home import talk

if TYPE_CHECKING:
    from support.service_home import Home

pytestmark = pytest.mark.real

ROOTS_GROUPS = "0,4,27,42"  # what the peers were measured with: adm, sudo, shadow
EMPTY = "0000000000000000"
NET_BIND_SERVICE = "0000000000000400"


@pytest.fixture(autouse=True)
def _passable(home: Home) -> None:
    if os.geteuid() != 0:
        pytest.skip("not root")
    open_home(home)


def _start(home: Home, *words: object, text: str = SERVICE, groups: str = "") -> dict[str, object]:
    home.program("app.py", text)
    address = own_address(83)
    flags = ("--user", "nobody", "--listen", f"web={address}")
    done = forkfirst_as(home, "start", *flags, *words, "app.py:main", groups=groups)
    assert (done.status, done.err) == (0, ""), done
    host, _, port = address.partition(":")
    return read_answer(talk((host, int(port))))


def test_no_group_of_root_is_kept(home: Home) -> None:
    """python-daemon, daemonize, daemonocle, pep3143daemon and gunicorn -u keep all of them."""
    facts = _start(home, groups=ROOTS_GROUPS)
    assert facts["Groups"] == [str(NOBODY)]
    assert facts["shadow"] is False


def test_the_group_id_is_not_left_with_root(home: Home) -> None:
    """python-daemon's initgroups and gunicorn's --initgroups leave gid 0: instead of setgid."""
    facts = _start(home, groups=ROOTS_GROUPS)
    assert facts["Gid"] == [str(NOBODY)] * 4
    assert facts["Uid"] == [str(NOBODY)] * 4


def test_the_pid_file_is_made_before_the_drop(home: Home) -> None:
    """python-daemon locks it after the drop: in /run that fails, silently and with status 0."""
    locked = home.directory / "run"
    locked.mkdir(mode=0o755)
    _start(home, "--pid-file", locked / "app.pid")
    assert forkfirst_as(home, "status", "app").status == 0
    assert forkfirst_as(home, "stop", "app").status == 0
    assert list(locked.iterdir()) == []  # root's `stop` removes what the service had no right to


def test_no_capability_is_kept_and_root_cannot_be_regained(home: Home) -> None:
    """None in any of the five sets, and no program that is executed can give one back."""
    facts = _start(home)
    assert [facts[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")] == [[EMPTY]] * 5
    assert facts["NoNewPrivs"] == ["1"]
    assert facts["regained"] is False


def test_the_program_is_never_imported_as_root(home: Home) -> None:
    """Its first line runs as who it is to be."""
    facts = _start(home)
    assert facts["at_import"] == {key: one for key, one in facts.items() if key != "at_import"}


def test_the_environment_says_who_it_is(home: Home) -> None:
    """HOME=/root would send every library to files that it may not read."""
    account = subprocess.run(["getent", "passwd", "nobody"], capture_output=True, check=True)
    directory = account.stdout.decode().split(":")[5]
    facts = _start(home)
    assert facts["environment"] == {"HOME": directory, "USER": "nobody", "LOGNAME": "nobody"}


def test_groups_are_those_that_were_asked_for(home: Home) -> None:
    """--group instead of the user's own, --supplementary beside it, by name or number."""
    facts = _start(
        home, "--group", "daemon", "--supplementary", "42", "--supplementary", "www-data"
    )
    assert facts["Gid"] == ["1"] * 4
    assert set(map(int, _words(facts["Groups"]))) == {1, 33, 42}


def _words(value: object) -> list[str]:
    assert isinstance(value, list)
    return value


def test_a_capability_that_was_asked_for_is_kept(home: Home) -> None:
    """So that the program can open a privileged port itself, and do nothing else of root's."""
    facts = _start(home, "--keep-capability", "net_bind_service")
    kept = [facts[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")]
    assert kept == [[NET_BIND_SERVICE]] * 5
    assert facts["regained"] is False


BINDER = """
import socket, sys
async def main(context):
    host, port = {address!r}.split(":")
    with socket.create_server((host, int(port))):
        context.ready("bound")
        await context.wait_stopping()
"""


@pytest.mark.parametrize(
    ("flags", "status"), [((), 70), (("--keep-capability", "CAP_NET_BIND_SERVICE"), 0)]
)
def test_only_that_capability_opens_a_low_port(
    home: Home, flags: tuple[str, ...], status: int
) -> None:
    """With it the program binds after the drop; without it the kernel refuses."""
    home.program("app.py", BINDER.format(address=own_address(84)))
    done = forkfirst_as(home, "start", "--user", "nobody", *flags, "app.py:main")
    assert done.status == status
    assert ("PermissionError" in done.err) == bool(status)


LIMITED = """
import resource
async def main(context):
    context.ready(str([resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))
                       for name in ("NOFILE", "CORE")]))
    await context.wait_stopping()
"""


def test_limits_are_the_program_s_with_or_without_another_user(home: Home) -> None:
    """What setrlimit(2) knows, by its names, soft and hard."""
    home.program("app.py", LIMITED)
    for flags in ((), ("--user", "nobody")):
        limits = ("--limit", "nofile=100:200", "--limit", "core=0")
        done = forkfirst_as(home, "start", *flags, *limits, "app.py:main")
        assert "[(100, 200), (0, 0)]" in done.out, done
        forkfirst_as(home, "stop", "app")


# -- who may still ask and stop it ---------------------------------------------------------------


@pytest.mark.parametrize("uid", [0, NOBODY])
def test_root_and_its_own_user_can_ask_and_stop_it(home: Home, uid: int) -> None:
    """The pid file and the control socket are that user's; nothing is left at the end."""
    _start(home)
    assert forkfirst_as(home, "status", "app", uid=uid).status == 0
    assert "Thread" in forkfirst_as(home, "stacks", "app", uid=uid).out
    assert forkfirst_as(home, "rotate", "app", uid=uid).status == 0
    done = forkfirst_as(home, "stop", "app", uid=uid)
    assert (done.status, done.err) == (0, "")
    assert home.list_processes() == {}
    left = ["log/app/app.log", "log/app/app.log.1", "run/app.service"]
    assert home.list_files() == left
    assert forkfirst_as(home, "forget", "app").status == 0
    assert home.list_files() == left[:2]


def test_another_user_can_do_neither(home: Home) -> None:
    """Not by name, not through the socket's path, and not by the pid that is in the file."""
    _start(home)
    assert forkfirst_as(home, "stop", "app", uid=SOMEBODY).status in (3, 77)
    program = "import sys; from forkfirst.control import client; client.ask(sys.argv[1], 'stop')"
    path = home.state / f"run-{NOBODY}" / "app.sock"
    done = home.run("setpriv", f"--reuid={SOMEBODY}", "--clear-groups", PYTHON, "-c", program, path)
    assert "PermissionRefusedError" in done.err
    assert forkfirst_as(home, "status", "app").status == 0


def test_a_second_start_by_root_is_refused_with_or_without_a_user(home: Home) -> None:
    """One name, one service: though their pid files are in two places."""
    _start(home)
    for flags in (("--user", "nobody"), ()):
        done = forkfirst_as(home, "start", *flags, "app.py:main")
        assert done.status == 75, done
        assert "already running" in done.err


def test_a_rotation_that_is_not_allowed_says_why(home: Home) -> None:
    """The log's directory is root's: the service goes on in the old file."""
    logs = home.directory / "logs"
    logs.mkdir(mode=0o755)
    _start(home, "--log", logs / "app.log")
    done = forkfirst_as(home, "rotate", "app")
    assert done.status != 0
    assert f"{logs}/app.log: permission denied" in done.err
    assert forkfirst_as(home, "status", "app").status == 0


def test_nothing_of_ours_is_imported_after_the_drop(home: Home) -> None:
    """The new user may not be able to read the library: not even for a traceback."""
    _start(home, text=_recording())
    for command in ("status", "stacks", "rotate"):
        assert forkfirst_as(home, command, "app").status == 0
    assert forkfirst_as(home, "stop", "app").status == 0
    log = (home.state / "log" / "app" / "app.log").read_text()
    assert json.loads(log.splitlines()[0]) == []
    assert 'raise ValueError("shown with its source")' in log


def _recording() -> str:
    head, _, tail = SERVICE.partition("    await context.wait_stopping()\n")
    return (
        f"import sys\n{head}    BEFORE = set(sys.modules)\n    await context.wait_stopping()\n"
        "    print(json.dumps(sorted(set(sys.modules) - BEFORE)), flush=True)\n"
        f'    raise ValueError("shown with its source")\n{tail}'
    )


# -- another root directory ----------------------------------------------------------------------


def test_a_service_in_another_root_needs_nothing_of_python_there(home: Home) -> None:
    """All of it was imported before; there is no /proc either to verify the drop in."""
    jail = home.directory / "jail"
    jail.mkdir(mode=0o755)
    text = """
import os
async def main(context):
    context.ready(f"uid {os.getuid()} sees {os.listdir('/')}")
    await context.wait_stopping()
"""
    (jail / "app.py").write_text(text)
    done = forkfirst_as(home, "start", "--user", "nobody", "--chroot", jail, f"{jail}/app.py:main")
    assert done.status == 0, done
    assert f"uid {NOBODY} sees ['app.py']" in done.out
    assert forkfirst_as(home, "status", "app").status == 0
    assert "Thread" in forkfirst_as(home, "stacks", "app").out
    assert forkfirst_as(home, "stop", "app").status == 0
    assert not (home.state / f"run-{NOBODY}" / "app.pid").exists()
    assert not (home.state / f"run-{NOBODY}" / "app.sock").exists()


def test_nor_do_workers_and_their_template(home: Home) -> None:
    """The supervisor is loaded whole before it changes its root; without /proc it judges, too."""
    jail = home.directory / "jail"
    jail.mkdir(mode=0o755)
    text = "async def main(context):\n    context.ready()\n    await context.wait_stopping()\n"
    (jail / "app.py").write_text(text)
    words = ("--user", "nobody", "--chroot", jail, f"{jail}/app.py:main")
    done = forkfirst_as(home, "start", *words, "--workers", 2, "--preload")
    assert done.status == 0, done
    assert "preload  by the template" in forkfirst_as(home, "status", "app").out
    assert forkfirst_as(home, "stop", "app").status == 0


def test_a_program_outside_its_new_root_is_refused(home: Home) -> None:
    """Paths are given as they are now; what is not below the new root will not be there."""
    home.program("app.py", SERVICE)
    jail = home.directory / "jail"
    jail.mkdir()
    done = forkfirst_as(home, "start", "--user", "nobody", "--chroot", jail, "app.py:main")
    assert done.status == 78
    assert "is not below its new root directory" in done.err


# -- what is noticed before anything is opened ---------------------------------------------------


def test_a_program_that_the_new_user_cannot_read_is_noticed_at_once(home: Home) -> None:
    """Not as a ModuleNotFoundError after the drop, for a module that is there."""
    closed = home.directory / "closed"
    closed.mkdir(mode=0o700)
    (closed / "app.py").write_text(SERVICE)
    done = forkfirst_as(home, "start", "--user", "nobody", f"{closed}/app.py:main")
    assert done.status == 77
    assert f"{closed} is 0700 and belongs to root" in done.err
    assert "chmod o+x" in done.err
    assert home.list_files() == []


def test_a_virtual_environment_below_a_closed_home_is_noticed_at_once(home: Home) -> None:
    """The commonest case: everything works, as root."""
    closed = home.directory / "home"
    closed.mkdir(mode=0o700)
    subprocess.run([PYTHON, "-m", "venv", "--without-pip", closed / "venv"], check=True)
    home.program("app.py", SERVICE)
    python = closed / "venv" / "bin" / "python"
    done = home.run(python, "-m", "forkfirst", "start", "--user", "nobody", "app.py:main")
    assert done.status == 77
    assert f"{closed} is 0700 and belongs to root, on the way to {closed}/venv/" in done.err
    assert home.list_files() == []


@pytest.mark.parametrize(
    ("flags", "status", "text"),
    [
        (("--user", "no-such-user"), 78, 'there is no user with the name or number "no-such-user"'),
        (("--user", "nobody", "--group", "no-such"), 78, "there is no group with the name"),
        (("--user", "nobody", "--keep-capability", "fly"), 78, 'the capability "cap_fly"'),
        (("--limit", "nofile=many"), 78, '"many" is not a number'),
        (("--chroot", "/srv"), 78, "chroot means nothing without user"),
        (("--group", "daemon"), 78, "group means nothing without user"),
    ],
)
def test_a_mistake_is_told_before_anything_is_opened(
    home: Home, flags: tuple[str, ...], status: int, text: str
) -> None:
    """One line, with the reason."""
    home.program("app.py", SERVICE)
    done = forkfirst_as(home, "start", *flags, "app.py:main")
    assert (done.status, text in done.err) == (status, True), done
    assert home.list_files() == []


def test_only_root_can_become_somebody_else(home: Home) -> None:
    """And who is that user already has nothing to give up: the same file serves a User= unit."""
    home.program("app.py", "def main(context):\n    context.ready()\n").chmod(0o644)
    done = forkfirst_as(home, "run", "--user", "daemon", "app.py:main", uid=NOBODY)
    assert done.status == 77
    assert "cannot become daemon: only root can" in done.err
    home.directory.chmod(0o777)
    done = forkfirst_as(home, "run", "--user", "nobody", "app.py:main", uid=NOBODY)
    assert (done.status, done.err) == (0, "")


# -- the proof that it is verified ---------------------------------------------------------------

WITHOUT_A_STEP = """
import sys
from forkfirst.cli.main import main
from forkfirst.plan import confinement
from forkfirst.stages import confining
confining.TABLE[getattr(confinement, sys.argv[1])] = lambda step, start: None
sys.exit(main(["run", "--user", "nobody", "app.py:main"]))
"""


@pytest.mark.parametrize(
    ("step", "leftover"),
    [
        ("DropPrivileges", "its uids (real, effective, saved, file system) are 0"),
        ("ClearCapabilities", "its permitted capabilities still have"),
        ("ForbidNewPrivileges", "no_new_privs is not set"),
    ],
)
def test_a_service_that_kept_anything_refuses_to_run(home: Home, step: str, leftover: str) -> None:
    """Each step is left out once: what verifies them is the kernel, not our own opinion."""
    home.program("app.py", 'print("it ran")\n' + FACTS + "def main(): pass\n")
    done = home.run(PYTHON, "-c", WITHOUT_A_STEP, step)
    assert done.status == 77
    assert leftover in done.err
    assert "it ran" not in done.out


def test_a_foreground_becomes_another_user_too(home: Home) -> None:
    """`run` in a container, as root, takes the very same steps."""
    home.program("app.py", FACTS + "def main(): print(json.dumps(read_facts()))\n")
    done = forkfirst_as(home, "run", "--user", "nobody", "app.py:main", groups=ROOTS_GROUPS)
    facts = json.loads(done.out)
    assert (facts["Uid"], facts["Groups"]) == ([str(NOBODY)] * 4, [str(NOBODY)])


def test_a_command_becomes_another_user(home: Home) -> None:
    """Of any language, with its descriptor for readiness, and with no privileges."""
    command = ("sh", "-c", f"id -u > {home.directory}/who; echo >&4; exec sleep 1000")
    (home.directory / "who").touch()
    os.chown(home.directory / "who", NOBODY, NOBODY)
    flags = ("--user", "nobody", "--name", "app", "--settle", "60", "--notify-fd", "4")
    done = forkfirst_as(home, "start", *flags, "--", *command)
    assert done.status == 0, done
    assert Path(home.directory / "who").read_text() == f"{NOBODY}\n"
    assert forkfirst_as(home, "stop", "app").status == 0
