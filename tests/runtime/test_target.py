"""A target is found as `python` would find it, or what is missing is said with what is there."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkfirst import errors
from forkfirst.runtime import target

if TYPE_CHECKING:
    from pathlib import Path

IDENTIFIERS = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True)
NAMES = st.lists(IDENTIFIERS, min_size=1, max_size=3).map(".".join)
PATHS = st.lists(st.text("ab.-: ", min_size=1, max_size=5), min_size=1, max_size=3).map(
    lambda parts: "/".join(parts) + ".py"
)

LOAD = """\
import json, sys
from forkfirst import errors
from forkfirst.runtime import target
from forkfirst.runtime.ending import print_error
try:
    main = target.load(sys.argv[1])
except errors.TargetError as error:
    found = {"refused": str(error), "hint": error.hint}
except BaseException as error:
    print_error(error.with_traceback(error.__traceback__.tb_next))  # without this frame
    found = {"raised": type(error).__name__}
else:
    found = {"result": main(), "module": main.__module__, "path": sys.path[0]}
print(json.dumps(found))
"""


def load(text: str, folder: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", LOAD, text],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return {**found, "err": done.stderr}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A program's directory, with a file, a package and several mistakes."""
    package = tmp_path / "shop"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "web.py").write_text(
        "class App:\n    @staticmethod\n    def serve(): return 'served'\napp = App()\n"
        "def main(): return 'main'\nport = 80\nimport forkfirst\n"
        "own = forkfirst.Service(program=main)\n"
    )
    (package / "inside.py").write_text("from . import web\n")
    (tmp_path / "src" / "kept").mkdir(parents=True)
    (package / "lazy.py").write_text("import yaml_that_is_not_there\n")
    (package / "odd.py").write_text("import shop.nothing\n")
    (package / "bad.py").write_text("def main(:\n")
    (package / "exits.py").write_text("import sys\nsys.exit(3)\n")
    (package / "raises.py").write_text("def deep():\n    1 / 0\ndeep()\n")
    (tmp_path / "my-app.v2.py").write_text("import helper\ndef main(): return helper.WORD\n")
    (tmp_path / "helper.py").write_text("WORD = 'helped'\n")
    (tmp_path / "queue.py").write_text("def main(): return 'mine'\n")
    return tmp_path


# -- the text ------------------------------------------------------------------------------------


@given(place=NAMES, name=NAMES)
def test_a_module_and_a_name_are_read_back(place: str, name: str) -> None:
    """With the name `main` where none is given."""
    assert target.parse(f"{place}:{name}") == (place, name)
    assert target.parse(place) == (place, "main")


@given(place=PATHS, name=NAMES)
def test_a_path_may_hold_colons(place: str, name: str) -> None:
    """A directory may have any name."""
    assert target.parse(f"{place}:{name}") == (place, name)
    assert target.parse(place) == (place, "main")


@pytest.mark.parametrize("text", ["", ":", ":main", "app:", "app:1", "app:a..b", "app.py:a b"])
def test_what_is_no_target_is_refused(text: str) -> None:
    """Before anything is looked for."""
    with pytest.raises(errors.TargetError, match="does not name a program"):
        target.parse(text)


# -- found ---------------------------------------------------------------------------------------


def test_a_module_is_found_from_the_directory(folder: Path) -> None:
    """As `python -m` finds it."""
    found = load("shop.web", folder)
    assert (found["result"], found["module"]) == ("main", "shop.web")
    assert found["path"] == str(folder)


def test_a_name_may_have_dots(folder: Path) -> None:
    """An application object's method is a program."""
    assert load("shop.web:app.serve", folder)["result"] == "served"


def test_a_file_is_found_and_finds_its_neighbours(folder: Path) -> None:
    """As `python path/to/file.py` does; the name of the file need not be an identifier."""
    found = load(f"{folder}/my-app.v2.py", folder.parent)
    assert (found["result"], found["module"]) == ("helped", "my-app.v2")


