"""The C library that the manuals describe, asked the same questions as this package."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forkfirst import errors
from forkfirst.systemd.activation import read_passed
from forkfirst.systemd.watchdog import read_watchdog

pytestmark = pytest.mark.real

OPEN = 12  # descriptors from 3 on that are open when the library looks
# Each environment in a child of its own: the library keeps what it knows of its process.
ORACLE = """
import ctypes, json, os, sys
libc, lib = ctypes.CDLL(None), ctypes.CDLL("libsystemd.so.0")
answers = []
for environ in json.load(sys.stdin):
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        answer = os.dup2(writing, 100)
        os.closerange(3, 100)
        for fd in range(3, 3 + int(sys.argv[1])):
            os.dup2(0, fd)
        for name, value in environ.items():
            text = str(os.getpid()) if value == "OURS" else value
            libc.setenv(name.encode(), text.encode("utf-8", "surrogateescape"), 1)
        names = ctypes.POINTER(ctypes.c_char_p)()
        count = lib.sd_listen_fds_with_names(0, ctypes.byref(names))
        found = [names[i].decode() for i in range(count)] if count > 0 else count
        microseconds = ctypes.c_uint64(0)
        watched = lib.sd_watchdog_enabled(0, ctypes.byref(microseconds))
        os.write(answer, json.dumps([found, watched, microseconds.value]).encode())
        os._exit(0)
    os.close(writing)
    with open(reading) as answer:
        answers.append(json.load(answer))
    os.waitpid(pid, 0)
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def _library() -> None:
    try:
        ctypes.CDLL("libsystemd.so.0")
    except OSError as error:
        pytest.skip(f"not installed: libsystemd0 ({error})")


def _ask_library(environs: list[dict[str, str]]) -> list[Any]:
    done = subprocess.run(
        [sys.executable, "-c", ORACLE, str(OPEN)],
        input=json.dumps(environs),
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers: list[Any] = json.loads(done.stdout)
    return answers


def _ask_ourselves(environ: dict[str, str]) -> list[Any]:
    pid = 4711
    ours = {name: str(pid) if value == "OURS" else value for name, value in environ.items()}
    try:
        passed = read_passed(ours, pid, None)
        names: Any = [each.name for each in passed] or 0
        if len(passed) > OPEN:
            names = "refused"  # as take_environment would: one of them is closed
    except errors.ConfigError:
        names = "refused"
    try:
        interval = read_watchdog(ours, pid)
    except errors.ConfigError:
        return [names, "refused"]
    return [names, interval]


# Without the letter b: newer C libraries read a prefix 0b at places where older ones do not.
_NUMBERS = (
    st.integers(-2, 20).map(str)
    | st.text(" \t\v+-012789xXoafAF_.", max_size=5)
    | st.sampled_from(["2147483644", "2147483645", "2147483648", "9" * 20, "0b1", "0B10"])
)
_ENVIRONS = st.fixed_dictionaries(
    {},
    optional={
        "LISTEN_PID": st.just("OURS") | _NUMBERS,
        "LISTEN_FDS": st.integers(1, 4).map(str) | _NUMBERS,
        "LISTEN_FDNAMES": st.text("ab: \\é", max_size=8),
        "WATCHDOG_USEC": _NUMBERS,
        "WATCHDOG_PID": st.just("OURS") | _NUMBERS,
    },
)


@pytest.mark.usefixtures("_library")
@settings(max_examples=12, deadline=None)
@given(st.lists(_ENVIRONS, min_size=40, max_size=80))
def test_every_environment_is_read_or_refused_as_the_library_does(
    environs: list[dict[str, str]],
) -> None:
    """A service must not be served differently for being written in another language."""
    for environ, (found, watched, microseconds) in zip(
        environs, _ask_library(environs), strict=True
    ):
        names = "refused" if isinstance(found, int) and found < 0 else found
        interval = {0: None, 1: microseconds / 2_000_000}.get(watched, "refused")
        assert _ask_ourselves(environ) == [names, interval], environ
