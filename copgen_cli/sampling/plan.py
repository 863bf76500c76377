"""From what a user asks for to a job that can be run: which model, which records, which settings, and where to."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from copgen_cli.errors import UsageError
from copgen_cli.inputs import (
    SUFFIXES,
    Frame,
    Nothing,
    OneRecord,
    Source,
    WithScalars,
    advice_on_scale,
    choose_data,
    open_data,
    open_pictures,
    table_of,
)
from copgen_cli.latents import StoreCache, cache_of
from copgen_cli.layout import Workspace
from copgen_cli.modalities import Modality, Split, family_with
from copgen_cli.model import (
    PREVIEW_ID,
    PUBLISHED_SCALE,
    Autoencoders,
    advice_on_calls,
    choose_sampling_dtypes,
    load_preview_decoder,
    made_for,
)
from copgen_cli.outputs import GeoreferencingTable, Recipe, read_georeferencing_table
from copgen_cli.records import SampleRequest
from copgen_cli.sampling.batches import choose_batch_size
from copgen_cli.sampling.generation import Decoder, PictureGenerator
from copgen_cli.sampling.models import LoadedModel, choose_model, load_model
from copgen_cli.sampling.request import RequestOptions, check_request
from copgen_cli.sampling.roles import check_known
from copgen_cli.sampling.run import Job, SaveAs
from copgen_cli.settings import Settings

OUTPUTS = Path("outputs")
TINY = "tiny"


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """A job, where its files go by default, and what to tell of the choices that were made."""

    job: Job
    output: Path
    notes: tuple[str, ...]


def plan_job(
    settings: Settings, options: RequestOptions, device: torch.device, model: LoadedModel | None = None
) -> Plan:
    """Choose, check and load all that a job needs.

    Args:
        model: one that is loaded already, for callers with many jobs; None chooses and loads the one of the settings.

    Raises:
        UsageError: the options contradict one another, or ask for what the model or the data does not know.
        MissingInputError: an earlier command has not been run.
    """
    request, inputs, scalars = check_request(settings, options)
    asked = settings.sample
    notes = [advice for modality, path in inputs.items() if (advice := _advice_on(path, modality))]
    choice = choose_model(asked.model, settings.runs_dir, settings.region, settings.family) if model is None else None
    data: Path | None = None
    if set(request.conditions) - set(scalars) and not inputs:
        records = choose_data(options.data, _workspace_of(settings, request.roles))
        data = records.folder
        notes = [records.note, *notes] if records.note else notes
    notes += [f"Model: {choice.source} ({choice.reason})."] if choice and choice.reason else []
    if choice is not None:
        dtype, of_autoencoder = choose_sampling_dtypes(asked.dtype, device)
        model = load_model(choice.source, device=device, dtype=dtype, autoencoder_dtype=of_autoencoder)
    assert model is not None
    steps, solver = asked.calls(made_for(model.net))
    request = replace(request, steps=steps, solver=solver)
    notes += [advice] if (advice := advice_on_calls(model.net, steps, solver)) else []
    check_known(request.roles, model.modalities, model.source)
    frame = _frame_of(model, options.resolution)
    truths = request.generated if asked.save_as == SaveAs.GRID else ()
    source = open_source(inputs, data, scalars, request, truths, frame, model.autoencoders, cache_of(settings.data))
    job = make_job(
        model,
        source,
        request,
        frame,
        save_as=SaveAs(asked.save_as),
        batch_size=asked.batch_size,
        options=options,
        limit=asked.limit,
        places=places_of(inputs, data),
    )
    return Plan(job, default_output(settings, options, request), tuple(notes))


def _workspace_of(settings: Settings, modalities: Iterable[Modality]) -> Workspace:
    """Of the family that is asked for, or of the first that has these modalities."""
    asked = settings.chosen_family
    found = family_with(modalities)
    if found is None or set(modalities) <= set(asked.modalities):
        return settings.workspace
    return Workspace(settings.data_dir, settings.region, found.name)


def open_source(
    inputs: dict[Modality, Path],
    data: Path | None,
    scalars: Mapping[Modality, Mapping[str, Any]],
    request: SampleRequest,
    truths: Sequence[Modality],
    frame: Frame,
    autoencoders: Autoencoders,
    cache: StoreCache | None = None,
) -> Source:
    """The records of the files that are named, or of the data, or numbered ones where nothing is given."""
    if inputs:
        source: Source = open_pictures(inputs, frame)
    elif data is not None:
        conditions = [modality for modality in request.conditions if modality not in scalars]
        source = open_data(data, conditions, truths, frame, autoencoders, cache)
    else:
        source = OneRecord() if scalars else Nothing(request.n_samples)
    return WithScalars(source, scalars) if scalars else source


def make_job(
    model: LoadedModel,
    source: Source,
    request: SampleRequest,
    frame: Frame,
    *,
    save_as: SaveAs,
    batch_size: int | None,
    options: RequestOptions,
    limit: int | None = None,
    places: GeoreferencingTable | None = None,
) -> Job:
    """Put a job together; without a batch size, one is chosen by the memory of the device."""
    device = model.autoencoders.device
    guided = request.guidance_scale != 0 and bool(request.conditions)
    chosen = batch_size or choose_batch_size(model.net, model.autoencoders, guided=guided, device=device)
    decoder = _preview_decoder(options.preview, model) if options.preview else None
    recipe = Recipe(
        model=model.source,
        model_sha256=model.sha256,
        request=request,
        source=source.describe(),
        resolution=frame.resolution,
        ignored=options.ignored,
        decoder=options.preview or "autoencoder",
        **_arithmetic_of(model),
        device=device.type,
        compiled=options.compiled,
        threads=torch.get_num_threads() if device.type == "cpu" else 1,
    )
    if options.compiled:
        model.net.compile()
    generator = PictureGenerator(model.net, model.modalities, model.autoencoders, decoder, request, options.ignored)
    names = source.names[:limit] if limit is not None else source.names
    return Job(
        generator, source, names, recipe, frame, save_as, chosen, options.spread, places or GeoreferencingTable()
    )


def _arithmetic_of(model: LoadedModel) -> dict[str, str]:
    """`dtype` of a recipe, and that of the autoencoder where it is another one."""
    of_net, of_autoencoder = (str(part.dtype).removeprefix("torch.") for part in (model.net, model.autoencoders))
    return {"dtype": of_net} | ({"autoencoder_dtype": of_autoencoder} if of_autoencoder != of_net else {})


def default_output(settings: Settings, options: RequestOptions, request: SampleRequest) -> Path:
    """`outputs/<where from>/<conditions>-to-<generated>`."""
    place = "input" if options.inputs else options.data.name if options.data else settings.region
    given = "+".join(request.conditions) or "nothing"
    return OUTPUTS / place / f"{given}-to-{'+'.join(request.generated)}"


def _frame_of(model: LoadedModel, resolution: int | None) -> Frame:
    if resolution is not None and model.autoencoders.of_all is None:
        raise UsageError(
            f"--resolution is for models of pictures, and {model.source} knows measurements.", hint="Leave it out."
        )
    side = model.picture_side
    return Frame(side, side if resolution is None else resolution)


def _preview_decoder(name: str, model: LoadedModel) -> Decoder:
    """`tiny` stands for the released one, which knows the latents of the released autoencoder alone."""
    if model.autoencoders.of_all is None:
        raise UsageError(
            f"--preview is for models of pictures, and {model.source} knows measurements.", hint="Leave it out."
        )
    if name != TINY:
        return load_preview_decoder(name, device=model.autoencoder.device)
    if not math.isclose(model.autoencoder.scale_factor, PUBLISHED_SCALE):
        raise UsageError(
            f"--preview tiny can not decode the latents of {model.source}, which has an autoencoder of its own.",
            hint="Leave it out, or name a folder with an AutoencoderTiny for this autoencoder.",
        )
    return load_preview_decoder(PREVIEW_ID, device=model.autoencoder.device)


def places_of(inputs: Mapping[Modality, Path], data: Path | None) -> GeoreferencingTable:
    """By the table of the split that is read, also where pictures in it are named one by one."""
    folders = [path if path.is_dir() else path.parent for path in inputs.values()]
    splits = [folder.absolute().parent for folder in folders] if inputs else [data] if data else []
    tables = [table_of(split) for split in splits if data or split.name in set(Split)]
    return (
        read_georeferencing_table(next((table for table in tables if table.is_file()), tables[0]))
        if tables
        else GeoreferencingTable()
    )


def _advice_on(path: Path, modality: Modality) -> str | None:
    """By the first picture, where a folder of them is named."""
    first = path if path.is_file() else next((file for file in path.iterdir() if file.suffix in SUFFIXES), None)
    return advice_on_scale(first, modality) if first is not None else None
