"""What `copgen download` leaves on disk, of full size and few cells; and what `prepare` and `encode` make of it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image
from tiny_archive import Row, index_table, thumbnail_of

from copgen_cli.latents.encoding import npy_bytes
from copgen_cli.layout import patch_file, subset_index
from copgen_cli.modalities import PUBLISHED, Modality, Split
from copgen_cli.rasters.pictures import encode_png

CELLS = ("464U_102R", "465U_103R", "466U_104R")


def write_subset(
    folder: Path, cells: Sequence[str] = CELLS, *, modalities: Sequence[Modality] = tuple(PUBLISHED), size: int = 1068
) -> Path:
    """Index and thumbnails of every cell in every modality."""
    for modality in modalities:
        rows = [Row(cell, modality) for cell in cells]
        index = subset_index(folder, modality)
        index.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(index_table(modality, rows, [("https://example.org/part.parquet", 0)] * len(rows)), index)
        for row in rows:
            file = thumbnail_file(folder, row.cell, modality)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(thumbnail_of(row, size))
    return folder


def thumbnail_file(folder: Path, cell: str, modality: Modality) -> Path:
    return folder / Row(cell, modality).folder / "thumbnail.png"


def picture_bytes(pixels: np.ndarray, mode: str | None = None, kind: str = "PNG") -> bytes:
    """A picture file of these pixels, converted to a mode of Pillow."""
    stream = io.BytesIO()
    picture = Image.fromarray(pixels)
    (picture.convert(mode) if mode else picture).save(stream, kind)
    return stream.getvalue()


def write_patches(
    folder: Path,
    names: Sequence[str] = ("464U_102R_0", "464U_102R_1", "464U_102R_10", "464U_102R_2", "465U_103R_0"),
    *,
    splits: Sequence[Split] = (Split.TRAIN,),
    modalities: Sequence[Modality] = tuple(PUBLISHED),
) -> Path:
    """PNG patches that differ from one another, as `copgen prepare` lays them out."""
    for split in splits:
        for modality in modalities:
            for name in names:
                file = patch_file(folder, split, modality, name, ".png")
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(encode_png(patch_pixels(f"{split} {modality} {name}", grey=modality.spec.grey)))
    return folder


def patch_pixels(seed: str, *, grey: bool) -> np.ndarray:
    """(256, 256, 3) uint8, smooth."""
    draw = np.random.default_rng(list(seed.encode()))
    coarse = draw.integers(0, 256, (4, 4) if grey else (4, 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((256, 256), Image.Resampling.BICUBIC).convert("RGB"))


def write_moments(
    folder: Path,
    names: Sequence[str],
    *,
    splits: Sequence[Split] = (Split.TRAIN,),
    modalities: Sequence[Modality] = tuple(PUBLISHED),
    shape: tuple[int, int, int] = (8, 4, 4),
) -> Path:
    """Moments that differ from one another, as `copgen encode` lays them out."""
    for split in splits:
        for modality in modalities:
            for name in names:
                file = patch_file(folder, split, modality, name, ".npy")
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(npy_bytes(moments_of(f"{split} {modality} {name}", shape)))
    return folder


def moments_of(seed: str, shape: tuple[int, int, int] = (8, 4, 4)) -> np.ndarray:
    return np.random.default_rng(list(seed.encode())).standard_normal(shape).astype(np.float32)


def tree(folder: Path) -> dict[str, bytes]:
    """Path to content of every file below a folder."""
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
