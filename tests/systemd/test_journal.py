"""Entries of the journal, read back by a reader that knows only the format's page."""

from __future__ import annotations

import fcntl
import logging
import os
import socket
import struct
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkfirst import errors
from forkfirst.systemd import journal
from support.open_descriptors import list_open_descriptors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def read_entry(octets: bytes) -> list[tuple[str, bytes]]:
    """Read the native format: NAME=value, or NAME, a length of 64 bits, and the value."""
    fields = []
    while octets:
        line, _, rest = octets.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            length = struct.unpack("<Q", rest[:8])[0]
            value, ending, rest = rest[8 : 8 + length], rest[8 + length :][:1], rest[9 + length :]
            assert ending == b"\n"
        fields.append((name.decode(), value))
        octets = rest
    return fields


class FakeJournal:
    """A socket where the journal's would be."""

    def __init__(self, path: Path) -> None:
        self.address = str(path)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.address)
        self.socket.settimeout(0)

    def read(self) -> dict[str, bytes]:
        """Return the fields of the next entry."""
        octets, fds, _, _ = socket.recv_fds(self.socket, 1 << 20, 4)
        if fds:
            assert octets == b""
            (fd,) = fds
            assert fcntl.fcntl(fd, fcntl.F_GET_SEALS) == (
                fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
            )
            octets = os.pread(fd, 1 << 24, 0)
            os.close(fd)
        return dict(read_entry(octets))


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeJournal]:
    made = FakeJournal(tmp_path / "journal")
    with made.socket:
        yield made


_FIELD_NAMES = st.from_regex(r"[A-Z][A-Z0-9_]{0,63}", fullmatch=True)


@given(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.integers(0, 7),
    st.dictionaries(_FIELD_NAMES, st.binary() | st.integers() | st.text("a\n=", max_size=9)),
)
def test_what_is_written_is_what_is_read(
    message: str, priority: int, fields: dict[str, object]
) -> None:
    """Line feeds and equals signs in a value must not become fields of their own."""
    read = read_entry(journal.make_entry(message, priority, fields))
    assert read[:2] == [("MESSAGE", message.encode()), ("PRIORITY", str(priority).encode())]
    expected = {k: v if isinstance(v, bytes) else str(v).encode() for k, v in fields.items()}
    assert dict(read[2:]) == expected


@pytest.mark.parametrize("name", ["", "_PID", "1A", "a", "A-B", "A=", "A\n", "Ä", "A" * 65])
def test_a_name_that_the_journal_would_drop_is_refused(name: str) -> None:
    """It drops the field without a word, and `_` is for what it knows by itself."""
    with pytest.raises(errors.UsageError, match="cannot name a field"):
        journal.make_entry("text", "info", {name: "value"})


@pytest.mark.parametrize("priority", [-1, 8, "warn", "INFO"])
def test_a_priority_that_does_not_exist_is_refused(priority: int | str) -> None:
    """The journal would keep the entry, and `journalctl -p` would never show it."""
    with pytest.raises(errors.UsageError, match="no journal priority"):
        journal.make_entry("text", priority, {})


def test_an_entry_arrives_with_its_fields(fake: FakeJournal) -> None:
    """Structured, so that a person can ask for them."""
    journal.send("two\nlines", "warning", address=fake.address, REQUEST=17, BODY=b"\xff\n")
    assert fake.read() == {
        "MESSAGE": b"two\nlines",
        "PRIORITY": b"4",
        "REQUEST": b"17",
        "BODY": b"\xff\n",
    }


def test_a_large_entry_goes_through_a_sealed_file(fake: FakeJournal) -> None:
    """A datagram has a limit, a stack trace or a core's text has none; unsealed, it is refused."""
    before = list_open_descriptors()
    journal.send("x" * 3_000_000, address=fake.address)
    assert fake.read()["MESSAGE"] == b"x" * 3_000_000
    assert list_open_descriptors() == before


def test_without_a_journal_it_is_an_error_with_its_cause(tmp_path: Path) -> None:
    """The caller chooses where else to write."""
    with pytest.raises(errors.SystemRefusedError, match="no such file") as caught:
        journal.send("lost", address=str(tmp_path / "nobody"))
    assert isinstance(caught.value.__cause__, FileNotFoundError)


def test_a_stream_is_the_journal_s_only_if_it_is_that_very_inode(tmp_path: Path) -> None:
    """The variable is inherited by children whose stderr was redirected to a file."""
    with (tmp_path / "stream").open("w") as stream, (tmp_path / "other").open("w") as other:
        status = os.fstat(stream.fileno())
        environ = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        assert journal.is_journal(stream.fileno(), environ)
        assert not journal.is_journal(other.fileno(), environ)
        assert not journal.is_journal(stream.fileno(), {})
    assert not journal.is_journal(10_000, environ)


@given(st.text(max_size=30))
def test_a_malformed_stream_variable_is_no_journal(text: str) -> None:
    """Logging must not fail because of a variable."""
    assert not journal.is_journal(0, {"JOURNAL_STREAM": text})


def test_records_of_logging_become_entries(fake: FakeJournal) -> None:
    """A program logs as it always did, and `journalctl -o json` shows the rest."""
    handler = journal.make_handler("web", address=fake.address)
    record = logging.LogRecord("app.db", logging.ERROR, "db.py", 7, "lost %s", ("it",), None, "ask")
    record.REQUEST = 17
    record.MESSAGE = "an extra of that name is not the message"
    record.ignored = "lower case is the program's own"
    handler.handle(record)
    entry = fake.read()
    assert entry.pop("THREAD_NAME")
    assert entry == {
        "MESSAGE": b"lost it",
        "PRIORITY": b"3",
        "SYSLOG_IDENTIFIER": b"web",
        "LOGGER": b"app.db",
        "CODE_FILE": b"db.py",
        "CODE_LINE": b"7",
        "CODE_FUNC": b"ask",
        "REQUEST": b"17",
    }


def test_a_handler_raises_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A log call must never be what ends a service."""
    handler = journal.make_handler("web", address=str(tmp_path / "nobody"))
    handler.handle(logging.LogRecord("app", 20, "a.py", 1, "text", (), None))
    assert "cannot write to the journal" in capsys.readouterr().err


def test_levels_map_to_the_priorities_of_syslog() -> None:
    """A level between two is as grave as the lower of them."""
    levels = [0, 10, 20, 25, 30, 35, 40, 50, 60]
    assert [journal.choose_priority(level) for level in levels] == [7, 7, 6, 5, 4, 4, 3, 2, 2]
