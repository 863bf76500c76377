"""How long a sample takes and how good it is, as the published script draws it and as `copgen sample` does, in one run.

    python benchmarks/sampling.py --data DIR                    the model in the package, its defaults against 50 steps
    python benchmarks/sampling.py --data DIR --sweep            solvers and numbers of steps, to choose defaults by
    python benchmarks/sampling.py --data DIR --model runs/rome-small/model --condition dem,s1_rtc --generate s2_l2a

DIR holds patches that the model has not seen, as `copgen prepare` writes them. Quality is told by two numbers, each
with a bootstrap interval over places: PSNR of a sample against the truth, and the Frechet distance between samples and
truths in the features of the model's autoencoder (AE-FD; only sets of equal size compare).

The published manner: six samples at a time, 50 steps of the reference solver, attention in float32, every head
computed, every modality decoded, whether it was asked for or not, and ignored modalities redrawn in every call.
Manners take turns batch by batch, so that whatever else the machine does hits all of them. `--clock cpu` counts the
time spent computing, for a machine that others use as well.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from measuring import Clock, clock_of, keep_row, keep_rows, machine, print_title
from published import attend_in_float32
from torch import Tensor

from copgen_cli.evaluation.pictures import choose_places
from copgen_cli.inputs.conditions import Record
from copgen_cli.inputs.pictures import Frame
from copgen_cli.inputs.records import choose_data, open_data
from copgen_cli.layout import Workspace
from copgen_cli.metrics.confidence import Estimate, draw_weights, weighted_mean
from copgen_cli.metrics.distributions import frechet_distance
from copgen_cli.metrics.features import AutoencoderFeatures
from copgen_cli.metrics.pairwise import psnr
from copgen_cli.modalities import Modality
from copgen_cli.model.devices import choose_device, choose_sampling_dtypes
from copgen_cli.model.solvers import made_for
from copgen_cli.model.transformer import CopGenTransformer
from copgen_cli.records import Ignored, SampleRequest, Solver
from copgen_cli.sampling.batches import choose_batch_size
from copgen_cli.sampling.generation import Picture, PictureGenerator, Task
from copgen_cli.sampling.models import LoadedModel, load_model
from copgen_cli.sampling.roles import check_known, choose_roles
from copgen_cli.settings.sections import SampleSettings

PUBLISHED_BATCH = 6
PUBLISHED_STEPS = 50
STEPS_OF_SWEEP = (5, 8, 10, 12, 15, 20, 25, 50)
RESAMPLES = 500


class AllHeads(CopGenTransformer):
    """The network as the published script calls it: whatever is asked for, every modality's noise is predicted."""

    def forward(self, latents: Sequence[Tensor], timesteps: Sequence[Tensor]) -> list[Tensor]:  # type: ignore[override]
        return super().forward(latents, timesteps)


class PublishedPainter(PictureGenerator):
    """Draws as the published script does."""

    def generate(self, tasks: Sequence[Task], on_step: object = None) -> list[dict[Modality, Picture]]:
        generated = super().generate(tasks)
        for modality in self.modalities:  # also what was given and what nobody asked for
            if modality not in self.request.generated:
                self.autoencoders.decode(modality, self._latents_of(modality, tasks))
        return generated

    def _latents_of(self, modality: Modality, tasks: Sequence[Task]) -> Tensor:
        config = self.net.config
        if modality in self.request.conditions:
            return torch.stack([task.moments[modality].chunk(2)[0] for task in tasks]) * self.autoencoders.scale_of(
                modality
            )
        side = config.sample_size
        return torch.randn(len(tasks), config.in_channels, side, side, device=self.autoencoders.device)


@dataclass
class Manner:
    """One way of drawing, and what it came to."""

    name: str
    generator: PictureGenerator
    batch_size: int
    autocast: torch.dtype | None = None
    seconds: float = 0.0
    pictures: dict[str, Mapping[Modality, Picture]] = field(default_factory=dict)

    def draw(self, tasks: Sequence[Task], clock: Clock, device: torch.device) -> None:
        for first in range(0, len(tasks), self.batch_size):
            batch = tasks[first : first + self.batch_size]
            started = clock()
            with torch.autocast(device.type, self.autocast) if self.autocast else nullcontext():
                generated = self.generator.generate(batch)
            self.seconds += clock() - started
            self.pictures |= {task.record: pictures for task, pictures in zip(batch, generated, strict=True)}


def published(name: str, model: LoadedModel, request: SampleRequest, autocast: torch.dtype | None) -> Manner:
    net = load_model(model.source, device=model.autoencoder.device, dtype=torch.float32).net
    net.__class__ = AllHeads
    attend_in_float32(net)
    wanted = replace(request, steps=PUBLISHED_STEPS, solver=Solver.REFERENCE, guidance_scale=0.0)
    generator = PublishedPainter(net, model.modalities, model.autoencoders, None, wanted, Ignored.PUBLISHED)
    return Manner(name, generator, PUBLISHED_BATCH, autocast)


def ours(name: str, model: LoadedModel, request: SampleRequest) -> Manner:
    device = model.autoencoder.device
    guided = bool(request.guidance_scale and request.conditions)
    size = choose_batch_size(model.net, model.autoencoders, guided=guided, device=device)
    generator = PictureGenerator(model.net, model.modalities, model.autoencoders, None, request)
    return Manner(name, generator, size)


