"""Which way imports point, and what they may cost before the fork."""

from __future__ import annotations

import sys

import pytest

from support.source_tree import Import, Module, find_imports, read_modules

_ANYWHERE = {"errors", "values"}
_ROOMS: dict[str, set[str]] = {
    "errors": set(),
    "values": set(),
    "plan": set(),
    "guard": set(),
    "pytest_plugin": {"guard"},
    "unix": set(),
    "systemd": set(),
    "control": set(),
    "export": {"plan"},
    "config": {"plan", "config_file"},
    "config_file": set(),
    "stages": {"plan", "guard", "unix", "systemd", "control"},
    "runtime": {"unix", "systemd"},
    "inside": {"plan", "stages", "control", "service"},
    "cli": {"config", "plan", "stages", "control", "guard", "export", "service"},
}
# The public face hands out what the rooms hold, each only when it is asked for.
_FACES = {"__init__", "__main__", "service", "fork_api"}

_RUNTIMES = {"asyncio", "uvloop", "trio", "anyio"}

# Built into the interpreter, or loaded by it anyway, or under a third of a millisecond.
_CHEAP = {
    *(
        "__future__",
        "_socket",
        "_thread",
        "array",
        "atexit",
        "errno",
        "fcntl",
        "gc",
        "grp",
        "io",
        "itertools",
    ),
    *("marshal", "math", "os", "posix", "pwd", "resource", "select", "signal", "stat", "struct"),
    *("sys", "syslog", "termios", "time"),
}
# What costs more, and why that file has it at module level all the same.
_COSTLY_BUT_NEEDED: dict[str, dict[str, str]] = {
    "config_file.py": dict.fromkeys(
        ("tomllib", "pathlib", "typing", "msgspec"), "read only where there is a configuration file"
    ),
    **{
        place: dict.fromkeys(names, "loaded when a reload is asked for")
        for place, names in {
            "stages/succession/asked.py": ("threading",),
            "stages/succession/predecessor.py": ("contextlib", "threading"),
            "stages/succession/process.py": ("contextlib",),
            "stages/succession/successor.py": ("contextlib", "threading"),
        }.items()
    },
    **{
        place: {"socket": "loaded only where there is a listener, or a manager to be told"}
        for place in (
            "unix/sockets.py",
            "unix/socket_facts.py",
            "unix/socket_paths.py",
            "unix/ports.py",
            "systemd/listeners.py",
            "systemd/notify_delivery.py",
            "systemd/notify_receiver.py",
        )
    },
    "unix/stand_in.py": dict.fromkeys(("socket", "contextlib"), "loaded in a worker, for a pause"),
}


def _rooms_named_by(module: Module) -> list[tuple[str, Import]]:
    rooms = {each.room for each in read_modules()}
    return [
        (parts[1], found)
        for found in find_imports(module)
        if (parts := found.module.split("."))[0] == "forkfirst"
        and len(parts) > 1
        and parts[1] in rooms  # or else it is a name of the package itself
    ]


@pytest.mark.parametrize("module", read_modules(), ids=lambda module: module.place)
def test_a_room_imports_only_the_rooms_it_may(module: Module) -> None:
    """A wall with one hole is no wall: `plan` stays pure because nothing else can get in."""
    if module.room in _FACES:
        return
    allowed = _ROOMS[module.room] | _ANYWHERE | {module.room}
    for room, found in _rooms_named_by(module):
        if module.room == "stages" and room == "runtime":
            continue  # held to a stricter law below
        assert room in allowed, f"{module.place}:{found.line} imports {found.module}"


def test_stages_reach_a_runtime_only_inside_a_function() -> None:
    """It happens after the fork, so no module of `stages` may bring one along when imported."""
    for module in read_modules():
        if module.room == "stages":
            for room, found in _rooms_named_by(module):
                assert not (room == "runtime" and found.runs_at_import), (
                    f"{module.place}:{found.line}"
                )


def test_only_the_runtime_room_imports_a_runtime() -> None:
    """Whoever imports a runtime can start one; before a fork nobody may."""
    for module in read_modules():
        if module.room == "runtime":
            continue
        for found in find_imports(module):
            root = found.module.partition(".")[0]
            assert root not in _RUNTIMES or _is_the_measured_one(module, found), (
                f"{module.place}:{found.line} imports {found.module}"
            )


def _is_the_measured_one(module: Module, found: Import) -> bool:
    """The step ImportRuntimeModule: asyncio's code, not a loop, for it is faster to ready."""
    return module.room == "stages" and found.module == "asyncio" and not found.runs_at_import


def test_plan_imports_nothing_that_could_touch_the_machine() -> None:
    """The clock and the machine are arguments there, so that a plan can be printed and tested."""
    for module in read_modules():
        if module.room == "plan":
            for found in find_imports(module):
                root = found.module.partition(".")[0]
                assert root in {"__future__", "forkfirst", "typing", "collections", "math"}, (
                    f"{module.place}:{found.line} imports {found.module}"
                )


@pytest.mark.parametrize(
    "module",
    [module for module in read_modules() if module.room not in ("runtime", "export", "inside")],
    ids=lambda module: module.place,
)
def test_what_is_loaded_before_the_fork_is_cheap(module: Module) -> None:
    """A start is measured against a bare program: `typing` alone would be a twentieth of it."""
    excused = _COSTLY_BUT_NEEDED.get(module.place, {})
    for found in find_imports(module):
        root = found.module.partition(".")[0]
        if not found.runs_at_import or root == "forkfirst" or root in _CHEAP:
            continue
        assert root in excused, f"{module.place}:{found.line} imports {found.module}"


def test_nothing_but_the_standard_library_is_imported_before_the_fork() -> None:
    """Somebody else's import may start a thread; ours may be loaded inside a function only."""
    for module in read_modules():
        for found in find_imports(module):
            root = found.module.partition(".")[0]
            known = root in sys.stdlib_module_names or root == "forkfirst"
            excused = module.room == "runtime" or root in _COSTLY_BUT_NEEDED.get(module.place, {})
            assert known or not found.runs_at_import or excused, (
                f"{module.place}:{found.line} imports {found.module}"
            )


def test_every_excuse_is_still_needed() -> None:
    """An exception that outlives its reason hides the next mistake."""
    by_place = {module.place: module for module in read_modules()}
    for place, excused in _COSTLY_BUT_NEEDED.items():
        if place not in by_place:
            continue
        imported = {found.module for found in find_imports(by_place[place]) if found.runs_at_import}
        assert set(excused) <= imported, place
