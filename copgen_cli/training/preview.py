"""What the averaged weights can do by now, in one picture: from nothing and from each modality, below the truth."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from copgen_cli import __version__
from copgen_cli.modalities import Modality
from copgen_cli.model import Autoencoders, SampleNoise, sample_latents, to_uint8
from copgen_cli.outputs import Block, Line, draw_grid, synthetic_text
from copgen_cli.rasters import show
from copgen_cli.records import Solver
from copgen_cli.settings import TrainSettings
from copgen_cli.stages import Claims, write_atomically
from copgen_cli.training.data_order import DrawnSamples
from copgen_cli.training.loop import autocast
from copgen_cli.training.state import TrainState

SEED = 0
"""Of all noise in previews: the same at every step and in every run."""
SIDE = 128
"""Of a picture, in pixels."""
AT_A_TIME = 4
"""Latents per call of the decoder."""


class _Interrupted(Exception):
    """Somebody wants the run to stop."""


@dataclass(slots=True)
class Preview:
    """Draws a picture of the same places with the same noise, whenever it is called."""

    folder: Path
    samples: DrawnSamples
    """Held-out places, or those of training where there are none."""
    names: Sequence[str]
    modalities: tuple[Modality, ...]
    autoencoders: Autoencoders | None
    """None in a process that only helps to sample, because it holds a shard of the network."""
    settings: TrainSettings
    title: str
    claims: Claims | None = None
    """Of the run's folder: what they do not name is not replaced."""
    _truth: tuple[Tensor, ...] | None = field(default=None, init=False)

    def __call__(self, state: TrainState, interrupted: Callable[[], bool]) -> Path | None:
        """Draw what the averaged weights make; None where it was interrupted, and in processes that only help."""
        truth = self._true_latents(next(state.net.parameters()).device)
        rows = [("truth", dict(enumerate(truth)))]
        state.net.eval()
        try:
            with state.average.in_place():
                rows.append(("from nothing", self._sample(state, {}, interrupted)))
                for given, modality in enumerate(self.modalities):
                    if len(self.modalities) > 1:
                        sampled = self._sample(state, {given: truth[given]}, interrupted)
                        rows.append((f"from {modality}", sampled))
        except _Interrupted:
            return None
        finally:
            state.net.train()
        return None if self.autoencoders is None else self._draw(state.step, rows, self.autoencoders)

    @property
    def places(self) -> list[str]:
        return [str(name) for name in self.names[: self.settings.preview_samples]]

    @property
    def calls(self) -> int:
        """Network calls for a picture; a student is drawn in those that it is made for."""
        return self.settings.preview_steps if self.settings.student is None else self.settings.student.calls

    def _true_latents(self, device: torch.device) -> tuple[Tensor, ...]:
        """(B, C, H, W) of each modality: the means of the moments, scaled."""
        if self._truth is None:
            moments = self.samples.moments.__getitems__(list(range(len(self.places)))).by_modality()
            self._truth = tuple(
                (scale * one.float().chunk(2, dim=1)[0]).to(device)
                for one, scale in zip(moments, self.samples.scales, strict=True)
            )
        return self._truth

    def _sample(
        self, state: TrainState, condition: dict[int, Tensor], interrupted: Callable[[], bool]
    ) -> dict[int, Tensor]:
        def look_up(call: int, calls: int, clean: dict[int, Tensor]) -> None:
            if interrupted():
                raise _Interrupted

        device = next(state.net.parameters()).device
        with autocast(self.settings, device):
            return sample_latents(
                state.net,
                generate=[i for i in range(len(self.modalities)) if i not in condition],
                condition=condition,
                steps=self.calls,
                solver=Solver.REFERENCE if self.settings.student is None else Solver.DDIM,
                noise_source=SampleNoise(SEED, tuple(self.places), tuple(map(str, self.modalities))),
                callback=look_up,
            )

    def _draw(self, step: int, rows: Sequence[tuple[str, dict[int, Tensor]]], autoencoders: Autoencoders) -> Path:
        blocks = [Block(place, tuple(map(str, self.modalities))) for place in self.places]
        lines = []
        for label, latents in rows:
            pictures = {i: decode(autoencoders, self.modalities[i], values) for i, values in latents.items()}
            cells = [
                pictures[i][b] if i in pictures else None
                for b in range(len(self.places))
                for i in range(len(self.modalities))
            ]
            lines.append(Line(label, tuple(cells)))
        footer = f"{self.title}, step {step}, averaged weights, {self.calls} network calls, synthetic"
        page = draw_grid(blocks, lines, side=SIDE, footer=footer)
        file = self.folder / f"step-{step:08}.png"
        encoded = io.BytesIO()
        page.save(encoded, format="PNG", pnginfo=self._told(step))
        write_atomically(file, encoded.getvalue(), self.claims)
        return file

    def _told(self, step: int) -> PngInfo:
        """What the picture says of itself, wherever it goes."""
        facts = {
            "synthetic": True,
            "software": f"copgen {__version__}",
            "model": self.title,
            "step": step,
            "seed": SEED,
            "steps": self.calls,
            "records": self.places,
            "conditions": [[], *([str(modality)] for modality in self.modalities)],
        }
        return synthetic_text(f"Below the first row: samples of {self.title}, step {step}, seed {SEED}.", facts)


def decode(autoencoders: Autoencoders, modality: Modality, latents: Tensor) -> list[np.ndarray]:
    """(B, C, H, W) scaled latents to B pictures (SIDE, SIDE, 3) in uint8."""
    pictures = []
    for piece in latents.float().split(AT_A_TIME):
        if not modality.spec.is_picture:
            shown = [show(values, modality.spec, SIDE) for values in autoencoders.decode(modality, piece)]
            pictures += [np.asarray(Image.fromarray(one).resize((SIDE, SIDE))) for one in shown]
            continue
        small = torch.nn.functional.interpolate(autoencoders.of[modality].decode(piece), size=(SIDE, SIDE), mode="area")
        pictures += [picture.permute(1, 2, 0).cpu().numpy() for picture in to_uint8(small)]
    return pictures
