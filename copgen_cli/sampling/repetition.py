"""A picture made again from what it says of itself: `copgen sample --like PICTURE.png`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from copgen_cli.errors import CopgenError, MismatchError, UsageError
from copgen_cli.inputs import Frame, Picture, Record, Source, parse_inputs
from copgen_cli.modalities import Modality, as_modality
from copgen_cli.model import choose_device, choose_sampling_dtypes
from copgen_cli.outputs import (
    Drawing,
    GeneratedRecord,
    Provenance,
    draw_grid_page,
    draw_pictures,
    read_provenance,
    sample_ids,
)
from copgen_cli.rasters import find_values, read_values
from copgen_cli.sampling.generation import PictureGenerator, Task
from copgen_cli.sampling.models import load_model
from copgen_cli.sampling.plan import OUTPUTS, make_job, open_source, places_of
from copgen_cli.sampling.request import RequestOptions
from copgen_cli.sampling.run import Job, SaveAs, assemble, place_of_sample
from copgen_cli.stages import foreign_file, write_atomically
from copgen_cli.storage import readable


@dataclass(frozen=True, slots=True)
class Repeated:
    """A picture that was made again."""

    file: Path
    differing: int
    """Pixels whose value differs from the original's."""
    most: float
    """By how many levels at most, or in the raster's unit."""
    device: str
    """That the original was made on."""


def repeat_picture(
    picture: Path,
    *,
    model: str | None = None,
    inputs: Sequence[str] = (),
    data: Path | None = None,
    device: str = "auto",
    output: Path | None = None,
) -> Repeated:
    """Make a picture again, with the same model from the same inputs, in batches of the same size.

    Args:
        picture: a PNG or GeoTIFF that `copgen sample` wrote.
        model, inputs, data: where these lie now, if not where they were.
        device: where to compute; only the same kind rounds alike.
        output: folder for the result; `outputs/like` where None.

    Raises:
        BrokenInputError: the picture does not say how it was made.
        MismatchError: model or inputs are not those that it was made with.
        UsageError: an input is not where it was, or the result would take the original's place.
    """
    provenance = read_provenance(picture)
    target = (output or OUTPUTS / "like") / picture.name
    if target.exists() and target.samefile(picture):
        raise UsageError(f"{picture} would be replaced by its repetition.", hint="Choose another folder with --output.")
    if os.path.lexists(target) and not _is_ours(target):
        raise foreign_file(target)
    job = _job_of(provenance, model=model, inputs=inputs, data=data, device=device)
    if job.recipe.device == "cpu":
        torch.set_num_threads(provenance.recipe.threads)
    records = [_read(job.source, name, provenance) for name in provenance.records]
    generated = _generate(job, provenance, records)
    drawing = _draw(job, provenance, generated)
    modality = provenance.modality
    if picture.suffix == ".tif" and modality is not None:
        write_atomically(target, drawing.as_geotiff(place_of_sample(job, records[0], modality)))
    else:
        write_atomically(target, drawing.as_png())
    differing, most = _compare(picture, drawing)
    return Repeated(target, differing, most, provenance.recipe.device)


def _is_ours(file: Path) -> bool:
    try:
        return bool(read_provenance(file))
    except (OSError, CopgenError):
        return False


def _job_of(provenance: Provenance, *, model: str | None, inputs: Sequence[str], data: Path | None, device: str) -> Job:
    recipe = provenance.recipe
    chosen = choose_device(device)
    dtype, _ = choose_sampling_dtypes(recipe.dtype, chosen)
    of_autoencoder, _ = choose_sampling_dtypes(recipe.autoencoder_dtype or recipe.dtype, chosen)
    loaded = load_model(model or recipe.model, device=chosen, dtype=dtype, autoencoder_dtype=of_autoencoder)
    if loaded.sha256 != recipe.model_sha256:
        raise MismatchError(
            f"The model {model or recipe.model} is not the one that made the picture: its weights differ.",
            hint=f"Give the one with --model whose samples.json says sha256 {recipe.model_sha256[:12]}…",
        )
    frame = Frame(loaded.picture_side, recipe.resolution)
    given = parse_inputs(inputs or [f"{name}={path}" for name, path in recipe.source.get("input", {}).items()])
    folder = data or (Path(recipe.source["data"]) if "data" in recipe.source and not given else None)
    truths = recipe.request.generated if provenance.kind == "grid" else ()
    scalars = {as_modality(name): dict(facts) for name, facts in recipe.source.get("given", {}).items()}
    source = open_source(given, folder, scalars, recipe.request, truths, frame, loaded.autoencoders)
    options = RequestOptions(
        ignored=recipe.ignored,
        preview=None if recipe.decoder == "autoencoder" else recipe.decoder,
        compiled=recipe.compiled,
    )
    save_as = SaveAs.GRID if provenance.kind == "grid" else SaveAs.PNGS
    places = places_of(given, folder)
    job = make_job(loaded, source, recipe.request, frame, save_as=save_as, batch_size=1, options=options, places=places)
    return replace(job, recipe=replace(recipe, device=chosen.type), spread=provenance.spread)


