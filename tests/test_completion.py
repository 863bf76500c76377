"""What a shell offers after TAB, asked of the completion machinery itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

COPGEN = Path(sys.executable).with_name("copgen")


def offered(words: str, *, shell: str = "bash", folder: Path | None = None) -> set[str]:
    """The completions of a command line whose last word is the one being typed."""
    environment = os.environ | {"_COPGEN_COMPLETE": f"complete_{shell}"}
    if shell == "bash":
        typed = words.split(" ")
        environment |= {"COMP_WORDS": words, "COMP_CWORD": str(len(typed) - 1)}
    else:
        environment |= {"_TYPER_COMPLETE_ARGS": words, "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    process = subprocess.run([COPGEN], env=environment, capture_output=True, text=True, check=False, cwd=folder)
    return {line.split("\t")[0] for line in process.stdout.splitlines()}


def test_commands_are_completed():
    assert offered("copgen d") == {"distill", "download"}


def test_options_are_completed():
    assert {"--cloud-cover", "--criteria"} <= offered("copgen download --c")


def test_a_list_of_modalities_is_completed_also_after_a_comma():
    assert offered("copgen sample --generate d") == {"dem", "dem_m"}
    assert {"dem,s2_l1c", "dem,s2_l2a_10m"} <= offered("copgen sample --generate dem,s2_")


def test_a_modality_already_in_the_list_is_not_offered_again():
    assert offered("copgen sample --generate s1_rtc,s1_") == {"s1_rtc,s1_db"}


def test_modalities_of_the_settings_file_are_completed(tmp_path):
    (tmp_path / "copgen.toml").write_text('[modalities.ndvi]\nkind = "picture"\nfiles = "ndvi"\n')

    assert offered("copgen sample --generate nd", folder=tmp_path) == {"ndvi"}


def test_regions_are_completed_with_those_of_the_settings_file(tmp_path):
    (tmp_path / "copgen.toml").write_text("[regions.romagna]\nbbox = [11.5, 43.8, 12.8, 44.8]\n")

    assert offered("copgen download --region ro", folder=tmp_path) == {"rome", "romagna"}


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("copgen train --preset ", {"tiny", "small", "base"}),
        ("copgen sample --solver ", {"reference", "dpm++2m", "dpm++3m", "unipc", "ddim"}),
        ("copgen download --sources s2", {"s2_l1c", "s2_l2a"}),
    ],
)
def test_names_from_a_known_list_are_completed(words, names):
    assert offered(words) == names


@pytest.mark.parametrize("shell", ["bash", "fish"])
def test_completion_answers_in_every_shell(shell):
    assert offered("copgen sample --solver uni", shell=shell) == {"unipc"}


def test_zsh_is_offered_a_described_list():
    environment = os.environ | {"_COPGEN_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": "copgen tr"}
    process = subprocess.run([COPGEN], env=environment, capture_output=True, text=True, check=False)

    assert '"train"' in process.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_can_be_printed_for_every_shell(shell):
    environment = os.environ | {"_COPGEN_COMPLETE": f"source_{shell}"}
    process = subprocess.run([COPGEN], env=environment, capture_output=True, text=True, check=False)

    assert "_COPGEN_COMPLETE" in process.stdout
