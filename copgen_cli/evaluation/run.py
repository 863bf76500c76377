"""An evaluation from beginning to end: of two folders, or of a model on a region's test split."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch

from copgen_cli.errors import CopgenError, UsageError
from copgen_cli.evaluation import in_units, protocol
from copgen_cli.evaluation.examples import ExamplePictures
from copgen_cli.evaluation.page import as_html
from copgen_cli.evaluation.pairs import Pair, modalities_of, parse_pairs
from copgen_cli.evaluation.pictures import Pictures, PictureSet, choose_places, read_folders, read_training
from copgen_cli.evaluation.report import Report, as_json, is_report
from copgen_cli.evaluation.scores import Score, Scorer, mean_estimate, within
from copgen_cli.metrics import (
    DEFAULT_METRICS,
    LEAST_SIDE,
    NEED_FEATURES,
    NEED_MODEL,
    NEEDS,
    OF_MEASUREMENTS,
    QUANTITIES,
    AutoencoderFeatures,
    Compare,
    FeatureNetwork,
    Metric,
    chance_of_first,
    diversity,
    load_features,
    load_lpips,
    nominal_coverage,
    parse_metrics,
    place_of,
    psnr,
    require_ssim,
)
from copgen_cli.modalities import Modality, Split
from copgen_cli.model import BUNDLED_NAME, bundled_folder, choose_device, choose_sampling_dtypes
from copgen_cli.records import Ignored
from copgen_cli.sampling import LoadedModel, ModelChoice, choose_batch_size, choose_model, load_model
from copgen_cli.settings import Settings
from copgen_cli.stages import Claims, Executor, OncePerProcess, write_atomically
from copgen_cli.storage import reach

T = TypeVar("T")

REPORT_FILE = "report.html"
NUMBERS_FILE = "metrics.json"
PAIRS, PAIRS_OF_MEASUREMENTS = "single,unconditional", "rest"
"""What is translated to what where nothing is named; of twelve modalities, each from each would be 132 runs."""
PLACES = 16
"""That a model is judged on where no limit is named."""


class Watch(Protocol):
    """Passes items on, and may show how far it is."""

    def __call__(self, items: Iterable[T], *, total: int | None, label: str, unit: str = "") -> Iterator[T]: ...


@dataclass(slots=True, eq=False)
class Assessment:
    """What comes together while sets of pictures pass by."""

    scorer: Scorer
    facts: dict[str, Any]
    notes: list[str]
    told: frozenset[Metric]
    """Metrics that a note names where they give no number."""
    unknown: dict[Metric, dict[str, None]] = field(default_factory=dict)
    """Metrics without a number, and of which targets."""
    examples: ExamplePictures = field(default_factory=ExamplePictures)
    scores: list[Score] = field(default_factory=list)

    def add(self, pictures: PictureSet) -> None:
        scores = self.scorer.scores(pictures)
        for metric in sorted(self.told - NEED_MODEL - {QUANTITIES[score.key].metric for score in scores}):
            self.unknown.setdefault(metric, {})[pictures.target] = None
        self.scores += scores
        self.examples.add(pictures)
        copy = self.scorer.closest_copy(pictures)
        if copy is not None:
            self.examples.add_copy(pictures.target, pictures.condition, copy)

    @property
    def report(self) -> Report:
        network = self.scorer.features
        titles = {"frechet": network.frechet_name, "kernel": network.kernel_name} if network else {}
        unknown = [f"No {m} of {', '.join(targets)}: it needs {NEEDS[m]}." for m, targets in self.unknown.items()]
        return Report(self.facts, tuple(self.scores), titles, (*self.notes, *unknown))

    def write(self, folder: Path) -> Mapping[str, Path]:
        """Write the page and the numbers, each whole or not at all.

        Raises:
            MismatchError: under one of their names lies what copgen did not write.
        """
        page, numbers = folder / REPORT_FILE, folder / NUMBERS_FILE
        claims = claim_report(folder)
        write_atomically(numbers, (json.dumps(as_json(self.report), indent=2) + "\n").encode(), claims)
        write_atomically(page, as_html(self.report, self.examples).encode(errors="replace"), claims)
        return {"report": page, "numbers": numbers}


def claim_report(folder: Path) -> Claims:
    """The claims to the names of a report's files.

    Raises:
        MismatchError: under one of them lies what copgen did not write.
    """
    files = folder / NUMBERS_FILE, folder / REPORT_FILE
    claims = Claims(folder)
    claims.look_anew()
    if is_report(files[0]):
        claims.adopt(files)
    claims.require(*files)
    return claims


def assess_folders(settings: Settings, real: Path, generated: Path, training: Path | None, watch: Watch) -> Assessment:
    """Judge the pictures of one folder by those of another.

    Args:
        settings: what is asked for.
        real, generated: see `read_folders`.
        training: a tree of pictures that the model was trained on, to look for copies of; None looks for none.
        watch: what sets pass through while they are judged.

    Raises:
        CopgenError: there is nothing to compare, or a metric that was asked for can not be had.
    """
    asked = settings.evaluate
    for folder in (real, generated):
        reach(folder)
    if in_units.modalities_in_folders(real, generated):
        return _assess_rasters(settings, real, generated, watch)
    metrics, notes = _choose_metrics(asked.metrics, has_model=False, has_training=training is not None)
    device = choose_device(settings.sample.device)
    sets = read_folders(real, generated, limit=asked.limit, seed=settings.sample.seed, note=notes.append)
    network, metrics = _choose_features(asked.features, None, metrics, explicit=bool(asked.metrics), device=device)
    side = min(min(s.truth.shape[1:3]) for s in sets)
    metrics = _leave_out_small(metrics, side, network, notes, explicit=bool(asked.metrics))
    sizes = {s.target: (s.truth.shape[1], s.truth.shape[2]) for s in sets}
    scorer = Scorer(
        metrics,
        features=network,
        perceptual=_choose_perceptual(metrics, device),
        training=_find_training(training, sizes, metrics, settings.sample.seed, required=training is not None),
        resamples=asked.resamples,
        seed=settings.sample.seed,
    )
    facts = {
        "generated": str(generated),
        "real": str(real),
        "places": len({name for s in sets for name in s.names}),
        "samples_of_each": _alike(s.samples.shape[1] for s in sets),
        "features": network.name if network else None,
    }
    assessment = Assessment(scorer, facts, notes, _told(metrics, explicit=bool(asked.metrics)))
    for pictures in watch(sets, total=len(sets), label="Judging", unit="sets"):
        assessment.add(pictures)
    return assessment


def assess_model(
    settings: Settings, ignored: Ignored, training: Path | None, watch: Watch, executor: Executor | None = None
) -> Assessment:
    """Let a model translate the test patches of a region, and judge what comes of it.

    Args:
        settings: what is asked for; the model is that of `settings.sample`.
        ignored: how modalities that are neither given nor generated enter.
        training: a tree of the pictures that the model was trained on; None is the region's train split, of a model
            that a run of the region made.
        watch: what batches pass through as they are drawn.
        executor: who draws the pairs' samples of pictures, a batch at a time; this process where there is none.

    Raises:
        CopgenError: the region has no test patches, or a metric that was asked for can not be had.
    """
    asked, sample = settings.evaluate, settings.sample
    choice, model = _load(settings)
    chosen = [f"Model: {choice.source} ({choice.reason})."] if choice.reason else []
    if model.autoencoders.of_all is None:
        return _assess_measurements(settings, model, ignored, chosen, watch)
    metrics, notes = _choose_metrics(asked.metrics, has_model=True, has_training=True)
    notes += chosen
    pairs = parse_pairs(asked.pairs or PAIRS, model.modalities)
    modalities = modalities_of(pairs)
    found = protocol.find_places(settings.workspace, modalities)
    names = choose_places(found, asked.limit or PLACES, sample.seed)
    plan = _plan(settings, model, pairs, names, ignored, with_cycles=Metric.CYCLE in metrics)
    if Metric.CYCLE in metrics and not plan.cycles:
        notes.append("No cycle: it needs a pair of one modality and one other, such as --pairs single gives.")
    network, metrics = _choose_features(
        asked.features, model, metrics, explicit=bool(asked.metrics), device=model.autoencoders.device
    )
    side = protocol.side_of(model)
    metrics = _leave_out_small(metrics, side, network, notes, explicit=bool(asked.metrics))
    trained_on = training or (settings.workspace.patches / Split.TRAIN if choice.of_region else None)
    sizes = dict.fromkeys(map(str, modalities), (side, side))
    known = _find_training(trained_on, sizes, metrics, sample.seed, required=bool(training or asked.metrics))
    if Metric.COPYING in metrics and not known:
        metrics -= {Metric.COPYING}
        notes.append("Copies are not looked for: --training does not name the pictures that the model was trained on.")
    scorer = Scorer(
        metrics,
        features=network,
        perceptual=_choose_perceptual(metrics, model.autoencoders.device),
        training=known,
        resamples=asked.resamples,
        seed=sample.seed,
    )
    facts = _facts(settings, model, plan, network, trained_on if known else None)
    assessment = Assessment(scorer, facts, notes, _told(metrics, explicit=bool(asked.metrics)))
    truth = _read_truth(settings, model, modalities, names, watch)
    if Metric.RECONSTRUCTION in metrics:
        _assess_autoencoder(assessment, model, truth, watch)
    if metrics - NEED_MODEL:
        drawn = protocol.paint_pairs(model, truth, plan, executor, _recipe_of(model, settings))
        _assess_pairs(assessment, drawn, truth, plan, watch)
    if plan.cycles:
        _assess_cycles(assessment, model, truth, plan, watch)
    return assessment


def _assess_pairs(
    assessment: Assessment, drawn: Iterator[protocol.Batch], truth: protocol.Truth, plan: protocol.Plan, watch: Watch
) -> None:
    batches = watch(drawn, total=plan.batches, label="Sampling", unit="batches")
    for pictures in protocol.gather(batches, truth, plan):
        assessment.add(pictures)


def _recipe_of(model: LoadedModel, settings: Settings) -> OncePerProcess[LoadedModel]:
    dtypes = model.net.dtype, model.autoencoders.dtype
    return OncePerProcess(_load_in_worker, model.source, settings.sample.device, dtypes)


def _load_in_worker(source: str, device: str, dtypes: tuple[torch.dtype, torch.dtype]) -> LoadedModel:
    dtype, of_autoencoder = dtypes
    return load_model(source, device=choose_device(device), dtype=dtype, autoencoder_dtype=of_autoencoder)


def _load(settings: Settings) -> tuple[ModelChoice, LoadedModel]:
    """The model that is judged.

    Raises:
        UsageError: it knows nothing of the family that is asked for.
    """
    sample = settings.sample
    choice = choose_model(sample.model, settings.runs_dir, settings.region, settings.family)
    device = choose_device(sample.device)
    dtype, of_autoencoder = choose_sampling_dtypes(sample.dtype, device)
    model = load_model(choice.source, device=device, dtype=dtype, autoencoder_dtype=of_autoencoder)
    if set(settings.chosen_family.modalities).isdisjoint(model.modalities):
        raise UsageError(
            f"{choice.source} knows {', '.join(model.modalities)}, none of the family {settings.family}.",
            hint="Name the family of the model with --family.",
        )
    return choice, model


def _assess_rasters(settings: Settings, real: Path, generated: Path, watch: Watch) -> Assessment:
    """Judge folders of GeoTIFFs in units."""
    asked, notes = settings.evaluate, list[str]()
    metrics = _metrics_of_measurements(asked.metrics)
    sets = in_units.read_sets(real, generated, asked.limit, settings.sample.seed, notes.append)
    facts = {"generated": str(generated), "real": str(real), "places": 0, "samples_of_each": 0}
    scorer = Scorer(metrics, resamples=asked.resamples, seed=settings.sample.seed)
    assessment = Assessment(scorer, facts, notes, frozenset())
    total = len(in_units.modalities_in_folders(real, generated))
    for one in watch(sets, total=total, label="Judging", unit="modalities"):
        facts |= {"places": len(one.names), "samples_of_each": one.samples.shape[1]}
        assessment.scores += in_units.judge(one, metrics, resamples=asked.resamples, seed=settings.sample.seed)
    return assessment


def _metrics_of_measurements(text: str | None) -> frozenset[Metric]:
    """Those that are asked for, or all; raises UsageError where one is of pictures."""
    metrics = frozenset(parse_metrics(text)) if text else OF_MEASUREMENTS
    if metrics - OF_MEASUREMENTS:
        raise UsageError(
            f"{', '.join(sorted(metrics - OF_MEASUREMENTS))} can not be had of measurements.",
            hint=f"Choose of {', '.join(sorted(OF_MEASUREMENTS))}.",
        )
    return metrics


def _assess_measurements(
    settings: Settings, model: LoadedModel, ignored: Ignored, notes: list[str], watch: Watch
) -> Assessment:
    """Judge a model of measurements in their units.

    Raises:
        UsageError: a metric that was asked for is of pictures.
    """
    asked, sample = settings.evaluate, settings.sample
    metrics = _metrics_of_measurements(asked.metrics)
    pairs = parse_pairs(asked.pairs or PAIRS_OF_MEASUREMENTS, model.modalities)
    found = in_units.find_places(settings.workspace, modalities_of(pairs))
    names = choose_places(found, asked.limit or PLACES, sample.seed)
    guided = sample.guidance_scale != 0
    device = model.autoencoders.device
    batch = sample.batch_size or choose_batch_size(model.net, model.autoencoders, guided=guided, device=device)
    plan = protocol.Plan(
        pairs,
        names,
        asked.n_samples,
        sample.steps,
        sample.solver,
        sample.guidance_scale,
        sample.seed,
        ignored,
        batch,
        0,
    )
    scorer = Scorer(metrics, resamples=asked.resamples, seed=sample.seed)
    assessment = Assessment(scorer, _facts(settings, model, plan, None, None), notes, frozenset())
    total = in_units.batches_of(pairs, names, asked.n_samples, batch) + sum(len(pair.targets) for pair in pairs)
    drawn = in_units.draw_sets(settings, model, pairs, names, ignored, batch)
    for one in watch(drawn, total=total, label="Sampling", unit="batches"):
        if one is not None:
            assessment.scores += in_units.judge(one, metrics, resamples=asked.resamples, seed=sample.seed)
    return assessment


def _plan(
    settings: Settings,
    model: LoadedModel,
    pairs: tuple[Pair, ...],
    names: tuple[str, ...],
    ignored: Ignored,
    *,
    with_cycles: bool,
) -> protocol.Plan:
    asked, sample = settings.evaluate, settings.sample
    guided = sample.guidance_scale != 0
    device = model.autoencoder.device
    return protocol.Plan(
        pairs=pairs,
        names=names,
        n_samples=asked.n_samples,
        steps=sample.steps,
        solver=sample.solver,
        guidance_scale=sample.guidance_scale,
        seed=sample.seed,
        ignored=ignored,
        batch_size=sample.batch_size or choose_batch_size(model.net, model.autoencoders, guided=guided, device=device),
        translations=asked.translations if with_cycles else 0,
    )


def _facts(
    settings: Settings,
    model: LoadedModel,
    plan: protocol.Plan,
    network: FeatureNetwork | None,
    trained_on: Path | None,
) -> dict[str, Any]:
    return {
        "model": model.source,
        "model_sha256": model.sha256,
        "region": settings.region,
        "split": str(Split.TEST),
        "patches": len(plan.names),
        "cells": len({place_of(name) for name in plan.names}),
        "samples_of_each": plan.n_samples,
        "pairs": [pair.text for pair in plan.pairs],
        "steps": plan.steps,
        "solver": str(plan.solver),
        "guidance_scale": plan.guidance_scale,
        "ignored": str(plan.ignored),
        "seed": plan.seed,
        "chance_of_top1": chance_of_first(plan.names),
        "nominal_coverage": nominal_coverage(plan.n_samples) if plan.n_samples > 1 else None,
        "features": network.name if network else None,
        "training_pictures": str(trained_on) if trained_on else None,
    }


def _read_truth(
    settings: Settings, model: LoadedModel, modalities: tuple[Modality, ...], names: tuple[str, ...], watch: Watch
) -> protocol.Truth:
    read = protocol.read_truth(settings.workspace, model, modalities, names)
    found = list(watch(read, total=len(modalities), label="Encoding", unit="modalities"))
    return protocol.Truth(names, {m: pictures for m, pictures, _ in found}, {m: moments for m, _, moments in found})


def _assess_autoencoder(assessment: Assessment, model: LoadedModel, truth: protocol.Truth, watch: Watch) -> None:
    scorer = assessment.scorer
    for modality, real in watch(
        truth.pictures.items(), total=len(truth.pictures), label="Reconstructing", unit="modalities"
    ):
        decoded, draws = protocol.reconstruct(model.autoencoder, truth.moments[modality], truth.names, scorer.seed)
        values = {
            "reconstruction": np.array([psnr(t, d) for t, d in zip(real, decoded, strict=True)]),
            "autoencoder_noise": np.array([diversity(pair) for pair in draws]),
        }
        for key, value in values.items():
            estimate = mean_estimate(value, truth.names, resamples=scorer.resamples, seed=scorer.seed)
            assessment.scores.append(Score("", str(modality), key, within(estimate, key)))
        assessment.examples.add_reconstruction(str(modality), real, truth.names, decoded)


def _assess_cycles(
    assessment: Assessment, model: LoadedModel, truth: protocol.Truth, plan: protocol.Plan, watch: Watch
) -> None:
    scorer = replace(assessment.scorer, metrics=frozenset({Metric.PSNR, Metric.FRECHET}), perceptual=None)
    steps = protocol.paint_cycles(model, truth, plan)
    for pictures in watch(steps, total=protocol.cycle_batches(plan), label="Going round", unit="batches"):
        if pictures is not None:
            assessment.scores += scorer.scores(pictures)
            assessment.examples.add(pictures)


def _choose_metrics(text: str | None, *, has_model: bool, has_training: bool) -> tuple[frozenset[Metric], list[str]]:
    """Those that are asked for, or else all that can be had, and what is left out.

    Raises:
        UsageError: a metric that is asked for needs what is not given.
        CopgenError: SSIM is asked for, and scikit-image is not installed.
    """
    lacking = set() if has_model else set(NEED_MODEL)
    lacking |= set() if has_training else {Metric.COPYING}
    if text is not None:
        chosen = parse_metrics(text)
        for metric in chosen:
            if metric in lacking:
                what = "--model" if metric in NEED_MODEL else "--training"
                raise UsageError(f"The metric {metric} needs {what}.", hint="Give it, or leave the metric out.")
        if Metric.SSIM in chosen:
            require_ssim()
        return frozenset(chosen), []
    notes = []
    if find_spec("skimage") is None:
        lacking.add(Metric.SSIM)
        notes.append("SSIM is left out: it needs scikit-image (pip install 'copgen[evaluate]').")
    return frozenset(m for m in DEFAULT_METRICS if m not in lacking), notes


def _choose_features(
    source: str | None, model: LoadedModel | None, metrics: frozenset[Metric], *, explicit: bool, device: Any
) -> tuple[FeatureNetwork | None, frozenset[Metric]]:
    """The named network; else the bundled autoencoder, so that models can be compared; else the model's own.

    Returns:
        The network, and the metrics without those that it would be needed for where there is none.
    """
    if not metrics & (NEED_FEATURES | {Metric.CYCLE}):
        return None, metrics
    if source is not None:
        return load_features(source, device), metrics
    try:
        bundled_folder()
    except CopgenError:
        if model is not None:
            return AutoencoderFeatures(model.autoencoder), metrics
        if explicit:
            needing = ", ".join(m for m in Metric if m in metrics & NEED_FEATURES)
            raise UsageError(
                f"A feature network is needed for {needing}, and this installation comes without one.",
                hint="Name one with --features: the folder of an autoencoder, or inception.",
            ) from None
        return None, metrics - NEED_FEATURES
    return load_features(BUNDLED_NAME, device), metrics


def _leave_out_small(
    metrics: frozenset[Metric], side: int, network: FeatureNetwork | None, notes: list[str], *, explicit: bool
) -> frozenset[Metric]:
    """The metrics that pictures of that many pixels along their shorter side are large enough for.

    Raises:
        UsageError: one that is asked for by name is not among them.
    """
    least = LEAST_SIDE | dict.fromkeys(NEED_FEATURES, network.least_side if network else 1)
    small = [m for m in Metric if m in metrics and side < least.get(m, 1)]
    if small:
        message = f"Pictures of {side} px are too small for {', '.join(f'{m} (from {least[m]} px)' for m in small)}."
        if explicit:
            raise UsageError(message, hint="Leave that out of --metrics, or give larger pictures.")
        notes.append(message)
    return metrics - set(small)


def _alike(numbers: Iterable[int]) -> int | str:
    """The number that they all are, or their range."""
    found = sorted(set(numbers))
    return found[0] if len(found) == 1 else f"{found[0]} to {found[-1]}"


def _told(metrics: frozenset[Metric], *, explicit: bool) -> frozenset[Metric]:
    """The metrics whose absence is news: all that are asked for, else those that most sets of pictures give."""
    return metrics if explicit else metrics & (NEED_FEATURES | {Metric.RETRIEVAL, Metric.COPYING})


def _find_training(
    folder: Path | None, sizes: Mapping[str, tuple[int, int]], metrics: frozenset[Metric], seed: int, *, required: bool
) -> dict[str, Pictures]:
    """What `read_training` finds, where copies are looked for.

    Raises:
        CopgenError: it finds nothing, though training pictures are required.
    """
    if Metric.COPYING not in metrics:
        return {}
    found = read_training(folder, sizes, seed) if folder else {}
    if required and not found:
        lacking = f"There are no training pictures of {', '.join(sizes)} in {folder}"
        raise CopgenError(
            f"{lacking if folder else 'What the model was trained on is not known'}, and copying needs that.",
            hint="Name them with --training, or leave copying out of --metrics.",
        )
    return found


def _choose_perceptual(metrics: frozenset[Metric], device: Any) -> Compare | None:
    return load_lpips(device) if Metric.LPIPS in metrics else None
