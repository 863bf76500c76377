"""What a page of a grid shows: which columns and lines some records' pictures make."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from copgen_cli.inputs import Frame, Picture, Record
from copgen_cli.modalities import Modality
from copgen_cli.outputs.grids import LINES_PER_PAGE, WIDEST, Block, Line, draw_grid
from copgen_cli.outputs.spread import STD_GAIN, show_deviation, spread_of
from copgen_cli.rasters import show
from copgen_cli.records import SampleRequest


@dataclass(frozen=True, slots=True, eq=False)
class GeneratedRecord:
    """One record with all its samples."""

    record: Record
    samples: Mapping[str, Mapping[Modality, np.ndarray]]
    """By sample id, in order: pictures, or values of rasters and scalars."""
    conditions: Mapping[Modality, Picture] = field(default_factory=dict)
    """Of the record's views as pictures; empty where no grid is drawn."""
    truth: Mapping[Modality, Picture] = field(default_factory=dict)

    def of(self, modality: Modality) -> list[np.ndarray]:
        """What a modality is like in each sample; of rasters the values."""
        return [values[modality] for values in self.samples.values()]

    def shown(self, modality: Modality) -> list[Picture]:
        """Likewise as pictures."""
        return [show(values, modality.spec) for values in self.of(modality)]


def records_per_page(request: SampleRequest, *, spread: bool) -> int:
    """How many records fill a page."""
    across = _across(request, spread=spread)
    if across <= WIDEST:
        return LINES_PER_PAGE
    lines = len(request.generated) * -(-request.n_samples // WIDEST)
    return max(1, LINES_PER_PAGE // lines)


def draw_page(
    generated: Sequence[GeneratedRecord], request: SampleRequest, frame: Frame, *, spread: bool, footer: str
) -> Image.Image:
    """The records below each other. Modalities stand side by side where there is room, else below each other too."""
    truths = [modality for modality in request.generated if any(modality in one.truth for one in generated)]
    if _across(request, spread=spread) <= WIDEST:
        blocks, lines = _side_by_side(generated, request, frame, truths, spread)
    else:
        blocks, lines = _stacked(generated, request, frame, truths, spread)
    return draw_grid(blocks, lines, side=frame.resolution, footer=footer)


def _across(request: SampleRequest, *, spread: bool) -> int:
    per_modality = request.n_samples + (2 if spread else 0) + 1  # the truth may be there or not
    return len(request.conditions) + len(request.generated) * (per_modality if request.conditions else 1)


def _side_by_side(
    generated: Sequence[GeneratedRecord], request: SampleRequest, frame: Frame, truths: Sequence[Modality], spread: bool
) -> tuple[list[Block], list[Line]]:
    blocks = _condition_blocks(generated, request)
    for modality in request.generated:
        captions = [
            *_sample_captions(request),
            *_spread_captions(spread, [modality]),
            *_truth_caption(generated, modality, truths),
        ]
        blocks.append(Block(modality.spec.title, tuple(captions)))
    lines = []
    for one in generated:
        cells = [one.conditions.get(modality) for modality in request.conditions]
        for modality in request.generated:
            cells += [*one.shown(modality), *_spread_of(one, modality, spread)]
            cells += [one.truth.get(modality)] if modality in truths else []
        lines.append(Line(one.record.name, _cut(cells, frame)))
    return blocks, lines


def _stacked(
    generated: Sequence[GeneratedRecord], request: SampleRequest, frame: Frame, truths: Sequence[Modality], spread: bool
) -> tuple[list[Block], list[Line]]:
    """A line per modality and dozen of samples; conditions, spread and truth stand in the first of them."""
    width = min(request.n_samples, WIDEST)
    captions = list(_sample_captions(request)) if request.n_samples <= WIDEST else [""] * width
    captions += [*_spread_captions(spread, request.generated), *(["truth"] if truths else [])]
    blocks = [*_condition_blocks(generated, request), Block("Generated", tuple(captions))]
    lines = []
    for one in generated:
        for modality in request.generated:
            pictures = one.shown(modality)
            for first in range(0, len(pictures), width):
                shown: list[Picture | None] = [*pictures[first : first + width]]
                leading = first == 0
                opening = leading and modality is request.generated[0]
                cells = [one.conditions.get(m) if opening else None for m in request.conditions]
                cells += [*shown, *[None] * (width - len(shown))]
                cells += _spread_of(one, modality, spread) if leading else [None] * (2 if spread else 0)
                cells += [one.truth.get(modality) if leading else None] if truths else []
                part = f", {first + 1} to {first + len(shown)}" if len(pictures) > width else ""
                lines.append(Line(one.record.name, _cut(cells, frame), modality.spec.title + part))
    return blocks, lines


def _condition_blocks(generated: Sequence[GeneratedRecord], request: SampleRequest) -> list[Block]:
    def is_decoded(modality: Modality) -> bool:
        return all(one.record.conditions[modality].pixels is None for one in generated)

    return [
        Block(modality.spec.title, ("condition (decoded)" if is_decoded(modality) else "condition",))
        for modality in request.conditions
    ]


def _sample_captions(request: SampleRequest) -> list[str]:
    if request.n_samples == 1 or not request.conditions:
        return ["generated"]
    return [f"sample {number}" for number in range(1, request.n_samples + 1)]


def _spread_captions(spread: bool, shown: Iterable[Modality]) -> list[str]:
    pictures = all(modality.spec.is_picture for modality in shown)
    return ["mean", f"deviation x {STD_GAIN}" if pictures else "deviation"] if spread else []


def _truth_caption(generated: Sequence[GeneratedRecord], modality: Modality, truths: Sequence[Modality]) -> list[str]:
    if modality not in truths:
        return []
    views = [one.record.truth[modality] for one in generated if modality in one.record.truth]
    return ["truth (decoded)" if all(view.pixels is None for view in views) else "truth"]


def _spread_of(one: GeneratedRecord, modality: Modality, spread: bool) -> list[Picture | None]:
    if not spread or modality.spec.is_scalar:
        return [None, None] if spread else []
    mean, deviation = spread_of(one.of(modality), modality.spec)
    if modality.spec.is_picture:
        return [mean, deviation]
    return [show(mean, modality.spec), show_deviation(deviation)]


def _cut(cells: Sequence[Picture | None], frame: Frame) -> tuple[Picture | None, ...]:
    return tuple(None if cell is None else _fitted(cell, frame) for cell in cells)


def _fitted(cell: Picture, frame: Frame) -> Picture:
    """A picture of the grid's size: rasters of coarser pixels are enlarged, pixel by pixel."""
    if cell.shape[0] == frame.side:
        return frame.cut_back(cell)
    size = (frame.resolution, frame.resolution)
    return np.asarray(Image.fromarray(cell).resize(size, Image.Resampling.NEAREST))
