"""An evaluation from beginning to end: of two folders, or of a model on a region's test split."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch

from copgen_cli.errors import UsageError
from copgen_cli.evaluation import in_units, protocol
from copgen_cli.evaluation.assessment import Assessment
from copgen_cli.evaluation.choices import (
    choose_features,
    choose_metrics,
    choose_perceptual,
    find_training,
    leave_out_small,
    metrics_of_measurements,
    told_of,
)
from copgen_cli.evaluation.pairs import Pair, modalities_of, parse_pairs
from copgen_cli.evaluation.pictures import choose_places, read_folders
from copgen_cli.evaluation.scores import Scorer, reconstruction_scores
from copgen_cli.metrics import (
    NEED_MODEL,
    FeatureNetwork,
    Metric,
    chance_of_first,
    nominal_coverage,
    place_of,
)
from copgen_cli.modalities import Modality, Split
from copgen_cli.model import advice_on_calls, choose_device, choose_sampling_dtypes, made_for
from copgen_cli.records import Ignored
from copgen_cli.sampling import LoadedModel, ModelChoice, choose_batch_size, choose_model, load_model
from copgen_cli.settings import Settings
from copgen_cli.stages import Executor, OncePerProcess
from copgen_cli.storage import reach

T = TypeVar("T")

PAIRS, PAIRS_OF_MEASUREMENTS = "single,unconditional", "rest"
"""What is translated to what where nothing is named; of twelve modalities, each from each would be 132 runs."""
PLACES = 16
"""That a model is judged on where no limit is named."""


class Watch(Protocol):
    """Passes items on, and may show how far it is."""

    def __call__(self, items: Iterable[T], *, total: int | None, label: str, unit: str = "") -> Iterator[T]: ...


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
    metrics, notes = choose_metrics(asked.metrics, has_model=False, has_training=training is not None)
    device = choose_device(settings.sample.device)
    sets = read_folders(real, generated, limit=asked.limit, seed=settings.sample.seed, note=notes.append)
    network, metrics = choose_features(asked.features, None, metrics, explicit=bool(asked.metrics), device=device)
    side = min(min(s.truth.shape[1:3]) for s in sets)
    metrics = leave_out_small(metrics, side, network, notes, explicit=bool(asked.metrics))
    sizes = {s.target: (s.truth.shape[1], s.truth.shape[2]) for s in sets}
    scorer = Scorer(
        metrics,
        features=network,
        perceptual=choose_perceptual(metrics, device),
        training=find_training(training, sizes, metrics, settings.sample.seed, required=training is not None),
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
    assessment = Assessment(scorer, facts, notes, told_of(metrics, explicit=bool(asked.metrics)))
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
    chosen = _told_of_model(choice, model, settings)
    if model.autoencoders.of_all is None:
        return _assess_measurements(settings, model, ignored, chosen, watch)
    metrics, notes = choose_metrics(asked.metrics, has_model=True, has_training=True)
    notes += chosen
    pairs = parse_pairs(asked.pairs or PAIRS, model.modalities)
    modalities = modalities_of(pairs)
    found = protocol.find_places(settings.workspace, modalities)
    names = choose_places(found, asked.limit or PLACES, sample.seed)
    plan = _plan(settings, model, pairs, names, ignored, with_cycles=Metric.CYCLE in metrics)
    if Metric.CYCLE in metrics and not plan.cycles:
        notes.append("No cycle: it needs a pair of one modality and one other, such as --pairs single gives.")
    network, metrics = choose_features(
        asked.features, model, metrics, explicit=bool(asked.metrics), device=model.autoencoders.device
    )
    side = protocol.side_of(model)
    metrics = leave_out_small(metrics, side, network, notes, explicit=bool(asked.metrics))
    trained_on = training or (settings.workspace.patches / Split.TRAIN if choice.of_region else None)
    sizes = dict.fromkeys(map(str, modalities), (side, side))
    known = find_training(trained_on, sizes, metrics, sample.seed, required=bool(training or asked.metrics))
    if Metric.COPYING in metrics and not known:
        metrics -= {Metric.COPYING}
        notes.append("Copies are not looked for: --training does not name the pictures that the model was trained on.")
    scorer = Scorer(
        metrics,
        features=network,
        perceptual=choose_perceptual(metrics, model.autoencoders.device),
        training=known,
        resamples=asked.resamples,
        seed=sample.seed,
    )
    facts = _facts(settings, model, plan, network, trained_on if known else None)
    assessment = Assessment(scorer, facts, notes, told_of(metrics, explicit=bool(asked.metrics)))
    truth = _read_truth(settings, model, modalities, names, watch)
    if Metric.RECONSTRUCTION in metrics:
        _assess_autoencoder(assessment, model, truth, watch)
    if metrics - NEED_MODEL:
        drawn = protocol.paint_pairs(model, truth, plan, executor, _recipe_of(model, settings))
        _assess_pairs(assessment, drawn, truth, plan, watch)
    if plan.cycles:
        _assess_cycles(assessment, model, truth, plan, watch)
    return assessment


def _told_of_model(choice: ModelChoice, model: LoadedModel, settings: Settings) -> list[str]:
    """Which one it is, where nobody named it, and what it is made for, where something else was asked for."""
    chosen = f"Model: {choice.source} ({choice.reason})." if choice.reason else None
    advice = advice_on_calls(model.net, *settings.sample.calls(made_for(model.net)))
    return [note for note in (chosen, advice) if note]


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
    metrics = metrics_of_measurements(asked.metrics)
    sets = in_units.read_sets(real, generated, asked.limit, settings.sample.seed, notes.append)
    facts = {"generated": str(generated), "real": str(real), "places": 0, "samples_of_each": 0}
    scorer = Scorer(metrics, resamples=asked.resamples, seed=settings.sample.seed)
    assessment = Assessment(scorer, facts, notes, frozenset())
    total = len(in_units.modalities_in_folders(real, generated))
    for one in watch(sets, total=total, label="Judging", unit="modalities"):
        facts |= {"places": len(one.names), "samples_of_each": one.samples.shape[1]}
        assessment.scores += in_units.judge(one, metrics, resamples=asked.resamples, seed=settings.sample.seed)
    return assessment


def _assess_measurements(
    settings: Settings, model: LoadedModel, ignored: Ignored, notes: list[str], watch: Watch
) -> Assessment:
    """Judge a model of measurements in their units.

    Raises:
        UsageError: a metric that was asked for is of pictures.
    """
    asked, sample = settings.evaluate, settings.sample
    metrics = metrics_of_measurements(asked.metrics)
    pairs = parse_pairs(asked.pairs or PAIRS_OF_MEASUREMENTS, model.modalities)
    found = in_units.find_places(settings.workspace, modalities_of(pairs))
    names = choose_places(found, asked.limit or PLACES, sample.seed)
    guided = sample.guidance_scale != 0
    steps, solver = sample.calls(made_for(model.net))
    device = model.autoencoders.device
    batch = sample.batch_size or choose_batch_size(model.net, model.autoencoders, guided=guided, device=device)
    plan = protocol.Plan(
        pairs,
        names,
        asked.n_samples,
        steps,
        solver,
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
    steps, solver = sample.calls(made_for(model.net))
    device = model.autoencoder.device
    return protocol.Plan(
        pairs=pairs,
        names=names,
        n_samples=asked.n_samples,
        steps=steps,
        solver=solver,
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
        assessment.scores += reconstruction_scores(str(modality), real, decoded, draws, truth.names, scorer)
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


def _alike(numbers: Iterable[int]) -> int | str:
    """The number that they all are, or their range."""
    found = sorted(set(numbers))
    return found[0] if len(found) == 1 else f"{found[0]} to {found[-1]}"
