"""How a service was started, kept beside its pid file: whole, old, or not at all."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkfirst import errors
from forkfirst.stages import record
from support.service_home import making_home

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# Whatever a path or an argument can hold: any byte but NUL, so not only what UTF-8 can say.
TEXTS = st.binary(max_size=30).map(lambda octets: os.fsdecode(octets.replace(b"\0", b"")))
NUMBERS = st.integers(0, 1 << 31)
RECORDS = st.builds(
    record.Record,
    mode=st.sampled_from(["daemon", "foreground", "first process"]),
    directory=TEXTS,
    pid_file=TEXTS,
    log=TEXTS,
    session=NUMBERS,
    control=TEXTS,
    owner=NUMBERS,
    command=st.lists(TEXTS, max_size=5).map(tuple),
)


@given(RECORDS)
def test_what_was_written_is_read(kept: record.Record) -> None:
    """Empty arguments, line feeds and bytes that are no text included."""
    with making_home() as home:
        path = str(home.directory / "app.service")
        record.write(path, kept)
        assert record.read(path) == kept


@given(st.binary(max_size=200))
def test_what_is_no_record_is_refused(octets: bytes) -> None:
    """Of another version, cut short, or rubbish: never an error of ours, never half a record."""
    with making_home() as home:
        path = home.directory / "app.service"
        path.write_bytes(octets)
        with pytest.raises(errors.ForkfirstError, match="not a record of forkfirst"):
            record.read(str(path))


def test_where_there_is_none_there_is_none(tmp_path: Path) -> None:
    """A service that was never started is no error."""
    assert record.read(str(tmp_path / "app.service")) is None


@pytest.fixture
def make(tmp_path: Path) -> Callable[[str], record.Record]:
    def make_record(name: str) -> record.Record:
        return record.Record(
            mode="daemon",
            directory=str(tmp_path),
            pid_file=str(tmp_path / f"{name}.pid"),
            log="",
            session=7,
            control="",
            owner=0,
            command=("sleep", "1"),
        )

    return make_record


def test_a_failed_start_puts_back_what_was_there(
    tmp_path: Path, make: Callable[[str], record.Record]
) -> None:
    """Byte for byte, or nothing where there was nothing."""
    path = str(tmp_path / "app.service")
    assert record.read_old(path) is None
    record.write(path, make("one"))
    old = record.read_old(path)
    record.write(path, make("two"))
    record.put_back(path, old)
    assert record.read(path) == make("one")
    record.put_back(path, None)
    assert list(tmp_path.iterdir()) == []


def test_it_is_its_owners_alone(tmp_path: Path, make: Callable[[str], record.Record]) -> None:
    """A command line may hold what others must not read."""
    path = tmp_path / "app.service"
    before = os.umask(0)
    try:
        record.write(str(path), make("one"))
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_link_in_its_place_is_not_followed(
    tmp_path: Path, make: Callable[[str], record.Record]
) -> None:
    """It is replaced, and what it led to stays."""
    precious = tmp_path / "precious"
    precious.write_text("mine")
    path = tmp_path / "app.service"
    path.symlink_to(precious)
    record.write(str(path), make("one"))
    assert precious.read_text() == "mine"
    assert not path.is_symlink()


def test_nothing_is_left_of_one_that_cannot_be_written(
    tmp_path: Path, make: Callable[[str], record.Record]
) -> None:
    """Neither the file nor its beginning under another name."""
    path = tmp_path / "app.service"
    path.mkdir()
    with pytest.raises(OSError, match=r".+"):
        record.write(str(path), make("one"))
    assert list(tmp_path.iterdir()) == [path]