def test_a_file_inside_a_package_is_a_file(folder: Path) -> None:
    """Its own directory is searched, not the package's parent."""
    found = load("shop/web.py:main", folder)
    assert found["result"] == "main"
    assert found["path"] == str(folder / "shop")


# -- not found -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "refused", "hint"),
    [
        ("shpo.web", "there is no module 'shpo'", "did you mean shop"),
        ("shop.wbe", "there is no module 'shop.wbe'", "did you mean web"),
        ("shop.web:mian", "shop.web has no 'mian'", "did you mean main"),
        ("shop.web:app.servo", "shop.web has no 'app.servo'", "did you mean serve"),
        ("shop.web:port", "'port' in shop.web is an int, which cannot be called", ""),
        (
            "shop.web:own",
            "'own' in shop.web is a Service, which cannot be called",
            "python FILE start",
        ),
        ("pcak", "there is no module 'pcak'", ""),
        ("kept", "there is no module 'kept'", "src: pip install -e ., or set PYTHONPATH to that"),
        ("helpr.py", "there is no file helpr.py", "did you mean helper.py"),
        ("shop", "shop has no 'main'", ""),
    ],
)
def test_what_is_missing_is_named_with_what_is_close(
    folder: Path, text: str, refused: str, hint: str
) -> None:
    """The commonest mistake is a letter."""
    found = load(text, folder)
    assert found["refused"] == refused
    assert hint in found["hint"]
    assert found["err"] == ""


def test_a_file_that_needs_its_package_is_told_how_to_be_named(folder: Path) -> None:
    """The interpreter says only that there is no known parent."""
    found = load("shop/inside.py:main", folder)
    assert found["raised"] == "ImportError"
    said = "shop/inside.py is in a package: start it by its module, PACKAGE.inside:NAME\n"
    assert found["err"].endswith(said)


def test_a_directory_is_no_file(folder: Path) -> None:
    """And not a package either, when it is written as a path."""
    assert "is a directory" in load(f"{folder}/", folder)["refused"]


def test_a_file_that_would_hide_a_module_in_use_is_refused(folder: Path) -> None:
    """`python queue.py` breaks in asyncio's own imports, with a message about something else."""
    code = LOAD.replace("import json, sys", "import json, sys, queue")
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, "queue.py"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert "is named like the module 'queue'" in json.loads(done.stdout)["refused"]


@pytest.mark.parametrize(
    ("text", "raised", "said"),
    [
        ("shop.lazy", "ModuleNotFoundError", "No module named 'yaml_that_is_not_there'"),
        ("shop.odd", "ModuleNotFoundError", "No module named 'shop.nothing'"),
        ("shop.bad", "SyntaxError", 'shop/bad.py", line 1'),
        ("shop/bad.py", "SyntaxError", 'shop/bad.py", line 1'),
        ("shop.exits", "SystemExit", ""),
        ("shop.raises", "ZeroDivisionError", "in deep\n    1 / 0"),
        ("shop/raises.py", "ZeroDivisionError", "in deep\n    1 / 0"),
    ],
)
def test_an_error_of_the_import_is_the_programs(
    folder: Path, text: str, raised: str, said: str
) -> None:
    """Untouched, with its source, and without our frames or the import's."""
    found = load(text, folder)
    assert found["raised"] == raised
    assert said in found["err"]
    assert "/forkfirst/" not in found["err"]
    assert "importlib" not in found["err"]


# -- the look before the fork --------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["shop", "shop.web:anything", "shop/web.py", "my-app.v2.py:main", "json.tool", "sys"]
)
def test_a_look_finds_what_may_be_there(folder: Path, text: str) -> None:
    """Builtin modules and the standard library too."""
    target.check_exists(text, str(folder))


