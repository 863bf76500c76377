"""Packed stores small enough for a test, whose latents a network can learn something from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import lmdb
import numpy as np

from copgen_cli.latents.autoencoder_record import AutoencoderFacts
from copgen_cli.latents.store_format import METADATA_KEY, NAMES_KEY, StoreMetadata
from copgen_cli.modalities import PUBLISHED, Modality, Split


def tiny_store(
    folder: Path,
    *,
    train: int = 10,
    test: int = 3,
    modalities: Sequence[Modality] = tuple(PUBLISHED),
    side: int = 8,
    autoencoder: AutoencoderFacts = AutoencoderFacts("absent-autoencoder", "f" * 64, 0.5),  # noqa: B008
    seed: int = 0,
) -> Path:
    """A store with both splits: a sample is one value per channel, the same in all modalities, and a little noise."""
    rng = np.random.default_rng(seed)
    shape = (len(modalities), 8, side, side)
    for split, count in ((Split.TRAIN, train), (Split.TEST, test)):
        names = [f"{split}_{index:04}".encode() for index in range(count)]
        metadata = StoreMetadata(tuple(modalities), shape, "float32", count, autoencoder, source=f"{split} {seed}")
        place = folder / split
        place.mkdir(parents=True)
        with lmdb.open(str(place), map_size=1 << 26) as environment, environment.begin(write=True) as transaction:
            for name in names:
                transaction.put(name, _sample(rng, shape).tobytes())
            transaction.put(NAMES_KEY, b"".join(names))
            transaction.put(METADATA_KEY, metadata.as_json())
    return folder


def _sample(rng: np.random.Generator, shape: tuple[int, int, int, int]) -> np.ndarray:
    level = 2 * rng.standard_normal((1, 4, 1, 1))
    mean = level + 0.1 * rng.standard_normal((shape[0], 4, *shape[2:]))
    return np.concatenate([mean, np.full_like(mean, -6.0)], axis=1).astype(np.float32)
