"""Under watch, the guard can say which line of whose code made what it found."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from support.child_program import run_child

if TYPE_CHECKING:
    from pathlib import Path

_WATCH = """
import json, os, sys
sys.path.insert(0, {folder!r})
from forkfirst.guard import verdict
from forkfirst.guard.hazard import describe_hazards
from forkfirst.guard.origin import Watch
with Watch() as watch:
    import legacy
found = verdict.find_hazards(thorough=True, watch=watch)
print(json.dumps([
    [h.kind, h.certainty, h.origin and h.origin.describe(), h.describe()] for h in found
]))
sys.stdout.flush()
os._exit(0)
"""


def _watch(folder: Path, **modules: str) -> dict[str, list[str]]:
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text)
    found = run_child(_WATCH.format(folder=str(folder)))
    return {kind: rest for kind, *rest in found}


def test_a_thread_is_attributed_to_the_line_that_started_it(tmp_path: Path) -> None:
    """Not to threading.py, where every thread is started."""
    found = _watch(
        tmp_path,
        legacy="import threading, time\n\n"
        "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n",
    )
    assert found["python-threads"][1] == "Thread.start() at legacy.py:3"


def test_a_thread_of_a_library_is_attributed_to_the_import_of_it(tmp_path: Path) -> None:
    """The person can change their own line, not the library's."""
    site = tmp_path / "site-packages"
    site.mkdir()
    (site / "library.py").write_text(
        "import threading, time\n"
        "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
    )
    found = _watch(tmp_path, legacy=f"import sys\nsys.path.append({str(site)!r})\nimport library\n")
    assert found["python-threads"][1] == "importing library (legacy.py:3)"
    assert found["python-threads"][2].endswith("started while importing library (legacy.py:3)")


def test_a_loop_in_a_variable_is_known_by_who_made_it(tmp_path: Path) -> None:
    """Without the watch it is an epoll of nobody's; with it, it is fatal and has a line."""
    found = _watch(tmp_path, legacy="import asyncio\nloop = asyncio.new_event_loop()\n")
    certainty, origin, text = found["idle-loop"]
    assert (certainty, origin) == ("fatal", "new_event_loop() at legacy.py:2")
    assert text.endswith("an event loop created, not running: new_event_loop() at legacy.py:2")


def test_connections_and_processes_have_their_lines(tmp_path: Path) -> None:
    """What an import opens is as surprising as what it starts."""
    found = _watch(
        tmp_path,
        legacy="import atexit, socket, subprocess\n"
        "listener = socket.create_server(('127.0.0.1', 0))\n"
        "client = socket.create_connection(listener.getsockname())\n"
        "child = subprocess.Popen(['sleep', '0.2'])\n",
    )
    assert found["connected-socket"][1] == "create_connection() at legacy.py:3"
    assert re.fullmatch(r"Popen.__init__\(\) at legacy.py:4", found["child-process"][1])


def test_an_import_that_starts_nothing_has_nothing_to_say(tmp_path: Path) -> None:
    """The watch itself must not be found."""
    assert _watch(tmp_path, legacy="import asyncio, logging, ssl\n") == {}


def test_the_watch_gives_back_the_profiler_that_was_set() -> None:
    """It borrows the hook."""
    program = """
import json, sys
from forkfirst.guard.origin import Watch
def mine(*_): pass
sys.setprofile(mine)
with Watch():
    pass
same = sys.getprofile() is mine
sys.setprofile(None)
print(json.dumps(same))
"""
    assert run_child(program)
