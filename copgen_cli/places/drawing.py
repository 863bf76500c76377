"""The pictures of one block: conditions encoded window by window, one joint walk a sample, decoding with overlap."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from copgen_cli.modalities import Modality
from copgen_cli.model import draw_latents, to_uint8
from copgen_cli.places.canvas import BLEND, Block, Canvas, Span, ramp_weight
from copgen_cli.places.gaps import KnownLatents, fit_to_border, known_latents, without_gaps
from copgen_cli.places.layers import Layer, Mask
from copgen_cli.places.walk import GivenWindows, JointWalk
from copgen_cli.records import SampleRequest
from copgen_cli.sampling import LoadedModel

LEAST_KNOWN = 0.5
"""Share of a window's pixels that a condition must have there to be given; with less, it counts as left out."""
RAMP = 64
"""Pixels over which a decoded window fades into its neighbours."""


@dataclass(frozen=True, slots=True, eq=False)
class BlockPictures:
    """What was drawn of a block, over its pixels and those that overlap its neighbours."""

    pictures: Mapping[Modality, np.ndarray]
    """(samples, H, W, 3) uint8."""
    missing: np.ndarray
    """(H, W) bool: some condition has no value there."""
    drawn: Mapping[Modality, np.ndarray]
    """(H, W) bool of modalities with known pixels: those that are synthetic."""


@dataclass(frozen=True, slots=True, eq=False)
class SceneGenerator:
    """A model ready to draw the blocks of a scene."""

    model: LoadedModel
    request: SampleRequest
    canvas: Canvas
    layers: Mapping[Modality, Layer]
    """Of every condition, and of the modalities whose gaps are filled."""
    gaps: Mask | None
    batch_size: int

    @property
    def filled(self) -> tuple[Modality, ...]:
        """Generated modalities of which some pixels are known."""
        return tuple(m for m in self.request.generated if m in self.layers)

    def draw(self, block: Block, on_windows: Callable[[int], None] = lambda windows: None) -> BlockPictures:
        """All samples of a block; each depends on seed, number and ground alone, and on nothing drawn before.

        Raises:
            BrokenInputError: a raster can not be read.
            NotFiniteError: the network makes latents that are no finite numbers.
        """
        region = _Region(self, block)
        pictures: dict[Modality, list[np.ndarray]] = {modality: [] for modality in self.request.generated}
        for sample in range(1, self.request.n_samples + 1):
            latents = region.walk(sample, on_windows)
            for modality, latent in latents.items():
                pictures[modality].append(region.picture(modality, latent))
        drawn = {modality: region.asked(region.gap(modality)) for modality in self.filled}
        stacked = {modality: np.stack(several) for modality, several in pictures.items()}
        return BlockPictures(stacked, region.asked(region.missing()), drawn)


