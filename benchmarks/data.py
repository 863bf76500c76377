"""Preparing, packing and reading data as the published workflow does it, and as this package does, in one run.

    python benchmarks/data.py                      # simulated cells; about 3 GB below a temporary folder, removed again
    python benchmarks/data.py --subset data/majorTOM/rome --workers 8

The plain way follows the published workflow: images as floats in one process, PNGs as Pillow writes them, one npy per
patch and modality, a pickled dict of float32 bytes per record, read record by record and collated by the loader. The
two ways take turns, so that whatever else the machine does hits both; figures are medians over the turns, in wall
clock and in processor time (of this process and its workers). Files are in the page cache for both.
"""

from __future__ import annotations

import argparse
import functools
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from measuring import Run, take_turns_by
from PIL import Image
from published import PickledRecords, write_records
from torch.utils.data import DataLoader

from copgen_cli.latents.autoencoder_record import AutoencoderFacts
from copgen_cli.latents.encoding import npy_bytes
from copgen_cli.latents.moments import NpyMoments
from copgen_cli.latents.packing import MomentPacking, pack
from copgen_cli.latents.store import LatentStore, keep_batch
from copgen_cli.layout import patch_file
from copgen_cli.modalities import PUBLISHED, Split
from copgen_cli.patches.preparation import Plan, plan_patches
from copgen_cli.settings.sections import PrepareSettings

SHAPE = (8, 32, 32)
FOLDERS = sorted(modality.spec.folder for modality in PUBLISHED)
SIMULATE = (
    "simulate --bbox 12.2 41.6 13.0 42.2 --cells {cells} --no-gaps --output archive",
    "download --bbox 12.2 41.6 13.0 42.2 --subset-name area --data-dir . --endpoint file://{here}/archive",
)


@dataclass(frozen=True)
class Cost:
    """What a turn took."""

    seconds: float
    processor: float


def _processor_seconds() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def take_turns(manners: dict[str, Run], turns: int, *, warm_up: bool = False) -> dict[str, Cost]:
    """Median cost of each."""
    clocks = (time.perf_counter, _processor_seconds)
    return {name: Cost(*cost) for name, cost in take_turns_by(clocks, manners, turns, warm_up=warm_up).items()}


def show(title: str, unit: str, count: int, costs: dict[str, Cost]) -> None:
    """One line per manner; ratios are to the first, the plain one."""
    plain = next(iter(costs.values()))
    print(f"\n{title}: {count:,} {unit}")
    for name, cost in costs.items():
        print(
            f"  {name:<28} {cost.seconds:7.2f} s {count / cost.seconds:11,.1f} {unit}/s   "
            f"{plain.seconds / cost.seconds:5.2f} x   processor {cost.processor:6.2f} s "
            f"{plain.processor / cost.processor:5.2f} x"
        )


# -- prepare -----------------------------------------------------------------------------------------------------------


