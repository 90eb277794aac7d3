"""`demo`: the failures that a fork of a running program has, live, on this machine."""

from __future__ import annotations

import os
import sys

from forkfirst import errors

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

_SECONDS = 60.0
"""How long a demonstration may take; each takes a few seconds, unless it hangs as a whole."""

_SHARED = "scene"
"""The module that all of them need, which is none of them."""


def configure(_: str, parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `demo`."""
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="which one; with none, they are listed"
    )


def run(_: str, arguments: argparse.Namespace) -> int:
    """List the demonstrations, or run one and return its status: 0 if it showed what it says."""
    folder = find_folder()
    names = list_names(folder)
    if not arguments.name:
        width = max(map(len, names))
        for name in names:
            print(f"  {name:<{width}}  {_read_title(folder, name)}")
        print("\nforkfirst demo NAME runs one; they are programs to be read, in\n" + folder)
        return 0
    if arguments.name not in names:
        message = f'there is no demonstration "{arguments.name}"'
        raise errors.UsageError(message, hint="there are " + ", ".join(names))
    return _run(os.path.join(folder, _to_file(arguments.name)))


def find_folder() -> str:
    """Return where the demonstrations are: in what is installed, or in the source it comes from.

    Raises:
        ConfigError: In neither.
    """
    here = os.path.abspath(__file__)
    package = os.path.dirname(os.path.dirname(os.path.dirname(here)))
    source = os.path.dirname(os.path.dirname(package))
    for folder in (os.path.join(package, "demos"), os.path.join(source, "examples", "hazards")):
        if os.path.isfile(os.path.join(folder, f"{_SHARED}.py")):
            return folder
    message = f"there are no demonstrations in {package}"
    raise errors.ConfigError(message, hint="install forkfirst again")


def list_names(folder: str) -> list[str]:
    """Return the names of the demonstrations in *folder*, sorted."""
    return sorted(
        name.removesuffix(".py").replace("_", "-")
        for name in os.listdir(folder)
        if name.endswith(".py") and name != f"{_SHARED}.py"
    )


def _run(path: str) -> int:
    import contextlib  # noqa: PLC0415 - only where one is run
    import signal  # noqa: PLC0415 - as above
    import subprocess  # noqa: PLC0415 - as above

    sys.stdout.flush()
    # -W: Python's own warning that a fork is unsafe is true, and not what is shown here.
    command = (sys.executable, "-W", "ignore", path)
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0)  # noqa: S603 - our own program
    try:
        return process.wait(_SECONDS)
    except subprocess.TimeoutExpired as error:
        message = f"the demonstration was not over after {_SECONDS:g} s"
        raise errors.StuckError(message) from error
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # whoever is left of it
        process.wait()


def _to_file(name: str) -> str:
    return name.replace("-", "_") + ".py"


def _read_title(folder: str, name: str) -> str:
    with open(os.path.join(folder, _to_file(name)), encoding="utf-8") as file:
        return file.readline().strip().strip('"').rstrip(".")
