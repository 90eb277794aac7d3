"""The source as it stands, parsed once: what the tests of the house's walls look at."""

from __future__ import annotations

import ast
import functools
import subprocess
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "forkfirst"


class Import(NamedTuple):
    """One import statement's module, and where it stands."""

    module: str
    line: int
    runs_at_import: bool
    """False inside a function, and under `if TYPE_CHECKING`."""


class Module(NamedTuple):
    """One file of the package."""

    path: Path
    tree: ast.Module
    lines: int

    @property
    def place(self) -> str:
        """The path below the package, as it is written in these tests: `unix/sockets.py`."""
        return self.path.relative_to(PACKAGE).as_posix()

    @property
    def room(self) -> str:
        """The folder, or the stem of a file that stands beside the folders."""
        return self.place.partition("/")[0].removesuffix(".py")

    @property
    def name(self) -> str:
        """The dotted name."""
        parts = self.path.relative_to(PACKAGE.parent).with_suffix("").parts
        return ".".join(part for part in parts if part != "__init__")


@functools.cache
def read_modules() -> tuple[Module, ...]:
    """Parse every module of the package."""
    paths = sorted(PACKAGE.rglob("*.py"))
    texts = ((path, path.read_text(encoding="utf-8")) for path in paths)
    return tuple(Module(path, ast.parse(text), text.count("\n")) for path, text in texts)


def find_imports(module: Module) -> list[Import]:
    """Return every import of *module*, in order of their lines."""
    found: list[Import] = []
    _collect(module, module.tree.body, found, runs_at_import=True)
    return sorted(found, key=lambda each: each.line)


def list_tracked_files() -> list[Path]:
    """Return the files that the repository keeps and that are there."""
    listing = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z"], check=True, capture_output=True, text=True
    ).stdout
    paths = [ROOT / name for name in listing.split("\0") if name]
    return [path for path in paths if path.is_file()]


def _collect(
    module: Module, body: list[ast.stmt], found: list[Import], *, runs_at_import: bool
) -> None:
    for node in body:
        if isinstance(node, ast.Import):
            found.extend(Import(a.name, node.lineno, runs_at_import) for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.extend(_from(module, node, runs_at_import=runs_at_import))
        else:
            later = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            for field in ("body", "orelse", "finalbody", "handlers"):
                inner = getattr(node, field, [])
                statements = [s for each in inner for s in getattr(each, "body", [])]
                part = statements if field == "handlers" else inner
                runs = runs_at_import and not later
                if field == "body" and isinstance(node, ast.If) and _is_type_checking(node.test):
                    runs = False
                if isinstance(part, list):
                    _collect(module, part, found, runs_at_import=runs)


def _from(module: Module, node: ast.ImportFrom, *, runs_at_import: bool) -> list[Import]:
    base = node.module or ""
    if node.level:
        parts = module.name.split(".")
        drop = node.level - (module.path.name == "__init__.py")
        base = ".".join([*parts[: len(parts) - drop], *([base] if base else [])])
    if base == "forkfirst" or base.startswith("forkfirst."):
        # `from forkfirst.unix import sockets` names a module as well as `import` would.
        return [Import(f"{base}.{a.name}", node.lineno, runs_at_import) for a in node.names]
    return [Import(base, node.lineno, runs_at_import)]


def _is_type_checking(test: ast.expr) -> bool:
    return isinstance(test, ast.Name) and test.id == "TYPE_CHECKING"
