"""How large a module and a function may become before somebody has to split them."""

from __future__ import annotations

import ast

import pytest

from support.source_tree import Module, read_modules

_MODULE_LINES = 400
_FUNCTION_LINES = 40
_FOLDER_FILES = 13

# function → why it is longer than the rest
_LONG_FOR_A_REASON: dict[str, str] = {}
_CROWDED_FOR_A_REASON = {
    "unix": "one page of the manual a module, and it has many pages",
    "plan": "one kind of decision a module, and few services need all of them",
    "runtime": "one runtime a module, and one a question that is put to all of them",
    "stages": "one act of a start or a stop a module; what few services have is in its folders",
}


def _count_code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from `def` to the end, without the docstring: explaining is never discouraged."""
    first = function.lineno
    last = function.end_lineno or first
    docstring = 0
    if ast.get_docstring(function, clean=False) is not None:
        text = function.body[0]
        docstring = (text.end_lineno or text.lineno) - text.lineno + 1
    return last - first + 1 - docstring


def _find_functions(module: Module) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [
        node
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


@pytest.mark.parametrize("module", read_modules(), ids=lambda module: module.place)
def test_a_module_fits_in_one_reading(module: Module) -> None:
    """About 250 lines is one sitting; at 400 there are two subjects in the file."""
    assert module.lines <= _MODULE_LINES


@pytest.mark.parametrize("module", read_modules(), ids=lambda module: module.place)
def test_a_function_fits_on_one_screen(module: Module) -> None:
    """What does not fit on a screen is not seen whole, and so not checked whole."""
    for function in _find_functions(module):
        place = f"{module.place}:{function.name}"
        lines = _count_code_lines(function)
        assert lines <= _FUNCTION_LINES or place in _LONG_FOR_A_REASON, f"{place} has {lines}"


def test_every_long_function_that_is_excused_is_still_long() -> None:
    """An exception that outlives its reason hides the next mistake."""
    long = {
        f"{module.place}:{function.name}"
        for module in read_modules()
        for function in _find_functions(module)
        if _count_code_lines(function) > _FUNCTION_LINES
    }
    assert set(_LONG_FOR_A_REASON) <= long


def test_a_folder_has_few_enough_files_to_be_read_as_a_list() -> None:
    """Thirteen names can be held in the head; a fourteenth asks for a room of its own."""
    counts: dict[str, int] = {}
    for module in read_modules():
        if "/" in module.place and module.path.name != "__init__.py":
            folder = module.place.rpartition("/")[0]
            counts[folder] = counts.get(folder, 0) + 1
    crowded = {folder for folder, count in counts.items() if count > _FOLDER_FILES}
    assert crowded == set(_CROWDED_FOR_A_REASON)
