"""A dropped privilege is gone for good, and a service that could regain one refuses to run.

Each failure found in five other daemon libraries is here by name: the wrong way is done for real,
and the verification must refuse it.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkfirst import errors
from forkfirst.unix import prctl, privileges
from support.child_program import NOBODY, ROOT_GROUPS, run_child

IDENTITY = privileges.Identity(uid=7, gid=8, groups=(8, 9))
NO_CAPABILITIES = dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), "0" * 16)
DROPPED = {"Uid": "7\t7\t7\t7", "Gid": "8\t8\t8\t8", "Groups": "8 9", "NoNewPrivs": "1"}
DROPPED |= NO_CAPABILITIES


def test_a_complete_drop_leaves_nothing() -> None:
    """The baseline of the cases below."""
    assert privileges.find_leftovers(DROPPED, IDENTITY) == ()


@pytest.mark.parametrize("field", ["Uid", "Gid"])
@pytest.mark.parametrize("place", range(4))
def test_each_of_the_four_ids_counts(field: str, place: int) -> None:
    """A saved id of 0 is a way back, a file system id of 0 is root's files."""
    ids = DROPPED[field].split()
    ids[place] = "0"
    (left,) = privileges.find_leftovers({**DROPPED, field: "\t".join(ids)}, IDENTITY)
    assert left.startswith(f"its {field.lower()}s")


@pytest.mark.parametrize("groups", ["", "8", "0 8 9", "8 9 42"])
def test_the_groups_are_exactly_those_asked_for(groups: str) -> None:
    """One more is access that nobody gave, one less is access that somebody expects."""
    (left,) = privileges.find_leftovers({**DROPPED, "Groups": groups}, IDENTITY)
    assert left.endswith("not [8, 9]")


@given(st.sampled_from(sorted(NO_CAPABILITIES)), st.sampled_from(prctl.CAPABILITIES))
def test_any_capability_in_any_set_is_found_and_named(field: str, name: str) -> None:
    """Each set is a way: permitted can be raised, ambient and bounding reach what is executed."""
    mask = prctl.make_capability_mask([name])
    (left,) = privileges.find_leftovers({**DROPPED, field: f"{mask:016x}"}, IDENTITY)
    assert left.endswith(f"still have {name}")


def test_a_capability_that_was_to_be_kept_and_is_not_is_named() -> None:
    """The service would fail at its first use, much later."""
    wanted = privileges.Identity(uid=7, gid=8, groups=(8, 9), keep=("net_raw",))
    left = privileges.find_leftovers(DROPPED, wanted)
    assert len(left) == 5
    assert all(text.endswith("lack cap_net_raw") for text in left)


def test_capabilities_have_their_names_in_any_spelling() -> None:
    """People write what they saw: setpriv's, systemd's or the kernel's."""
    mask = privileges.parse_capabilities(("CAP_NET_RAW", "cap_net_raw", "net_raw"))
    assert prctl.describe_capability_mask(mask) == ("cap_net_raw",)
    with pytest.raises(errors.ConfigError, match='"cap_everything"'):
        privileges.parse_capabilities(("cap_everything",))


START = f"""
import ctypes, json, os, sys
from forkfirst import errors
from forkfirst.unix import privileges
NOBODY = {NOBODY}
def say(*facts):
    print(json.dumps(facts))
    sys.stdout.flush()
    os._exit(0)  # the interpreter may be unreadable by now
def drop(groups=(NOBODY,), keep=(), end=say):
    privileges.drop_privileges(NOBODY, NOBODY, groups, hold_capabilities=True)
    privileges.clear_capabilities(keep)
    privileges.set_no_new_privileges()
    privileges.set_not_dumpable()
def verify(groups=(NOBODY,), keep=(), **more):
    try:
        privileges.verify_dropped(NOBODY, NOBODY, groups, keep, **more)
    except errors.PermissionRefusedError as refused:
        return str(refused)
    return "verified"
def opens(path):
    try:
        os.close(os.open(path, os.O_RDONLY))
    except PermissionError:
        return False
    return True
def status():
    with open("/proc/thread-self/status") as file:
        return {{name: value.split() for name, _, value in (line.partition(":") for line in file)}}
"""

real = pytest.mark.real
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="capabilities are Linux's")


def run_as_root(program: str, *arguments: str) -> Any:
    """Run *program* as root with the groups that root's shell may have."""
    assert os.geteuid() == 0
    return run_child(START + program, *arguments, groups=ROOT_GROUPS)


@real
@linux_only
def test_the_right_order_is_verified_and_leaves_nothing() -> None:
    """All ids, all groups, all capability sets, both flags; and root's files are closed."""
    groups, verified, shadow, seen = run_as_root("""
before = sorted(os.getgroups())
drop((NOBODY, 4))
say(before, verify((NOBODY, 4)), opens("/etc/shadow"), status())
""")
    assert groups == sorted(ROOT_GROUPS)
    assert (verified, shadow) == ("verified", False)
    assert (seen["Uid"], seen["Gid"]) == ([str(NOBODY)] * 4, [str(NOBODY)] * 4)
    assert seen["Groups"] == ["4", str(NOBODY)]
    assert all(seen[name] == ["0" * 16] for name in NO_CAPABILITIES)
    assert seen["NoNewPrivs"] == ["1"]


@real
@linux_only
def test_groups_kept() -> None:
    """python-daemon, daemonize, daemonocle, pep3143daemon, gunicorn: root's groups stay."""
    verdict, shadow = run_as_root("""
os.setgid(NOBODY)
os.setuid(NOBODY)
say(verify(), opens("/etc/shadow"))
""")
    assert shadow, "without the property, the shadow group still reads the passwords"
    assert verdict.startswith(f"refusing to run as uid {NOBODY}: ")
    assert f"its groups are {sorted(ROOT_GROUPS)}, not [{NOBODY}]" in verdict


