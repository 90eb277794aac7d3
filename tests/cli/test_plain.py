"""The quick reader of command lines: it means what argparse means, or says nothing."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkfirst import errors
from forkfirst.cli import main as command_line
from forkfirst.cli import plain

VALUES = ("app.py:main", "web", "8000", "2.5", "auto", "-1", "", "--", "a=b", "two words", "-")


def _make_plain(command: str) -> tuple[plain.Parser, list[str]]:
    """Return the quick reader of *command*, and every word that argparse knows as an option."""
    quick: Any = plain.Parser()
    module, _ = command_line.COMMANDS[command]
    room = __import__(f"forkfirst.cli.{module}", fromlist=["configure"])
    room.configure(command, quick)
    parser, _ = command_line.make_parser(command)
    known = {word for action in parser._actions for word in action.option_strings}  # noqa: SLF001 - nothing else lists them
    return quick, sorted(known - {"-h", "--help"})


COMMANDS = {command: _make_plain(command) for command in sorted(command_line.COMMANDS)}


@st.composite
def _command_lines(draw: st.DrawFn) -> tuple[str, list[str]]:
    command = draw(st.sampled_from(sorted(COMMANDS)))
    options = COMMANDS[command][1]
    values = st.sampled_from(VALUES)
    word = values
    if options:
        option = st.sampled_from(options)
        word = st.one_of(values, option, st.builds("{}={}".format, option, values))
    return command, draw(st.lists(word, max_size=6))


@given(_command_lines())
def test_what_is_plain_means_what_argparse_makes_of_it(line: tuple[str, list[str]]) -> None:
    """A second reader that reads otherwise would be a second command line."""
    command, words = line
    quick = COMMANDS[command][0].parse(words)
    if quick is None:
        return
    parser, _ = command_line.make_parser(command)
    assert vars(quick) == vars(parser.parse_args(words))


@pytest.mark.parametrize(
    "line",
    [
        "start app.py:main --listen web=127.0.0.1:8000 --listen 9000 --name shop",
        "run app:app --serve uvicorn --workers 4 --preload=require",
        "run app.py --name=shop --grace-period=5s",
        "stop shop",
        "status shop --json",
        "logs -f shop -n 20",
        "scale shop 6",
        "stop --grace-period 3 shop worker",
        "restart",
        "forget shop worker",
    ],
)
def test_what_people_type_is_plain(line: str) -> None:
    """Else the quick reader would read nothing, and every start pay for argparse."""
    command, *words = line.split()
    assert COMMANDS[command][0].parse(words) is not None


@pytest.mark.parametrize(
    "line",
    [
        "start app.py --nam shop",
        "start --workers four app.py",
        "run app.py another.py",
        "forget",
        "stop --help",
        "stop shop --grace-period 3 worker",
        "start --listen",
        "start --name --json",
        "status shop --json=yes",
        "listen --color purple",
    ],
)
def test_what_is_wrong_or_rare_is_left_to_argparse(line: str) -> None:
    """It has the words for it."""
    command, *words = line.split()
    assert COMMANDS[command][0].parse(words) is None


def test_a_plain_command_line_loads_no_argparse(tmp_path: Any) -> None:
    """Its import and its parser are 3 of the 48 ms that a start takes."""
    program = (
        "import sys; from forkfirst.cli import main; main.main(['status', 'nobody']);"
        "print('argparse' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={"FORKFIRST_STATE_DIR": str(tmp_path)},
    )
    assert done.stdout.split()[-1] == "False"


def test_an_unknown_word_is_still_refused_in_our_words() -> None:
    """The quick reader stands in front of argparse, and hides none of its errors."""
    with pytest.raises(errors.UsageError, match="forkfirst stop has no option --now"):
        command_line.parse("stop", ["shop", "--now"])
