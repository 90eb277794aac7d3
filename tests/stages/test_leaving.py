"""Who leaves how: of the processes of a start only one runs what the program wants at its end."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from support.service_home import Home

NOTES = """
import atexit, os, sys
import forkfirst

def note(text):
    fd = os.open(os.environ["NOTES"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(fd, f"{text} {os.getpid() == first}\\n".encode())
    os.close(fd)

first = os.getpid()
atexit.register(note, "handler in the first process:")
sys.stdout.write("buffered ")

def program(context):
    atexit.register(note, "the program's handler:")
    context.ready()

try:
    forkfirst.Service(program=program, name="own").main()
finally:
    note("finally in the first process:")
"""


def start_and_read(home: Home) -> list[str]:
    home.environment["NOTES"] = str(home.directory / "notes")
    path = home.program("own.py", NOTES)
    done = home.run(sys.executable, path, "start")
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith("buffered own: running in the background, ")
    assert done.out.count("buffered") == 1, "what was buffered before the fork is written once"
    home.wait_alone()
    return sorted((home.directory / "notes").read_text().splitlines())


def test_exit_handlers_run_once_and_in_the_service(home: Home) -> None:
    """Also those that were registered before the fork: they would remove what it is using.

    Nor do the launcher's own frames end as they would without a start: it leaves by `_exit`.
    """
    assert start_and_read(home) == [
        "handler in the first process: False",
        "the program's handler: False",
    ]


def test_a_start_that_fails_ends_as_any_program_does(home: Home) -> None:
    """There is no service whose handlers they could be."""
    home.environment["NOTES"] = str(home.directory / "notes")
    path = home.program("own.py", NOTES.replace("    context.ready()", "    1 / 0"))
    assert home.run(sys.executable, path, "start").status == 70
    notes = sorted((home.directory / "notes").read_text().splitlines())
    assert "handler in the first process: True" in notes
    assert "finally in the first process: True" in notes


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_what_was_buffered_is_written_once(home: Home, stream: str) -> None:
    """By whoever had it, before the fork; never by two, never by none."""
    path = home.program(
        "own.py",
        f"import sys, forkfirst\nsys.{stream}.write('once ')\n"
        "def program(context):\n    print('logged')\n    context.ready()\n"
        "forkfirst.Service(program=program, name='own').main()\n",
    )
    done = home.run(sys.executable, path, "start")
    home.wait_alone()
    assert (done.out + done.err).count("once") == 1
    assert home.log("own") == "logged\n"
