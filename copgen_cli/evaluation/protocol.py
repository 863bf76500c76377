"""A model on the test patches of a region: what is drawn from what, and the pictures that come of it.

Every step of the way yields as it goes, so that a command can show how far it is.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from copgen_cli.errors import CopgenError, MismatchError, MissingInputError, UsageError
from copgen_cli.evaluation.pairs import Pair
from copgen_cli.evaluation.pictures import Pictures, PictureSet, list_pictures, read_pictures
from copgen_cli.layout import Workspace
from copgen_cli.modalities import Modality, Role, Split
from copgen_cli.model import ImageAutoencoder, draw_latents, sample_noise, to_uint8
from copgen_cli.records import Ignored, SampleRequest, Solver
from copgen_cli.sampling import LoadedModel, PictureGenerator, Task
from copgen_cli.stages import Executor, OncePerProcess


@dataclass(frozen=True, slots=True)
class Plan:
    """What is drawn, and how."""

    pairs: tuple[Pair, ...]
    names: tuple[str, ...]
    """Places."""
    n_samples: int
    steps: int
    solver: Solver
    guidance_scale: float
    seed: int
    ignored: Ignored
    batch_size: int
    translations: int = 0
    """Length of the cycles; 0 draws none."""

    @property
    def batches(self) -> int:
        """How many the pairs take."""
        return len(self.pairs) * -(-len(self.names) * self.n_samples // self.batch_size)

    @property
    def cycles(self) -> tuple[Pair, ...]:
        """The pairs of one modality to one other, each the first step of a cycle."""
        return tuple(p for p in self.pairs if len(p.conditions) == len(p.targets) == 1) if self.translations else ()

    def request(self, pair: Pair) -> SampleRequest:
        roles = dict.fromkeys(pair.conditions, Role.CONDITION) | dict.fromkeys(pair.targets, Role.GENERATE)
        return SampleRequest(roles, self.n_samples, self.steps, self.solver, self.guidance_scale, self.seed)


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """The test patches of some places."""

    names: tuple[str, ...]
    pictures: Mapping[Modality, Pictures]
    """(N, H, W, 3) each."""
    moments: Mapping[Modality, Tensor]
    """(N, 2 C, h, w) each, under the model's autoencoder."""


def find_places(workspace: Workspace, modalities: Sequence[Modality]) -> list[str]:
    """Names of the test patches that every modality has.

    Raises:
        MissingInputError: the region has not been prepared.
        CopgenError: its test split is empty.
    """
    test = workspace.patches / Split.TEST
    folders = [test / modality.spec.folder for modality in modalities]
    if not workspace.patches.is_dir():
        raise MissingInputError(f"patches of {workspace.region}", workspace.patches, written_by="prepare")
    names = [set(list_pictures(folder)) if folder.is_dir() else set() for folder in folders]
    common = sorted(set.intersection(*names))
    if not common:
        absent = [m for m, found in zip(modalities, names, strict=True) if not found]
        if not any(names):
            hint = "Numbers on training cells would mean nothing: prepare again with a lower --train-ratio."
        elif absent:
            hint = f"Download and prepare {' and '.join(absent)} as well, or name --pairs without it."
        else:
            hint = "Download and prepare the same cells for all of them."
        counts = ", ".join(f"{m}: {len(found)}" for m, found in zip(modalities, names, strict=True))
        raise CopgenError(
            f"The test split of {workspace.region} has no patch that all of the pairs' modalities share ({counts}).",
            hint=hint,
        )
    return common


def side_of(model: LoadedModel) -> int:
    """Of the pictures that the model takes and makes, in pixels."""
    return int(model.net.config.sample_size) * model.autoencoder.reduction


def read_truth(
    workspace: Workspace, model: LoadedModel, modalities: Sequence[Modality], names: tuple[str, ...]
) -> Iterator[tuple[Modality, Pictures, Tensor]]:
    """Read and encode the test patches, one modality at a time.

    Raises:
        UsageError: patches are not of the model's size.
    """
    side = side_of(model)
    for modality in modalities:
        folder = workspace.patches / Split.TEST / modality.spec.folder
        files = list_pictures(folder)
        pictures = read_pictures([files[name] for name in names])
        if pictures.shape[1:3] != (side, side):
            raise UsageError(
                f"Patches in {folder} are {pictures.shape[2]} x {pictures.shape[1]} px; the model takes {side} px.",
                hint="Prepare the region in the size that the model was trained with.",
            )
        yield modality, pictures, encode(model.autoencoder, pictures)


def encode(autoencoder: ImageAutoencoder, pictures: Pictures) -> Tensor:
    """(n, 2 C, h, w) moments on the CPU, encoded one by one, as `sample` does."""
    images = torch.from_numpy(pictures).permute(0, 3, 1, 2)
    return torch.cat([autoencoder.moments(image[None]).cpu() for image in images])


def decode(autoencoder: ImageAutoencoder, latents: Tensor) -> Pictures:
    """(n, H, W, 3) pictures of scaled latents (n, C, h, w)."""
    images = torch.cat([to_uint8(autoencoder.decode(latent[None])).cpu() for latent in latents])
    return images.permute(0, 2, 3, 1).numpy()


