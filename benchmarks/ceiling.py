"""How close to the truth the simulated Earth itself comes when it draws a place again: the score of a perfect model.

    python benchmarks/ceiling.py                # the held-out cells of docs/evaluation.md

A condition says nothing of the day, the air and the clouds of another sensor's visit, nor of the shade of a soil or the
echo of a roof that only the other sensor sees; and elevation nothing of what grows there. So each place is drawn again,
with all that a condition could at most tell kept, and the rest left to chance:

- ground: heights, climate and map of land cover are the truth's. Radar and optics tell no more of one another.
- relief: heights and climate are the truth's. Elevation tells less: it does not say how warm and moist a place is.

The draws are judged as `copgen evaluate` judges samples ("Closer to own", "Closer in layout"). Samples of a perfect
model score no better than draws; a model that guesses the middle of all that may be, as guidance makes it do, may score
about as their mean does.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from itertools import count, islice

import numpy as np
from numpy.typing import NDArray

from copgen_cli.archive.grid import FOOTPRINT_METRES, footprint, parse_cell
from copgen_cli.metrics.confidence import RESAMPLES, draw_weights, weighted_mean
from copgen_cli.metrics.retrieval import closer_to_own
from copgen_cli.metrics.sample_spread import block_means, layouts
from copgen_cli.simulation.climate import climate_of
from copgen_cli.simulation.landcover import land_cover_of
from copgen_cli.simulation.noise import Frame
from copgen_cli.simulation.world import (
    Days,
    OpticalPass,
    Truth,
    cells_of_region,
    days_between,
    optical_pass_of,
    radar_pass_of,
    truth_of,
    view_optical,
    view_radar,
)

BOX = (0.0, 44.0, 40.0, 50.0)
MOST_CLOUDS = 0.01
"""Share of a visit's picture, as in the region of docs/evaluation.md."""
SIDE = 256
"""Pixels of a sample."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=96, help="of the world, as given to `copgen simulate`")
    parser.add_argument("--places", type=int, default=32, help="of them, one from the middle of each cell")
    parser.add_argument("--draws", type=int, default=8, help="of each place")
    parser.add_argument("--seed", type=int, default=9002, help="of the world")
    parser.add_argument("--rugged", type=float, default=0.9, help="as `copgen simulate` takes it")
    parser.add_argument("--start-date", type=datetime.fromisoformat, default="2020-09-10")
    parser.add_argument("--end-date", type=datetime.fromisoformat, default="2020-11-05")
    options = parser.parse_args()

    days = days_between(options.start_date, options.end_date)
    cells = [
        cell
        for cell in cells_of_region(BOX, options.cells, options.seed, least_rugged=options.rugged)
        if first_visit(cell, options.seed, days).cloud_cover <= MOST_CLOUDS
    ]
    spread = np.linspace(0, len(cells), min(options.places, len(cells)), endpoint=False).astype(int)
    cells = [cells[index] for index in spread]
    truths: dict[str, list[NDArray[np.float32]]] = defaultdict(list)
    draws: dict[tuple[str, str], list[list[NDArray[np.float32]]]] = defaultdict(list)
    for cell in cells:
        truth = truth_of(cell, options.seed)
        for target, picture in seen(truth, first_visit(cell, options.seed, days), options.seed, days).items():
            truths[target].append(picture)
        drawn: dict[tuple[str, str], list[NDArray[np.float32]]] = defaultdict(list)
        for known, target, picture in drawn_again(truth, options.seed, options.draws, days):
            drawn[known, target].append(picture)
        for key, pictures in drawn.items():
            draws[key].append(pictures)

    print("known   target   closer to own, draws / their mean   in layout, draws / their mean")
    for (known, target), of_places in draws.items():
        true, again = np.stack(truths[target]), np.array(of_places)
        middle = again.mean(1, keepdims=True)
        own, layout = (
            f"{score(kind(true), kind(again), cells)} / {score(kind(true), kind(middle), cells)}"
            for kind in (np.asarray, layouts)
        )
        print(f"{known:7} {target:8} {own:35} {layout}")


def drawn_again(truth: Truth, seed: int, draws: int, days: Days) -> Iterator[tuple[str, str, NDArray[np.float32]]]:
    """What is known, what is seen, and its block means, for a number of draws of one place."""
    name, size = truth.cell.name, truth.size
    zone = f"{truth.place.zone}{'S' if truth.place.south else 'N'}"
    frame = Frame(truth.place.west, truth.place.north, FOOTPRINT_METRES / size, size)
    climate = climate_of(truth.place, seed)
    others = (other for other in count(seed + 1) if first_visit(name, other, days).cloud_cover <= MOST_CLOUDS)
    for other in islice(others, draws):
        land = land_cover_of(frame, truth.terrain, climate, other, name, zone)
        for known, ground in (("ground", truth), ("relief", replace(truth, land=land))):
            for target, picture in seen(ground, first_visit(name, other, days), other, days).items():
                yield known, target, picture


def first_visit(cell: str, seed: int, days: Days) -> OpticalPass:
    """Of Sentinel-2, as `copgen simulate --no-gaps` has it."""
    named = parse_cell(cell)
    return optical_pass_of(named, footprint(named), seed, clear=True, days=days)


def seen(truth: Truth, visit: OpticalPass, seed: int, days: Days) -> dict[str, NDArray[np.float32]]:
    """Block means of the middle of each sensor's picture in the world of this seed, by target."""
    optical = view_optical(truth, visit, seed)
    radar = view_radar(truth, radar_pass_of(truth.cell, seed, clear=True, days=days), seed)
    first = (truth.size - SIDE) // 2
    middle = slice(first, first + SIDE)
    pictures = {"s1_rtc": radar.picture, "s2_l1c": optical.l1c, "s2_l2a": optical.l2a}
    return {target: block_means(picture[middle, middle]) for target, picture in pictures.items()}


def score(truth: NDArray[np.float32], samples: NDArray[np.float32], cells: list[str]) -> str:
    """Mean share of other truths (N, h, w, C) that are farther from samples (N, n, h, w, C) than their own, and half
    of its 95 % interval."""
    places, number = samples.shape[:2]
    farther, _ = closer_to_own(truth.reshape(places, -1), samples.reshape(places, number, -1), cells)
    weights = draw_weights(cells, cells, resamples=RESAMPLES, seed=0)
    mean = weights.estimate(weighted_mean(farther, weights.truth), places)
    return f"{mean.value:.3f} ± {(mean.high - mean.low) / 2:.3f}"


if __name__ == "__main__":
    main()
