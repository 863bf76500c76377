"""Packed stores small enough for a test, whose latents a network can learn something from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import lmdb
import numpy as np

from copgen_cli.latents.autoencoder_record import AutoencoderFacts
from copgen_cli.latents.sharded.index import INDEX_FILE, NAMES_FILE, IndexedFile, shard_folder
from copgen_cli.latents.sharded.summing_up import sum_up
from copgen_cli.latents.store import LatentStore
from copgen_cli.latents.store_builder import StoreBuilder
from copgen_cli.latents.store_format import METADATA_KEY, NAMES_KEY, StoreMetadata
from copgen_cli.modalities import PUBLISHED, Modality, Split
from copgen_cli.stages import hash_file


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
        size = (count + 1) * (4 * shape[0] * 8 * side * side + 8192) + (1 << 26)
        with lmdb.open(str(place), map_size=size) as environment, environment.begin(write=True) as transaction:
            for name in names:
                transaction.put(name, _sample(rng, shape).tobytes())
            transaction.put(NAMES_KEY, b"".join(names))
            transaction.put(METADATA_KEY, metadata.as_json())
    return folder


def tiny_shards(store: Path, folder: Path, *, shards: int) -> Path:
    """The records of a store dealt to shards, each split to as many."""
    for split in Split:
        whole = LatentStore(store / split)
        place, files = folder / split, []
        bounds = [len(whole) * i // shards for i in range(shards + 1)]
        for number, (start, stop) in enumerate(pairwise(bounds)):
            path = f"{shard_folder(number)}/data.mdb"
            about = replace(whole.metadata, source=f"{split} {number}")
            size = about.record_bytes
            builder = StoreBuilder(
                folder / "build", source=about.source, unit_records=2, records=stop - start, record_bytes=size
            )
            for first in range(start, stop, 2):
                batch = whole.__getitems__(range(first, min(first + 2, stop)))
                builder.append(batch.names, batch.moments.numpy())
            builder.finish(partial(_counted, about))
            builder.move_to((place / path).parent)
            files.append(IndexedFile(path, (place / path).stat().st_size, hash_file(place / path)))
        summed = sum_up(place, files, partial(_counted, whole.metadata))
        (place / NAMES_FILE).write_bytes(summed.names_file)
        (place / INDEX_FILE).write_bytes(summed.index.as_json())
    return folder


def _counted(about: StoreMetadata, count: int) -> StoreMetadata:
    return replace(about, count=count)


def _sample(rng: np.random.Generator, shape: tuple[int, int, int, int]) -> np.ndarray:
    level = 2 * rng.standard_normal((1, 4, 1, 1))
    mean = level + 0.1 * rng.standard_normal((shape[0], 4, *shape[2:]))
    return np.concatenate([mean, np.full_like(mean, -6.0)], axis=1).astype(np.float32)