class _Region:
    """A block and the margin around it, while it is drawn."""

    def __init__(self, generator: SceneGenerator, block: Block) -> None:
        self._of, self._block = generator, block
        self._net, self._autoencoder = generator.model.net, generator.model.autoencoder
        side = generator.canvas.window
        self._rows = (block.window_rows[0], block.window_rows[-1] + side)
        self._columns = (block.window_columns[0], block.window_columns[-1] + side)
        self._windows = [(row - self._rows[0], column - self._columns[0]) for row, column in block.windows]
        self._grid = generator.canvas.pixels_of(self._rows, self._columns)
        self._layers = {modality: layer.read(self._grid) for modality, layer in generator.layers.items()}
        self._moments: dict[Modality, Tensor] = {}

    # -- what is given -----------------------------------------------------------------------------------------------

    def missing(self) -> np.ndarray:
        """(H, W) bool of the region: some condition has no value."""
        lacking = np.zeros((self._grid.height, self._grid.width), bool)
        for modality in self._of.request.conditions:
            lacking |= ~self._layers[modality][1]
        return lacking

    def gap(self, modality: Modality) -> np.ndarray:
        """(H, W) bool of the region: pixels that are to be drawn."""
        known = self._layers[modality][1]
        return ~known if self._of.gaps is None else ~known | self._of.gaps.read(self._grid)

    def _given(self, modality: Modality, sample: int) -> GivenWindows:
        moments = self._moments_of(modality, ~self._layers[modality][1])
        noise = self._noise(modality, sample, "condition")
        cut = self._cut(noise).to(moments.device)
        latents = draw_latents(moments, cut, self._autoencoder.scale_factor)
        shares = [window.mean() for window in self._pixel_windows(self._layers[modality][1])]
        return GivenWindows(latents, torch.tensor([share >= LEAST_KNOWN for share in shares], device=latents.device))

    def _known(self, modality: Modality) -> KnownLatents:
        """Means of the windows' latents, blended, where no pixel of the gap is near."""
        gap = self.gap(modality)
        means = self._moments_of(modality, gap).chunk(2, dim=1)[0] * self._autoencoder.scale_factor
        blended = self._blend(means)
        known = torch.from_numpy(known_latents(gap, self._of.canvas.reduction))
        return KnownLatents(blended, known.to(blended.device).expand_as(blended))

    def _moments_of(self, modality: Modality, gap: np.ndarray) -> Tensor:
        """(N, 2 C, S, S) moments of every window; pixels without a value are filled before."""
        if modality not in self._moments:
            pixels = without_gaps(self._layers[modality][0], gap)
            windows = torch.from_numpy(np.stack(self._pixel_windows(pixels))).permute(0, 3, 1, 2)
            size = self._of.batch_size
            batches = [self._autoencoder.moments(windows[i : i + size]) for i in range(0, len(windows), size)]
            self._moments[modality] = torch.cat(batches)
        return self._moments[modality]

    # -- the walk ----------------------------------------------------------------------------------------------------

    def walk(self, sample: int, on_windows: Callable[[int], None]) -> dict[Modality, Tensor]:
        """(C, H, W) scaled latents of every generated modality in the region."""
        of, names = self._of, self._of.model.modalities
        request = of.request
        position = {modality: i for i, modality in enumerate(names)}
        generate = [position[modality] for modality in request.generated]
        held = [modality for modality in names if modality not in request.generated]
        guided = bool(request.conditions) and request.guidance_scale != 0
        walk = JointWalk(
            self._net,
            self._windows,
            generate,
            {position[m]: self._given(m, sample) for m in request.conditions},
            {position[m]: self._noise(m, sample, "ignored") for m in held},
            {position[m]: self._noise(m, sample, "guidance") for m in request.conditions} if guided else {},
            request.guidance_scale,
            of.batch_size,
            on_windows,
        )
        latents = walk.draw(
            {i: self._noise(names[i], sample, "start") for i in generate},
            steps=request.steps,
            solver=request.solver,
            known={position[m]: self._known(m) for m in of.filled},
            fresh_noise=lambda i, purpose: self._noise(names[i], sample, purpose),
        )
        return {names[i]: latent for i, latent in latents.items()}

    def _noise(self, modality: Modality, sample: int, purpose: str) -> Tensor:
        channels = self._autoencoder.latent_channels
        of = self._of
        return of.canvas.noise(of.request.seed, sample, str(modality), self._rows, self._columns, purpose, channels)

    # -- pictures ----------------------------------------------------------------------------------------------------

    def picture(self, modality: Modality, latent: Tensor) -> np.ndarray:
        """(H, W, 3) uint8 of what is asked for, decoded in windows that fade into one another."""
        side, f = self._of.canvas.window * self._of.canvas.reduction, self._of.canvas.reduction
        top, left, height, width = self._asked_pixels()
        weight = ramp_weight(side, RAMP)
        total, weights = np.zeros((height, width, 3), np.float32), np.zeros((height, width), np.float32)
        needed = [w for w in self._windows if _meet(w[0] * f, side, top, height) and _meet(w[1] * f, side, left, width)]
        for window, decoded in self._decode(latent, needed):
            inside, there = _overlap(window[0] * f - top, window[1] * f - left, side, height, width)
            total[there] += weight[inside][..., None] * decoded[inside]
            weights[there] += weight[inside]
        mean = torch.from_numpy(total / weights[..., None])
        drawn = np.asarray(to_uint8(mean).numpy())
        if modality not in self._of.filled:
            return drawn
        return fit_to_border(drawn, self.asked(self._layers[modality][0]), self.asked(self.gap(modality)))

    def asked(self, pixels: np.ndarray) -> np.ndarray:
        """Of pixels of the region, those of the block and of what overlaps its neighbours."""
        top, left, height, width = self._asked_pixels()
        return pixels[top : top + height, left : left + width]

    def _asked_pixels(self) -> tuple[int, int, int, int]:
        f, block = self._of.canvas.reduction, self._block
        (top, bottom), (left, right) = block.drawn_rows, block.drawn_columns
        first_row, first_column = self._rows[0], self._columns[0]
        return (top - first_row) * f, (left - first_column) * f, (bottom - top) * f, (right - left) * f

    def _decode(
        self, latent: Tensor, windows: Sequence[tuple[int, int]]
    ) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
        for first in range(0, len(windows), self._of.batch_size):
            batch = windows[first : first + self._of.batch_size]
            images = self._autoencoder.decode(self._cut(latent, batch))
            yield from zip(batch, images.permute(0, 2, 3, 1).cpu().numpy(), strict=True)

    # -- windows -----------------------------------------------------------------------------------------------------

    def _cut(self, region: Tensor, windows: Sequence[tuple[int, int]] | None = None) -> Tensor:
        side = self._of.canvas.window
        chosen = self._windows if windows is None else windows
        return torch.stack([region[:, row : row + side, column : column + side] for row, column in chosen])

    def _pixel_windows(self, pixels: np.ndarray) -> list[np.ndarray]:
        f, side = self._of.canvas.reduction, self._of.canvas.window * self._of.canvas.reduction
        return [pixels[row * f : row * f + side, column * f : column * f + side] for row, column in self._windows]

    def _blend(self, windows: Tensor) -> Tensor:
        """(N, C, S, S) latents of windows to (C, H, W) of the region."""
        side = self._of.canvas.window
        weight = torch.from_numpy(ramp_weight(side, RAMP // self._of.canvas.reduction)).to(windows.device)
        height, width = self._rows[1] - self._rows[0], self._columns[1] - self._columns[0]
        total = windows.new_zeros(windows.shape[1], height, width)
        weights = windows.new_zeros(height, width)
        for (row, column), window in zip(self._windows, windows, strict=True):
            total[:, row : row + side, column : column + side] += weight * window
            weights[row : row + side, column : column + side] += weight
        return total / weights


def _meet(start: int, side: int, first: int, length: int) -> bool:
    return start < first + length and start + side > first


def _overlap(
    top: int, left: int, side: int, height: int, width: int
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """The part of a window at (top, left) that lies in a picture, in the window's pixels and in the picture's."""
    rows = max(top, 0), min(top + side, height)
    columns = max(left, 0), min(left + side, width)
    inside = slice(rows[0] - top, rows[1] - top), slice(columns[0] - left, columns[1] - left)
    return inside, (slice(*rows), slice(*columns))


def fading_of(span: Span, drawn: Span, reduction: int) -> np.ndarray:
    """(L,) float32: how much a block counts in the pixels of what was drawn of it, along one side.

    From 0 to 1 over what overlaps a neighbour, so that both add up to 1, and 1 where there is none.
    """
    length = (drawn[1] - drawn[0]) * reduction
    steps, ramp = np.arange(length, dtype=np.float32) + np.float32(0.5), np.float32(2 * BLEND * reduction)
    before = np.minimum(1, steps / ramp) if drawn[0] < span[0] else np.ones(length, np.float32)
    after = np.minimum(1, (length - steps) / ramp) if drawn[1] > span[1] else np.ones(length, np.float32)
    return np.asarray(np.minimum(before, after), np.float32)
