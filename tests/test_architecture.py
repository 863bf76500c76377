"""The house: which rooms there are, who may import whom, and how large files and functions may grow."""

from __future__ import annotations

import ast
import importlib
import statistics
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import copgen_cli

PACKAGE = Path(copgen_cli.__file__).parent
ORDER = """
errors
storage
modalities
layout records
rasters
settings
stages options
launching console model cluster
pipeline archive
patches
latents
inputs
outputs
metrics autoencoding
training sampling simulation adapters
places evaluation
quickstart_page
quickstart studio
commands
app
""".strip().splitlines()
"""From the ground up: a room imports from rooms of lower floors, and nothing from its own floor."""
FLOOR = {room: floor for floor, line in enumerate(ORDER) for room in line.split()}
MOST_FILES = 12
"""Of a room, beside its `__init__`."""
LOOSE = {
    "__init__",
    "__main__",
    "app",
    "console",
    "options",
    "quickstart",
    "quickstart_page",
    "launching",
    "layout",
    "records",
    "errors",
}
"""Modules at the top of the package."""
MEDIAN_LINES, MOST_LINES = 12, 60
ROOMS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))


@cache
def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def _files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def _room(file: Path) -> str:
    """The folder, or for files at the top the module."""
    first = file.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def _imports(file: Path) -> Iterator[tuple[str, int]]:
    """Dotted names below the package that a file imports, however late, with their lines."""
    for node in ast.walk(_tree(file)):
        if isinstance(node, ast.ImportFrom) and node.module == "copgen_cli":
            yield from ((alias.name, node.lineno) for alias in node.names if not alias.name.startswith("__"))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("copgen_cli."):
            yield str(node.module).removeprefix("copgen_cli."), node.lineno
        elif isinstance(node, ast.Import):
            yield from (
                (alias.name.removeprefix("copgen_cli."), node.lineno)
                for alias in node.names
                if alias.name.startswith("copgen_cli.")
            )


def _functions(file: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(_tree(file)) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))


def _name(file: Path) -> str:
    return file.relative_to(PACKAGE).as_posix()


def test_every_room_and_loose_module_has_a_floor():
    loose = {file.stem for file in PACKAGE.glob("*.py")} - {"_version"}  # which only an installed checkout has

    assert loose == LOOSE
    assert {*ROOMS, *(loose - {"__init__", "__main__"})} == set(FLOOR)


def test_imports_go_down_only():
    upward = [
        f"{_name(file)}:{line} imports {name}"
        for file in _files()
        if (room := _room(file)) not in ("__init__", "__main__")
        for name, line in _imports(file)
        if (other := name.partition(".")[0]) != room and FLOOR[other] >= FLOOR[room]
    ]

    assert upward == []


def test_rooms_are_entered_by_their_door():
    inside = [
        f"{_name(file)}:{line} imports {name}"
        for file in _files()
        for name, line in _imports(file)
        if (other := name.partition(".")[0]) in ROOMS
        and other not in ("commands", _room(file))
        and name.count(".") >= 1
    ]

    assert inside == []


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_says_what_it_is_for_and_is_not_crowded(room):
    folders = [PACKAGE / room, *(path for path in (PACKAGE / room).iterdir() if (path / "__init__.py").is_file())]
    for folder in folders:
        assert ast.get_docstring(_tree(folder / "__init__.py")), folder
        assert len(list(folder.glob("*.py"))) - 1 <= MOST_FILES, folder


@pytest.mark.parametrize("room", [room for room in ROOMS if (PACKAGE / room / "__init__.pyi").is_file()])
def test_a_room_exports_what_it_promises(room):
    module = importlib.import_module(f"copgen_cli.{room}")

    assert module.__all__
    for name in module.__all__:
        getattr(module, name)


def test_functions_are_short():
    lengths = {
        f"{_name(file)}:{function.name}": function.end_lineno - function.lineno + 1
        for file in _files()
        for function in _functions(file)
        if _room(file) != "commands"  # whose signatures are as long as their options
    }

    assert statistics.median(lengths.values()) < MEDIAN_LINES
    assert {name: lines for name, lines in lengths.items() if lines > MOST_LINES} == {}


def test_the_body_of_a_command_is_short():
    long = {
        f"{_name(file)}:{function.name}": lines
        for file in (PACKAGE / "commands").rglob("*.py")
        for function in _functions(file)
        if (lines := function.body[-1].end_lineno - function.body[0].lineno + 1) > MOST_LINES
    }

    assert long == {}


def test_the_network_can_be_used_without_command_line_settings_files_and_archive():
    """`model` may use the words of settings and records, and nothing that reads files of a workspace."""
    allowed = {"errors", "storage", "modalities", "rasters", "records", "stages", "settings"}

    used = {name.partition(".")[0] for file in (PACKAGE / "model").glob("*.py") for name, _ in _imports(file)}

    assert used - {"model"} <= allowed
