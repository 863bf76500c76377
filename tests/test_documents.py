"""What the documents point to is there, and what they have one type and write is understood."""

from __future__ import annotations

import ast
import importlib
import json
import re
import shlex
import subprocess
import sys
import tomllib

import pytest
from documented_lines import (
    DOCUMENTS,
    ROOT,
    SCRIPTS,
    Line,
    blocks,
    inline_lines,
    script_lines,
    settings_files,
    shell_lines,
)

from copgen_cli.app import command_line
from copgen_cli.modalities import parse_modalities
from copgen_cli.settings import load_settings

sys.path.insert(0, str(ROOT))
from documentation.notebooks import NOTEBOOKS as NOTEBOOK_TEXTS, cells_of

PACKAGE = ROOT / "copgen_cli"
ARCHITECTURE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_files_and_rooms_of_the_map_exist():
    named = set(re.findall(r"`([a-z_]+/(?:[a-z_]+\.py)?)`", ARCHITECTURE)) - {"copgen_cli/"}

    assert len(named) > 40
    assert [name for name in named if not (PACKAGE / name).exists()] == []


def test_every_room_is_on_the_map():
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    loose = {path.name for path in PACKAGE.glob("*.py")} - {"__init__.py", "__main__.py", "_version.py"}
    table = ARCHITECTURE.partition("## The walk")[0]

    assert {f"{room}/" for room in rooms} | loose <= set(re.findall(r"`([a-z_]+(?:/|\.py))`", table))


@pytest.mark.parametrize(
    ("name", "file"), re.findall(r"`([A-Za-z_.]+)`(?:,| in) `([a-z_/]+\.py)`", ARCHITECTURE.partition("## The walk")[2])
)
def test_names_of_the_map_stand_in_their_files(name, file):
    text = (PACKAGE / file).read_text(encoding="utf-8")

    assert all(re.search(rf"\b(?:def|class) {part}\b", text) for part in name.removesuffix("()").split("."))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_between_documents_lead_somewhere(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text)]

    local = [target for target in targets if target and not target.startswith(("http", "mailto"))]
    assert [target for target in local if not ((ROOT / document).parent / target).exists()] == []


def test_the_files_that_contributing_names_exist():
    named = set(re.findall(r"`((?:copgen_cli|tests|benchmarks|docs)/[a-z_/]+\.(?:py|md))`", CONTRIBUTING))

    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []


PLACEHOLDERS = {"…": "", "$scale": "1.5", "$ignored": "published", "$@": ""}
"""Words of command lines that stand for something: what they become, where nothing is a word that is left out."""


def parse(line: Line) -> None:
    """Read a command line as `copgen` would, up to the call of the command; typer's own errors are raised."""
    words = [PLACEHOLDERS.get(word, word) for word in line.words]
    group = command_line()
    outer = group.make_context("copgen", [word for word in words if word])
    name, command, rest = group.resolve_command(outer, [*outer._protected_args, *outer.args])
    while nested := getattr(command, "commands", {}):
        command, rest = nested[rest[0]], rest[1:]
    asked = command.make_context(name, rest, parent=outer).params
    for option in ("condition", "generate", "sources"):
        for names in _as_list(asked.get(option)):
            parse_modalities(names, option=f"--{option}")


def _as_list(value: object) -> list[str]:
    return [value] if isinstance(value, str) else list(value or ())


LINES = [line for document in DOCUMENTS for line in shell_lines(document)]
LINES += [line for script in SCRIPTS for line in script_lines(script)]


@pytest.mark.parametrize("line", [pytest.param(line, id=str(line)) for line in LINES])
def test_a_command_line_of_the_documents_is_one_that_copgen_takes(line):
    parse(line)


def test_the_command_lines_are_found():
    assert len(LINES) > 80
    assert {"README.md", "docs/cluster.md", "docs/training.md", "examples/train.sbatch"} <= {x.document for x in LINES}