def prepare_plainly(plan: Plan, output: Path) -> None:
    """Images as floats, one process, Pillow's own PNG settings."""
    for unit in plan.units:
        scene, split = unit.item
        for modality, file in scene.thumbnails.items():
            with Image.open(file) as opened:
                picture = opened.convert("L" if modality.spec.grey else "RGB")
            if modality.spec.grey:
                picture = picture.resize((1068, 1068), Image.Resampling.BILINEAR)
            floats = torch.from_numpy(np.array(picture, np.float32)) / 255
            floats = floats.expand(3, -1, -1) if modality.spec.grey else floats.permute(2, 0, 1)
            cut = floats[:, 22 : 22 + 1024, 22 : 22 + 1024].unfold(1, 256, 256).unfold(2, 256, 256)
            for k in range(16):
                patch = (cut[:, k // 4, k % 4] * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
                target = patch_file(output, split, modality, f"{scene.cell}_{k}", ".png")
                target.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(patch).save(target)


def prepare_ours(subset: Path, output: Path, workers: int) -> None:
    """The command itself, start included."""
    copgen(f"prepare --subset-path {subset} --output-dir {output} --workers {workers}", Path.cwd())


def measure_prepare(subset: Path, scratch: Path, *, workers: int, turns: int) -> None:
    plan = plan_patches(subset, PrepareSettings(workers=workers))
    plain, ours = scratch / "plain_png", scratch / "ours_png"

    def afresh(folder: Path, run: Callable[[], None]) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        run()

    costs = take_turns(
        {
            "plain": lambda: afresh(plain, lambda: prepare_plainly(plan, plain)),
            "ours, one process": lambda: afresh(ours, lambda: prepare_ours(subset, ours, 1)),
            f"ours, {workers} processes": lambda: afresh(ours, lambda: prepare_ours(subset, ours, workers)),
        },
        turns,
    )
    show("prepare", "cells", len(plan.units), costs)
    files = sorted(file.relative_to(plain) for file in plain.rglob("*.png"))
    assert files
    same = sum(np.array_equal(pixels(plain / file), pixels(ours / file)) for file in files)
    sizes = [sum(file.stat().st_size for file in folder.rglob("*.png")) for folder in (plain, ours)]
    print(f"  same pixels: {same:,} of {len(files):,} files; PNGs take {sizes[1] / sizes[0]:.2f} times the bytes")
    for folder in (plain, ours):
        shutil.rmtree(folder)


def pixels(file: Path) -> np.ndarray:
    with Image.open(file) as opened:
        return np.array(opened)


# -- pack --------------------------------------------------------------------------------------------------------------


def write_moments(folder: Path, names: Sequence[str]) -> None:
    draw = np.random.default_rng(0)
    for modality in PUBLISHED:
        for name in names:
            file = patch_file(folder, Split.TRAIN, modality, name, ".npy")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(npy_bytes(draw.standard_normal(SHAPE, np.float32)))


def pack_plainly(moments: Path, output: Path) -> None:
    """One np.load per file, a pickled dict per record."""
    shutil.rmtree(output, ignore_errors=True)
    train = moments / Split.TRAIN
    files = sorted(os.listdir(train / FOLDERS[0]))
    write_records(output, ((Path(file).stem, {f: np.load(train / f / file) for f in FOLDERS}) for file in files))


def pack_ours(moments: Path, output: Path, dtype: str) -> None:
    shutil.rmtree(output, ignore_errors=True)
    source = NpyMoments(moments)
    packing = MomentPacking(source, dict.fromkeys(source.modalities, AutoencoderFacts("benchmark", None, 1.0)))
    pack(
        packing, output, dtype=dtype, input_type="npy", overwrite=False, dry_run=False, draw=lambda counts, **_: counts
    )


def measure_pack(scratch: Path, names: Sequence[str], turns: int) -> None:
    moments = scratch / "npy"
    write_moments(moments, names)
    costs = take_turns(
        {
            "plain (pickled float32)": functools.partial(pack_plainly, moments, scratch / "plain"),
            "ours, float16": functools.partial(pack_ours, moments, scratch / "float16", "float16"),
            "ours, float32": functools.partial(pack_ours, moments, scratch / "float32", "float32"),
        },
        turns,
    )
    show("pack", "records", len(names), costs)
    shutil.rmtree(moments)
    plain, half, full = (
        os.path.getsize(file) / len(names)
        for file in (scratch / "plain/data.mdb", scratch / "float16/train/data.mdb", scratch / "float32/train/data.mdb")
    )
    print("\nstore: bytes per record")
    for name, size in (("plain (pickled float32)", plain), ("ours, float16", half), ("ours, float32", full)):
        print(f"  {name:<28} {size:11,.0f}   {size / plain:5.3f} of plain")


# -- read --------------------------------------------------------------------------------------------------------------


def read_epoch(loader: DataLoader[Any], count: Callable[[Any], int], expected: int) -> None:
    assert sum(count(batch) for batch in loader) == expected


def measure_reading(scratch: Path, names: Sequence[str], batch_size: int, turns: int) -> None:
    plain = DataLoader(PickledRecords(scratch / "plain", SHAPE), batch_size=batch_size, shuffle=True)
    manners: dict[str, Run] = {
        "plain (pickled float32)": functools.partial(read_epoch, plain, lambda b: len(b[1]), len(names))
    }
    for dtype in ("float16", "float32"):
        store = LatentStore(scratch / dtype / "train")
        loader = DataLoader(store, batch_size=batch_size, shuffle=True, collate_fn=keep_batch)
        manners[f"ours, {dtype}"] = functools.partial(read_epoch, loader, lambda b: len(b.names), len(names))
    costs = take_turns(manners, turns, warm_up=True)  # brings the pages into memory, for all
    show(f"shuffled epoch, batches of {batch_size}", "records", len(names), costs)


# -- all of it ---------------------------------------------------------------------------------------------------------


def simulated_subset(folder: Path, cells: int) -> Path:
    """Cells of the simulated Earth, downloaded from an archive on disk."""
    for line in SIMULATE:
        copgen(line.format(cells=cells, here=folder), folder)
    return folder / "area"


def copgen(line: str, folder: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "copgen_cli", "--quiet", *line.split()],
        cwd=folder,
        check=True,
        stdout=subprocess.DEVNULL,
    )


def patch_names(count: int) -> Iterator[str]:
    for number in range(count):
        cell, k = divmod(number, 16)
        yield f"{400 + cell // 50}U_{100 + cell % 50}R_{k}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subset", type=Path, help="a downloaded subset; simulated cells where none is named")
    parser.add_argument("--cells", type=int, default=12, help="simulated cells")
    parser.add_argument("--records", type=int, default=3000, help="records to pack and read")
    parser.add_argument("--batch-size", type=int, default=128, help="of the loader")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes that cut")
    parser.add_argument("--turns", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {load:.1f}; Python {platform.python_version()}")
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        subset = arguments.subset or simulated_subset(scratch, arguments.cells)
        measure_prepare(subset, scratch, workers=arguments.workers, turns=arguments.turns)
        names = sorted(patch_names(arguments.records))
        measure_pack(scratch, names, arguments.turns)
        measure_reading(scratch, names, arguments.batch_size, arguments.turns)


if __name__ == "__main__":
    main()
