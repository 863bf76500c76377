"""Patches through the frozen autoencoder: read ahead by threads, encoded in batches, given on in their order.

What is in a batch follows from the sorted list of all patches and the batch size, never from what an earlier run had
finished: kernels round by the shape of their batch, and a run that was stopped and continued gives the same bytes.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from copgen_cli.errors import BrokenInputError
from copgen_cli.latents.encoders import Encoders
from copgen_cli.modalities import Modality, Split, normalise_file, read_scalar, scalar_moments
from copgen_cli.patches import PatchTree
from copgen_cli.rasters import find_values, is_nodata, read_colour, read_grey, read_values
from copgen_cli.stages import Threads

READERS = 4
"""Threads that decode PNGs; Pillow lets go of the interpreter's lock while it does."""


@dataclass(frozen=True, slots=True)
class PatchBatch:
    """Patches that go through the autoencoder together."""

    split: Split
    index: int
    """Its place among the batches of the split."""
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EncodedBatch:
    """What became of one."""

    batch: PatchBatch
    moments: Mapping[str, Mapping[Modality, np.ndarray]]
    """Of each patch and modality (2 C, H, W) float32: mean, then log-variance."""
    failed: Mapping[str, str]
    """Patch to reason; a patch is whole or failed."""


@dataclass(frozen=True, slots=True)
class _Pixels:
    batch: PatchBatch
    images: Mapping[tuple[str, Modality], np.ndarray]
    """As `read_patch` gives them."""
    failed: Mapping[str, str]


def plan_batches(names: Sequence[str], split: Split, modalities: int, batch_size: int) -> list[PatchBatch]:
    """Deal sorted patches into batches of about `batch_size` images, at least one patch each."""
    each = max(1, batch_size // modalities)
    return [PatchBatch(split, i // each, tuple(names[i : i + each])) for i in range(0, len(names), each)]


def encode_batches(
    batches: Iterable[PatchBatch], tree: PatchTree, encoders: Encoders, *, batch_size: int
) -> Iterator[EncodedBatch]:
    """Encode batches in their order; those after are read meanwhile. At most `batch_size` images at a time."""
    for pixels in Threads(READERS).map(functools.partial(_read, tree=tree), batches, ordered=True):
        yield EncodedBatch(pixels.batch, _encode(pixels.images, encoders, batch_size), pixels.failed)


def _read(batch: PatchBatch, tree: PatchTree) -> _Pixels:
    images: dict[tuple[str, Modality], np.ndarray] = {}
    failed: dict[str, str] = {}
    for name in batch.names:
        try:
            mine = {(name, m): read_patch(tree, batch.split, m, name) for m in tree.has(batch.split, name)}
        except BrokenInputError as error:
            failed[name] = str(error)
        else:
            images |= mine
    return _Pixels(batch, images, failed)


def read_patch(tree: PatchTree, split: Split, modality: Modality, name: str) -> np.ndarray:
    """One patch in one modality.

    Returns:
        Of a picture (H, W) uint8 where that is grey, else (H, W, 3); of a raster (channels, H, W) float32 in [-1, 1];
        of a scalar (3,) float32.

    Raises:
        BrokenInputError: it is unreadable, or of another size.
    """
    file, spec = tree.file(split, modality, name), modality.spec
    if spec.is_scalar:
        return read_scalar(file, spec)
    if spec.is_picture:
        pixels = read_grey(file) if spec.grey else read_colour(file)
        height, width = pixels.shape[:2]
    else:
        pixels, nodata = read_values(find_values([file]))
        height, width = pixels.shape[1:]
    if (height, width) != (spec.side, spec.side):
        raise BrokenInputError(
            f"{file} is {width} x {height} px, not {spec.side} x {spec.side}.",
            hint="Cut it again: `copgen prepare --overwrite`.",
        )
    if spec.is_picture:
        return pixels
    if len(pixels) != len(spec.bands):
        raise BrokenInputError(
            f"{file} has {len(pixels)} bands, not {len(spec.bands)}.",
            hint="Cut it again: `copgen prepare --overwrite`.",
        )
    missing = None if nodata is None else is_nodata(pixels, nodata)
    return normalise_file(pixels, spec, missing, str(file))


def _encode(
    images: Mapping[tuple[str, Modality], np.ndarray], encoders: Encoders, batch_size: int
) -> dict[str, dict[Modality, np.ndarray]]:
    """Moments by patch and modality: pictures of one autoencoder together, grey ones first; rasters by modality."""
    encoded: dict[str, dict[Modality, np.ndarray]] = {name: {} for name, _ in images}
    groups: dict[tuple[int, str, str], list[tuple[str, Modality]]] = {}
    for key, values in images.items():
        modality = key[1]
        if modality.spec.is_scalar:
            encoded[key[0]][modality] = scalar_moments(values)
        elif modality.spec.is_picture:
            groups.setdefault((0, encoders.of[modality].source, ""), []).append(key)
        else:
            groups.setdefault((1, encoders.of[modality].source, modality), []).append(key)
    for (is_raster, *_), keys in groups.items():
        autoencoder = encoders.of[keys[0][1]].model
        if not is_raster:
            keys = [k for k in keys if images[k].ndim == 2] + [k for k in keys if images[k].ndim == 3]
        for start in range(0, len(keys), batch_size):
            chunk = keys[start : start + batch_size]
            if is_raster:
                stacked = torch.from_numpy(np.stack([images[key] for key in chunk])).to(autoencoder.device)
                moments = autoencoder.encode(stacked)
            else:
                moments = autoencoder.moments(_to_device([images[key] for key in chunk], autoencoder.device))
            for (name, modality), values in zip(chunk, moments.cpu().numpy(), strict=True):
                encoded[name][modality] = values
    return encoded


def _to_device(images: Sequence[np.ndarray], device: torch.device) -> Tensor:
    """(B, 3, H, W) uint8, channels last in memory; of grey images one channel travels."""
    grey = [pixels for pixels in images if pixels.ndim == 2]
    colour = [pixels for pixels in images if pixels.ndim == 3]
    parts = []
    if grey:
        parts.append(torch.from_numpy(np.stack(grey)).to(device)[:, None].expand(-1, 3, -1, -1))
    if colour:
        parts.append(torch.from_numpy(np.stack(colour)).to(device).permute(0, 3, 1, 2))
    return torch.cat(parts).contiguous(memory_format=torch.channels_last)
