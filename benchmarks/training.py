"""Training as the published script trains, and as this package does, from the store to the average, in one run.

    python benchmarks/training.py                            # the small preset on a CPU, the published size on a GPU
    python benchmarks/training.py --preset base --batch 64 --repeats 20
    python benchmarks/training.py --threads 1 --clock cpu    # on a CPU that others use as well

The published manner: a database of pickled dicts of float32 read record by record in eight processes, latents and noise
drawn in the step, queries, keys and values cast to float32, every block checkpointed, the average updated tensor by
tensor. Ours is `training_step` on what `load_batches` reads. Manners take turns, a step each, so that whatever else the
machine does hits all of them; figures are medians over the turns. The rates of the loaders alone, and the share of the
average in a step, stand below, and so does the time that a step of ours waits for data: runs of steps from the store
take turns with runs of steps on one batch that is there already. `--clock cpu` counts the time that this process
computes, without its loaders.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import lmdb
import numpy as np
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
from published import PickledRecords, attend_in_float32, write_records
from torch.utils.data import DataLoader

from copgen_cli.latents.autoencoder_record import AutoencoderFacts
from copgen_cli.latents.store import LatentStore
from copgen_cli.latents.store_format import METADATA_KEY, NAMES_KEY, StoreMetadata
from copgen_cli.modalities import PUBLISHED
from copgen_cli.model.diffusion import denoising_loss
from copgen_cli.model.transformer import CopGenTransformer
from copgen_cli.records import LatentSpec
from copgen_cli.settings.loading import load_settings
from copgen_cli.settings.sections import TrainSettings
from copgen_cli.training.data_order import DrawnSamples, Plan, load_batches
from copgen_cli.training.loop import autocast, training_step
from copgen_cli.training.new_network import make_network
from copgen_cli.training.optimisers import AveragedWeights
from copgen_cli.training.state import TrainState

MODALITIES = tuple(PUBLISHED)
SHAPE = (len(MODALITIES), 8, 32, 32)
SCALE = 0.18215
SPEC = LatentSpec.alike(MODALITIES, 4, 32, "random", None, SCALE)
WORKERS = 8  # of the published loader
LOADED = 64  # batches by which loaders alone are measured


@dataclass(frozen=True)
class Manner:
    """One way of training the same network on the same records."""

    name: str
    published: bool
    precision: str
    compiled: bool = False


@dataclass(frozen=True)
class Bench:
    """What is measured, and on what."""

    device: torch.device
    settings: TrainSettings
    stores: Path
    workers: int
    """Of our loader."""

    def network(self, manner: Manner) -> CopGenTransformer:
        net = make_network(SPEC, self.settings).to(self.device)
        if manner.published:
            net.enable_gradient_checkpointing()
            attend_in_float32(net)
        elif manner.compiled:
            net.compile()
        return net

    def steps(self, manner: Manner, batches: Iterator | None = None) -> Run:
        """A function that takes one step of training, on what the manner's loader reads or on these batches."""
        settings = self.settings.model_copy(update={"mixed_precision": manner.precision})
        batches = self.batches(manner) if batches is None else batches
        if manner.published:
            return published_steps(self.network(manner), batches, settings, self.device)
        state = TrainState.begin(self.network(manner), settings)
        micro_batches = -(-settings.batch_size // (settings.micro_batch or settings.batch_size))
        return lambda: training_step(state, itertools.islice(batches, micro_batches), settings)

    def batches(self, manner: Manner) -> Iterator:
        """Batches without end, as the manner's loader reads them."""
        size, pin = self.settings.batch_size, self.device.type == "cuda"
        if manner.published:
            data = PickledRecords(self.stores / "pickled", SHAPE[1:])
            loader = DataLoader(
                data,
                batch_size=size,
                shuffle=True,
                drop_last=True,
                pin_memory=pin,
                num_workers=WORKERS,
                persistent_workers=True,
            )
            return (batch for _ in itertools.count() for batch in loader)
        store = LatentStore(self.stores / "packed")
        plan = Plan(0, len(store), size, self.settings.micro_batch or size)
        slots = plan.slots(1, 10**9, position=0)
        return load_batches(
            DrawnSamples(store, (SCALE,) * len(MODALITIES), seed=0), slots, workers=self.workers, pin_memory=pin
        )


def published_steps(net: CopGenTransformer, batches: Iterator, settings: TrainSettings, device: torch.device) -> Run:
    average = [parameter.detach().clone() for parameter in net.parameters()]
    optimizer = torch.optim.AdamW(
        net.parameters(), lr=settings.lr, betas=settings.betas, weight_decay=settings.weight_decay
    )

    def step() -> None:
        moments = [part.to(device, non_blocking=True) for part in next(batches)[0]]
        latents = []
        for part in moments:
            mean, log_variance = part.chunk(2, dim=1)
            latents.append(SCALE * (mean + (log_variance.clamp(-30, 20) / 2).exp() * torch.randn_like(mean)))
        optimizer.zero_grad()
        with autocast(settings, device):
            loss = denoising_loss(net, latents).mean()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for mean, parameter in zip(average, net.parameters(), strict=True):
                mean.mul_(0.9999).add_(parameter, alpha=1e-4)

    return step


def write_stores(folder: Path, records: int) -> None:
    """The same random records as a packed store and as the published exporter's."""
    rng = np.random.default_rng(0)
    names = [f"{index:06}".encode() for index in range(records)]
    facts = AutoencoderFacts("random", None, SCALE)
    arrays = [rng.standard_normal(SHAPE, dtype=np.float32) for _ in names]
    with lmdb.open(str(folder / "packed"), map_size=1 << 33) as ours, ours.begin(write=True) as transaction:
        for name, values in zip(names, arrays, strict=True):
            transaction.put(name, values.tobytes())
        transaction.put(NAMES_KEY, b"".join(names))
        metadata = StoreMetadata(MODALITIES, SHAPE, "float32", records, facts, source="random")
        transaction.put(METADATA_KEY, metadata.as_json())
    theirs = ({m.spec.folder: values[m.order] for m in MODALITIES} for values in arrays)
    write_records(folder / "pickled", zip((name.decode() for name in names), theirs, strict=True))


def loader_rate(bench: Bench, manner: Manner) -> float:
    """Samples per second of a loader that nobody waits for, by the wall clock."""
    batches = bench.batches(manner)
    next(batches)  # starts the workers
    start = time.perf_counter()
    for _ in range(LOADED):
        next(batches)
    return LOADED * (bench.settings.micro_batch or bench.settings.batch_size) / (time.perf_counter() - start)


def report_data_wait(bench: Bench, manner: Manner, repeats: int, clock: Clock) -> None:
    """Runs of steps that nothing but data can hold up, so that what is read ahead is used up as fast as in training."""
    held = bench.steps(manner, itertools.repeat(next(bench.batches(manner))))
    sources = {"batch held": held, "from the store": bench.steps(manner)}

    def run_of(step: Run) -> Run:
        def run() -> None:
            for _ in range(repeats):
                step()

        return run

    seconds = take_turns({name: run_of(step) for name, step in sources.items()}, 3, clock, warm_up=True)
    each = {name: value / repeats for name, value in seconds.items()}
    print_row(f"step of {manner.name}", each, ".4f", unit=" s")
    waited = 1 - each["batch held"] / each["from the store"]
    print_row("  share of it that waits for data", {"share": waited}, ".2%")


def average_seconds(bench: Bench, manner: Manner, repeats: int, clock: Clock) -> float:
    average = AveragedWeights(bench.network(manner))
    return take_turns({"average": lambda: average.update(0.9999)}, repeats, clock, warm_up=True)["average"]


def take_two_steps(bench: Bench, manner: Manner) -> None:
    """What memory is measured by: in the second step the optimiser has its state."""
    step = bench.steps(manner)
    step()
    step()


def report(bench: Bench, manners: list[Manner], repeats: int, clock: Clock, *, utilisation: bool) -> None:
    """Print the table: a row per figure and a column per manner, ours last."""
    report_data_wait(bench, manners[-1], max(repeats, 2), clock)
    print_heads([manner.name for manner in manners])
    seconds = take_turns({m.name: bench.steps(m) for m in manners}, repeats, clock, warm_up=True)
    size = bench.settings.batch_size
    print_row("training, samples/s", {name: size / value for name, value in seconds.items()}, ".2f", fast="high")
    print_row("loader alone, samples/s", {m.name: loader_rate(bench, m) for m in manners}, ".0f", fast="high")
    stores = ["--stores", str(bench.stores)]
    memory = {
        m.name: peak_memory(partial(take_two_steps, bench, m), bench.device, [*stores, "--memory-of", m.name])
        for m in manners
    }
    print_row("peak memory, MiB", memory, ".0f")
    ours = manners[-1]
    share = average_seconds(bench, ours, 10 * repeats, clock) / seconds[ours.name]
    print_row("the average's share of our step", {"share": share}, ".2%")
    if utilisation:
        rate = matrix_product_rate(bench.device)
        work = size * training_operations(bench.network(ours))
        print_row("utilisation", {name: work / value / rate for name, value in seconds.items()}, ".1%")
        print_row("  of a bfloat16 matrix product's", {"TFLOP/s": rate / 1e12}, ".3g")


def read_options() -> argparse.Namespace:
    cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if cuda else "cpu")
    parser.add_argument("--preset", default="base" if cuda else "small")
    parser.add_argument("--batch", type=int, help="samples per step, at a time; 64 on a GPU, else the preset's")
    parser.add_argument("--repeats", type=int, default=20 if cuda else 5, help="turns")
    parser.add_argument("--records", type=int, default=4096 if cuda else 512, help="in the stores")
    parser.add_argument("--workers", type=int, default=4 if cuda else 0, help="of our loader")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=cuda, help="compile ours")
    parser.add_argument("--utilisation", action=argparse.BooleanOptionalAction, default=cuda)
    parser.add_argument("--fp16", action="store_true", help="ours in float16 as well")
    parser.add_argument("--json", type=Path, help="file for the rows")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of a CPU")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="what counts for training")
    parser.add_argument("--stores", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    options = read_options()
    device = torch.device(options.device)
    torch.set_num_threads(options.threads)
    settings = load_settings(train={"preset": options.preset}).train
    batch = options.batch or (64 if device.type == "cuda" else settings.batch_size)
    settings = settings.model_copy(update={"batch_size": batch, "micro_batch": batch, "warmup": 0})
    manners = [
        Manner("published, float32", published=True, precision="no"),
        Manner("published, autocast", published=True, precision="bf16"),
        Manner("ours, float32", published=False, precision="no", compiled=options.compile),
        *([Manner("ours, fp16", published=False, precision="fp16")] if options.fp16 else []),
        Manner("ours, bf16", published=False, precision="bf16", compiled=options.compile),
    ]
    if options.memory_of:
        manner = next(m for m in manners if m.name == options.memory_of)
        take_two_steps(Bench(device, settings, options.stores, 0), manner)
        print(peak_bytes() / 2**20)
        return
    keep_rows(options.json)
    print(machine(device, options.threads, options.clock))
    print_title(f"preset {options.preset}, {batch} samples per step, {options.repeats} turns")
    with tempfile.TemporaryDirectory() as folder:
        write_stores(Path(folder), max(options.records, 2 * batch))
        bench = Bench(device, settings, Path(folder), options.workers)
        clock = clock_of(options.clock, device)
        report(bench, manners, options.repeats, clock, utilisation=options.utilisation)


if __name__ == "__main__":
    main()
