"""Whether windows and blocks can be seen in a map, what that costs, and whether the map is worse for it.

    python benchmarks/seams.py --subset DIR                      joint walk against patches drawn alone
    python benchmarks/seams.py --subset DIR --overlaps 32 64 128 what other overlaps give

DIR holds downloaded cells that the model has not seen (docs/evaluation.md makes them, seed 9002). Each scene is the
middle of a cell, 1024 x 1024 px. "Alone" draws windows side by side, with the same noise on the same ground.

A seam is told by the mean absolute difference of neighbouring pixels across a border, over that across other lines of
the same phase: autoencoder and network have grids of their own, of 8 and of 32 px, so that a line at a multiple of 32
px compares with other multiples of 32 px alone. The median over all borders and scenes, with a bootstrap interval over
scenes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from measuring import machine
from PIL import Image

from copgen_cli.metrics.pairwise import psnr
from copgen_cli.modalities import Modality, Role
from copgen_cli.model import made_for
from copgen_cli.patches.scenes import read_subset
from copgen_cli.places.canvas import Canvas
from copgen_cli.places.drawing import SceneGenerator
from copgen_cli.places.grid import Grid
from copgen_cli.places.layers import ArchiveLayer
from copgen_cli.places.mosaics import BlockFiles
from copgen_cli.records import SampleRequest, Scene
from copgen_cli.sampling.models import LoadedModel, load_model
from copgen_cli.settings.sections import SceneSettings

SIDE = 1024
TOKEN = 32
"""Pixels of a token of the network along a side."""
TASKS = {
    "L1C to L2A": ("s2_l1c", "s2_l2a"),
    "S1 to elevation and L2A": ("s1_rtc", "dem,s2_l2a"),
    "from nothing": ("", "dem,s2_l2a"),
}


@dataclass
class Drawn:
    """One scene in one manner."""

    pictures: dict[Modality, np.ndarray]
    windows: int
    seconds: float
    borders: dict[str, list[int]]


def draw(model: LoadedModel, scene: Scene, task: str, overlap: int, seed: int, block: int = SIDE) -> tuple[Drawn, Grid]:
    """The middle of a cell, in one walk or in blocks."""
    given, wanted = (tuple(Modality(name) for name in names.split(",") if name) for names in TASKS[task])
    first = given[0] if given else wanted[0]
    tile = ArchiveLayer(first, (scene,)).tile(scene.cell)
    grid = tile.part((tile.height - SIDE) // 2, (tile.width - SIDE) // 2, SIDE, SIDE)
    steps, solver = made_for(model.net)
    request = SampleRequest(
        roles=dict.fromkeys(wanted, Role.GENERATE) | dict.fromkeys(given, Role.CONDITION),
        steps=steps,
        solver=solver,
        seed=seed,
    )
    reduction, window = model.autoencoder.reduction, int(model.net.config.sample_size)
    canvas = Canvas(grid, window, reduction, window - overlap // reduction, block // reduction)
    layers = {modality: ArchiveLayer(modality, (scene,)) for modality in given}
    generator = SceneGenerator(model, request, canvas, layers, None, batch_size=4)
    started = time.process_time()
    pictures = whole(generator)
    windows = sum(len(block.windows) for block in canvas.blocks)
    return Drawn(pictures, windows, time.process_time() - started, canvas.borders), grid


def whole(generator: SceneGenerator) -> dict[Modality, np.ndarray]:
    """The pictures of all blocks, blended."""
    from tempfile import TemporaryDirectory

    from copgen_cli.places.area import area_of_box
    from copgen_cli.places.mosaics import Mosaic, rasters_of

    with TemporaryDirectory() as folder:
        files = BlockFiles(Path(folder))
        for block in generator.canvas.blocks:
            files.save(block, generator.draw(block))
        mosaic = Mosaic(generator.canvas, area_of_box(0, 0, 1, 1), files, leave_out_missing=False)
        rasters = {
            raster: Path(folder) / f"{raster.name}.tif"
            for raster in rasters_of(generator.request.generated, 1, (), spread=False)
        }
        mosaic.write(rasters, lambda raster: {})
        import rasterio

        pictures = {}
        for raster, file in rasters.items():
            with rasterio.open(file) as dataset:
                pictures[raster.modality] = dataset.read().transpose(1, 2, 0).astype(np.float32)
        return pictures


def seam(picture: np.ndarray, borders: dict[str, list[int]]) -> list[float]:
    """Of every border, how steep the picture is across it, over what it is across other lines of the same phase."""
    ratios = []
    for axis, lines in ((0, borders["rows"]), (1, borders["columns"])):
        steps = np.abs(np.diff(picture, axis=axis)).mean(axis=(1 - axis, 2))  # steps[i]: between i and i + 1
        others = [steps[i - 1] for i in range(TOKEN, picture.shape[axis], TOKEN) if i not in lines]
        ratios += [float(steps[line - 1] / np.mean(others)) for line in lines]
    return ratios


def interval(values: Sequence[float]) -> str:
    """Mean over scenes, and what 95 % of resamples give."""
    data = np.asarray(values, np.float64)
    means = data[np.random.default_rng(0).integers(0, len(data), (1000, len(data)))].mean(axis=1)
    low, high = np.percentile(means, (2.5, 97.5))
    return f"{data.mean():.3f} ({low:.3f} to {high:.3f})"


def median_interval(borders: Sequence[Sequence[float]]) -> str:
    """Median over all borders of all scenes, and what 95 % of resamples of scenes give."""
    data = np.asarray(borders, np.float64)
    drawn = np.random.default_rng(0).integers(0, len(data), (1000, len(data)))
    low, high = np.percentile(np.median(data[drawn].reshape(1000, -1), axis=1), (2.5, 97.5))
    return f"{np.median(data):.3f} ({low:.3f} to {high:.3f})"


def grey(modality: Modality, picture: np.ndarray) -> np.ndarray:
    return picture.mean(axis=2, keepdims=True) if modality.spec.grey else picture


def report(task: str, drawn: dict[str, list[Drawn]], scenes: Sequence[Scene], grids: Sequence[Grid]) -> None:
    print(f"\n## {task}\n")
    print("| manner | windows | modality | seam | PSNR in dB | correlation |")
    print("| --- | --- | --- | --- | --- | --- |")
    alone = np.mean([one.windows for one in drawn["alone"]])
    for manner, several in drawn.items():
        share = np.mean([one.windows for one in several]) / alone
        for modality in several[0].pictures:
            seams = [seam(one.pictures[modality], one.borders) for one in several]
            scores, correlations = [], []
            for one, scene, grid in zip(several, scenes, grids, strict=True):
                truth = grey(modality, ArchiveLayer(modality, (scene,)).read(grid)[0].astype(np.float32))
                scores.append(psnr(truth, one.pictures[modality]))
                correlations.append(float(np.corrcoef(truth.ravel(), one.pictures[modality].ravel())[0, 1]))
            quality = f"{interval(scores)} | {interval(correlations)}" if TASKS[task][0] else "|"
            print(f"| {manner} | {share:.2f} | {modality} | {median_interval(seams)} | {quality} |", flush=True)


def main() -> None:
    defaults = SceneSettings()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--subset", type=Path, required=True, help="downloaded cells that the model has not seen")
    parser.add_argument("--scenes", type=int, default=8)
    parser.add_argument("--overlaps", type=int, nargs="+", default=[defaults.overlap], help="in pixels")
    parser.add_argument("--model", default="copgen-sim")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--blocks", action="store_true", help="also in 2 x 2 blocks with their margins")
    parser.add_argument("--picture", type=Path, help="a picture of the first scene, both manners, to write")
    arguments = parser.parse_args()
    model = load_model(arguments.model, device=torch.device("cpu"), dtype=torch.float32)
    scenes = read_subset(arguments.subset).scenes[: arguments.scenes]
    print(machine(torch.device("cpu"), torch.get_num_threads(), "cpu"))
    print(f"{len(scenes)} scenes of {SIDE} x {SIDE} px, {arguments.model}")
    shown = []
    for task in TASKS:
        drawn: dict[str, list[Drawn]] = {}
        grids: list[Grid] = []
        for number, scene in enumerate(scenes):
            manners = {"alone": (0, SIDE)} | {f"joint, {o} px": (o, SIDE) for o in arguments.overlaps}
            if arguments.blocks:
                manners["joint, 2 x 2 blocks"] = (arguments.overlaps[0], SIDE // 2)
            for manner, (overlap, block) in manners.items():
                one, grid = draw(model, scene, task, overlap, arguments.seed, block)
                drawn.setdefault(manner, []).append(one)
                if number == 0:
                    shown.append([one.pictures[modality] for modality in one.pictures])
            grids.append(grid)
        report(task, drawn, scenes, grids)
        if arguments.blocks:
            differences = [
                np.abs(whole.pictures[m] - parts.pictures[m]).mean()
                for whole, parts in zip(
                    drawn[f"joint, {arguments.overlaps[0]} px"], drawn["joint, 2 x 2 blocks"], strict=True
                )
                for m in whole.pictures
            ]
            print(f"\nBlocks differ from one canvas by {np.mean(differences):.2f} grey levels on average.", flush=True)
    if arguments.picture:
        rows = [np.concatenate([np.broadcast_to(p, (SIDE, SIDE, 3)) for p in pictures[-1:]], 1) for pictures in shown]
        per_task = len(rows) // len(TASKS)
        lines = [np.concatenate(rows[i : i + 2], axis=1) for i in range(0, len(rows), per_task)]
        Image.fromarray(np.concatenate(lines).astype(np.uint8)).resize((1024, 512 * len(lines))).save(arguments.picture)


if __name__ == "__main__":
    main()