@pytest.mark.parametrize("text", ["shpo", "shop.wbe", "json.tol", "helpr.py", "nowhere/app.py"])
def test_a_look_misses_what_is_not_there(folder: Path, text: str) -> None:
    """So that a letter costs no fork, and leaves no log."""
    with pytest.raises(errors.TargetError, match=r"^there is no (module|file)"):
        target.check_exists(text, str(folder))


def test_a_look_imports_nothing(folder: Path) -> None:
    """The person's code runs after the fork, never before."""
    before = set(sys.modules)
    target.check_exists("shop.raises", str(folder))
    assert not {name for name in set(sys.modules) - before if name.startswith("shop")}


def test_a_package_that_extends_its_path_is_believed(folder: Path) -> None:
    """Only its own code knows where its modules are."""
    (folder / "shop" / "__init__.py").write_text("__path__.append('/elsewhere')\n")
    target.check_exists("shop.elsewhere", str(folder))


# -- what it is ----------------------------------------------------------------------------------


async def coroutine() -> None:
    """Stand for a program on a runtime."""


def plain() -> None:
    """Stand for a program without one."""


class Callable:
    """An object that is called."""

    async def __call__(self) -> None:
        """Run."""

    async def method(self) -> None:
        """Run."""


class PlainCallable:
    """An object that is called without a runtime."""

    def __call__(self) -> None:
        """Run."""


@pytest.mark.parametrize(
    "main",
    [
        coroutine,
        functools.partial(coroutine),
        functools.partial(functools.partial(coroutine)),
        Callable(),
        Callable().method,
        functools.partial(Callable().method),
    ],
)
def test_what_makes_a_coroutine_wants_a_runtime(main: Any) -> None:
    """However it is wrapped."""
    assert target.is_async(main)


@pytest.mark.parametrize(
    "main", [plain, functools.partial(plain), PlainCallable(), Callable, print]
)
def test_what_does_not_is_plain(main: Any) -> None:
    """A class is called to make an object, whatever that object can do."""
    assert not target.is_async(main)


@pytest.mark.parametrize(
    ("main", "answer"),
    [
        (lambda: "none", "none"),
        (lambda context: context, "C"),
        (lambda ctx: ctx, "C"),
        (lambda ctx, /: ctx, "C"),
        (lambda context=None: context, "C"),
        (lambda *, context: context, "C"),
        (lambda *, context=None: context, "C"),
        (lambda port=80: port, 80),
        (lambda *args: args, ()),
        (lambda **options: options, {}),
        (lambda context, port=80: (context, port), ("C", 80)),
        (lambda port=80, *, context: (port, context), (80, "C")),
        (functools.partial(lambda a, context: (a, context), 1), (1, "C")),
        (functools.partial(lambda a: a, 1), 1),
    ],
)
def test_the_context_is_given_to_what_takes_it(main: Any, answer: Any) -> None:
    """One parameter without a default, or one called `context`; nothing else is guessed."""
    assert target.call(main, "C") == answer
    assert target.wants_context(main) == ("C" in str(answer))


def test_an_application_is_told_from_a_program() -> None:
    """Who forgets --serve has read the documentation of a server, and not ours yet."""

    async def asgi(scope: Any, receive: Any, send: Any) -> None: ...

    def wsgi(environ: Any, start_response: Any) -> None: ...

    for application, kind in ((asgi, "an ASGI"), (wsgi, "a WSGI")):
        with pytest.raises(errors.TargetError) as caught:
            target.wants_context(application)
        assert caught.value.hint.startswith(f"that is {kind} application")
        assert "--serve uvicorn" in caught.value.hint


@pytest.mark.parametrize(
    "main", [lambda a, b: (a, b), lambda a, context: (a, context), lambda *, port: port]
)
def test_what_needs_more_is_refused(main: Any) -> None:
    """Nobody would give it, and Python's own TypeError would name our line, not theirs."""
    with pytest.raises(errors.TargetError, match="needs"):
        target.wants_context(main)
