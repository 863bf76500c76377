"""The files that sampling writes: one PNG or GeoTIFF per picture, or a PNG per page; each says how it was made."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, PngImagePlugin

from copgen_cli.inputs import Frame, InputFile
from copgen_cli.modalities import Modality
from copgen_cli.outputs.pages import GeneratedRecord, draw_page
from copgen_cli.outputs.provenance import Provenance, Recipe, samples_together
from copgen_cli.outputs.spread import mean_picture, std_picture
from copgen_cli.rasters import encode_geotiff, encode_png
from copgen_cli.records import Georeferencing, SampleRequest

_HEADER = 8 + 4 + 4 + 13 + 4
"""Bytes of a PNG up to where text may stand: signature, and the chunk of sizes."""


@dataclass(frozen=True, slots=True, eq=False)
class Drawing:
    """One picture, and the path below the output folder that it goes to."""

    path: str
    image: Image.Image
    provenance: Provenance

    def as_png(self) -> bytes:
        """The same bytes whenever the same picture is made again: nothing in it depends on when or where."""
        text = io.BytesIO()
        for name, data, *_ in self.provenance.as_png_text().chunks:
            PngImagePlugin.putchunk(text, name, data)
        plain = encode_png(np.asarray(self.image))
        return plain[:_HEADER] + text.getvalue() + plain[_HEADER:]

    def as_geotiff(self, place: Georeferencing | None) -> bytes:
        """Red, green and blue on the ground, with the same text as the PNG's in the tags."""
        bands = np.asarray(self.image.convert("RGB")).transpose(2, 0, 1)
        return encode_geotiff(np.ascontiguousarray(bands), place, tags=self.provenance.as_tags())


def sample_ids(record: str, request: SampleRequest) -> list[str]:
    """`<record>_v1` and so on, as the published workflow names them; without a condition, a record is a sample."""
    if not request.conditions:
        return [record]
    return [f"{record}_v{number}" for number in range(1, request.n_samples + 1)]


def picture_path(modality: Modality, name: str) -> str:
    return f"{modality}/{name}.png"


def page_path(number: int) -> str:
    """Pages count from 1."""
    return f"grid_{number:04}.png"


def draw_pictures(
    generated: GeneratedRecord, recipe: Recipe, frame: Frame, batches: Sequence[Sequence[str | None]], *, spread: bool
) -> Iterator[Drawing]:
    """The pictures of one record: every sample, then mean and deviation where asked for."""
    name, inputs = generated.record.name, _inputs_of([generated])

    def drawing(kind: str, modality: Modality, file: str, pixels: np.ndarray, sample: str | None) -> Drawing:
        shown = {sample} if sample else set(generated.samples)
        provenance = Provenance(
            recipe, kind, (name,), modality, sample, inputs, samples_together(batches, shown), spread=False
        )
        return Drawing(picture_path(modality, file), Image.fromarray(frame.cut_back(pixels)), provenance)

    for modality in recipe.request.generated:
        for sample, pictures in generated.samples.items():
            yield drawing("sample", modality, sample, pictures[modality], sample)
        if spread:
            yield drawing("mean", modality, f"{name}_mean", mean_picture(generated.of(modality)), None)
            yield drawing("std", modality, f"{name}_std", std_picture(generated.of(modality)), None)


def draw_grid_page(
    number: int,
    generated: Sequence[GeneratedRecord],
    recipe: Recipe,
    frame: Frame,
    batches: Sequence[Sequence[str | None]],
    *,
    spread: bool,
) -> Drawing:
    """One page of a grid."""
    shown = {sample for one in generated for sample in one.samples}
    provenance = Provenance(
        recipe,
        "grid",
        tuple(one.record.name for one in generated),
        None,
        None,
        _inputs_of(generated),
        samples_together(batches, shown),
        spread=spread,
    )
    image = draw_page(generated, recipe.request, frame, spread=spread, footer=recipe.describe())
    return Drawing(page_path(number), image, provenance)


def _inputs_of(generated: Sequence[GeneratedRecord]) -> Mapping[str, Mapping[Modality, InputFile]]:
    return {
        one.record.name: {modality: view.file for modality, view in one.record.conditions.items()} for one in generated
    }