def reconstruct(
    autoencoder: ImageAutoencoder, moments: Tensor, names: Sequence[str], seed: int
) -> tuple[Pictures, Pictures]:
    """What the autoencoder makes of pictures that it encoded.

    Returns:
        (n, H, W, 3) decoded from the mean of each latent; and (n, 2, H, W, 3) decoded from two draws of it.
    """
    mean, _ = moments.chunk(2, dim=1)
    draws = [
        draw_latents(
            moments,
            sample_noise(seed, names, "autoencoder", tuple(mean.shape[1:]), purpose=f"reconstruction {number}"),
            autoencoder.scale_factor,
        )
        for number in range(2)
    ]
    pictures = decode(autoencoder, autoencoder.scale_factor * mean)
    return pictures, np.stack([decode(autoencoder, latents) for latents in draws], axis=1)


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Some samples of one pair."""

    pair: Pair
    places: tuple[int, ...]
    """Of each sample, its place's number."""
    pictures: tuple[Mapping[Modality, np.ndarray], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Draws:
    """Samples of one pair that are drawn together."""

    pair: Pair
    tasks: tuple[tuple[int, Task], ...]
    """Each with its place's number."""


def paint_pairs(
    model: LoadedModel,
    truth: Truth,
    plan: Plan,
    executor: Executor | None = None,
    recipe: OncePerProcess[LoadedModel] | None = None,
) -> Iterator[Batch]:
    """Draw every pair of the plan, in batches; a sample depends on its place, number and seed alone.

    Args:
        model: what draws.
        truth: what is given.
        plan: the pairs.
        executor: who draws a batch at a time; this process where there is none.
        recipe: how its workers come by the model.
    """
    if executor is None or recipe is None:
        yield from (_paint(draws, model, plan) for draws in _draws_of(truth, plan))
        return
    work = functools.partial(_paint_elsewhere, recipe=recipe, plan=plan, sha256=model.sha256)
    yield from executor.map(work, _draws_of(truth, plan), ordered=True)


def _draws_of(truth: Truth, plan: Plan) -> Iterator[Draws]:
    for pair in plan.pairs:
        tasks = [
            (i, Task(f"{name}_v{k + 1}", name, {m: truth.moments[m][i] for m in pair.conditions}))
            for i, name in enumerate(truth.names)
            for k in range(plan.n_samples)
        ]
        for start in range(0, len(tasks), plan.batch_size):
            yield Draws(pair, tuple(tasks[start : start + plan.batch_size]))


def _paint(draws: Draws, model: LoadedModel, plan: Plan) -> Batch:
    generated = _generator_of(model, plan, draws.pair).generate([task for _, task in draws.tasks])
    return Batch(draws.pair, tuple(i for i, _ in draws.tasks), tuple(generated))


def _paint_elsewhere(draws: Draws, recipe: OncePerProcess[LoadedModel], plan: Plan, sha256: str) -> Batch:
    """Runs in a worker.

    Raises:
        MismatchError: the model is another there.
    """
    model = recipe.get()
    if model.sha256 != sha256:
        raise MismatchError(
            f"A worker finds another model under {model.source}.",
            hint="Workers need the same files as the driver, on a shared disk.",
        )
    return _paint(draws, model, plan)


def gather(batches: Iterable[Batch], truth: Truth, plan: Plan) -> Iterator[PictureSet]:
    """Put the batches of a pair together: one set per target, as soon as all its samples are there."""
    collected: list[Mapping[Modality, np.ndarray]] = []
    for batch in batches:
        collected += batch.pictures
        if len(collected) < len(truth.names) * plan.n_samples:
            continue
        for target in batch.pair.targets:
            samples = np.stack([pictures[target] for pictures in collected])
            yield PictureSet(
                target=str(target),
                conditions=batch.pair.conditions,
                truth_names=truth.names,
                truth=truth.pictures[target],
                names=truth.names,
                samples=samples.reshape(len(truth.names), plan.n_samples, *samples.shape[1:]),
                inputs={m: truth.pictures[m] for m in batch.pair.conditions},
            )
        collected = []


def paint_cycles(model: LoadedModel, truth: Truth, plan: Plan) -> Iterator[PictureSet | None]:
    """Translate there and back, again and again: a set for every return, None for every other batch.

    Each translation starts from the pictures that the one before made, as if they were all that there was.
    """
    for pair in plan.cycles:
        (start,), (via,) = pair.conditions, pair.targets
        pictures = truth.pictures[start]
        for number in range(1, plan.translations + 1):
            step = pair if number % 2 else Pair(pair.targets, pair.conditions)
            generated: list[np.ndarray] = []
            for batch in _translate(model, truth.names, plan, step, pictures, number):
                generated += batch
                if len(generated) < len(pictures):
                    yield None
            pictures = np.stack(generated)
            yield None if number % 2 else _returned(truth, start, via, pictures, number)


def cycle_batches(plan: Plan) -> int:
    """How many batches the cycles take."""
    return len(plan.cycles) * plan.translations * -(-len(plan.names) // plan.batch_size)


def _generator_of(model: LoadedModel, plan: Plan, pair: Pair) -> PictureGenerator:
    return PictureGenerator(model.net, model.modalities, model.autoencoders, None, plan.request(pair), plan.ignored)


def _translate(
    model: LoadedModel, names: Sequence[str], plan: Plan, pair: Pair, pictures: Pictures, number: int
) -> Iterator[list[np.ndarray]]:
    """One sample of the pair's target from each picture, in batches."""
    (given,), (made,) = pair.conditions, pair.targets
    generator = _generator_of(model, plan, pair)
    for first in range(0, len(names), plan.batch_size):
        chosen = slice(first, first + plan.batch_size)
        moments = encode(model.autoencoder, pictures[chosen])
        tasks = [Task(f"{n}_t{number}", n, {given: m}) for n, m in zip(names[chosen], moments, strict=True)]
        yield [generated[made] for generated in generator.generate(tasks)]


def _returned(truth: Truth, start: Modality, via: Modality, pictures: Pictures, number: int) -> PictureSet:
    return PictureSet(
        target=str(start),
        conditions=(start,),
        truth_names=truth.names,
        truth=truth.pictures[start],
        names=truth.names,
        samples=pictures[:, None],
        via=str(via),
        translations=number,
    )
