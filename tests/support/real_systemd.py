"""Boots a real systemd, for tests that want the genuine manager and not somebody's idea of it.

It is PID 1 of namespaces of its own (process, mount, network, host name, IPC, control group), on a
throw-away overlay of a tree: this machine's own, or one that `mmdebstrap` built for a newer
systemd. This machine's PID 1, mounts and network see nothing of it. It ends with this process,
however this process ends; only its control group, an empty directory, needs removing then, and the
next start does that.
"""

from __future__ import annotations

import fcntl
import os
import select
import shutil
import subprocess
import tempfile
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from forkfirst.systemd.notify_receiver import open_receiver

if TYPE_CHECKING:
    from collections.abc import Iterator

    from forkfirst.systemd.notify_receiver import Receiver

DEBIAN_PACKAGES = ("systemd-container", "mmdebstrap", "s6", "libsystemd0", "util-linux")
"""What must be installed for the tests marked `real` that use this module."""

NEWER_RELEASE = "trixie"
"""The Debian release that brings the newer systemd."""

CACHE = Path(os.environ.get("FORKFIRST_TEST_CACHE", "/var/cache/forkfirst-tests"))
SOURCE_INSIDE = "/usr/local/lib/forkfirst-under-test"
PROGRAMS_INSIDE = "/usr/local/lib/forkfirst-programs"
TESTS_INSIDE = "/usr/local/lib/forkfirst-tests"
EXAMPLES_INSIDE = "/usr/local/lib/forkfirst-examples"
PYTHON_INSIDE = "/usr/bin/python3"

_TESTS = Path(__file__).parents[1]
_SCRIPT = Path(__file__).with_suffix(".sh")
_PACKAGES_INSIDE = "systemd,systemd-sysv,dbus,libpam-systemd,python3,procps"
_GROUP_PREFIX = "forkfirst-test-"
_BOOT_SECONDS = 60.0
_BUILD_SECONDS = 400.0


class UnavailableError(Exception):
    """This machine cannot boot one; the text says why."""


class RealSystemd:
    """One running systemd.

    Attributes:
        leader: Its PID 1, as this machine numbers it.
        version: 252, 257, …
    """

    def __init__(self, leader: int) -> None:
        self.leader = leader
        words = self.run("systemctl", "--version").split()
        self.version = int(words[1])

    def run(self, *command: str, timeout: float = 60.0, check: bool = True) -> str:
        """Run *command* inside, as root, and return what it wrote to both streams.

        Raises:
            AssertionError: It failed, and *check* was not given up.
        """
        done = subprocess.run(
            self.enter(*command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert not check or done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}"
        return done.stdout

    def enter(self, *command: str) -> list[str]:
        """Return the command line that runs *command* inside; it ends when that line is killed."""
        spaces = ("--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd")
        environment = ("env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8")
        # nsenter forks, for the namespace of processes; a kill would reach only the parent of it.
        bound = ("setpriv", "--pdeathsig", "KILL", "--")
        inside = (*bound, *environment, *command)
        return ["nsenter", f"--target={self.leader}", *spaces, "--", *inside]

    def path(self, inside: str) -> Path:
        """Return where this machine sees the file *inside*."""
        return Path(f"/proc/{self.leader}/root") / inside.removeprefix("/")

    def install(self, **units: str) -> None:
        """Write unit files, `web_service="[Service]…"` as web.service, and have them read.

        A unit that stands there already is replaced. Every service finds the package and
        `programs/` through PYTHONPATH.
        """
        for name, text in units.items():
            stem, _, kind = name.rpartition("_")
            if kind == "service":
                text += f"\nEnvironment=PYTHONPATH={SOURCE_INSIDE} PYTHONDONTWRITEBYTECODE=1\n"  # noqa: PLW2901 - the file's last lines
            self.path(f"/etc/systemd/system/{stem.replace('_', '-')}.{kind}").write_text(text)
        self.run("systemctl", "daemon-reload")

    def show(self, unit: str, name: str) -> str:
        """Return the property *name* of *unit*."""
        return self.run("systemctl", "show", "--value", f"--property={name}", unit).strip()

    def read_journal(self, unit: str) -> list[str]:
        """Return the messages of *unit*, oldest first, once all that was sent is written."""
        self.run("journalctl", "--sync")
        return self.run("journalctl", "--unit", unit, "--output=cat", "--no-pager").splitlines()


@contextmanager
def boot(lower: Path, name: str) -> Iterator[RealSystemd]:
    """Boot a systemd on the tree *lower*; it is gone when the context ends.

    Raises:
        UnavailableError: This machine cannot.
    """
    probe()
    with ExitStack() as cleaning:
        group = _make_group(name)
        cleaning.callback(_end_group, group)
        scratch = Path(tempfile.mkdtemp(prefix="forkfirst-systemd-"))
        cleaning.enter_context(_guard(group, scratch))
        console = cleaning.enter_context(tempfile.TemporaryFile("w+"))
        receiver = cleaning.enter_context(open_receiver(f"@forkfirst-test-{os.getpid()}-{name}"))
        nspawn = subprocess.Popen(
            [
                *("unshare", "--mount", "--propagation=private", "sh", str(_SCRIPT)),
                *(str(lower), str(scratch), str(group), name),
                f"--bind-ro={_TESTS.parent / 'src'}:{SOURCE_INSIDE}",
                f"--bind-ro={_TESTS / 'programs'}:{PROGRAMS_INSIDE}",
                f"--bind-ro={_TESTS}:{TESTS_INSIDE}",
                f"--bind-ro={_TESTS.parent / 'examples'}:{EXAMPLES_INSIDE}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
            env={"PATH": os.environ["PATH"], "NOTIFY_SOCKET": receiver.address},
            start_new_session=True,
        )
        cleaning.callback(nspawn.wait, timeout=30)
        cleaning.callback(nspawn.kill)
        leader = _wait_until_booted(nspawn, receiver)
        if leader is None:
            console.seek(0)
            reason = f"systemd-nspawn did not boot {lower}: {console.read()[-2000:]}"
            raise UnavailableError(reason)
        # Newer ones go on telling us of every unit; unread, they would wait for ever for room.
        receiver.close()
        yield RealSystemd(leader)


def probe() -> None:
    """Raise UnavailableError, with the reason, where no systemd can be booted."""
    if os.geteuid() != 0:
        reason = "not root"
        raise UnavailableError(reason)
    missing = [tool for tool in ("systemd-nspawn", "nsenter", "unshare") if not shutil.which(tool)]
    if missing:
        reason = f"not installed: {', '.join(missing)} (Debian: {', '.join(DEBIAN_PACKAGES)})"
        raise UnavailableError(reason)
    if not os.access(find_groups(), os.W_OK):
        reason = "control groups cannot be made here"
        raise UnavailableError(reason)


def build_newer_tree() -> Path:
    """Return a tree with a newer systemd, built by mmdebstrap the first time.

    It is built beside its place and renamed, so a tree that is there is whole.

    Raises:
        UnavailableError: mmdebstrap is not installed, or failed: no network, no space.
    """
    place = CACHE / NEWER_RELEASE
    if not shutil.which("mmdebstrap"):
        reason = "not installed: mmdebstrap"
        raise UnavailableError(reason)
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two workers of one test run build it once
        if place.is_dir():
            return place
        unfinished = CACHE / f"{NEWER_RELEASE}.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        command = [
            *("mmdebstrap", "--quiet", "--mode=root", "--variant=minbase"),
            *(f"--include={_PACKAGES_INSIDE}", NEWER_RELEASE, str(unfinished)),
        ]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_BUILD_SECONDS, check=False
        )
        if done.returncode != 0:
            shutil.rmtree(unfinished, ignore_errors=True)
            reason = f"mmdebstrap could not build {NEWER_RELEASE}: {done.stderr[-500:]}"
            raise UnavailableError(reason)
        unfinished.rename(place)
    return place


