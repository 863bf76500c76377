"""The way from an archive to a packed store on a cluster: a rehearsal on this machine, and what the planet would take.

    python benchmarks/planet.py rehearse --cells 48        # with 1, 2 and 4 workers; some 10 minutes on two cores
    python benchmarks/planet.py items --items 1000000      # the driver's own cost for each of many items
    python benchmarks/planet.py executors --cells 200      # the cluster against the pool of processes, cutting patches

`rehearse` serves simulated cells from a loopback hub that has the public hub's quota (requests in five minutes, told in
each answer), and runs download, prepare, encode and pack with `--scheduler local:N`; one worker is this process alone.
What is extrapolated is what was measured here, times the cells of the planet; assumptions are printed with it.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import psutil
from measuring import peak_bytes

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from tiny_hub import Quota, TinyHub

from copgen_cli.cluster import ClusterExecutor, open_cluster
from copgen_cli.patches.cutting import Cutting, save_patches
from copgen_cli.patches.preparation import plan_patches
from copgen_cli.settings import ClusterSettings
from copgen_cli.settings.sections import PrepareSettings
from copgen_cli.stages import Executor, Result, StageRun, WorkItem, local_executor

MEGABYTE = 1_000_000
PLANET_CELLS = 1_470_000
"""Cells that all four sources of Major TOM have."""
QUOTA = 5_000, 300.0
"""Requests to resolve an address that the public hub answers within so many seconds, signed in."""
PARTS = {"DEM": 2_000, "S1RTC": 2_800, "S2L1C": 4_300, "S2L2A": 4_300}
"""Parquet files of the public datasets, about."""
THUMBNAIL_BYTES = 5_100_000
"""Of the thumbnails of a cell in all four sources, about."""
REQUESTS_PER_CELL = 4
"""Ranges, one a product, which the hub's storage answers and not the hub."""
LATENT_BYTES_FP16 = 16 * 4 * 8 * 32 * 32 * 2
"""Of the moments of a cell: sixteen patches of four modalities in float16."""
GPU_IMAGES_PER_SECOND = 400.0
"""That an accelerator encodes with the published autoencoder; assumed, not measured here."""
EUROS = {"processor-hour": 0.04, "GPU-hour": 2.50, "terabyte-month": 22.0}
"""What a cloud asks, about."""
CEILING = "processes apart"
STAGES = ("download", "prepare", "encode", "pack")


# -- the rehearsal -----------------------------------------------------------------------------------------------------


@dataclass
class Ran:
    """What a stage took."""

    seconds: float
    driver: int
    """Most bytes of the driver, in which the scheduler of `local:N` lives."""
    worker: int
    """Most bytes of a worker."""


def rehearse(cells: int, workers: Sequence[int]) -> None:
    """Run the four stages with each number of workers, and print what they took."""
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        copgen(here, "simulate", "--region", "rome", "--cells", cells, "--no-gaps", "--workers", os.cpu_count() or 1,
               "--output", "archive")  # fmt: skip
        rows = []
        for count in workers:
            with TinyHub(here / "archive") as hub:
                hub.quota = Quota(*QUOTA)
                ran = {stage: run_stage(here, hub, stage, count) for stage in STAGES}
                rows.append((count, ran, len(hub.requests), hub.count("resolve"), hub.quota.refused, hub.bytes_sent))
            made = bytes_below(here / f"data-{count}")
            print(f"{count} workers: {made / MEGABYTE:,.0f} MB on disk", flush=True)
        done = cells_in(here / f"data-{workers[0]}")
        print_rehearsal(rows, done)
        extrapolate(rows[0][1], done)


def run_stage(here: Path, hub: TinyHub, stage: str, workers: int) -> Ran:
    of_stage: dict[str, list[object]] = {
        "download": ["--endpoint", hub.endpoint, "--workers", 8],
        "prepare": ["--workers", 1] if workers == 1 else [],
        "encode": ["--vae", "copgen-sim", "--device", "cpu"],
        "pack": ["--dtype", "float16", "--shards", 2],
    }
    options: list[object] = ["--data-dir", f"data-{workers}", *of_stage[stage]]
    options += ["--scheduler", f"local:{workers}"] if workers > 1 else []
    return copgen(here, stage, *options)


def copgen(here: Path, *arguments: object) -> Ran:
    """`copgen ARGUMENTS` in a process of its own, watched."""
    program = [sys.executable, "-m", "copgen_cli", "--quiet", *map(str, arguments)]
    started = time.perf_counter()
    process = subprocess.Popen(program, cwd=here, stdout=subprocess.DEVNULL)
    driver, worker = watch(process)
    if process.returncode not in (0, 3):
        raise SystemExit(f"{' '.join(program)} ended with {process.returncode}")
    return Ran(time.perf_counter() - started, driver, worker)


def watch(process: subprocess.Popen[bytes]) -> tuple[int, int]:
    """Most memory of a process and of the largest of its children, until it ends."""
    most = [0, 0]
    watched = psutil.Process(process.pid)
    while process.poll() is None:
        try:
            most[0] = max(most[0], watched.memory_info().rss)
            for child in watched.children(recursive=True):
                most[1] = max(most[1], child.memory_info().rss)
        except psutil.NoSuchProcess:
            pass
        time.sleep(0.1)
    return most[0], most[1]


