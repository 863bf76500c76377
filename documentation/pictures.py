"""The animation of the README, drawn by the model in the package: `python documentation/pictures.py`.

`docs/denoising.webp` shows what the network takes the clean pictures for, call after call, given one view of two places
of a world that it never saw, in the season that it learned.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import datetime
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from copgen_cli import CopGenPipeline
from copgen_cli.modalities import PUBLISHED, Modality
from copgen_cli.model import as_pil
from copgen_cli.outputs import Block, Line, draw_grid
from copgen_cli.simulation.world import SimulatedCell, days_between, simulate_cell

FILE = Path(__file__).parents[1] / "docs/denoising.webp"
PLACES = ("502U_166R_5", "548U_185R_10")
"""Patches, as `copgen prepare` names them."""
DEM, S1, L1C, L2A = PUBLISHED
WANTED = (L1C, DEM, S1)
SIDE = 168
"""Of each picture in pixels."""

Pictures = dict[Modality, list[Image.Image]]


@cache
def cell(name: str) -> SimulatedCell:
    return simulate_cell(name, seed=9002, days=days_between(datetime(2020, 9, 10), datetime(2020, 11, 5)))


def patch(place: str, modality: Modality) -> Image.Image:
    """256 px, cut as `copgen prepare` cuts them: elevation is enlarged to pixels of 10 m first."""
    name, _, k = place.rpartition("_")
    row, column = divmod(int(k), 4)
    left, upper = 22 + 256 * column, 22 + 256 * row
    whole = Image.fromarray(getattr(cell(name), modality.value)).convert("RGB")
    return whole.resize((1068, 1068), Image.Resampling.BILINEAR).crop((left, upper, left + 256, upper + 256))


def page(number: int, calls: int, made: Pictures, truth: Pictures) -> Image.Image:
    """What is given, and beside the truth what came of it after so many calls."""
    blocks = [Block(L2A.spec.title, ("given",))]
    blocks += [Block(m.spec.title, (f"call {number} of {calls}", "truth")) for m in WANTED]
    lines = []
    for row in range(len(PLACES)):
        cells = [truth[L2A][row], *(one for m in WANTED for one in (made[m][row], truth[m][row]))]
        lines.append(Line("", tuple(np.asarray(one.resize((SIDE, SIDE), Image.Resampling.LANCZOS)) for one in cells)))
    return draw_grid(blocks, lines, side=SIDE, footer="Synthetic, by copgen-sim, of the simulated Earth")


def main() -> None:
    truth = {modality: [patch(place, modality) for place in PLACES] for modality in PUBLISHED}
    pipe = CopGenPipeline.from_pretrained("copgen-sim")
    order = {pipe.modalities.index(modality): modality for modality in WANTED}
    steps: list[dict[Modality, torch.Tensor]] = []
    pipe(
        generate=[str(m) for m in WANTED],
        condition={str(L2A): truth[L2A]},
        guidance_scale=1.0,
        seed=0,
        callback=lambda call, calls, clean: steps.append({order[i]: value for i, value in clean.items()}),
    )
    save([
        page(number, len(steps), {m: as_pil(pipe.autoencoder.decode(clean[m])) for m in WANTED}, truth)
        for number, clean in enumerate(steps, start=1)
    ])  # fmt: skip


def save(pages: Sequence[Image.Image]) -> None:
    times = [700] * (len(pages) - 1) + [3000]
    pages[0].save(FILE, save_all=True, append_images=pages[1:], duration=times, loop=0, quality=70, method=6)
    sys.stdout.write(f"{FILE.name}: {FILE.stat().st_size / 1000:.0f} kB\n")


if __name__ == "__main__":
    main()
