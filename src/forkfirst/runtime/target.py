"""From the text that names a program to the function that is it.

`package.module:name` or `path/to/file.py:name`; the name is `main` if it is left out, and may have
dots. What is truly *not found* is a `TargetError`; whatever else the program's own import raises is
the program's, and passes untouched.
"""

from __future__ import annotations

import os
import sys

from forkfirst import errors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from importlib.machinery import SourceFileLoader
    from types import ModuleType
    from typing import Any

DEFAULT_NAME = "main"
_COROUTINE = 0x80  # inspect.CO_COROUTINE; to import inspect would cost 5 ms
_FUNCTION = type(lambda: None)
_APPLICATIONS = {("scope", "receive", "send"): "an ASGI", ("environ", "start_response"): "a WSGI"}


def parse(text: str) -> tuple[str, str]:
    """Return the place (a module's name, or a path that ends in .py) and the name in it.

    Raises:
        TargetError: One of the two is empty.
    """
    place, colon, name = text.removesuffix("()").rpartition(":")
    if not colon or _is_path(name):
        place, name = text, DEFAULT_NAME  # no name, or a colon that belongs to the path
    if not place or not all(part.isidentifier() for part in name.split(".")):
        message = f"{text!r} does not name a program"
        raise errors.TargetError(message, hint="as in package.module:main or path/to/app.py:main")
    return place, name


def check_exists(text: str, directory: str) -> None:
    """Look, without importing anything, whether what *text* names can be there at all.

    A cheap look before a fork: the file, or the module's file on the path. Whether the name is in
    it shows only when it is imported. In doubt it says nothing.

    Raises:
        TargetError: The file or the module is not there.
    """
    place, _ = parse(text)
    if _is_path(place):
        _check_file(os.path.join(directory, place), place)
        return
    parts = place.split(".")
    folders = [directory, *sys.path]
    for depth, part in enumerate(parts):
        found = [folder for folder in folders if _may_hold(folder, part)]
        if not found:
            if depth or not is_installed(part):
                _refuse_module(".".join(parts[: depth + 1]), folders)
            return
        folders = [os.path.join(folder, part) for folder in found]
        if any(not os.path.isdir(folder) for folder in folders) or _extends_itself(folders):
            return  # a file, an archive, or a package that decides its own path


def load(text: str, directory: str | None = None) -> Callable[..., object]:
    """Import what *text* names and return it.

    *directory*, the current one if None, is where its module or its file is looked for first. It,
    or the file's own, comes first on `sys.path`, as for `python -m` and `python file.py`. A file
    is registered in `sys.modules` under its name without `.py`.

    Raises:
        TargetError: The module, the file or the name is not there, or cannot be called.
        BaseException: Whatever the program's own import raises.
    """
    place, name = parse(text)
    if directory is None:
        directory = os.getcwd()
    module = _load_file(place, directory) if _is_path(place) else _load_module(place, directory)
    found: Any = module
    for depth, part in enumerate(name.split(".")):
        try:
            found = getattr(found, part)
        except AttributeError:
            _refuse_name(found, place, name.split(".")[: depth + 1])
    if not callable(found):
        message = f"{name!r} in {place} is {_describe_kind(found)}, which cannot be called"
        declares = type(found).__module__ == "forkfirst.service"
        hint = "a program that declares its service has the commands itself: python FILE start"
        raise errors.TargetError(message, hint=hint if declares else "")
    return found  # type: ignore[no-any-return]


def is_async(main: Callable[..., object]) -> bool:
    """Return whether a call of *main* makes a coroutine: for functions, partials and objects."""
    while True:
        if hasattr(main, "func") and hasattr(main, "keywords"):
            main = main.func  # a partial; functools itself need not be imported for that
        elif hasattr(main, "__func__"):
            main = main.__func__
        else:
            break
    if hasattr(main, "_is_coroutine_mark") or hasattr(main, "_is_coroutine_marker"):
        return True  # inspect.markcoroutinefunction
    code = getattr(main, "__code__", None)
    if code is None and not isinstance(main, type):
        call = getattr(type(main), "__call__", None)  # noqa: B004 - its code is wanted
        code = getattr(call, "__code__", None)
    return bool(code is not None and code.co_flags & _COROUTINE)