def _read(source: Source, name: str, provenance: Provenance) -> Record:
    """The record under its old name, once it is found to hold what it held."""
    alone = len(source.names) == 1 and len(provenance.records) == 1
    record = source.read(source.names[0] if alone else name)
    for modality, file in provenance.inputs.get(name, {}).items():
        if modality not in record.conditions:
            raise MismatchError(
                f"The picture was made from {modality} of {name}, and that is not among what is given.",
                hint=f"Give it with --input {modality}=PICTURE, or with --data.",
            )
        now = record.conditions[modality].file
        if now.sha256 != file.sha256:
            raise MismatchError(
                f"{now.path} is not the {modality} that the picture was made from: it has changed.",
                hint=f"Give the original with --input or --data; its SHA-256 begins with {file.sha256[:12]}.",
            )
    return replace(record, name=name)


def _generate(job: Job, provenance: Provenance, records: Sequence[Record]) -> list[GeneratedRecord]:
    generator, request = job.generator, provenance.recipe.request
    tasks: dict[str, Task] = {}
    for record in records:
        moments = {modality: generator.moments_of(view, modality) for modality, view in record.conditions.items()}
        for sample in sample_ids(record.name, request):
            tasks[sample] = Task(sample, record.name, moments)
    pictures: dict[str, Mapping[Modality, Picture]] = {}
    for batch in provenance.batches:
        pictures |= _generate_batch(generator, batch, tasks)
    return [assemble(job, record, pictures) for record in records]


def _generate_batch(
    generator: PictureGenerator, batch: Sequence[str | None], tasks: Mapping[str, Task]
) -> dict[str, Mapping[Modality, Picture]]:
    """The known samples of a batch, at their places in it; a known one stands in for each of the others."""
    stand_in = next(sample for sample in batch if sample is not None)
    generated = generator.generate([tasks[sample or stand_in] for sample in batch])
    return {sample: pictures for sample, pictures in zip(batch, generated, strict=True) if sample is not None}


def _draw(job: Job, provenance: Provenance, generated: Sequence[GeneratedRecord]) -> Drawing:
    batches = provenance.batches
    if provenance.kind == "grid":
        return draw_grid_page(1, generated, job.recipe, job.frame, batches, spread=provenance.spread)
    spread = provenance.kind != "sample"
    for drawing in draw_pictures(generated[0], job.recipe, job.frame, batches, spread=spread):
        made = drawing.provenance
        if (made.kind, made.modality, made.sample) == (provenance.kind, provenance.modality, provenance.sample):
            return drawing
    raise CopgenError("The picture does not say which sample it shows.", hint="Give one as copgen wrote it.")


def _compare(original: Path, drawing: Drawing) -> tuple[int, float]:
    """How many pixels differ, and by how much at most."""
    if original.suffix == ".tif" and drawing.raster is not None:
        values, _ = read_values(find_values([original]))
        apart = np.abs(values.astype(np.float64) - drawing.raster.values).max(axis=0)
        return int((apart > 0).sum()), float(apart.max())
    with Image.open(readable(original)) as opened:
        before = np.asarray(opened.convert("RGB"), dtype=np.int16)
    now = np.asarray(drawing.image, dtype=np.int16)
    if before.shape != now.shape:
        return before.shape[0] * before.shape[1], 255
    difference = np.abs(before - now).max(axis=-1)
    return int((difference > 0).sum()), int(difference.max())
