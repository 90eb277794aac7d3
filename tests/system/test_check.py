"""`check` says which line of a program makes what no fork survives, in a form for each reader."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from support.service_home import Done, Home

_CLEAN = "async def main(): pass\n"
_THREAD = """\
import threading
go = threading.Event()
print("loaded")
threading.Thread(target=go.wait, name="pump", daemon=True).start()
async def main(): pass
"""
_LOOP = """\
import asyncio
loop = asyncio.new_event_loop()
async def main(): pass
"""
_CONNECTED = """\
import socket
listener = socket.create_server(("127.0.0.1", 0))
connection = socket.create_connection(listener.getsockname())
async def main(): pass
"""
_ALLOWED = """
[[check.allow]]
kind = "python-threads"
name = "pump"
reason = "it is joined before the first fork"
[service.app]
target = "thread.py:main"
"""


def check(home: Home, *words: object) -> Done:
    return home.forkfirst("check", *words)


@pytest.fixture(autouse=True)
def programs(home: Home) -> None:
    """The programs of these tests."""
    for name, text in (
        ("clean", _CLEAN),
        ("thread", _THREAD),
        ("loop", _LOOP),
        ("connected", _CONNECTED),
    ):
        home.program(f"{name}.py", text)


def test_a_program_that_only_defines_things_is_clean(home: Home) -> None:
    """The status is what a script looks at."""
    done = check(home, "clean.py")
    assert (done.status, done.out, done.err) == (0, "clean.py:main: clean\n", "")


def test_a_hazard_is_told_with_the_line_that_made_it(home: Home) -> None:
    """And with what would happen, and what to do; what the program prints is not among it."""
    done = check(home, "thread.py")
    assert (done.status, done.err) == (1, "loaded\n")
    assert re.fullmatch(
        r'cannot fork "thread.py:main": other threads are alive in this process\n'
        r"  1 Python thread: pump   running threading.Event.wait, "
        r"started by Thread.start\(\) at thread.py:4\n"
        r"  a forked child would hang: .*\n"
        r"  do: start the threads inside main\(\), .*\n",
        done.out,
    ), done.out


def test_a_loop_in_a_variable_is_found(home: Home) -> None:
    """No guard may search the heap for it; the watch has seen it being made."""
    done = check(home, "loop.py", "--format", "json")
    (hazard,) = json.loads(done.out)["programs"][0]["hazards"]
    assert (hazard["kind"], hazard["certainty"]) == ("idle-loop", "fatal")
    assert hazard["origin"]["line"] == 2


def test_a_notice_is_no_failure(home: Home) -> None:
    """It is worth to know, and no reason to stop anybody."""
    done = check(home, "connected.py")
    assert done.status == 0
    assert done.out.startswith("connected.py:main: clean\n  notice: connected-socket: 1 connection")


def test_one_program_with_hazards_is_enough(home: Home) -> None:
    """Each is told, in the order in which they were named."""
    done = check(home, "clean.py", "thread.py")
    assert done.status == 1
    assert [line for line in done.out.splitlines() if not line.startswith(" ")] == [
        "clean.py:main: clean",
        'cannot fork "thread.py:main": other threads are alive in this process',
    ]


# -- for machines ----------------------------------------------------------------------------------


def test_json_has_everything(home: Home) -> None:
    """For a script that decides itself."""
    done = check(home, "thread.py", "clean.py", "--format", "json")
    assert done.status == 1
    found = json.loads(done.out)
    assert found["safe"] is False
    assert [(one["target"], one["safe"]) for one in found["programs"]] == [
        ("thread.py:main", False),
        ("clean.py:main", True),
    ]
    (hazard,) = found["programs"][0]["hazards"]
    assert hazard["origin"] == {
        "file": f"{home.directory}/thread.py",
        "line": 4,
        "module": "",
        "call": "Thread.start",
    }
    assert hazard["allowed"] is None


def test_sarif_is_what_code_scanning_reads(home: Home) -> None:
    """Every result names a rule that is there, and a line of a file below the root."""
    found = json.loads(check(home, "thread.py", "--format", "sarif").out)
    assert found["version"] == "2.1.0"
    (run,) = found["runs"]
    rules = {rule["id"] for rule in run["tool"]["driver"]["rules"]}
    (result,) = run["results"]
    assert result["ruleId"] in rules
    assert result["level"] == "error"
    assert result["locations"][0]["physicalLocation"] == {
        "artifactLocation": {"uri": "thread.py"},
        "region": {"startLine": 4},
    }


def test_github_shows_it_at_the_line(home: Home) -> None:
    """One workflow command a hazard, with its line ends escaped."""
    done = check(home, "thread.py", "clean.py", "--format", "github")
    (line,) = done.out.splitlines()
    assert line.startswith("::error file=thread.py,line=4,title=fork hazard%3A python-threads::")
    assert "%0Ado: start the threads inside main()" in line


# -- the configuration -----------------------------------------------------------------------------


def test_what_is_known_to_be_harmless_is_allowed_with_a_reason(home: Home) -> None:
    """And stays visible: it is allowed, not unseen."""
    home.program("forkfirst.toml", _ALLOWED)
    done = check(home, "app")
    assert done.status == 0, done
    assert "  allowed: python-threads: 1 Python thread: pump" in done.out
    assert "(it is joined before the first fork)" in done.out
    sarif = json.loads(check(home, "--format", "sarif").out)
    assert sarif["runs"][0]["results"][0]["suppressions"] == [
        {"kind": "external", "justification": "it is joined before the first fork"}
    ]


def test_a_file_that_only_allows_is_read_too(home: Home) -> None:
    """As part of a pyproject.toml, without any service."""
    allowed = _ALLOWED.partition("[service")[0].replace("[[check", "[[tool.forkfirst.check")
    home.program("pyproject.toml", allowed)
    assert check(home, "thread.py").status == 0


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ('kind = "python-threads"\nreason = " "', "expected why that is harmless"),
        ('kind = "python-threads"', "missing required field `reason`"),
        ('kind = "magic"\nreason = "x"', "there is no such hazard"),
        ('kind = "running-loop"\nreason = "x"', "a fatal is always refused"),
    ],
)
def test_an_entry_that_allows_nothing_is_refused(home: Home, entry: str, complaint: str) -> None:
    """An exception that does not work would be found out in production."""
    home.program("forkfirst.toml", f"[[check.allow]]\n{entry}\n")
    done = check(home, "clean.py")
    assert done.status == 78
    assert complaint in done.err


# -- what cannot be checked ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "status", "complaint"),
    [
        (("nowhere.py",), 66, "there is no file nowhere.py"),
        (("raises.py",), 70, "cannot check raises.py:main: its import failed"),
        (("leaves.py",), 70, "cannot check leaves.py:main: its import ended the interpreter"),
        (("stuck.py", "--timeout", "0.3"), 124, "its import takes more than 0.3 s"),
        ((), 64, "nothing to check"),
        (("app",), 64, 'no service "app"'),
        (("clean.py", "--format", "xml"), 64, "invalid choice: 'xml'"),
    ],
)
def test_what_cannot_be_checked_is_no_clean_bill(
    home: Home, words: tuple[str, ...], status: int, complaint: str
) -> None:
    """Neither 0 nor 1: a script must not take it for an answer."""
    home.program("raises.py", "raise ValueError")
    home.program("leaves.py", "import os; os._exit(0)")
    home.program("stuck.py", "import time; time.sleep(1000)")
    done = check(home, *words)
    assert done.status == status, done
    assert complaint in done.err
    assert home.list_processes() == {}


def test_one_that_cannot_be_checked_does_not_hide_the_others(home: Home) -> None:
    """Its failure counts, and they are told."""
    done = check(home, "nowhere.py", "thread.py", "--format", "json")
    assert done.status == 66
    programs: Any = json.loads(done.out)["programs"]
    assert [one["target"] for one in programs] == ["thread.py:main"]