@real
@linux_only
def test_gid_0_kept_with_initgroups() -> None:
    """python-daemon's and gunicorn's initgroups: the list is right, the group itself stays root."""
    verdict, gids = run_as_root("""
os.initgroups("nobody", NOBODY)
os.setuid(NOBODY)
say(verify(), os.getresgid())
""")
    assert gids == [0, 0, 0]
    assert "its gids (real, effective, saved, file system) are 0" in verdict


@real
@linux_only
def test_saved_uid_0() -> None:
    """A drop of the effective id alone is undone by one call; the verification makes that call."""
    verdict = run_as_root("""
os.setgroups([NOBODY])
os.setresgid(NOBODY, NOBODY, NOBODY)
os.setresuid(NOBODY, NOBODY, 0)
say(verify())
""")[0]
    assert "its uids (real, effective, saved, file system) are 65534\t65534\t0\t65534" in verdict
    assert "seteuid(0) succeeded" in verdict


@real
def test_pid_file_after_the_drop(tmp_path: Any) -> None:
    """python-daemon takes it as nobody, and fails: it stays usable if opened before."""
    closed = tmp_path / "run"
    closed.mkdir(mode=0o700)
    written, late = run_as_root(
        """
fd = os.open(sys.argv[1] + "/early.pid", os.O_RDWR | os.O_CREAT, 0o644)
drop()
written = os.write(fd, b"1\\n")
try:
    os.open(sys.argv[1] + "/late.pid", os.O_RDWR | os.O_CREAT, 0o644)
except PermissionError as error:
    say(written, type(error).__name__)
say(written, "opened")
""",
        str(closed),
    )
    assert (written, late) == (2, "PermissionError")


@real
@linux_only
def test_capabilities_kept() -> None:
    """The ids are right and everything is still possible: nobody with every capability."""
    verdict, uids = run_as_root("""
privileges.drop_privileges(NOBODY, NOBODY, (NOBODY,), hold_capabilities=True)
privileges.set_no_new_privileges()
uids = os.getresuid()
say(verify(), uids)
""")
    assert uids == [NOBODY] * 3
    assert "its permitted capabilities still have cap_chown" in verdict
    assert "its bounding capabilities still have cap_chown" in verdict


@real
@linux_only
def test_no_new_privs_not_set_is_refused_unless_it_was_not_wanted() -> None:
    """A set-user-id program is the oldest way back."""
    with_it, without = run_as_root("""
privileges.drop_privileges(NOBODY, NOBODY, (NOBODY,), hold_capabilities=True)
privileges.clear_capabilities(())
say(verify(), verify(no_new_privileges=False))
""")
    assert with_it.endswith(": no_new_privs is not set")
    assert without == "verified"


@real
@linux_only
def test_what_was_not_held_cannot_be_cleared_and_says_so() -> None:
    """Without CAP_SETPCAP the bounding set stays full: an error, not a silent rest."""
    said = run_as_root("""
privileges.drop_privileges(NOBODY, NOBODY, (NOBODY,))
try:
    privileges.clear_capabilities(())
except PermissionError as error:
    say(error.strerror)
""")[0]
    assert said.startswith("prctl: ")


@real
@linux_only
def test_a_kept_capability_works_here_and_in_what_is_executed_and_nothing_else_does() -> None:
    """A low port without root, in a network of its own where every port is free."""
    verdict, port, executed = run_as_root("""
import socket, subprocess
assert ctypes.CDLL(None).unshare(0x40000000) == 0  # CLONE_NEWNET
keep = ("cap_net_bind_service",)
low = socket.socket()
drop(keep=keep)
verdict = verify(keep=keep)
low.bind(("0.0.0.0", 443))
reader, writer = os.pipe()
if os.fork() == 0:
    os.dup2(writer, 1)
    os.execv("/bin/sh", ["sh", "-c", "while read -r line; do case $line in Cap*) echo $line;; esac;"
                                     " done < /proc/self/status"])
os.close(writer)
os.wait()
say(verdict, low.getsockname()[1], os.read(reader, 4096).decode().split())
""")
    assert (verdict, port) == ("verified", 443)
    only = f"{1 << 10:016x}"
    assert executed == [
        *("CapInh:", only, "CapPrm:", only, "CapEff:", only, "CapBnd:", only, "CapAmb:", only)
    ]


@real
@linux_only
def test_a_kept_capability_that_is_a_way_back_to_root_is_refused() -> None:
    """cap_setuid was asked for, and it is root by another name."""
    verdict = run_as_root("""
drop(keep=("cap_setuid",))
say(verify(keep=("cap_setuid",)))
""")[0]
    assert "setuid(0) succeeded" in verdict


@real
def test_the_root_directory_changes_with_the_working_directory(tmp_path: Any) -> None:
    """A working directory left outside is the way out of a chroot."""
    (tmp_path / "inside").touch()
    working, names = run_as_root(
        """
privileges.chroot(sys.argv[1])
say(os.getcwd(), os.listdir("/"))
""",
        str(tmp_path),
    )
    assert (working, names) == ("/", ["inside"])


@real
def test_a_user_who_may_not_change_ids_is_refused_by_the_kernel() -> None:
    """The first step fails, so nothing is half done."""
    said, uids = run_as_root("""
os.setresuid(NOBODY, NOBODY, NOBODY)
try:
    privileges.drop_privileges(1, 1, (1,))
except PermissionError as error:
    say(type(error).__name__, os.getresuid())
""")
    assert (said, uids) == ("PermissionError", [NOBODY] * 3)