def quality(
    manner: Manner, truth: Mapping[str, Mapping[Modality, Picture]], features: AutoencoderFeatures
) -> dict[Modality, tuple[Estimate, Estimate]]:
    """PSNR and AE-FD of every target."""
    names = sorted(truth)
    weights = draw_weights(names, names, resamples=RESAMPLES, seed=0)
    told = {}
    for modality in manner.generator.request.generated:
        true = np.stack([truth[name][modality] for name in names])
        made = np.stack([manner.pictures[name][modality] for name in names])
        likeness = np.array([psnr(a, b) for a, b in zip(true, made, strict=True)])
        distance = frechet_distance(_features(features, true), _features(features, made), weights)
        told[modality] = (
            weights.estimate(weighted_mean(likeness, weights.generated), len(names)),
            weights.estimate(distance, len(names)),
        )
    return told


def _features(features: AutoencoderFeatures, pictures: np.ndarray) -> np.ndarray:
    images = torch.from_numpy(pictures).permute(0, 3, 1, 2)
    return torch.cat([features(image[None]).cpu() for image in images]).double().numpy()


def read_records(
    model: LoadedModel, data: Path, request: SampleRequest, limit: int
) -> tuple[list[Task], dict[str, dict[Modality, Picture]]]:
    """A task for each of some records, and their truth."""
    side = int(model.net.config.sample_size) * model.autoencoder.reduction
    folder = choose_data(data, Workspace(data, "")).folder
    everything = list(model.modalities)
    source = open_data(folder, everything, (), Frame(side, side), model.autoencoders)
    generator = PictureGenerator(model.net, model.modalities, model.autoencoders, None, request)
    tasks, truth = [], {}
    for name in choose_places(list(source.names), limit, seed=0):
        record: Record = source.read(name)
        moments = {m: generator.moments_of(record.conditions[m], m) for m in request.conditions}
        tasks.append(Task(f"{name}_v1", name, moments))
        truth[name] = {m: generator.picture_of(record.conditions[m], m) for m in request.generated}
    return tasks, truth


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="patches that the model has not seen")
    parser.add_argument("--model", default="copgen-sim")
    parser.add_argument("--condition", default="s1_rtc")
    parser.add_argument("--generate", default="dem,s2_l2a")
    parser.add_argument("--records", type=int, default=24)
    parser.add_argument("--steps", type=int, help="of ours; what the model is made for")
    parser.add_argument("--solver", type=Solver, help="of ours; what the model is made for")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto", help="of ours")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of a CPU")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--json", type=Path, help="file for the rows")
    parser.add_argument("--sweep", action="store_true", help="ours with every solver and several numbers of steps")
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    device = choose_device(options.device)
    clock = clock_of(options.clock, device)
    dtype, of_autoencoder = choose_sampling_dtypes(options.dtype, device)
    model = load_model(options.model, device=device, dtype=dtype, autoencoder_dtype=of_autoencoder)
    roles = choose_roles(options.condition, options.generate, ())
    check_known(roles, model.modalities, options.model)
    steps, solver = SampleSettings(steps=options.steps, solver=options.solver).calls(made_for(model.net))
    request = SampleRequest(roles, steps=steps, solver=solver, seed=options.seed)
    tasks, truth = read_records(model, options.data, request, options.records)
    half = torch.float16 if device.type == "cuda" else torch.bfloat16
    manners = [published("published, float32", model, request, None)]
    if options.sweep:
        manners += [
            ours(f"{solver} {steps}", model, replace(request, solver=solver, steps=steps))
            for solver in Solver
            for steps in STEPS_OF_SWEEP
        ]
    else:
        manners += [published("published, autocast", model, request, half)]
        manners += [ours(f"ours, {request.solver} {request.steps}", model, request)]

    print(machine(device, options.threads, options.clock))
    keep_rows(options.json)
    print_title(
        f"{options.model} in {model.net.dtype}; {options.condition} to {options.generate}; {len(tasks)} records"
    )
    for manner in manners:  # the first call of each warms up
        manner.draw(tasks[:1], clock, device)
        manner.seconds = 0.0
    turn = max(manner.batch_size for manner in manners)
    for first in range(0, len(tasks), turn):
        for manner in manners:
            manner.draw(tasks[first : first + turn], clock, device)
    report(manners, truth, AutoencoderFeatures(model.autoencoder))


def report(
    manners: Sequence[Manner], truth: Mapping[str, Mapping[Modality, Picture]], features: AutoencoderFeatures
) -> None:
    """One row per manner: seconds per sample, how many times as fast as the first, and its quality."""
    generated = manners[0].generator.request.generated
    heads = "".join(f"{f'PSNR {m}':>26}{f'AE-FD {m}':>28}" for m in generated)
    print(f"{'manner':24}{'s/sample':>10}{'times':>8}{heads}")
    for manner in manners:
        seconds = manner.seconds / len(truth)
        told = quality(manner, truth, features)
        cells = "".join(f"{_shown(p):>26}{_shown(d):>28}" for p, d in told.values())
        times = manners[0].seconds / manner.seconds
        print(f"{manner.name:24}{seconds:>10.3f}{times:>8.2f}{cells}", flush=True)
        shown = {"s/sample": f"{seconds:.3f}", "times": f"{times:.2f}"}
        shown |= {f"PSNR {m}": _shown(p) for m, (p, _) in told.items()}
        shown |= {f"AE-FD {m}": _shown(d) for m, (_, d) in told.items()}
        keep_row(manner.name, {"s/sample": seconds, "times": times}, shown)


def _shown(estimate: Estimate) -> str:
    return f"{estimate.value:.4g} ({estimate.low:.4g} to {estimate.high:.4g})"


if __name__ == "__main__":
    main()
