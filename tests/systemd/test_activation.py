"""What a manager's environment says was passed, and to whom."""

from __future__ import annotations

import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkfirst import errors
from forkfirst.systemd.activation import Passed, own_pidfd_id, read_passed
from support.child_program import run_child

PID = 4711
OURS = {"LISTEN_PID": str(PID)}

# What sd_listen_fds_with_names(3) makes of each; test_real_libsystemd.py holds it to that.
ACCEPTED: list[tuple[str, dict[str, str], list[tuple[int, str]]]] = [
    ("nothing at all", {}, []),
    ("not addressed", {"LISTEN_FDS": "1"}, []),
    ("another process's", {"LISTEN_PID": "1", "LISTEN_FDS": "1"}, []),
    ("another's, and malformed too", {"LISTEN_PID": "1", "LISTEN_FDS": "x"}, []),
    ("addressed, but no count", {**OURS, "LISTEN_FDNAMES": "a"}, []),
    ("one", {**OURS, "LISTEN_FDS": "1"}, [(3, "unknown")]),
    ("two", {**OURS, "LISTEN_FDS": "2"}, [(3, "unknown"), (4, "unknown")]),
    ("white space before", {**OURS, "LISTEN_FDS": " \t\n\v1"}, [(3, "unknown")]),
    ("a plus", {**OURS, "LISTEN_FDS": "+1"}, [(3, "unknown")]),
    ("hexadecimal", {**OURS, "LISTEN_FDS": "0x1"}, [(3, "unknown")]),
    ("octal", {**OURS, "LISTEN_FDS": "0o1"}, [(3, "unknown")]),
    ("octal as C has it", {**OURS, "LISTEN_FDS": "01"}, [(3, "unknown")]),
    ("binary", {**OURS, "LISTEN_FDS": "0B1"}, [(3, "unknown")]),
    ("a name", {**OURS, "LISTEN_FDS": "1", "LISTEN_FDNAMES": "web"}, [(3, "web")]),
    ("no name is a name", {**OURS, "LISTEN_FDS": "1", "LISTEN_FDNAMES": ""}, [(3, "")]),
    (
        "an empty last name",
        {**OURS, "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:"},
        [(3, "a"), (4, "")],
    ),
    ("one name twice", {**OURS, "LISTEN_FDS": "2", "LISTEN_FDNAMES": "w:w"}, [(3, "w"), (4, "w")]),
    (
        "a colon behind a backslash",
        {**OURS, "LISTEN_FDS": "1", "LISTEN_FDNAMES": r"a\:b"},
        [(3, "a:b")],
    ),
]
REFUSED: list[tuple[dict[str, str], str]] = [
    ({"LISTEN_PID": "", "LISTEN_FDS": "1"}, "LISTEN_PID"),
    ({"LISTEN_PID": "x", "LISTEN_FDS": "1"}, "LISTEN_PID"),
    ({"LISTEN_PID": "0", "LISTEN_FDS": "1"}, "LISTEN_PID"),
    ({"LISTEN_PID": "-1", "LISTEN_FDS": "1"}, "LISTEN_PID"),
    ({"LISTEN_PID": "-0", "LISTEN_FDS": "1"}, "LISTEN_PID"),
    ({"LISTEN_PID": "4711x", "LISTEN_FDS": "1"}, "LISTEN_PID"),
    ({"LISTEN_PID": "2147483648", "LISTEN_FDS": "1"}, "LISTEN_PID"),
    *(
        ({**OURS, "LISTEN_FDS": text}, "LISTEN_FDS")
        for text in (
            *("", "x", "0", "-1", "-0", "1 ", "1.0", "1_0", "1x", "08", "0o8", "0b2", "0x", "0b"),
            *("+ 1", "+-1", "0x+1", "\u0661", "2147483645", "2147483648", "9" * 20, "9" * 5000),
        )
    ),
    ({**OURS, "LISTEN_FDS": "1", "LISTEN_FDNAMES": "a:b"}, "LISTEN_FDNAMES"),
    ({**OURS, "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a"}, "LISTEN_FDNAMES"),
    ({**OURS, "LISTEN_FDS": "2", "LISTEN_FDNAMES": ""}, "LISTEN_FDNAMES"),
    ({**OURS, "LISTEN_FDS": "1", "LISTEN_FDNAMES": "a\\"}, "LISTEN_FDNAMES"),
    ({**OURS, "LISTEN_FDS": "1", "LISTEN_PIDFDID": "x"}, "LISTEN_PIDFDID"),
    ({**OURS, "LISTEN_FDS": "1", "LISTEN_PIDFDID": "-1"}, "LISTEN_PIDFDID"),
    ({**OURS, "LISTEN_FDS": "1", "LISTEN_PIDFDID": str(2**64)}, "LISTEN_PIDFDID"),
    ({**OURS, "LISTEN_FDS": "1", "LISTEN_FDS_FIRST_FD": "x"}, "LISTEN_FDS_FIRST_FD"),
    ({**OURS, "LISTEN_FDS": "1", "LISTEN_FDS_FIRST_FD": "2"}, "LISTEN_FDS_FIRST_FD"),
]


