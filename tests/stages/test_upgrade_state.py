"""What a supervisor hands over: the same value on the other side, or a clear refusal."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkfirst import errors
from forkfirst.plan.fleet import events
from forkfirst.plan.fleet.state import Fleet, Settings, Worker
from forkfirst.plan.host import Identity
from forkfirst.plan.listener import parse_listener
from forkfirst.plan.places import Places
from forkfirst.plan.service import Declaration
from forkfirst.stages.supervise.process import Process
from forkfirst.stages.upgrade import parsing, plain, state
from forkfirst.unix import channel
from support.source_tree import PACKAGE


def _cross(value: Any) -> Any:
    """Take *value* through the file."""
    return plain.decode(json.loads(json.dumps(plain.encode(value))))


# -- the text of it -------------------------------------------------------------------------------


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_a_state_is_read_as_json_reads_it(value: Any) -> None:
    """The form is JSON, whoever reads it: another version must be able to."""
    text = json.dumps(value)
    assert parsing.parse(text) == json.loads(text) == value


@pytest.mark.parametrize("text", ["", "{", '{"a": 1} {}', '{"a": tru}', "[1,]"])
def test_what_is_not_json_is_refused_as_json_refuses_it(text: str) -> None:
    """Half a state must not be taken for one."""
    with pytest.raises(json.JSONDecodeError):
        parsing.parse(text)


def test_a_new_supervisor_loads_nothing_that_it_only_needs_for_a_moment() -> None:
    """It would keep it for good: json with re is 0.5 to 0.9 MiB of the 12 that it may take."""
    program = (
        f"import sys; sys.path.insert(0, {str(PACKAGE.parent)!r})\n"
        "from forkfirst.stages.upgrade import entry, parsing\n"
        "assert parsing.parse('{\"a\": [1]}') == {'a': [1]}\n"
        "print(*sorted({'json', 're', '_pickle', 'socket', 'typing'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []


# -- the same value (of the fleet: see tests/plan/test_fleet.py) -----------------------------------


def test_every_declaration_comes_out_as_it_went_in() -> None:
    """Also names that are not UTF-8, and what nobody has set."""
    listeners = ("web=127.0.0.1:8000", "unix:/run/a\udcff", "udp:[::1]:53", "systemd:web", "fd:5")
    declared = Declaration(
        name="app",
        target="/srv/\udce9t\u00e9.py:main",
        listeners=tuple(map(parse_listener, listeners)),
        environment=(("KEY", "a\nb\0c"), ("EMPTY", "")),
        no_new_privileges=None,
        max_age_seconds=0.1 + 0.2,
    )
    assert _cross(declared) == declared
    who = Identity(name="www", uid=33, gid=33, groups=(33, 4), home="/var/www")
    assert _cross(who) == who
    places = Places(
        run_directory="/run/x",
        log_directory="/var/log",
        pid_file="/run/x/app.pid",
        control_socket="/run/x/app.sock",
        record="/run/x/app.service",
        log="/var/log/app.log",
    )
    assert _cross(places) == places


@pytest.mark.parametrize("value", [object(), b"octets", {"a": 1}, events.Tick()])
def test_what_is_not_to_be_handed_over_is_refused_where_it_is_written(value: object) -> None:
    """The old supervisor goes on then; the new one could only die of it."""
    with pytest.raises(TypeError, match="cannot be handed over"):
        plain.encode((value,))


# -- another version ------------------------------------------------------------------------------

WORKER = Worker(id=3, generation=1, state="ready", since=12.5, due="it is old enough")


def test_a_field_of_a_newer_version_that_says_nothing_is_left_out() -> None:
    """Else a supervisor could never be taken back to the version before."""
    written = plain.encode(WORKER)
    written["usual"]["color"] = None
    assert plain.decode(written) == WORKER


def test_a_field_of_a_newer_version_that_is_in_use_is_refused() -> None:
    """To forget a setting in silence would be to do what nobody asked for."""
    written = plain.encode(WORKER)
    written["set"]["color"] = "blue"
    with pytest.raises(errors.ForkfirstError, match="does not know 'color' of Worker"):
        plain.decode(written)


def test_a_value_of_a_newer_version_is_refused() -> None:
    """By its name, so that it is known what is missing."""
    written = {"is": "Template", "set": {}, "usual": {}}
    with pytest.raises(errors.ForkfirstError, match="does not know 'Template'"):
        plain.decode([written])


def test_what_an_older_version_does_not_say_is_as_usual() -> None:
    """A field that is new here has its default."""
    written = plain.encode(WORKER)
    del written["usual"]["healthy"]
    assert plain.decode(written) == WORKER


def test_a_default_that_has_changed_changes_nothing_that_runs() -> None:
    """What was meant is written, also where it was as usual."""
    written = plain.encode(Settings())
    written["usual"]["grace_seconds"] = 31.0  # as if that had been the default
    assert plain.decode(written).grace_seconds == 31.0


def test_another_form_is_refused_with_both_versions() -> None:
    """A reader that guesses is worse than none."""
    fd = state.write({"format": state.FORMAT + 1, "forkfirst": "9.9"})
    try:
        with pytest.raises(errors.ForkfirstError, match=r"forkfirst 9\.9 hands over in form 2"):
            state.read(fd)
    finally:
        os.close(fd)


# -- descriptors and half-read messages ------------------------------------------------------------


def test_a_descriptor_that_leads_elsewhere_is_noticed() -> None:
    """A number is not a file; to serve on the wrong socket is to be somebody else."""
    first, second = socket.socketpair()
    with first, second:
        facts = os.fstat(first.fileno())
        right = {"files": [[first.fileno(), 0o140000, facts.st_dev, facts.st_ino]]}
        state.check_descriptors(right)
        wrong = {"files": [[second.fileno(), 0o140000, facts.st_dev, facts.st_ino]]}
        with pytest.raises(errors.ForkfirstError, match="leads to"):
            state.check_descriptors(wrong)
        state.check_descriptors(wrong, without=[second.fileno()])
    gone = {"files": [[999_999, 0o140000, 1, 1]]}
    with pytest.raises(errors.ForkfirstError, match="did not come along"):
        state.check_descriptors(gone)


@pytest.mark.parametrize("cut", [0, 1, 5, 17])
def test_what_a_worker_has_said_half_is_heard_whole(cut: int) -> None:
    """The first half was read by the old supervisor; only in its memory is it still to be had."""
    ours, theirs = socket.socketpair()
    lifeline, other = os.pipe()
    with ours, theirs, open(lifeline, "rb"):  # noqa: PTH123 - only to be closed
        said = _frame("status", text="loading")
        theirs.sendall(said[:cut])
        before = Process(3, 1, 4711, (ours.fileno(), other))
        assert list(before.hear()) == []
        before.status, before.asked_at = "warm", 12.25
        after = Process.take_over(json.loads(json.dumps(before.hand_over())))
        theirs.sendall(said[cut:] + _frame("pulse", seconds=0.5))
        assert [one.kind for one in after.hear()] == ["status", "pulse"]
        assert (after.number, after.generation, after.pid) == (3, 1, 4711)
        assert (after.status, after.asked_at, after.began) == ("warm", 12.25, before.began)
        assert after.descriptors() == before.descriptors()
    os.close(other)


def _frame(kind: str, **fields: Any) -> bytes:
    receive, send = channel.open_channel()
    try:
        channel.send(send, kind, **fields)
        return os.read(receive, 4096)
    finally:
        os.close(receive)
        os.close(send)


def test_a_fleet_needs_its_fields() -> None:
    """What is cut off in the middle is not taken for a small fleet."""
    written = plain.encode(Fleet(state="running", settings=Settings()))
    del written["set"]["state"]
    with pytest.raises(TypeError, match="Fleet needs 'state'"):
        plain.decode(written)