def wants_context(main: Callable[..., object]) -> bool:
    """Return whether *main* takes the context: one parameter that must be given, or `context`.

    Raises:
        TargetError: It needs more than that, and nobody would give it.
    """
    return _find_parameter(main) is not None


def call(main: Callable[..., object], context: object) -> object:
    """Call *main*, with *context* if it wants it, and return what it returns."""
    parameter = _find_parameter(main)
    if parameter is None:
        return main()
    return main(context=context) if parameter == "context" else main(context)


def _find_parameter(main: Callable[..., object]) -> str | None:
    """Return "context" to pass it by name, another name to pass it by position, or None."""
    if type(main) is _FUNCTION:
        code = main.__code__
        named = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        by_name = named[code.co_posonlyargcount :]
        needed = list(named[: code.co_argcount - len(main.__defaults__ or ())])
        wanted_by_keyword = set(named[code.co_argcount :]) - set(main.__kwdefaults__ or ())
    else:
        by_name, needed, wanted_by_keyword = _inspect_parameters(main)
    others = [one for one in (*needed, *wanted_by_keyword) if one != "context"]
    if "context" in by_name and not others:
        return "context"
    if not wanted_by_keyword and len(needed) <= 1:
        return needed[0] + "," if needed else None  # a comma: never mistaken for the name
    message = f"{_describe_kind(main)} needs {', '.join((*needed, *sorted(wanted_by_keyword)))}"
    hint = "a program gets one argument, the context, or none"
    if kind := _APPLICATIONS.get(tuple(needed)):
        hint = f"that is {kind} application, for a server to call: add --serve uvicorn"
    raise errors.TargetError(message, hint=hint)


def _inspect_parameters(
    main: Callable[..., object],
) -> tuple[tuple[str, ...], list[str], set[str]]:
    import inspect  # noqa: PLC0415 - only for what is not a plain function

    try:
        parameters = inspect.signature(main).parameters.values()
    except (TypeError, ValueError):
        return (), [], set()  # a builtin that does not tell
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    keyword = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    without = [one for one in parameters if one.default is inspect.Parameter.empty]
    return (
        tuple(one.name for one in parameters if one.kind in keyword),
        [one.name for one in without if one.kind in positional],
        {one.name for one in without if one.kind is inspect.Parameter.KEYWORD_ONLY},
    )


def _is_path(place: str) -> bool:
    return place.endswith(".py") or os.sep in place