@pytest.mark.parametrize(
    ("environ", "expected"), [case[1:] for case in ACCEPTED], ids=[case[0] for case in ACCEPTED]
)
def test_what_libsystemd_accepts_is_accepted(
    environ: dict[str, str], expected: list[tuple[int, str]]
) -> None:
    """A service must see the same sockets as a neighbour that links the C library."""
    passed = read_passed(environ, PID, None)
    assert [(each.fd, each.name) for each in passed] == expected
    assert [each.index for each in passed] == list(range(len(expected)))


@pytest.mark.parametrize(("environ", "culprit"), REFUSED)
def test_what_libsystemd_refuses_is_refused_by_the_variable_s_name(
    environ: dict[str, str], culprit: str
) -> None:
    """Half an understanding of who was passed what would serve the wrong socket."""
    with pytest.raises(errors.ConfigError, match=f"{culprit}=") as caught:
        read_passed(environ, PID, None)
    assert len(str(caught.value)) < 200


def test_a_count_beyond_every_limit_is_refused_without_counting_to_it() -> None:
    """Listenfd 1.0.2 aborts its process for LISTEN_FDS=2147483647: two thousand million entries."""
    with pytest.raises(errors.ConfigError, match="more descriptors than a process can have"):
        read_passed({**OURS, "LISTEN_FDS": "2147483644"}, PID, None)


def test_a_reused_pid_is_told_apart_by_the_pidfd_s_inode() -> None:
    """A pid comes again; the number of a process does not."""
    environ = {**OURS, "LISTEN_FDS": "1", "LISTEN_PIDFDID": "77"}
    assert len(read_passed(environ, PID, 77)) == 1
    assert read_passed(environ, PID, 78) == ()
    assert len(read_passed(environ, PID, None)) == 1  # unknown here: then the pid must do


def test_systemfd_s_first_descriptor_is_understood() -> None:
    """Systemfd leaves its sockets behind what is open already, and says only where they begin."""
    environ = {**OURS, "LISTEN_FDS": "2", "LISTEN_FDS_FIRST_FD": "5"}
    assert [each.fd for each in read_passed(environ, PID, None)] == [5, 6]


def test_an_unaddressed_set_is_accepted_only_if_asked_for() -> None:
    """`systemfd --no-pid` sends no LISTEN_PID; but so does any leftover of an ancestor."""
    environ = {"LISTEN_FDS": "1"}
    assert read_passed(environ, PID, None) == ()
    assert read_passed(environ, PID, None, unaddressed=True) == (
        Passed(fd=3, name="unknown", index=0),
    )
    assert read_passed({"LISTEN_PID": "1", **environ}, PID, None, unaddressed=True) == ()


_PLAIN = "".join(c for c in string.printable if c.isprintable() and c not in ":\\")


@given(st.lists(st.text(_PLAIN, max_size=8), min_size=1, max_size=40))
def test_names_come_back_in_their_order(names: list[str]) -> None:
    """Names may be empty and may repeat, and each belongs to one descriptor."""
    environ = {**OURS, "LISTEN_FDS": str(len(names)), "LISTEN_FDNAMES": ":".join(names)}
    assert [each.name for each in read_passed(environ, PID, None)] == names


@given(
    st.dictionaries(
        st.sampled_from(
            ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID", "LISTEN_FDS_FIRST_FD"]
        ),
        st.text(st.characters(exclude_characters="\0"), max_size=12)
        | st.integers(-5, 40).map(str)
        | st.just(str(PID)),
    )
)
def test_whatever_the_environment_says_it_is_read_or_refused(environ: dict[str, str]) -> None:
    """The environment comes from outside: no text in it may raise anything else."""
    try:
        passed = read_passed(environ, PID, 12)
    except errors.ConfigError:
        return
    assert all(each.fd >= 3 for each in passed)


