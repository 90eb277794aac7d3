"""What prctl(2) and its kin do is what the kernel then says of the process."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkfirst.unix import prctl
from support.child_program import run_child

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="prctl(2) is Linux's")

START = """
import json, os, signal, sys
from forkfirst.unix import prctl
def status(*names):
    with open("/proc/thread-self/status") as file:
        lines = dict(line.rstrip("\\n").split(":\\t") for line in file if ":\\t" in line)
    return [lines[name] for name in names]
"""


@given(st.sets(st.sampled_from(prctl.CAPABILITIES)))
def test_names_and_masks_are_two_spellings_of_a_set(names: set[str]) -> None:
    """The kernel has bits, people have names."""
    assert set(prctl.describe_capability_mask(prctl.make_capability_mask(names))) == names


def test_a_capability_newer_than_the_table_has_its_number() -> None:
    """A newer kernel must not make the report of a leftover fail."""
    assert prctl.describe_capability_mask(1 << 50 | 1) == ("cap_chown", "cap_50")


@linux_only
def test_the_table_has_every_capability_of_this_kernel_in_its_place() -> None:
    """A name in the wrong place would keep a wrong capability."""
    with open("/proc/sys/kernel/cap_last_cap", encoding="ascii") as file:  # noqa: PTH123
        assert int(file.read()) < len(prctl.CAPABILITIES)
    assert prctl.CAPABILITIES.index("cap_net_bind_service") == 10
    assert prctl.CAPABILITIES.index("cap_setpcap") == 8
    assert prctl.CAPABILITIES.index("cap_audit_control") == 30
    assert prctl.CAPABILITIES.index("cap_checkpoint_restore") == 40


@linux_only
def test_no_new_privileges_is_set_for_good() -> None:
    """/proc is the witness, not our own reading."""
    program = f"""{START}
before = prctl.read_no_new_privileges()
prctl.set_no_new_privileges()
print(json.dumps([before, prctl.read_no_new_privileges(), *status("NoNewPrivs")]))
"""
    assert run_child(program) == [False, True, "1"]


@linux_only
def test_dumpable_is_taken_and_given() -> None:
    """Both ways, since an upgrade may need to be looked into."""
    program = f"""{START}
seen = []
for wanted in (False, True):
    prctl.set_dumpable(dumpable=wanted)
    seen.append(prctl.read_dumpable())
print(json.dumps(seen))
"""
    assert run_child(program) == [False, True]


@linux_only
def test_the_process_name_is_cut_to_what_the_kernel_holds() -> None:
    """15 bytes; a longer one is cut by us, not refused."""
    program = f"""{START}
prctl.set_process_name("forkfirst: worker 12")
print(json.dumps(status("Name")))
"""
    assert run_child(program) == ["forkfirst: work"]


@linux_only
def test_orphans_become_children_of_a_subreaper() -> None:
    """A supervisor that is not PID 1 reaps what its workers leave behind."""
    program = f"""{START}
prctl.become_subreaper()
reader, writer = os.pipe()
if os.fork() == 0:
    if os.fork() == 0:
        os.write(writer, b"%d" % os.getpid())
        os._exit(7)
    os._exit(0)
ends = dict(os.wait() for _ in range(2))
orphan = int(os.read(reader, 20))
print(json.dumps([prctl.read_subreaper(), os.waitstatus_to_exitcode(ends[orphan])]))
"""
    assert run_child(program) == [True, 7]


@linux_only
def test_a_child_ends_with_its_parent() -> None:
    """The parent says so beforehand, and dies without a word: nothing outlives a killed parent."""
    program = f"""{START}
prctl.become_subreaper()
reader, writer = os.pipe()
if os.fork() == 0:
    if os.fork() == 0:
        prctl.set_parent_death_signal(signal.SIGKILL)
        os.write(writer, b"%d" % os.getpid())
        signal.pause()
    os.read(reader, 20)
    os.kill(os.getpid(), signal.SIGKILL)
ends = [os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(2)]
print(json.dumps(ends))
"""
    assert run_child(program) == [-9, -9]


ELSEWHERE = """
import sys
sys.platform = "freebsd"
import json
from forkfirst.unix import prctl
calls = [
    lambda: prctl.set_parent_death_signal(9), prctl.become_subreaper, prctl.read_subreaper,
    prctl.set_no_new_privileges, prctl.read_no_new_privileges, prctl.read_dumpable,
    lambda: prctl.set_dumpable(dumpable=False), lambda: prctl.set_keep_capabilities(keep=False),
    prctl.read_capabilities, prctl.read_bounding_set, lambda: prctl.replace_ambient_set(0),
    lambda: prctl.write_capabilities(effective=0, permitted=0, inheritable=0),
    lambda: prctl.drop_from_bounding_set(1), lambda: prctl.set_process_name("x"),
]
said = set()
for call in calls:
    try:
        call()
    except OSError as error:
        said.add((error.errno, error.strerror))
    else:
        said.add(call)
print(json.dumps(sorted(said)))
"""


def test_elsewhere_every_call_says_that_only_linux_has_it() -> None:
    """ENOSYS, which a caller can expect; never a missing attribute."""
    import errno  # noqa: PLC0415

    assert run_child(ELSEWHERE) == [[errno.ENOSYS, "only Linux has this, not freebsd"]]


@linux_only
def test_importing_the_module_does_not_import_ctypes() -> None:
    """It is on the way of every start, and ctypes would cost 1.5 ms there."""
    assert run_child(f"{START}\nprint(json.dumps('ctypes' in sys.modules))") is False


@linux_only
@pytest.mark.real
def test_capability_sets_are_what_the_kernel_shows() -> None:
    """All five sets, against /proc."""
    program = f"""{START}
mask = prctl.make_capability_mask(["cap_chown", "cap_checkpoint_restore"])
bounding = prctl.read_bounding_set()
prctl.drop_from_bounding_set(bounding & ~mask)
prctl.write_capabilities(effective=mask, permitted=mask, inheritable=mask)
prctl.replace_ambient_set(mask)
print(json.dumps([
    [int(text, 16) == mask for text in status("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")],
    prctl.read_capabilities() == (mask, mask, mask), prctl.read_bounding_set() == mask,
]))
"""
    assert run_child(program) == [[True] * 5, True, True]


@linux_only
@pytest.mark.real
def test_the_wish_to_die_with_the_parent_is_forgotten_when_the_user_changes() -> None:
    """Hence the order in which a worker does the two; the kernel's rule, shown."""
    program = f"""{START}
import ctypes
def wish():
    signal_number = ctypes.c_int()
    ctypes.CDLL(None).prctl(2, ctypes.c_ulong(ctypes.addressof(signal_number)), 0, 0, 0)
    return signal_number.value
prctl.set_parent_death_signal(signal.SIGKILL)
before = wish()
os.setresuid(65534, 65534, 65534)
print(json.dumps([before, wish()]))
"""
    assert run_child(program) == [9, 0]
