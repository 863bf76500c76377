"""The command line answers before any heavy library loads, and explains every command."""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import pty
import subprocess
import sys

import pytest
import typer

from copgen_cli.app import app
from copgen_cli.options import PANELS

# pydantic is not among them: typer reads the values of options with it.
HEAVY = {"torch", "diffusers", "accelerate", "transformers", "huggingface_hub", "numpy", "scipy", "pandas", "pyarrow"}
HEAVY |= {"PIL", "lmdb", "requests", "pydantic_settings", "rich", "matplotlib"}


def paths_of(group: typer.Typer) -> list[list[str]]:
    """Every command and group of commands; a new one is covered at once."""
    paths: list[list[str]] = [[]]
    paths += [[command.name or command.callback.__name__.replace("_", "-")] for command in group.registered_commands]
    for inner in group.registered_groups:
        paths += [[inner.name, *path] for path in paths_of(inner.typer_instance)]
    return paths


COMMANDS = paths_of(app)


@functools.cache  # several tests read the same help
def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-X", "importtime", "-m", "copgen_cli", *arguments]
    return subprocess.run(program, capture_output=True, text=True, check=False)


def imported(process: subprocess.CompletedProcess[str]) -> set[str]:
    lines = (line for line in process.stderr.splitlines() if line.startswith("import time:"))
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command) or "copgen")
def test_help_answers_before_any_heavy_library_is_imported(command):
    process = run(*command, "--help")

    assert process.returncode == 0
    assert imported(process) & HEAVY == set()


def test_the_version_is_printed_before_any_heavy_library_is_imported():
    process = run("--version")

    assert process.stdout.startswith("copgen 0.")
    assert imported(process) & HEAVY == set()


@pytest.mark.parametrize("command", COMMANDS[1:], ids=" ".join)
def test_every_command_explains_itself_with_an_example(command):
    help_text = run(*command, "--help").stdout

    assert f"Example:  copgen {command[0]}" in help_text


@pytest.mark.parametrize("command", [c for c in app.registered_commands if c.callback.__name__ != "config"])
def test_options_stand_in_panels_of_one_order(command):
    parameters = inspect.signature(command.callback, eval_str=True).parameters.values()
    declared = [part for p in parameters for part in getattr(p.annotation, "__metadata__", ())]
    panels = [option.rich_help_panel for option in declared if isinstance(option, typer.models.OptionInfo)]

    assert set(panels) <= set(PANELS), command.callback.__name__
    assert panels == sorted(panels, key=PANELS.index)


def test_a_terminal_gets_panels_and_a_pipe_plain_text():
    command = [sys.executable, "-m", "copgen_cli", "encode", "--help"]
    master, terminal = pty.openpty()
    with subprocess.Popen(command, stdout=terminal, stderr=terminal, env=os.environ | {"COLUMNS": "100"}) as process:
        os.close(terminal)
        shown = b""
        with contextlib.suppress(OSError):  # the other end is closed
            while piece := os.read(master, 1 << 16):
                shown += piece
    os.close(master)
    piped = subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert process.returncode == 0
    assert all(panel in shown.decode() for panel in PANELS)
    assert "╭" in shown.decode()
    assert "╭" not in piped
    assert "--output-dir" in piped


def test_quiet_and_verbose_exclude_each_other():
    process = run("--quiet", "--verbose", "info")

    assert process.returncode == 2
    assert "exclude each other" in process.stderr


@pytest.mark.parametrize(
    "command",
    [
        ["sample", "--generate", "dem,dem"],
        ["evaluate", "--metrics", "psrn"],
        ["scene", "--generate", "dem", "--input", "s2_l2a=none.tif"],
    ],
    ids=lambda words: words[0],
)
def test_wrong_usage_is_told_before_torch_is_imported(command):
    process = run(*command)

    assert process.returncode == 2
    assert imported(process) & {"torch", "diffusers"} == set()


def test_a_command_that_does_not_exist_is_wrong_usage():
    assert run("downlaod").returncode == 2


@pytest.mark.parametrize(
    "command", [["simulate", "--cells", "1", "--output"], ["quickstart", "--output"]], ids=lambda words: words[0]
)
def test_a_file_where_a_folder_is_to_be_made_is_told_in_one_line_with_its_mend(tmp_path, command):
    in_the_way = tmp_path / "taken"
    in_the_way.touch()

    process = subprocess.run(
        [sys.executable, "-m", "copgen_cli", *command, str(in_the_way)],
        capture_output=True, text=True, cwd=tmp_path, check=False,
    )  # fmt: skip

    assert process.returncode == 1
    assert process.stderr.startswith(f"error: {in_the_way}")
    assert "choose another folder" in process.stderr
    assert "Traceback" not in process.stderr


def test_ctrl_c_while_the_command_line_is_being_imported_is_no_traceback():
    interrupted = (
        "import builtins, copgen_cli.__main__ as start\n"
        "plain = builtins.__import__\n"
        "def interrupt(name, *rest):\n"
        "    if name == 'copgen_cli.app':\n"
        "        raise KeyboardInterrupt\n"
        "    return plain(name, *rest)\n"
        "builtins.__import__ = interrupt\n"
        "start.main()\n"
    )
    process = subprocess.run([sys.executable, "-c", interrupted], capture_output=True, text=True, check=False)

    assert process.returncode == 130
    assert process.stderr == ""


@pytest.mark.parametrize("arguments", [["sample", "--output", ""], ["prepare", "--subset-path="], ["simulate", ""]])
def test_an_empty_path_is_wrong_usage_rather_than_the_current_folder(tmp_path, arguments):
    process = subprocess.run(
        [sys.executable, "-m", "copgen_cli", *arguments], capture_output=True, text=True, cwd=tmp_path, check=False
    )

    assert process.returncode == 2
    assert "Nothing stands behind" in process.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["données", os.fsdecode(b"donn\xe9es")], ids=["accent", "no UTF-8"])
def test_a_name_that_the_encoding_of_the_output_lacks_is_printed_escaped(tmp_path, name):
    process = subprocess.run(
        [sys.executable, "-m", "copgen_cli", "simulate", "--cells", "1", "--output", name, "--dry-run"],
        capture_output=True, cwd=tmp_path, env=os.environ | {"PYTHONIOENCODING": "ascii"}, check=False,
    )  # fmt: skip

    assert process.returncode == 0, process.stderr
    assert b"donn\\x" in process.stdout or b"donn\\udc" in process.stdout
