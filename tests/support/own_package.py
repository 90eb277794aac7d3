"""A copy of forkfirst for one test, which may become another version, or a broken one."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import forkfirst

if TYPE_CHECKING:
    from support.service_home import Home


class OwnPackage:
    """The forkfirst that everything in *home* runs from now on."""

    def __init__(self, home: Home) -> None:
        self._changes = 0
        self._directory = home.directory / "lib" / "forkfirst"
        # With what is compiled already, which its files' own times keep valid.
        shutil.copytree(Path(forkfirst.__file__).parent, self._directory)
        home.environment["PYTHONPATH"] = str(self._directory.parent)

    def become(self, version: str) -> None:
        """Be of another *version*, as after `pip install --upgrade`."""
        path = self._directory / "__init__.py"
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        place = next(index for index, line in enumerate(lines) if line.startswith("__version__"))
        self._changes += 1  # Python takes a file of the same second and size for the same
        lines[place] = f'__version__ = "{version}"  # {"x" * self._changes}\n'
        path.write_text("".join(lines), encoding="utf-8")

    def change(self, place: str, before: str, after: str) -> Change:
        """Have *after* in the place of *before* in the module *place*, until that is undone."""
        return Change(self._directory / place, before, after)


class Change:
    """A change of one module; a `with` statement undoes it at its end."""

    def __init__(self, path: Path, before: str, after: str) -> None:
        self._path = path
        self._text = path.read_text(encoding="utf-8")
        assert self._text.count(before) == 1, before
        path.write_text(self._text.replace(before, after), encoding="utf-8")

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        # Of another size than a moment ago in any case: Python looks at no more than that.
        self._path.write_text(f"{self._text}\n\n", encoding="utf-8")