def _wait_until_booted(nspawn: subprocess.Popen[bytes], receiver: Receiver) -> int | None:
    """Return the leader's pid once it says that it is up, or None if nspawn ends before."""
    waiting = select.poll()
    waiting.register(receiver.fileno(), select.POLLIN)
    pidfd = os.pidfd_open(nspawn.pid)
    try:
        waiting.register(pidfd, select.POLLIN)
        leader = 0
        until = time.monotonic() + _BOOT_SECONDS
        while (left := until - time.monotonic()) > 0:
            ready = [fd for fd, _ in waiting.poll(left * 1000)]
            message = receiver.receive()
            if message is not None and message.pid == nspawn.pid:
                leader = int(message.fields.get("X_NSPAWN_LEADER_PID", leader))
                if message.fields.get("READY") == "1" and leader:
                    return leader
            elif pidfd in ready:
                return None
    finally:
        os.close(pidfd)
    return None


# -- the control group: what is in it is ours, and nothing else is ------------------------------


def find_groups() -> Path:
    """Return where this machine has the control groups of version 2."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        if after.startswith("cgroup2 "):
            return Path(before.split()[4])
    reason = "no control groups of version 2 are mounted"
    raise UnavailableError(reason)


def _make_group(name: str) -> Path:
    """Make an empty group, and remove those of test runs that were killed."""
    groups = find_groups()
    for stale in groups.glob(f"{_GROUP_PREFIX}*"):
        pid = stale.name.removeprefix(_GROUP_PREFIX).partition("-")[0]
        if not Path("/proc", pid).exists():
            _end_group(stale)
    group = groups / f"{_GROUP_PREFIX}{os.getpid()}-{name}"
    group.mkdir()
    if not (group / "cgroup.kill").exists():
        group.rmdir()
        reason = "the kernel is older than 5.14: it cannot end a whole control group"
        raise UnavailableError(reason)
    return group


@contextmanager
def _guard(group: Path, scratch: Path) -> Iterator[None]:
    """End everything in *group* when the context does, or when this process is killed.

    The directory *scratch* is removed as well: what is mounted on it is so for others only.

    The guard is outside the group, and waits for the end of a pipe that only we hold: systemd as
    PID 1 of its namespace would outlive both us and systemd-nspawn.
    """
    program = 'read -r _; echo 1 >"$1/cgroup.kill"; rmdir "$2"'
    command = ["sh", "-c", program, "sh", str(group), str(scratch)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True):
        yield  # leaving closes the pipe, and waits


def _end_group(group: Path) -> None:
    """Kill what is in *group*, wait until it is gone, and remove the group."""
    with suppress(FileNotFoundError):
        (group / "cgroup.kill").write_text("1")
        with (group / "cgroup.events").open() as events:
            waiting = select.poll()
            waiting.register(events, select.POLLPRI)  # the kernel's word for "it changed"
            until = time.monotonic() + _BOOT_SECONDS
            while "populated 1" in events.read() and time.monotonic() < until:
                waiting.poll(1000)
                events.seek(0)
        for folder, _, _ in os.walk(group, topdown=False):
            Path(folder).rmdir()