@pytest.mark.parametrize("words", ["sampel", "sample --guidanse 1", "sample --steps many", "pack --generate dem"])
def test_a_command_line_that_copgen_does_not_take_is_noticed(words):
    with pytest.raises(Exception, match=r"(?i)no such|valid integer"):
        parse(Line("here", 1, tuple(words.split())))


@pytest.mark.parametrize(
    "line", [pytest.param(line, id=str(line)) for document in DOCUMENTS for line in inline_lines(document)]
)
def test_commands_and_options_in_running_text_exist(line):
    command, words = command_line(), list(line.words)
    known = {name for parameter in command.params for name in parameter.opts}
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
        known |= {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}

    assert words == [] or words[0].startswith("-") or not getattr(command, "commands", {}), "no such command"
    assert {word for word in words if word.startswith("--")} <= known | {"--help", "--install-completion"}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_blocks_for_the_shell_are_written_in_its_grammar(document):
    for _, text in blocks(document, "bash"):
        checked = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, check=False)
        assert checked.stderr == "", text


@pytest.mark.parametrize("document", DOCUMENTS)
def test_no_command_line_stands_in_a_block_that_is_not_marked_as_one(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    fenced = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)

    assert re.findall(r"^ {4}copgen .*", fenced, flags=re.MULTILINE) == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_settings_of_the_documents_are_settings(document, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _, text in settings_files(document):
        tomllib.loads(text)
        (tmp_path / "copgen.toml").write_text(text, encoding="utf-8")
        load_settings()
    (tmp_path / "copgen.toml").unlink(missing_ok=True)
    load_settings()  # of no modalities of users, as the next test expects


@pytest.mark.parametrize("document", DOCUMENTS)
def test_python_of_the_documents_compiles_and_imports_what_there_is(document):
    for first, text in blocks(document, "python"):
        _check_imports(ast.parse("\n" * (first - 1) + text, filename=document))


def _check_imports(tree: ast.AST) -> None:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("copgen_cli"):
            module = importlib.import_module(str(node.module))
            assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


def test_extras_that_are_named_exist():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    files = [*PACKAGE.rglob("*.py"), *(ROOT / document for document in DOCUMENTS), *ROOT.glob("examples/*.py")]
    named = {
        extra
        for file in files
        for extras in re.findall(r"copgen\[([a-z,]+)\]", file.read_text(encoding="utf-8"))
        for extra in extras.split(",")
    }

    assert len(named) > 8
    assert named <= project["optional-dependencies"].keys()


NOTEBOOKS = sorted(path.name for path in ROOT.glob("examples/*.ipynb"))


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_small_and_was_run_to_its_end(name):
    file = ROOT / "examples" / name
    notebook = json.loads(file.read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]

    assert file.stat().st_size < 400_000
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert "error" not in {output["output_type"] for cell in code for output in cell["outputs"]}
    assert sum("image/jpeg" in output.get("data", {}) for cell in code for output in cell["outputs"]) >= 2


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_command_lines_and_imports_of_a_notebook_are_there(name):
    notebook = json.loads((ROOT / "examples" / name).read_text(encoding="utf-8"))
    for source in ("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"):
        for line in re.findall(r"^!copgen (.*)$", source, flags=re.MULTILINE):
            parse(Line(name, 0, tuple(shlex.split(line))))
        _check_imports(ast.parse(re.sub(r"^!.*$", "", source, flags=re.MULTILINE)))


@pytest.mark.parametrize("name", sorted(NOTEBOOK_TEXTS))
def test_a_notebook_is_what_its_text_makes(name):
    notebook = json.loads(NOTEBOOK_TEXTS[name].read_text(encoding="utf-8"))
    text = (ROOT / f"documentation/{name}.py").read_text(encoding="utf-8")

    assert [(cell["cell_type"], "".join(cell["source"])) for cell in notebook["cells"]] == cells_of(text)
