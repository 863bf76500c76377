"""Calls of `copgen` inside the tests' own process, and small models and pictures to sample from."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import tiny_pipeline

from copgen_cli.app import main
from copgen_cli.modalities import Modality

SIDE = 64
"""Of the pictures of `small_model`, in pixels."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Networks this small lose more than they win by sharing their work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclass(frozen=True, slots=True)
class Call:
    code: int
    out: str
    err: str


def call_copgen(capsys: pytest.CaptureFixture[str], *arguments: object) -> Call:
    """Run the command line here, and return its exit code and what it printed."""
    capsys.readouterr()
    before = sys.argv
    sys.argv = ["copgen", *map(str, arguments)]
    try:
        main()
        code = 0
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 0 if leaving.code is None else 1
    finally:
        sys.argv = before
    captured = capsys.readouterr()
    return Call(code, captured.out, captured.err)


def small_model(folder: Path, seed: int = 0, **settings) -> Path:
    """A pipeline of untrained networks for pictures of 64 px."""
    return tiny_pipeline(folder, seed, **({"sample_size": 8, "patch_size": 4} | settings))


def save_picture(path: Path, *, size: tuple[int, int] = (SIDE, SIDE), seed: int = 0, mode: str = "RGB") -> Path:
    """A picture of noise, width x height; its format is that of the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


def save_folder(folder: Path, modality: Modality, names: list[str], *, first_seed: int = 0) -> Path:
    """A folder of pictures, one per name."""
    for number, name in enumerate(names):
        save_picture(folder / f"{name}.png", seed=100 * modality.order + first_seed + number)
    return folder


def pixels_of(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))
