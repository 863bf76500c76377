"""A workplace in which every command has something to do, and files of another origin may lie in its way."""

from __future__ import annotations

import itertools
import os
import shutil
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from copgen_processes import running
from tiny_archive import rome_rows, write_archive
from tiny_models import tiny_autoencoder
from tiny_subsets import tree

SETTINGS = """
[prepare]
train_ratio = 0.9
center_crop = true
workers = 1

[encode]
vae = "vae"

[train]
preset = "tiny"
device = "cpu"
steps = 2
preview_every = 2
preview_samples = 1
preview_steps = 1
save_every = 1

[autoencoder]
device = "cpu"
channels = [8, 8, 8, 8]
batch_size = 1
steps = 1

[sample]
device = "cpu"
steps = 1
"""

GIVEN = "given"
"""Folder of pictures that later commands take."""
SAMPLED = ("--model", "model", "--condition", "s1_rtc", "--generate", "dem", "--limit", "1")
COMMANDS: dict[str, tuple[str, ...]] = {
    "simulate": ("simulate", "--region", "rome", "--cells", "2", "--output", "simulated"),
    "download": ("download", "--endpoint", "file://archive"),
    "prepare": ("prepare",),
    "encode": ("encode",),
    "pack": ("pack",),
    "train": ("train",),
    "train-autoencoder": ("train-autoencoder",),
    "convert": ("convert", "runs/rome-tiny/model", "model"),
    "sample": ("sample", *SAMPLED, "--save-as", "pngs", "--output", "drawn"),
    "scene": (
        "scene",
        "--model",
        "model",
        "--bbox",
        "12.5",
        "41.9",
        "12.504",
        "41.903",
        "--generate",
        "dem",
        "--output",
        "map",
    ),
    "sample grids": ("sample", *SAMPLED, "--output", "grids"),
    "sample like": ("sample", "--like", f"{GIVEN}/picture.png", "--output", "again"),
    "evaluate": ("evaluate", "--real", GIVEN, "--generated", GIVEN, "--metrics", "psnr", "--output", "report"),
}
HAVE_NO_OVERWRITE = ("sample like", "evaluate")
MINE = b"of the user's own\n"


@dataclass(frozen=True, slots=True)
class Station:
    """A command's place on the way from an archive to pictures."""

    before: Path
    """The workplace as the command finds it."""
    written: frozenset[str]
    """The files that it writes or changes."""

    def come_to(self, folder: Path) -> Path:
        return Path(shutil.copytree(self.before, folder))


def walk(folder: Path, commands: Sequence[str]) -> dict[str, Station]:
    """Go the way once, unless the folder holds it, and keep the workplace as each command finds it."""
    if not folder.exists():
        _go(folder, commands)
    places = [folder / name for name in (*commands, "end")]
    trees = list(map(tree, places))
    changed = [_changed(*pair) for pair in itertools.pairwise(trees)]
    return {name: Station(place, files) for name, place, files in zip(commands, places, changed, strict=False)}


def _changed(before: dict[str, bytes], after: dict[str, bytes]) -> frozenset[str]:
    """What a command wrote; not what lies in the folder that is its own by name, nor what only the test put there."""
    files = {path for path, data in after.items() if before.get(path) != data}
    return frozenset(path for path in files if not {GIVEN, ".copgen"} & {*Path(path).parts})


def _go(folder: Path, commands: Sequence[str]) -> None:
    place = folder / "end"
    write_archive(place / "archive", rome_rows(), size=1068)
    tiny_autoencoder().save_pretrained(place / "vae")
    (place / "copgen.toml").write_text(SETTINGS)
    for name in commands:
        shutil.copytree(place, folder / name)
        call(place, name)
        if name == "sample":
            shutil.copytree(place / "drawn/dem", place / GIVEN / "dem")
            shutil.copy(next(place.glob("drawn/dem/*.png")), place / GIVEN / "picture.png")


def call(place: Path, name: str, *options: str, code: int = 0) -> str:
    with running(run_in, place, *COMMANDS[name], *options) as process:
        assert process.end() == code, process.said
        return process.said


def run_in(folder: Path, *arguments: str) -> None:
    from copgen_cli.app import main

    os.chdir(folder)
    sys.argv = ["copgen", *(argument.replace("file://", f"file://{folder}/") for argument in arguments)]
    main()


def with_and_without_overwrite(commands: Sequence[str]) -> list[tuple[str, tuple[str, ...]]]:
    options = [(name, ()) for name in commands]
    return options + [(name, ("--overwrite",)) for name in commands if name not in HAVE_NO_OVERWRITE]


def stay(place: Path, mine: Collection[str], name: str, *options: str) -> str:
    """Write files of one's own, call a command, and look at them again.

    Returns:
        What the command said.
    """
    for file in mine:
        (place / file).parent.mkdir(parents=True, exist_ok=True)
        (place / file).write_bytes(MINE)
    with running(run_in, place, *COMMANDS[name], *options) as process:
        process.end()
    now = tree(place)
    assert {file: now.get(file) for file in mine} == dict.fromkeys(mine, MINE), process.said
    assert "Traceback" not in process.said
    return process.said
