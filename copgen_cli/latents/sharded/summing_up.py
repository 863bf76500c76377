"""The index of shards that are in their places."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from copgen_cli.latents.sharded.index import NAMES_FILE, IndexedFile, Shard, ShardIndex
from copgen_cli.latents.store import LatentStore
from copgen_cli.latents.store_format import StoreMetadata


@dataclass(frozen=True, slots=True)
class SummedUp:
    """What lies beside the shards."""

    index: ShardIndex
    names: tuple[str, ...]
    names_file: bytes


def sum_up(folder: Path, files: Sequence[IndexedFile], describe: Callable[[int], StoreMetadata]) -> SummedUp:
    """Read the names out of shards, and describe them all.

    Args:
        folder: of the index.
        files: the shards, in the order of their records.
        describe: from the number of all records to their metadata.
    """
    shards, names = [], []
    for file in files:
        store = LatentStore((folder / file.path).parent)
        own = list(store.names)
        first, last = (own[0], own[-1]) if own else (None, None)
        shards.append(Shard(file, len(own), first, last, store.metadata.source))
        names += own
    data = np.array([name.encode() for name in names], "S").tobytes() if names else b""
    described = IndexedFile(NAMES_FILE, len(data), hashlib.sha256(data).hexdigest())
    return SummedUp(ShardIndex(describe(len(names)), described, tuple(shards)), tuple(names), data)
