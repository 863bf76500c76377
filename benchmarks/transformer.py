"""How fast the transformer runs as the published script runs it, and as this package does, in one run.

    python benchmarks/transformer.py                     # both sizes
    python benchmarks/transformer.py --size small --repeats 9
    python benchmarks/transformer.py --family copgen-2026 --size published --calls 0

The published manner: queries, keys and values are cast to float32 before attention, every block is checkpointed in
training, nothing is compiled, the optimiser and the average take one tensor after the other, and sampling takes 50
steps of the reference solver. Manners take turns, so that whatever else the machine does hits all of them; figures are
medians over the turns. On a CPU that others use as well, `--threads 1 --clock cpu` counts the time spent computing.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from measuring import (
    Clock,
    Run,
    clock_of,
    keep_rows,
    machine,
    matrix_product_rate,
    peak_bytes,
    peak_memory,
    print_heads,
    print_row,
    print_title,
    take_turns,
    training_operations,
)
from published import attend_in_float32
from torch import nn

from copgen_cli.modalities import BETA, Family, families, family, modalities_in
from copgen_cli.model import CopGenTransformer, denoising_loss, sample_latents
from copgen_cli.records import Solver

SIZES = {
    "tiny": {"hidden_size": 64, "depth": 2, "num_heads": 2},
    "small": {"hidden_size": 256, "depth": 8, "num_heads": 8},
    "published": {"hidden_size": 1024, "depth": 20, "num_heads": 16},
}
HALVES = {"fp16": torch.float16, "bf16": torch.bfloat16}
BOTH = ("small", "published")  # the tiny one is for rehearsals
BATCHES = {
    "cpu": {"tiny": 2, "small": 4, "published": 1},
    "cuda": {"tiny": 2, "small": 256, "published": 32},
}


def latents_of(family: Family) -> dict[str, object]:
    """Shapes and patches of a family's network; those of beta are its constructor's defaults."""
    if family == BETA:
        return {}
    specs = [modality.spec for modality in modalities_in(family)]
    shapes = [list(spec.latent) for spec in specs if spec.latent is not None]
    patches = [spec.patch_size for spec in specs if spec.patch_size is not None]
    if not len(specs) == len(shapes) == len(patches):
        raise SystemExit(f"{family.name} has modalities without a shape of latents or a size of patches of their own")
    return {"num_modalities": len(specs), "latent_shapes": shapes, "patch_sizes": patches}


@dataclass(frozen=True)
class Manner:
    """One way of running the same network."""

    name: str
    published: bool
    half: torch.dtype | None
    """Taken where autocast takes it; ours samples with weights in it instead. None is float32 throughout."""
    compiled: bool = False


@dataclass(frozen=True)
class Bench:
    """What is measured, and on what."""

    device: torch.device
    size: str
    batch: int
    repeats: int
    clock: Clock = time.perf_counter
    family: Family = BETA

    def build(self, manner: Manner) -> CopGenTransformer:
        torch.manual_seed(0)
        net = CopGenTransformer(**SIZES[self.size], **latents_of(self.family)).to(self.device)
        if manner.published:
            net.enable_gradient_checkpointing()
            attend_in_float32(net)
        return net

    def latents(self, net: CopGenTransformer) -> list[torch.Tensor]:
        """(B, C, H, W) of each modality."""
        return [torch.randn(self.batch, *shape, device=self.device) for shape in net.latent_shapes]

    def training_step(self, manner: Manner) -> Run:
        """Loss, gradients, AdamW and the moving average, on latents that stay the same."""
        net = self.build(manner).train()
        parameters = list(net.parameters())
        average = [parameter.detach().clone() for parameter in parameters]
        kind = {"foreach": False} if manner.published else {"fused": True}
        optimizer = torch.optim.AdamW(parameters, lr=2e-4, weight_decay=0.03, betas=(0.99, 0.99), **kind)
        if manner.compiled:
            net.compile()
        latents = self.latents(net)
        scaler = torch.amp.GradScaler(self.device.type, enabled=manner.half == torch.float16)

        def step() -> None:
            with arithmetic(self.device, manner.half):
                loss = denoising_loss(net, latents).mean()
            optimizer.zero_grad(set_to_none=True)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            with torch.no_grad():
                if manner.published:
                    for mean, parameter in zip(average, parameters, strict=True):
                        mean.lerp_(parameter, 1e-4)
                else:
                    torch._foreach_lerp_(average, parameters, 1e-4)

        step()  # compiles, and makes the optimiser's state
        return step

    def forward(self, manner: Manner) -> Run:
        net = self._to_sample_with(manner)
        latents = self.latents(net)
        timesteps = list(torch.rand(net.num_modalities, self.batch, device=self.device) * 1000)

        @torch.no_grad()
        def run() -> None:
            with arithmetic(self.device, manner.half if manner.published else None):
                net(latents, timesteps)

        run()
        return run

    def sampling(self, manner: Manner, steps: int, solver: Solver = Solver.REFERENCE) -> Run:
        """All modalities from noise."""
        net = self._to_sample_with(manner)
        noise = dict(enumerate(self.latents(net)))

        def run(steps: int = steps) -> None:
            with arithmetic(self.device, manner.half if manner.published else None):
                sample_latents(net, list(noise), noise=noise, steps=steps, solver=solver)

        run(steps=1)
        return run

    def _to_sample_with(self, manner: Manner) -> CopGenTransformer:
        net = self.build(manner).eval()
        if manner.half is not None and not manner.published:
            nn.Module.to(net, manner.half)  # in place; the method of diffusers warns of nothing
        if manner.compiled:
            net.compile()
        return net

    def take_turns(self, runs: dict[str, Run]) -> dict[str, float]:
        return take_turns(runs, self.repeats, self.clock)


@contextmanager
def arithmetic(device: torch.device, half: torch.dtype | None) -> Iterator[None]:
    with torch.autocast(device.type, half or torch.bfloat16, enabled=half is not None):
        yield


def report_sampling(bench: Bench, manners: list[Manner], calls: int) -> None:
    """Two rows: at equal calls, and as each manner usually samples."""
    usual = {m.name: bench.sampling(m, 50) if m.published else bench.sampling(m, 20, Solver.DPM_2M) for m in manners}
    print_row("sampling, 50 reference : 20 dpm++2m", bench.take_turns(usual), ".3f", unit=" s", fast="low")
    equal = {m.name: bench.sampling(m, calls) for m in manners}
    print_row(f"sampling, {calls} calls each", bench.take_turns(equal), ".3f", unit=" s", fast="low")


def report(bench: Bench, manners: list[Manner], calls: int, *, utilisation: bool) -> None:
    """Print one size's table: a row per task and a column per manner, ours last."""
    print_title(f"{bench.family.name}, {bench.size} size, batch {bench.batch}, {bench.repeats} turns")
    print_heads([manner.name for manner in manners])
    forward = bench.take_turns({m.name: bench.forward(m) for m in manners})
    print_row("forward", forward, ".3f", unit=" s", fast="low")
    training = bench.take_turns({m.name: bench.training_step(m) for m in manners})
    print_row("training step", training, ".3f", unit=" s", fast="low")
    if utilisation:
        rate = matrix_product_rate(bench.device)
        work = bench.batch * training_operations(bench.build(manners[-1]))
        used = {name: work / seconds / rate for name, seconds in training.items()}
        print_row("utilisation while training", used, ".1%")
        print_row("  of a bfloat16 matrix product's", {"TFLOP/s": rate / 1e12}, ".3g")
    if calls:
        report_sampling(dataclasses.replace(bench, repeats=max(bench.repeats // 3, 1)), manners, calls)
    print_row("peak memory of training", {m.name: training_memory(bench, m) for m in manners}, ".0f", unit=" MiB")


def manners_of(halves: Sequence[str], *, compiled: bool) -> list[Manner]:
    """The published manner in float32 and in each half precision, and ours in each; the last one compiled as well."""
    manners = [Manner("published, float32", published=True, half=None)]
    manners += [Manner(f"published, {name}", published=True, half=HALVES[name]) for name in halves]
    manners += [Manner(f"ours, {name}", published=False, half=HALVES[name]) for name in halves]
    if compiled:
        manners += [dataclasses.replace(manners[-1], name=f"{manners[-1].name}, compiled", compiled=True)]
    return manners


def training_memory(bench: Bench, manner: Manner) -> float:
    """MiB of a training step."""
    again = [
        "--family",
        bench.family.name,
        "--size",
        bench.size,
        "--batch",
        str(bench.batch),
        "--memory-of",
        manner.name,
    ]
    return peak_memory(lambda: bench.training_step(manner)(), bench.device, again)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cuda = torch.cuda.is_available()
    parser.add_argument("--device", default="cuda" if cuda else "cpu")
    parser.add_argument("--size", choices=[*SIZES, "both"], default="both")
    parser.add_argument("--family", choices=[one.name for one in families()], default=BETA.name)
    parser.add_argument("--batch", type=int, help="samples per step")
    parser.add_argument("--repeats", type=int, default=9, help="turns of forward and training; sampling takes a third")
    parser.add_argument(
        "--calls",
        type=int,
        help="network calls of sampling, 0 for none; 50 on a GPU, 20 on a CPU (published size: none)",
    )
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=cuda, help="compile ours")
    parser.add_argument("--halves", nargs="*", choices=HALVES, default=["bf16"], help="ours last in the last of them")
    parser.add_argument("--utilisation", action=argparse.BooleanOptionalAction, default=cuda)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of a CPU")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="what counts on a CPU")
    parser.add_argument("--json", type=Path, help="file for the rows")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    options = parser.parse_args()
    device = torch.device(options.device)
    torch.set_num_threads(options.threads)
    manners = manners_of(options.halves, compiled=options.compile)
    if options.memory_of:
        manner = next(m for m in manners if m.name == options.memory_of)
        Bench(device, options.size, options.batch, 1, family=family(options.family)).training_step(manner)
        print(peak_bytes() / 2**20)
        return
    keep_rows(options.json)
    print(machine(device, options.threads, options.clock))
    for size in BOTH if options.size == "both" else [options.size]:
        batch = options.batch or BATCHES[device.type][size]
        calls = 50 if device.type == "cuda" else 20 if size == "small" else 0  # an hour, at that size on a CPU
        calls = calls if options.calls is None else options.calls
        clock = clock_of(options.clock, device)
        bench = Bench(device, size, batch, options.repeats, clock, family(options.family))
        report(bench, manners, calls, utilisation=options.utilisation)


if __name__ == "__main__":
    main()
