"""Judging what a model of measurements makes of a region's test split, in units: errors of values, classes, places and
dates, and how well sets of spectra cover the true ones.

N places, S samples of each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from copgen_cli.errors import CopgenError, MissingInputError
from copgen_cli.evaluation.pairs import Pair
from copgen_cli.evaluation.pictures import choose_places, samples_by_place
from copgen_cli.evaluation.scores import Score, mean_estimate, within
from copgen_cli.inputs import Frame, View, open_data, read_middle
from copgen_cli.layout import Workspace
from copgen_cli.metrics import (
    Confusion,
    Estimate,
    Judgement,
    Metric,
    confusion_matrix,
    judge_classes,
    judge_places,
    judge_spectra,
    judge_times,
    judge_values,
    mean_spectra,
    to_decibels,
)
from copgen_cli.modalities import Kind, Modality, ModalitySpec, Rule, Split, decode_scalar, read_scalar
from copgen_cli.model import made_for
from copgen_cli.outputs import sample_ids
from copgen_cli.records import Ignored, Role, SampleRequest
from copgen_cli.sampling import LoadedModel, PictureGenerator, Task
from copgen_cli.settings import Settings

KEYS = {
    "precision": "spectral_precision",
    "recall": "spectral_recall",
    "wasserstein": "spectral_wasserstein",
    "nearest_neighbour_accuracy": "nearest_neighbour",
}
"""Names of judgements that the catalogue knows by another, for another quantity has that name there."""
NEIGHBOURS = 5


@dataclass(frozen=True, slots=True, eq=False)
class ValueSet:
    """What was generated of one modality, and the truth."""

    condition: str
    modality: Modality
    names: tuple[str, ...]
    truth: np.ndarray
    """(N, B, H, W) of a raster or of classes, (N, 3) of a scalar."""
    samples: np.ndarray
    """(N, S, ...)."""
    valid: np.ndarray | None = None
    """(N, B, H, W) bool: where there is a true value."""


def find_places(workspace: Workspace, modalities: Sequence[Modality]) -> list[str]:
    """Names of the test patches that every modality has.

    Raises:
        MissingInputError: the region has not been prepared for the family.
        CopgenError: its test split is empty.
    """
    test = workspace.patches / Split.TEST
    if not workspace.patches.is_dir():
        raise MissingInputError(f"patches of {workspace.region}", workspace.patches, written_by="prepare")
    names = [{file.stem for file in (test / m.spec.folder).glob(f"*{m.spec.suffix}")} for m in modalities]
    common = sorted(set.intersection(*names))
    if not common:
        lacking = [str(m) for m, found in zip(modalities, names, strict=True) if not found]
        raise CopgenError(
            f"The test split of {workspace.region} has no patch that all modalities of the pairs share"
            f"{': none of ' + ', '.join(lacking) if lacking else ''}.",
            hint="Prepare with a lower --train-ratio, or name --pairs of what there is.",
        )
    return common


def draw_sets(
    settings: Settings, model: LoadedModel, pairs: Sequence[Pair], names: tuple[str, ...], ignored: Ignored, batch: int
) -> Iterator[ValueSet | None]:
    """What the model makes of the test patches.

    Yields:
        None for every batch that was drawn, and the sets of a pair once all of it is.
    """
    for pair in pairs:
        made: dict[Modality, list[np.ndarray]] = {modality: [] for modality in pair.targets}
        for drawn in _draw(settings, model, pair, names, ignored, batch):
            for modality, values in drawn.items():
                made[modality] += values
            yield None
        for modality, values in made.items():
            truth, valid = read_truth(settings.workspace, modality, names)
            samples = np.stack(values).reshape(len(names), -1, *truth.shape[1:])
            yield ValueSet(_told(pair, model), modality, names, truth, samples, valid)


def _told(pair: Pair, model: LoadedModel) -> str:
    """What is given, in as many words as fit a table."""
    is_rest = len(pair.conditions) > 2 and len(pair.conditions) + len(pair.targets) == len(model.modalities)
    return "all others" if is_rest else "+".join(pair.conditions)


def batches_of(pairs: Sequence[Pair], names: Sequence[str], samples: int, batch: int) -> int:
    """How many batches `draw_sets` takes."""
    return len(pairs) * -(-len(names) * samples // batch)


def _draw(
    settings: Settings, model: LoadedModel, pair: Pair, names: tuple[str, ...], ignored: Ignored, batch: int
) -> Iterator[dict[Modality, list[np.ndarray]]]:
    sample, count = settings.sample, settings.evaluate.n_samples
    roles = dict.fromkeys(pair.targets, Role.GENERATE) | dict.fromkeys(pair.conditions, Role.CONDITION)
    request = SampleRequest(roles, count, *sample.calls(made_for(model.net)), sample.guidance_scale, sample.seed)
    generator = PictureGenerator(model.net, model.modalities, model.autoencoders, None, request, ignored)
    source = None
    if pair.conditions:
        side = model.picture_side
        folder = settings.workspace.patches / Split.TEST
        source = open_data(folder, pair.conditions, (), Frame(side, side), model.autoencoders)
    tasks = []
    for name in names:
        views: Mapping[Modality, View] = source.read(name).conditions if source is not None else {}
        moments = {modality: generator.moments_of(view, modality) for modality, view in views.items()}
        ids = sample_ids(name, request) if pair.conditions else [f"{name}_{k}" for k in range(count)]
        tasks += [Task(one, name, moments) for one in ids]
    for start in range(0, len(tasks), batch):
        drawn = generator.generate(tasks[start : start + batch])
        yield {modality: [one[modality] for one in drawn] for modality in pair.targets}


def read_truth(workspace: Workspace, modality: Modality, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray | None]:
    """(N, B, H, W) true values and where there are any; (N, 3) numbers of a scalar, and None."""
    folder = workspace.patches / Split.TEST / modality.spec.folder
    files = [folder / f"{name}{modality.spec.suffix}" for name in names]
    if modality.spec.is_scalar:
        return np.stack([read_scalar(file, modality.spec) for file in files]), None
    read = [read_middle(file, modality) for file in files]
    return np.stack([values for values, _, _ in read]), ~np.stack([missing for _, missing, _ in read])


def modalities_in_folders(real: Path, generated: Path) -> tuple[Modality, ...]:
    """The rasters and classes that two folders both hold as GeoTIFFs, in folders called like them."""
    return tuple(
        modality
        for modality in Modality
        if modality.spec.kind in (Kind.RASTER, Kind.CLASSES)
        and all(next((folder / modality.spec.folder).glob("*.tif"), None) for folder in (real, generated))
    )


def read_sets(
    real: Path, generated: Path, limit: int | None, seed: int, note: Callable[[str], None]
) -> Iterator[ValueSet]:
    """Samples `<name>_v1.tif` and so on, or `<name>.tif`, and the truths `<name>.tif` of two folders, by modality.

    Args:
        real, generated: with a folder for each modality.
        limit: the most places; None is all.
        seed: of the choice of them.
        note: is told what has no partner.

    Raises:
        CopgenError: no names match.
    """
    for modality in modalities_in_folders(real, generated):
        truths = {file.stem: file for file in (real / modality.spec.folder).glob("*.tif")}
        found = {file.stem: file for file in (generated / modality.spec.folder).glob("*.tif")}
        samples = samples_by_place(found, set(truths))
        both = [name for name in samples if name in truths]
        if not both:
            raise CopgenError(
                f"No names of {modality} in {generated} match those in {real}.",
                hint="A sample is called like its truth, or that and _v1, _v2, ...",
            )
        if len(both) < len(samples):
            note(f"Left out of {modality}, having no partner: {len(samples) - len(both)} generated.")
        names = choose_places(both, limit, seed)
        count = min(len(samples[name]) for name in names)
        truth = [read_middle(truths[name], modality) for name in names]
        drawn = [[read_middle(file, modality)[0] for file in samples[name][:count]] for name in names]
        yield ValueSet(
            "",
            modality,
            tuple(names),
            np.stack([values for values, _, _ in truth]),
            np.stack([np.stack(one) for one in drawn]),
            ~np.stack([missing for _, missing, _ in truth]),
        )


def judge(found: ValueSet, metrics: frozenset[Metric], *, resamples: int, seed: int) -> list[Score]:
    """All scores of one set."""
    spec = found.modality.spec
    if spec.kind is Kind.SCALAR:
        kind = Metric.PLACE_TIME
        scores = _of_scalars(found, resamples, seed) if kind in metrics else []
    elif spec.kind is Kind.CLASSES:
        scores = _of_classes(found, resamples, seed) if Metric.CLASSES in metrics else []
    else:
        scores = _of_values(found, metrics, resamples, seed)
    return scores


def _of_values(found: ValueSet, metrics: frozenset[Metric], resamples: int, seed: int) -> list[Score]:
    spec = found.modality.spec
    span = _range_of(found)
    rows: dict[str, list[float]] = {}
    told: dict[str, Judgement] = {}
    for i in range(len(found.names)):
        of_samples = [
            judge_values(
                found.truth[i : i + 1],
                sample[None],
                None if found.valid is None else found.valid[i : i + 1],
                spec=spec,
                data_range=span,
                structure=Metric.SSIM in metrics,
            )
            for sample in found.samples[i]
        ]
        for key, judgement in of_samples[0].items():
            told[key] = judgement
            rows.setdefault(key, []).append(float(np.mean([one[key].value for one in of_samples])))
    wanted = {"mae": Metric.ERRORS, "rmse": Metric.ERRORS, "bias": Metric.ERRORS, "spectral_angle": Metric.ERRORS}
    wanted |= {"psnr": Metric.PSNR, "ssim": Metric.SSIM}
    scores = []
    for key, values in rows.items():
        name = key.removesuffix(f"_{told[key].band}") if told[key].band else key
        if wanted[name] in metrics:
            band = told[key].band if len(spec.bands) > 1 else ""
            estimate = mean_estimate(np.array(values), found.names, resamples=resamples, seed=seed)
            scores.append(_score(found, name, estimate, told[key].unit, band))
    return scores + (_of_spectra(found) if Metric.SPECTRA in metrics else [])


def _of_spectra(found: ValueSet) -> list[Score]:
    """How the means over whole patches lie among one another; pooled over places, without an interval."""
    spec = found.modality.spec
    n, s = found.samples.shape[:2]
    in_decibel = spec.normalisation.rule is Rule.DECIBEL
    values, drawn = (to_decibels(one) if in_decibel else one for one in (found.truth, found.samples))
    valid = None if found.valid is None else np.repeat(found.valid, s, axis=0)
    judged = judge_spectra(
        mean_spectra(values, found.valid),
        mean_spectra(drawn.reshape(n * s, *drawn.shape[2:]), valid),
        bands=spec.bands,
        unit="dB" if in_decibel else spec.unit,
        neighbours=NEIGHBOURS,
    )
    scores = []
    for key, judgement in judged.items():
        name = key.removesuffix(f"_{judgement.band}") if judgement.band else key
        band = judgement.band if len(spec.bands) > 1 else ""
        if np.isfinite(judgement.value):
            scores.append(_score(found, KEYS.get(name, name), _pooled(judgement.value, n * s), judgement.unit, band))
    return scores


def _of_classes(found: ValueSet, resamples: int, seed: int) -> list[Score]:
    spec = found.modality.spec
    whole: Confusion | None = None
    accuracies = []
    ignore = None if spec.nodata is None else int(spec.nodata)
    for i in range(len(found.names)):
        truth = found.truth[i, 0]
        if found.valid is not None and ignore is not None:
            truth = np.where(found.valid[i, 0], truth, ignore)
        repeated = np.repeat(truth[None], len(found.samples[i]), axis=0)
        matrix = confusion_matrix(repeated, found.samples[i][:, 0], spec.class_values, ignore=ignore)
        accuracies.append(matrix.accuracy)
        whole = matrix if whole is None else whole + matrix
    assert whole is not None
    pooled = judge_classes(whole)
    count = found.samples.shape[0] * found.samples.shape[1]
    scores = [
        _score(found, "accuracy", mean_estimate(np.array(accuracies), found.names, resamples=resamples, seed=seed))
    ]
    scores += [_score(found, key, _pooled(pooled[key].value, count)) for key in ("mean_iou", "macro_f1")]
    names = {str(one.value): one.name for one in spec.classes}
    for key, judgement in pooled.items():
        name = key.partition("_")[0]
        if name in ("iou", "f1") and np.isfinite(judgement.value):
            scores.append(_score(found, name, _pooled(judgement.value, count), band=names[judgement.band]))
    return scores


def _of_scalars(found: ValueSet, resamples: int, seed: int) -> list[Score]:
    spec = found.modality.spec
    rows: dict[str, list[float]] = {}
    units: dict[str, str] = {}
    for truth, samples in zip(found.truth, found.samples, strict=True):
        told = [decode_scalar(truth, spec)] * len(samples)
        drawn = [decode_scalar(sample, spec) for sample in samples]
        for key, judgement in _judge_scalars(told, drawn, spec).items():
            rows.setdefault(key, []).append(judgement.value)
            units[key] = judgement.unit
    return [
        _score(found, key, mean_estimate(np.array(values), found.names, resamples=resamples, seed=seed), units[key])
        for key, values in rows.items()
        if not key.endswith("_median")
    ]


def _judge_scalars(
    truth: Sequence[Mapping[str, Any]], drawn: Sequence[Mapping[str, Any]], spec: ModalitySpec
) -> dict[str, Judgement]:
    if spec.normalisation.rule is Rule.PLACE:
        return judge_places(*(np.array([(t["latitude"], t["longitude"]) for t in some]) for some in (truth, drawn)))
    return judge_times(*(np.array([t["date"] for t in some], "datetime64[D]") for some in (truth, drawn)))


def _score(found: ValueSet, key: str, estimate: Estimate, unit: str = "", band: str = "") -> Score:
    target = f"{found.modality} {band}" if band else str(found.modality)
    return Score(found.condition, target, key, within(estimate, key), unit=unit)


def _pooled(value: float, count: int) -> Estimate:
    return Estimate(value, float("nan"), float("nan"), count)


def _range_of(found: ValueSet) -> float | None:
    """Highest less lowest true value over all places, in the unit of errors; None where that is nothing."""
    values = found.truth if found.valid is None else found.truth[found.valid]
    if found.modality.spec.normalisation.rule is Rule.DECIBEL:
        values = to_decibels(values)
    return float(np.ptp(values)) or None if values.size else None
