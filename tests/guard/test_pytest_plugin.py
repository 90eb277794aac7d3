"""The plugin tells a test, or an import, that leaves what makes a fork unsafe."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

# An installation made before the entry point was declared does not have it yet.
_INSTALLED = any(
    entry.value == "forkfirst.pytest_plugin" for entry in entry_points(group="pytest11")
)
_PLUGIN = () if _INSTALLED else ("-p", "forkfirst.pytest_plugin")
_LEAVES_A_THREAD = """
import threading, time, pytest
def start():
    threading.Thread(target=time.sleep, args=(60,), name="left", daemon=True).start()
"""


def _run(folder: Path, text: str, *arguments: str) -> tuple[int, str]:
    (folder / "test_it.py").write_text(text)
    (folder / "pytest.ini").write_text("[pytest]\n")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:timeout"),
            *(*_PLUGIN, "--fork-hazards", "-q", "-rA", *arguments),
            str(folder),
        ],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=50,
        check=False,
    )
    return done.returncode, done.stdout


def test_a_test_that_leaves_a_thread_fails_and_the_next_one_does_not(tmp_path: Path) -> None:
    """Blame belongs to whoever started it, once."""
    status, text = _run(
        tmp_path,
        f"{_LEAVES_A_THREAD}\ndef test_leaves(): start()\ndef test_is_clean(): pass\n",
    )
    assert status == 1
    assert "test_it.py::test_leaves leaves behind what makes a fork unsafe" in text
    assert "1 Python thread: left   running time.sleep" in text
    assert "ERROR test_it.py::test_leaves" in text
    assert "ERROR test_it.py::test_is_clean" not in text


def test_what_is_given_back_is_no_leftover(tmp_path: Path) -> None:
    """A finished loop, a joined thread, a pool in a `with`, a fixture that cleans up."""
    status, text = _run(
        tmp_path,
        """
import asyncio, threading, pytest
from concurrent.futures import ThreadPoolExecutor
@pytest.fixture
def loop():
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()
def test_loop(loop): loop.run_until_complete(asyncio.sleep(0))
def test_run(): asyncio.run(asyncio.to_thread(int))
def test_pool():
    with ThreadPoolExecutor(4) as pool: list(pool.map(abs, range(20)))
""",
    )
    assert status == 0, text


def test_a_loop_that_is_not_closed_is_a_leftover(tmp_path: Path) -> None:
    """The most common one."""
    status, text = _run(
        tmp_path,
        "import asyncio\nkept = []\ndef test_leaves(): kept.append(asyncio.new_event_loop())\n",
    )
    assert status == 1
    assert "1 epoll descriptor with 1 registration" in text


def test_a_mark_allows_it_with_a_reason(tmp_path: Path) -> None:
    """And only what it names; without a reason it is itself a failure."""
    status, text = _run(
        tmp_path,
        f"""{_LEAVES_A_THREAD}
@pytest.mark.allow_fork_hazards("it is the process's", kinds=["python-threads"])
def test_allowed(): start()
@pytest.mark.allow_fork_hazards("it is the process's")
def test_all_allowed(): start()
@pytest.mark.allow_fork_hazards("a loop, not a thread", kinds=["epoll"])
def test_not_that(): start()
@pytest.mark.allow_fork_hazards()
def test_no_reason(): start()
""",
    )
    assert status == 1
    failed = {line.split()[1] for line in text.splitlines() if line.startswith("ERROR ")}
    assert failed == {"test_it.py::test_not_that", "test_it.py::test_no_reason"}
    assert "the mark allow_fork_hazards needs a reason" in text


def test_an_import_that_starts_something_fails_at_its_line(tmp_path: Path) -> None:
    """The package under test is imported by its tests; whoever preloads it imports it, too."""
    (tmp_path / "the_package.py").write_text(f"{_LEAVES_A_THREAD}\nstart()\n")
    status, text = _run(tmp_path, "import the_package\ndef test_nothing(): pass\n")
    assert status == 2
    assert "the import of test_it.py leaves behind what makes a fork unsafe" in text
    assert "started by Thread.start() at the_package.py:4" in text


@pytest.mark.slow
def test_a_fixture_of_a_wider_scope_may_keep_its_own_until_the_end(tmp_path: Path) -> None:
    """A server for a whole module is no leftover of its first test; what outlives all, is."""
    server = """
import threading, pytest
@pytest.fixture(scope="module")
def server():
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait, name="server", daemon=True)
    thread.start()
    yield
    if {clean}:
        stop.set()
        thread.join()
def test_one(server): pass
def test_two(server): pass
"""
    status, text = _run(tmp_path, server.format(clean=True))
    assert status == 0, text
    status, text = _run(tmp_path, server.format(clean=False))
    assert status == 1
    assert "test_it.py::test_two leaves behind" in text
    assert "test_it.py::test_one leaves behind" not in text


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_it_works_with_anyio(tmp_path: Path, backend: str) -> None:
    """The runner's loop is gone when the test is over; a thread of the test is not."""
    status, text = _run(
        tmp_path,
        f"""{_LEAVES_A_THREAD}
import anyio, anyio.to_thread
pytestmark = pytest.mark.anyio
@pytest.fixture
def anyio_backend(): return {backend!r}
async def test_clean(): await anyio.to_thread.run_sync(int)
async def test_leaves(): start()
""",
    )
    assert status == 1
    assert "ERROR test_it.py::test_leaves" in text
    assert "ERROR test_it.py::test_clean" not in text


@pytest.mark.slow
def test_it_works_with_xdist(tmp_path: Path) -> None:
    """A worker of xdist has threads of its own, which no test has started."""
    status, text = _run(
        tmp_path,
        f"{_LEAVES_A_THREAD}\ndef test_leaves(): start()\ndef test_is_clean(): pass\n",
        *("--numprocesses", "2"),
    )
    assert status == 1
    assert "ERROR test_it.py::test_leaves" in text
    assert "ERROR test_it.py::test_is_clean" not in text


@pytest.mark.slow
def test_without_the_option_nothing_is_watched(tmp_path: Path) -> None:
    """Installing forkfirst must not change anybody's tests."""
    (tmp_path / "test_it.py").write_text(f"{_LEAVES_A_THREAD}\ndef test_leaves(): start()\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *_PLUGIN, "-q", str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stdout
