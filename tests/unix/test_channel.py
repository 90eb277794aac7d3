"""The report of a child to the process that waits for it."""

from __future__ import annotations

import os
import struct
from contextlib import nullcontext
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkfirst.unix import channel
from support.fresh import run_fresh

if TYPE_CHECKING:
    from collections.abc import Iterator

# Surrogates are how Python spells the bytes of a path that are not UTF-8.
TEXT = st.text(st.characters(exclude_categories=()), max_size=50)
NAMES = TEXT.filter(lambda name: name not in ("fd", "kind"))
VALUES = TEXT | st.integers() | st.floats(allow_nan=False) | st.binary(max_size=50)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = channel.open_channel()
    yield ends
    for end in ends:
        try:
            os.close(end)
        except OSError:
            continue


@given(kind=TEXT, fields=st.dictionaries(NAMES, VALUES, max_size=5), cut=st.integers(0, 300))
def test_what_is_sent_is_received(
    kind: str, fields: dict[str, str | int | float | bytes], cut: int
) -> None:
    """Whatever the types hold, and wherever the pipe cuts it."""
    reading, writing = channel.open_channel()
    channel.send(writing, kind, **fields)
    channel.send(writing, "next")
    os.close(writing)
    whole = os.read(reading, 65536)
    os.close(reading)

    reading, writing = channel.open_channel()
    reader = channel.Reader(reading)
    os.write(writing, whole[:cut])
    received: list[channel.Report | None] = []
    with pytest.raises(TimeoutError) if cut < len(whole) else nullcontext():
        for _ in range(2):
            received.append(reader.receive(0))  # noqa: PERF401 - those before the error count
    os.write(writing, whole[cut:])
    os.close(writing)
    received += [reader.receive(0) for _ in range(3 - len(received))]
    os.close(reading)
    assert received == [
        channel.Report(kind=kind, fields=fields),
        channel.Report(kind="next", fields={}),
        None,
    ]


@given(rubbish=st.binary(max_size=200))
def test_rubbish_is_refused_and_never_understood_halfway(rubbish: bytes) -> None:
    """A service without privileges writes it, a launcher that is root reads it."""
    reading, writing = channel.open_channel()
    os.write(writing, struct.pack("!I", len(rubbish)) + rubbish)
    os.close(writing)
    try:
        report = channel.Reader(reading).receive(0)
    except ValueError:
        return
    finally:
        os.close(reading)
    assert report is not None


def test_a_torn_report_is_the_end_of_file(pipe: tuple[int, int]) -> None:
    """Its writer died in the middle: half an error message is not a report."""
    reading, writing = pipe
    channel.send(writing, "failed", text="x" * 1000)
    half = os.read(reading, 500)
    os.read(reading, 65536)
    os.write(writing, half)
    os.close(writing)
    assert channel.Reader(reading).receive(1) is None


def test_nothing_in_time_is_an_error_not_the_end(pipe: tuple[int, int]) -> None:
    """A service that is slow is not one that died."""
    reader = channel.Reader(pipe[0])
    with pytest.raises(TimeoutError):
        reader.receive(0)
    channel.send(pipe[1], "ready")
    report = reader.receive(0)
    assert report is not None
    assert report.kind == "ready"


def test_a_report_that_is_too_long_is_refused_at_both_ends(pipe: tuple[int, int]) -> None:
    """A launcher must not be made to fill its memory."""
    with pytest.raises(ValueError, match="larger than"):
        channel.send(pipe[1], "failed", text="x" * channel.MAX_FRAME)
    os.write(pipe[1], struct.pack("!I", channel.MAX_FRAME + 1))
    with pytest.raises(ValueError, match="larger than"):
        channel.Reader(pipe[0]).receive(0)


def test_a_value_of_another_type_is_refused_by_the_sender(pipe: tuple[int, int]) -> None:
    """The fault is told where it is."""
    with pytest.raises(TypeError):
        channel.send(pipe[1], "ready", pid=None)  # type: ignore[arg-type]


def test_a_reader_that_left_is_noticed(pipe: tuple[int, int]) -> None:
    """A service whose launcher died before READY must know."""
    os.close(pipe[0])
    with pytest.raises(BrokenPipeError):
        channel.send(pipe[1], "ready")


def test_a_report_larger_than_the_pipe_arrives_whole() -> None:
    """A traceback may be longer than the 64 KiB that the kernel keeps."""
    outcome = run_fresh("""
from forkfirst.unix import channel, session
reading, writing = channel.open_channel()
pid = session.fork()
if pid == 0:
    channel.send(writing, "failed", text="x" * 500_000)
    session.leave(0)
os.close(writing)
reader = channel.Reader(reading)
tell(length=len(reader.receive(30).fields["text"]), end=reader.receive(30) is None)
os.waitpid(pid, 0)
""")
    assert outcome.told == [{"length": 500_000, "end": True}], outcome.err


@pytest.mark.parametrize("closed", [(), (0,), (1,), (0, 1, 2)])
def test_neither_end_is_a_standard_descriptor(closed: tuple[int, ...]) -> None:
    """The child's redirect would replace it, and its launcher would take that for a death."""
    outcome = run_fresh(
        """
from forkfirst.unix import channel, descriptors
before = {*descriptors.list_open()}
ends = channel.open_channel()
tell(above=min(ends) > 2, only={*descriptors.list_open()} == {*before, *ends},
     inherited=[os.get_inheritable(end) for end in ends])
""",
        closed=closed,
    )
    assert outcome.told == [{"above": True, "only": True, "inherited": [False, False]}]
