"""The files that sampling writes: one PNG or GeoTIFF per picture, or a PNG per page; each says how it was made."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, PngImagePlugin

from copgen_cli.inputs import Frame, InputFile
from copgen_cli.modalities import Modality, ModalitySpec
from copgen_cli.outputs.pages import GeneratedRecord, draw_page
from copgen_cli.outputs.provenance import Provenance, Recipe, samples_together
from copgen_cli.outputs.spread import show_deviation, spread_of
from copgen_cli.rasters import encode_geotiff, encode_png, show
from copgen_cli.records import Georeferencing, SampleRequest

_HEADER = 8 + 4 + 4 + 13 + 4
"""Bytes of a PNG up to where text may stand: signature, and the chunk of sizes."""


@dataclass(frozen=True, slots=True, eq=False)
class RasterValues:
    """Bands in a modality's unit."""

    values: np.ndarray
    """(B, H, W), in the dtype of the file."""
    spec: ModalitySpec
    nodata: float | None = None

    @classmethod
    def of_sample(cls, values: np.ndarray, spec: ModalitySpec) -> RasterValues:
        """What was generated, in the modality's dtype; whole numbers are rounded, and kept from the mark of nodata."""
        if np.issubdtype(np.dtype(spec.dtype), np.integer):
            limits = np.iinfo(spec.dtype)
            high = limits.max - 1 if spec.nodata == limits.max else limits.max
            low = limits.min + 1 if spec.nodata == limits.min else limits.min
            values = np.clip(np.rint(values), low, high)
        return cls(values.astype(spec.dtype), spec, spec.nodata)

    def as_geotiff(self, place: Georeferencing | None, tags: Mapping[str, str]) -> bytes:
        spec = self.spec
        is_classes = bool(spec.classes) and self.values.dtype == np.uint8
        return encode_geotiff(
            np.ascontiguousarray(self.values),
            place,
            nodata=self.nodata,
            tags=tags,
            descriptions=spec.bands,
            colours={one.value: one.colour for one in spec.classes} if is_classes else {},
            unit="" if spec.classes else spec.unit,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Drawing:
    """One picture, and the path below the output folder that it goes to."""

    path: str
    image: Image.Image
    provenance: Provenance
    raster: RasterValues | None = None
    """Of what is measured rather than shown."""

    def as_png(self) -> bytes:
        """The same bytes whenever the same picture is made again: nothing in it depends on when or where."""
        text = io.BytesIO()
        for name, data, *_ in self.provenance.as_png_text().chunks:
            PngImagePlugin.putchunk(text, name, data)
        plain = encode_png(np.asarray(self.image))
        return plain[:_HEADER] + text.getvalue() + plain[_HEADER:]

    def as_geotiff(self, place: Georeferencing | None) -> bytes:
        """On the ground, with the same text as the PNG's in the tags: red, green and blue, or the bands of a raster."""
        if self.raster is not None:
            return self.raster.as_geotiff(place, self.provenance.as_tags())
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

    def drawing(kind: str, modality: Modality, file: str, values: np.ndarray, sample: str | None) -> Drawing:
        shown = {sample} if sample else set(generated.samples)
        provenance = Provenance(
            recipe, kind, (name,), modality, sample, inputs, samples_together(batches, shown), spread=False
        )
        spec = modality.spec
        if spec.is_picture:
            return Drawing(picture_path(modality, file), Image.fromarray(frame.cut_back(values)), provenance)
        raster = RasterValues.of_sample(values, spec) if kind != "std" else RasterValues(values, spec)
        picture = show(values, spec) if kind != "std" else show_deviation(values)
        return Drawing(picture_path(modality, file), Image.fromarray(picture), provenance, raster)

    for modality in recipe.request.generated:
        if modality.spec.is_scalar:
            continue  # its numbers are in the listing
        for sample, pictures in generated.samples.items():
            yield drawing("sample", modality, sample, pictures[modality], sample)
        if spread:
            mean, deviation = spread_of(generated.of(modality), modality.spec)
            yield drawing("mean", modality, f"{name}_mean", mean, None)
            yield drawing("std", modality, f"{name}_std", deviation, None)


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
