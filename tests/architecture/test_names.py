"""One word, one thing; and no word for a drawer of odds and ends."""

from __future__ import annotations

import ast
import re

import pytest

from support.source_tree import ROOT, Module, list_tracked_files, read_modules

_DRAWERS = {"common", "helper", "helpers", "manager", "misc", "util", "utils"}
_OTHER_WORDS_FOR_SUPERVISOR = {"arbiter", "master", "watcher"}
_SHORT_FOR_NOTHING = {"cfg", "conf", "ctx", "fn", "mgr", "msg", "sock", "svc", "tmp"}

# Written in pieces, or this file would be the first to be found.
_PLACES_OF_ONE_MACHINE = [
    "/" + "work/",
    "/" + "root/",
    "/" + "opt/",
    "/" + "tmp/" + "ff",
    "pypi" + ".org",
    "python" + "hosted",
    "npmjs" + ".org",
    "deb.debian" + ".org",
]


def _identifiers(module: Module) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.arg):
            found.add(node.arg)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            found.add(node.attr)
    return found


def _words(identifier: str) -> set[str]:
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", identifier)
    return {word.lower() for word in spaced.split("_") if word}


@pytest.mark.parametrize("module", read_modules(), ids=lambda module: module.place)
def test_no_module_is_a_drawer(module: Module) -> None:
    """A file named after nothing takes in everything."""
    words = {word for part in module.place.removesuffix(".py").split("/") for word in _words(part)}
    assert not words & _DRAWERS


@pytest.mark.parametrize("module", read_modules(), ids=lambda module: module.place)
def test_the_supervisor_has_one_name(module: Module) -> None:
    """The glossary is the law: a second word would make readers look for a second thing."""
    for identifier in _identifiers(module):
        assert not _words(identifier) & _OTHER_WORDS_FOR_SUPERVISOR, identifier


@pytest.mark.parametrize("module", read_modules(), ids=lambda module: module.place)
def test_names_are_words(module: Module) -> None:
    """No abbreviations but pid, fd, uid, gid: they save the writer's time with the reader's."""
    for identifier in _identifiers(module):
        assert not _words(identifier) & _SHORT_FOR_NOTHING, identifier


def test_no_file_names_a_place_that_only_one_machine_has() -> None:
    """What works only where it was written does not work."""
    for path in list_tracked_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for place in _PLACES_OF_ONE_MACHINE:
            assert place not in text, f"{path.relative_to(ROOT)} names {place}"


def test_every_word_of_the_glossary_has_one_entry() -> None:
    """Two entries for one word are two things."""
    text = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    words = re.findall(r"^\*\*([^*]+)\*\*", text, flags=re.MULTILINE)
    assert len(words) == len(set(words)) > 0