def print_rehearsal(rows: Sequence[tuple[int, dict[str, Ran], int, int, int, int]], cells: int) -> None:
    print(f"\n{cells} cells; the scheduler of local:N lives in the driver\n")
    print("| workers | " + " | ".join(f"{stage}, cells/s" for stage in STAGES) + " | driver MB | worker MB | requests |"
          " resolved | refused | MB received |")  # fmt: skip
    print("|---|" + "---|" * (len(STAGES) + 6))
    for count, ran, requests, resolved, refused, received in rows:
        rates = " | ".join(f"{cells / ran[stage].seconds:.2f}" for stage in STAGES)
        driver = max(one.driver for one in ran.values()) / MEGABYTE
        worker = max(one.worker for one in ran.values()) / MEGABYTE
        print(f"| {count} | {rates} | {driver:.0f} | {worker:.0f} | {requests} | {resolved} | {refused} | "
              f"{received / MEGABYTE:.1f} |")  # fmt: skip
    one = rows[0][1]
    for count, ran, *_ in rows[1:]:
        gains = ", ".join(f"{stage} {one[stage].seconds / ran[stage].seconds / count:.2f}" for stage in STAGES)
        print(f"efficiency with {count}: {gains} (start of the workers included)")


def extrapolate(one: dict[str, Ran], cells: int) -> None:
    """What the planet would take, from one worker's rates here."""
    places = 16 * PLANET_CELLS / 1e6
    print(f"\nThe planet: {PLANET_CELLS:,} cells, {places:.1f} M places, {4 * places:.0f} M"
          " patches\n")  # fmt: skip
    resolves = sum(PARTS.values())
    requests = REQUESTS_PER_CELL * PLANET_CELLS
    hours = {stage: one[stage].seconds / cells * PLANET_CELLS / 3600 for stage in STAGES}
    gpu = 64 * PLANET_CELLS / GPU_IMAGES_PER_SECOND / 3600
    wire = THUMBNAIL_BYTES * PLANET_CELLS / 1e12
    latents = LATENT_BYTES_FP16 * PLANET_CELLS / 1e12
    patches = 5_500_000 * PLANET_CELLS / 1e12
    print(
        f"- hub: {resolves:,} parts to resolve, {resolves / QUOTA[0] * QUOTA[1] / 60:.0f} minutes of its quota of "
        f"{QUOTA[0]:,} requests in {QUOTA[1]:.0f} s; {requests / 1e6:.1f} M ranges from its storage, {wire:.1f} TB"
    )
    print(
        f"- download: {hours['download']:,.0f} hours of one worker of eight threads on loopback; on the wire "
        f"{wire * 8e6 / 1000 / 3600:.0f} hours at 1 Gbit/s"
    )
    print(f"- prepare: {hours['prepare']:,.0f} processor-hours, {patches:.1f} TB of PNGs")
    print(
        f"- encode: {hours['encode']:,.0f} processor-hours with the small autoencoder; {gpu:,.0f} GPU-hours with the "
        f"published one at an assumed {GPU_IMAGES_PER_SECOND:.0f} images/s"
    )
    print(f"- pack: {hours['pack']:,.0f} processor-hours, {latents:.2f} TB in float16")
    compute = (hours["download"] + hours["prepare"] + hours["pack"]) * EUROS["processor-hour"] + gpu * EUROS["GPU-hour"]
    disk = (wire + patches + 2 * latents) * EUROS["terabyte-month"]
    print(f"- euros: {compute:,.0f} for computing and {disk:,.0f} a month for disk, at {EUROS}")


def cells_in(data: Path) -> int:
    totals = json.loads(next(data.rglob("copgen_prepare.json")).read_text())["totals"]
    return int(totals["done"])


