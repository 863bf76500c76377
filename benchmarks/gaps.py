"""How well gaps are filled, against a smooth fill without a model and against the recipe with parts of it left out.

    python benchmarks/gaps.py --subset DIR

DIR holds downloaded cells that the model has not seen (docs/evaluation.md makes them, seed 9002). Each scene is the
middle of a cell; 30 % of its L2A pixels are taken away in the shapes of clouds, which are drawn from a seed. PSNR is
that of the pixels in the gaps alone: of all of them together, and the mean of that of each scene, which open water
decides, whose one colour a smooth fill meets at 50 dB and more. Bootstrap intervals are over scenes.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from measuring import machine
from scipy import ndimage
from seams import interval

from copgen_cli.metrics.pairwise import psnr
from copgen_cli.modalities import Modality, Role
from copgen_cli.model.solvers import made_for
from copgen_cli.patches.scenes import read_subset
from copgen_cli.places import drawing, gaps
from copgen_cli.places.canvas import Canvas
from copgen_cli.places.drawing import SceneGenerator
from copgen_cli.places.grid import Grid
from copgen_cli.places.layers import ArchiveLayer
from copgen_cli.records import SampleRequest, Scene
from copgen_cli.sampling.models import LoadedModel, load_model
from copgen_cli.settings.sections import SceneSettings

SHARE = 0.3
CLOUD = 24
"""Pixels over which the noise is smoothed whose highest part is cloud."""
GIVEN = {
    "S1 and elevation": (Modality.DEM, Modality.S1RTC),
    "L1C": (Modality.S2L1C,),
    "nothing": (),
}


class Clouds:
    """A mask of the whole scene."""

    def __init__(self, grid: Grid, seed: int) -> None:
        noise = np.random.default_rng(seed).standard_normal((grid.height, grid.width))
        smooth = ndimage.gaussian_filter(noise, CLOUD, mode="wrap")
        self.gap = smooth > np.quantile(smooth, 1 - SHARE)
        self._grid = grid

    def read(self, grid: Grid) -> np.ndarray:
        left, top = map(round, self._grid.place.to_pixels(grid.place.transform[2], grid.place.transform[5]))
        return self.gap[top : top + grid.height, left : left + grid.width]


def fill(model: LoadedModel, scene: Scene, grid: Grid, clouds: Clouds, given: tuple[Modality, ...]) -> np.ndarray:
    scene_settings = SceneSettings()
    steps, solver = made_for(model.net)
    target = Modality.S2L2A
    request = SampleRequest(
        roles={target: Role.GENERATE} | dict.fromkeys(given, Role.CONDITION),
        steps=steps,
        solver=solver,
    )
    reduction, window = model.autoencoder.reduction, int(model.net.config.sample_size)
    canvas = Canvas(grid, window, reduction, window - scene_settings.overlap // reduction, grid.height // reduction)
    layers = {modality: ArchiveLayer(modality, (scene,)) for modality in (target, *given)}
    generator = SceneGenerator(model, request, canvas, layers, clouds, batch_size=4)  # type: ignore[arg-type]
    return generator.draw(canvas.blocks[0]).pictures[target][0]


def plain_border(drawn: np.ndarray, known: np.ndarray, gap: np.ndarray) -> np.ndarray:
    return np.where(gap[..., None], drawn, known)


def with_parts(repeats: int, border: Callable[..., np.ndarray], work: Callable[[], np.ndarray]) -> np.ndarray:
    """What the recipe gives with other repeats, or without the fit to the border."""
    before = gaps.REPEATS, drawing.fit_to_border
    gaps.REPEATS, drawing.fit_to_border = repeats, border
    try:
        return work()
    finally:
        gaps.REPEATS, drawing.fit_to_border = before


def together(scores: np.ndarray) -> np.ndarray:
    """PSNR of the pixels of several gaps of one size, of all scenes and of 1000 resamples of them."""
    drawn = np.random.default_rng(0).integers(0, len(scores), (1000, len(scores)))
    samples = np.concatenate([np.arange(len(scores))[None], drawn])
    return np.asarray(-10 * np.log10((10 ** (-scores[samples] / 10)).mean(axis=1)))


def told(values: np.ndarray) -> str:
    low, high = np.percentile(values[1:], (2.5, 97.5))
    return f"{values[0]:.1f} ({low:.1f} to {high:.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--subset", type=Path, required=True, help="downloaded cells that the model has not seen")
    parser.add_argument("--scenes", type=int, default=8)
    parser.add_argument("--side", type=int, default=256, help="of a scene in pixels, from the middle of a cell")
    parser.add_argument("--model", default="copgen-sim")
    arguments = parser.parse_args()
    model = load_model(arguments.model, device=torch.device("cpu"), dtype=torch.float32)
    scenes = read_subset(arguments.subset).scenes[: arguments.scenes]
    print(machine(torch.device("cpu"), torch.get_num_threads(), "cpu"))
    scores: dict[str, list[float]] = {}
    for number, scene in enumerate(scenes):
        layer = ArchiveLayer(Modality.S2L2A, (scene,))
        tile, side = layer.tile(scene.cell), arguments.side
        grid = tile.part((tile.height - side) // 2, (tile.width - side) // 2, side, side)
        clouds, truth = Clouds(grid, number), layer.read(grid)[0]
        gap = clouds.gap

        def score(name: str, filled: np.ndarray, truth: np.ndarray = truth, gap: np.ndarray = gap) -> None:
            assert np.array_equal(filled[~gap], truth[~gap]), "known pixels have changed"
            scores.setdefault(name, []).append(psnr(truth[gap], filled[gap]))

        smooth = np.clip(np.rint(gaps.membrane(truth.astype(np.float32), gap)), 0, 255).astype(np.uint8)
        score("smooth fill, no model", np.where(gap[..., None], smooth, truth))
        for name, given in GIVEN.items():
            ours = partial(fill, model, scene, grid, clouds, given)
            score(f"given {name}", ours())
            if given:
                score(f"given {name}, latents replaced alone", with_parts(1, plain_border, ours))
                score(f"given {name}, without the fit to the border", with_parts(gaps.REPEATS, plain_border, ours))
        print(
            f"scene {number + 1} of {len(scenes)}: " + ", ".join(f"{k} {v[-1]:.1f}" for k, v in scores.items()),
            flush=True,
        )
    print("\n| fill | PSNR of all gaps, dB | over a smooth fill | PSNR of each, dB | over a smooth fill |")
    print("| --- | --- | --- | --- | --- |")
    base = np.array(scores["smooth fill, no model"])
    for name, values in scores.items():
        each = np.array(values)
        gained = together(each) - together(base)
        print(
            f"| {name} | {told(together(each))} | {told(gained)} | {interval(values)} | {interval(each - base)} |",
        )


if __name__ == "__main__":
    main()