TAKE = """
import fcntl, json, os, sys, threading
from forkfirst import errors
from forkfirst.systemd.activation import take_environment
count, said, threads, pid = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
for fd in range(3, 3 + count):
    os.dup2(0, fd)
os.environ.update(LISTEN_PID=pid or str(os.getpid()), LISTEN_FDS=said, LISTEN_FDNAMES="a:b")
os.environ.update(LISTEN_PIDFDID="1" if pid else "", LISTEN_FDS_FIRST_FD="3")
if not pid:
    del os.environ["LISTEN_PIDFDID"]
gate = threading.Event()
started = [threading.Thread(target=gate.wait) for _ in range(threads)]
[thread.start() for thread in started]
try:
    result = [[each.fd, each.name] for each in take_environment()]
except errors.ForkfirstError as error:
    result = [type(error).__name__, str(error)]
gate.set()
[thread.join() for thread in started]
left = sorted(name for name in os.environ if name.startswith("LISTEN_"))
flags = [fcntl.fcntl(fd, fcntl.F_GETFD) for fd in range(3, 3 + count)]
print(json.dumps({"result": result, "left": left, "flags": flags}))
"""


def _take(count: int, said: str, *, threads: int = 0, pid: str = "") -> dict[str, Any]:
    told: dict[str, Any] = run_child(TAKE, str(count), said, str(threads), pid)
    return told


def test_what_is_taken_is_inherited_by_no_child() -> None:
    """Listenfd 1.0.2 leaves untaken descriptors without close-on-exec, and two variables set."""
    told = _take(2, "2")
    assert told == {"result": [[3, "a"], [4, "b"]], "left": [], "flags": [1, 1]}


def test_one_closed_descriptor_fails_the_whole() -> None:
    """Listenfd 1.0.2 hands out closed descriptors: the number is somebody else's soon."""
    told = _take(1, "2")
    assert told["result"][0] == "ConfigError"
    assert "LISTEN_FDS is 2, but 4 is closed" in told["result"][1]
    assert told["left"] == []


def test_the_variables_go_even_if_they_are_malformed() -> None:
    """A child would read them again, and may be less careful."""
    told = _take(1, "nonsense")
    assert told["result"][0] == "ConfigError"
    assert told["left"] == []


def test_another_process_s_descriptors_are_left_as_they_are() -> None:
    """They may be meant for what we are about to execute; only the variables are stale."""
    told = _take(2, "2", pid="1")
    assert told == {"result": [], "left": [], "flags": [0, 0]}


def test_taking_is_refused_once_there_are_threads() -> None:
    """Another thread may read the environment, or open a file and get number 3, meanwhile."""
    told = _take(2, "2", threads=2)
    assert told["result"][0] == "UsageError"
    assert "3 threads are running" in told["result"][1]
    assert "LISTEN_FDS" in told["left"]  # nothing was touched
    assert told["flags"] == [0, 0]


def test_where_nothing_was_passed_threads_do_not_matter() -> None:
    """A service that is not activated must not learn of socket activation by an error."""
    program = """
import json, os, threading
from forkfirst.systemd.activation import take_environment
gate = threading.Event()
thread = threading.Thread(target=gate.wait)
thread.start()
print(json.dumps(take_environment()))
gate.set()
thread.join()
"""
    assert run_child(program) == []


def test_a_process_has_a_number_of_its_own() -> None:
    """The same for as long as it lives, and another for its child."""
    mine = own_pidfd_id()
    if mine is None:
        pytest.skip("this kernel has no pidfs (it came with Linux 6.9)")
    program = """
import json, os
from forkfirst.systemd.activation import own_pidfd_id
print(json.dumps([own_pidfd_id(), own_pidfd_id(), len(os.listdir("/proc/self/fd"))]))
"""
    first, second, descriptors = run_child(program)
    assert first == second != mine
    assert mine == own_pidfd_id()
    assert descriptors == 4  # the three of the standard streams, and the listing itself


def test_reading_costs_no_import() -> None:
    """An activated service pays for its start like any other."""
    program = """
import json, sys
before = set(sys.modules)
import forkfirst.systemd.activation, forkfirst.systemd.notify, forkfirst.systemd.watchdog
import forkfirst.systemd.journal
print(json.dumps(sorted(name for name in set(sys.modules) - before)))
"""
    loaded = run_child(program)
    assert {name for name in loaded if not name.startswith("forkfirst")} <= {
        "_struct",
        "errno",
        "select",
        "struct",
        "time",
        "stat",
        "__future__",
    }


def test_where_there_is_no_pidfd_there_is_no_number() -> None:
    """MacOS and old kernels: the pid alone must do, and nothing may fail."""
    program = """
import json, os
if hasattr(os, "pidfd_open"):
    del os.pidfd_open
from forkfirst.systemd.activation import own_pidfd_id
print(json.dumps(own_pidfd_id()))
"""
    assert run_child(program) is None
