"""A shuffled epoch over a store in shards, against the same records in a single file, in turns.

    python benchmarks/shards.py
    python benchmarks/shards.py --records 8000 --shards 64 --loaders 2 --clock cpu

Records have the published size: four modalities, (8, 32, 32) float32 each, 131 kB. Both are in the page cache, so this
tells of a processor's work and nothing of a disk. The order of every epoch is the same for both, and so are the bytes,
which is checked before.
"""

from __future__ import annotations

import argparse
import functools
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import torch
from tiny_stores import tiny_shards, tiny_store
from torch.utils.data import DataLoader

from copgen_cli.latents.sharded.store import open_store
from copgen_cli.latents.store import LatentStore, keep_batch
from copgen_cli.latents.store_cache import StoreCache


def read_epoch(store: LatentStore, *, seed: int, batch_size: int, loaders: int) -> int:
    order = torch.Generator().manual_seed(seed)
    loader = DataLoader(
        store,
        batch_size=batch_size,
        shuffle=True,
        generator=order,
        num_workers=loaders,
        collate_fn=keep_batch,
    )
    return sum(len(batch.names) for batch in loader)


def require_same(one: LatentStore, other: LatentStore) -> None:
    places = torch.randperm(len(one), generator=torch.Generator().manual_seed(1))[:256].tolist()
    a, b = one.__getitems__(places), other.__getitems__(places)
    assert a.names == b.names
    assert torch.equal(a.moments, b.moments)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=4000)
    parser.add_argument("--shards", type=int, default=16)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--loaders", type=int, default=0, help="processes that load")
    parser.add_argument("--turns", type=int, default=11)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    arguments = parser.parse_args()
    clock: Callable[[], float] = time.process_time if arguments.clock == "cpu" else time.perf_counter
    torch.set_num_threads(1)
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as scratch:
        single = tiny_store(Path(scratch, "single"), train=arguments.records, test=1, side=32)
        shards = tiny_shards(single, Path(scratch, "shards"), shards=arguments.shards)
        stores = {
            "single file": LatentStore(single / "train"),
            f"{arguments.shards} shards": open_store(shards / "train"),
            f"{arguments.shards} shards, cached": open_store(shards / "train", StoreCache(Path(scratch, "cache"))),
        }
        plain, *others = stores.values()
        for other in others:
            require_same(plain, other)
        seconds: dict[str, list[float]] = {name: [] for name in stores}
        read = functools.partial(read_epoch, batch_size=arguments.batch_size, loaders=arguments.loaders)
        for turn in range(-1, arguments.turns):  # the first brings the pages into memory
            for name in list(stores) if turn % 2 else reversed(stores):
                began = clock()
                assert read(stores[name], seed=turn + 1) == arguments.records
                if turn >= 0:
                    seconds[name].append(clock() - began)
    base = seconds["single file"]
    print(f"shuffled epoch: {arguments.records:,} records, batches of {arguments.batch_size}")
    for name, own in seconds.items():
        pairs = statistics.median(one / another for one, another in zip(base, own, strict=True))
        print(
            f"  {name:<24} {statistics.median(own):7.3f} s, fastest {min(own):7.3f} s;   times as fast as the single "
            f"file: {pairs:5.2f} (median of pairs), {min(base) / min(own):5.2f} (fastest)"
        )


if __name__ == "__main__":
    main()