def _load_module(name: str, directory: str) -> ModuleType:
    if sys.path[:1] != [directory]:
        sys.path.insert(0, directory)
    try:
        __import__(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        ours = error.__traceback__ is None or error.__traceback__.tb_next is None
        if ours and (name == missing or name.startswith(missing + ".")):
            _refuse_module(missing, sys.path)  # not one that the program itself imports
        raise
    return sys.modules[name]


def _load_file(place: str, directory: str) -> ModuleType:
    path = os.path.normpath(os.path.join(directory, place))
    _check_file(path, place)
    directory, base = os.path.split(path)
    stem = base.removesuffix(".py")
    if stem == base:
        message = f"{place} is not a Python file"
        raise errors.TargetError(message, hint="its name must end in .py")
    loaded = sys.modules.get(stem)
    if loaded is not None:
        if getattr(loaded, "__file__", None) == path:
            return loaded
        message = f"{place} is named like the module {stem!r}, which is in use already"
        raise errors.TargetError(message, hint="give the file another name")
    if sys.path[:1] != [directory]:
        sys.path.insert(0, directory)
    from importlib.machinery import SourceFileLoader  # noqa: PLC0415 - only for files

    loader = SourceFileLoader(stem, path)
    module = sys.modules[stem] = _make_module(loader)
    try:
        loader.exec_module(module)
    except BaseException as error:
        sys.modules.pop(stem, None)
        if isinstance(error, ImportError) and "no known parent package" in str(error):
            error.add_note(f"{place} is in a package: start it by its module, PACKAGE.{stem}:NAME")
        raise
    return module


def _make_module(loader: SourceFileLoader) -> ModuleType:
    """Return the empty module that *loader* is to fill.

    As `importlib.util.module_from_spec` does, which would cost a start 0.4 ms; asyncio has loaded
    `importlib.machinery` already.

    Source: the import system in the language reference, "Import-related module attributes".
    """
    from importlib.machinery import ModuleSpec  # noqa: PLC0415 - as above

    spec = ModuleSpec(loader.name, loader, origin=loader.path)
    spec.has_location = True
    module = type(sys)(loader.name)
    module.__spec__, module.__loader__, module.__package__ = spec, loader, ""
    module.__file__ = loader.path
    return module


def _check_file(path: str, place: str) -> None:
    if os.path.isfile(path):
        return
    if os.path.isdir(path):
        message = f"{place} is a directory, not a Python file"
        raise errors.TargetError(message)
    if os.path.exists(path):
        return  # a fifo, a device: let the import say what it thinks
    folder, base = os.path.split(path)
    message = f"there is no file {place}"
    if not os.path.isdir(folder):
        message = f"{message}: there is no directory {folder}"
        raise errors.TargetError(message)
    there = [name for name in _list_folder(folder) if name.endswith(".py")]
    raise errors.TargetError(message, hint=_suggest(base, there, f"in {folder}"))


def _may_hold(folder: str, name: str) -> bool:
    base = os.path.join(folder or os.curdir, name)
    if os.path.isfile(folder) or os.path.isdir(base) or os.path.isfile(base + ".py"):
        return True  # a file on the path is an archive
    from _imp import extension_suffixes  # noqa: PLC0415 - what importlib.machinery itself asks

    return any(os.path.isfile(base + suffix) for suffix in (*extension_suffixes(), ".pyc"))


def is_installed(name: str) -> bool:
    """Return whether the module *name* can be imported, without doing that: from anywhere."""
    if name in sys.modules or name in sys.builtin_module_names:
        return True
    for finder in sys.meta_path:
        try:
            if finder.find_spec(name, None) is not None:
                return True
        except Exception:  # noqa: BLE001 - a stranger's finder; the import itself will tell
            return True
    return False


def _extends_itself(folders: list[str]) -> bool:
    for folder in folders:
        try:
            with open(os.path.join(folder, "__init__.py"), encoding="utf-8") as file:
                text = file.read()
        except (OSError, ValueError):
            continue
        if "__path__" in text:
            return True
    return False


def _refuse_module(missing: str, folders: Iterable[str]) -> None:
    parent, _, last = missing.rpartition(".")
    package = sys.modules.get(parent)
    if package is not None:
        folders = list(getattr(package, "__path__", ()))
    there: set[str] = set()
    for folder in folders:
        for name in _list_folder(folder or os.curdir):
            stem = name.removesuffix(".py")
            if stem.isidentifier() and (stem != name or "." not in name):
                there.add(stem)
    message = f"there is no module {missing!r}"
    where = f"in {parent}" if parent else ""
    hint = _suggest(last, there, where)
    source = os.path.join(next(iter(folders), "") or os.curdir, "src")
    if not parent and _may_hold(source, missing):
        hint = f"it is in {source}: pip install -e ., or set PYTHONPATH to that"
    raise errors.TargetError(message, hint=hint) from None


def _refuse_name(holder: object, place: str, parts: list[str]) -> None:
    there = [name for name in dir(holder) if callable(getattr(holder, name, None))]
    own = [one for one in there if not one.startswith("_")]
    message = f"{place} has no {'.'.join(parts)!r}"
    raise errors.TargetError(message, hint=_suggest(parts[-1], own, f"in {place}")) from None


def _suggest(wanted: str, there: Iterable[str], where: str) -> str:
    import difflib  # noqa: PLC0415 - only when something is wrong

    names = sorted(there)
    # Among all that is installed, something is always a little like it.
    close = difflib.get_close_matches(wanted, names, n=3, cutoff=0.6 if where else 0.7)
    if close:
        return f"did you mean {' or '.join(close)}"
    few = 12
    if where and 0 < len(names) <= few:
        return f"{where} there is {', '.join(names)}"
    return ""


def _list_folder(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _describe_kind(found: object) -> str:
    name = getattr(found, "__qualname__", None)
    if isinstance(name, str) and callable(found):
        return f"{name}()"
    kind = type(found).__name__
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"