def bytes_below(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


# -- the driver's own cost ---------------------------------------------------------------------------------------------


@dataclass
class Watched:
    """Memory of this process, and what it computed, while a block runs."""

    peaks: list[int] = field(default_factory=list)
    seconds: float = 0.0
    computed: float = 0.0


@contextmanager
def watching() -> Iterator[Watched]:
    told, stop = Watched(), threading.Event()
    me = psutil.Process()

    def look() -> None:
        while not stop.wait(1.0):
            told.peaks.append(me.memory_info().rss)

    thread = threading.Thread(target=look, daemon=True)
    started, computed = time.perf_counter(), time.process_time()
    thread.start()
    try:
        yield told
    finally:
        stop.set()
        thread.join()
        told.peaks.append(me.memory_info().rss)
        told.seconds, told.computed = time.perf_counter() - started, time.process_time() - computed


def nothing(item: int) -> Result:
    return Result()


def measure_items(items: int, scheduler: str | None) -> None:
    """Items that are no work at all, through the driver with its journal and manifest."""
    with tempfile.TemporaryDirectory() as folder:
        settings = ClusterSettings(scheduler=scheduler)
        with watching() as told, open_cluster(settings, note=print) as cluster:
            before = psutil.Process().memory_info().rss
            with StageRun("nothing", Path(folder) / "out", settings={}) as run:
                todo = run.pending([WorkItem(f"{number:09}", number) for number in range(items)])
                listed = psutil.Process().memory_info().rss
                started, computed = time.perf_counter(), time.process_time()
                for _ in run.run(todo, nothing, executor=cluster):
                    pass
                seconds, processor = time.perf_counter() - started, time.process_time() - computed
                run.finish()
    where = scheduler or "this process"
    print(
        f"{items:,} items, {where}: {seconds / items * 1e6:.0f} us each, of which this process computed "
        f"{processor / items * 1e6:.0f}; {before / MEGABYTE:.0f} MB before, {listed / MEGABYTE:.0f} with the list of "
        f"items, {max(told.peaks) / MEGABYTE:.0f} at most, {peak_bytes() / MEGABYTE:.0f} with the manifest"
    )


# -- the cluster against the pool --------------------------------------------------------------------------------------


def measure_executors(cells: int, workers: int, turns: int) -> None:
    """Cut the same cells by one process, by a pool, and by a cluster that is up already, in turns; and by as many
    processes that know nothing of one another, which is what this machine can do."""
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        simulated = min(cells, 24)
        copgen(here, "simulate", "--region", "rome", "--cells", simulated, "--no-gaps", "--workers", workers,
               "--output", "archive")  # fmt: skip
        copgen(here, "download", "--endpoint", f"file://{here}/archive", "--data-dir", "data")
        plan = plan_patches(here / "data/rome", PrepareSettings())
        again = -(-cells // len(plan.units))
        units = [WorkItem(f"{unit.key}-{n}", unit.item) for n in range(again) for unit in plan.units][:cells]
        with ClusterExecutor(ClusterSettings(scheduler=f"local:{workers}"), note=print) as cluster:
            list(cluster.map(str, range(workers)))
            manners: dict[str, Executor] = {
                "one process": local_executor(1, processes=True),
                f"a pool of {workers}": local_executor(workers, processes=True),
                f"a cluster of {workers}": cluster,
            }
            seconds: dict[str, list[float]] = {name: [] for name in (*manners, CEILING)}
            for turn in range(-1, turns):
                if turn >= 0:
                    seconds[CEILING].append(cut_apart(here, units, plan.cutting, workers))
                for name, executor in manners.items():
                    with StageRun("prepare", here / "out", settings={}, overwrite=True) as run:
                        work = functools.partial(save_patches, place=run.place, cutting=plan.cutting)
                        started = time.perf_counter()
                        for _ in run.run(units[: workers * 2] if turn < 0 else units, work, executor=executor):
                            pass
                        if turn >= 0:
                            seconds[name].append(time.perf_counter() - started)
                    shutil.rmtree(here / "out", ignore_errors=True)
    medians = {name: sorted(taken)[len(taken) // 2] for name, taken in seconds.items()}
    one, pool, on_cluster, apart = medians.values()
    for name, median in medians.items():
        print(f"{name}: {len(units) / median:.2f} cells/s ({median:.1f} s for {len(units)} cells)")
    print(
        f"times as fast as one process: the pool {one / pool:.2f}, the cluster {one / on_cluster:.2f}, {CEILING} "
        f"{one / apart:.2f}; the cluster against the pool {on_cluster / pool - 1:+.1%} time"
    )


def cut_apart(here: Path, units: Sequence[WorkItem[Any]], cutting: Cutting, workers: int) -> float:
    """Seconds in which processes that share nothing cut a share each."""
    outputs = [here / f"out-{number}" for number in range(workers)]
    processes = [
        multiprocessing.get_context("spawn").Process(target=cut_alone, args=(output, units[number::workers], cutting))
        for number, output in enumerate(outputs)
    ]
    started = time.perf_counter()
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    seconds = time.perf_counter() - started
    for output in outputs:
        shutil.rmtree(output)
    return seconds


def cut_alone(output: Path, units: list[WorkItem[Any]], cutting: Cutting) -> None:
    with StageRun("prepare", output, settings={}) as run:
        for _ in run.run(units, functools.partial(save_patches, place=run.place, cutting=cutting)):
            pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, dest="what")
    rehearsal = commands.add_parser("rehearse")
    rehearsal.add_argument("--cells", type=int, default=48)
    rehearsal.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    many = commands.add_parser("items")
    many.add_argument("--items", type=int, default=1_000_000)
    many.add_argument("--scheduler")
    against = commands.add_parser("executors")
    against.add_argument("--cells", type=int, default=200)
    against.add_argument("--workers", type=int, default=2)
    against.add_argument("--turns", type=int, default=3)
    asked = parser.parse_args()
    print(f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}")
    if asked.what == "rehearse":
        rehearse(asked.cells, asked.workers)
    elif asked.what == "items":
        measure_items(asked.items, asked.scheduler)
    else:
        measure_executors(asked.cells, asked.workers, asked.turns)


if __name__ == "__main__":
    main()
