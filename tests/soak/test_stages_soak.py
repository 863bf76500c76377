"""Long campaigns of faults against prepare, encode, pack and the readers. Not part of the suite:

    pytest tests/soak/test_stages_soak.py -s

SOAK_SCALE scales the campaigns; 1, the default, is the whole of them.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import pickle
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

import lmdb
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tiny_models import tiny_autoencoder
from tiny_subsets import moments_of, patch_pixels, picture_bytes, tree, write_moments, write_patches, write_subset

from copgen_cli.errors import CopgenError
from copgen_cli.latents.moments import parse_npy
from copgen_cli.latents.packing import RECORDS_PER_UNIT
from copgen_cli.latents.published.published_store import PublishedStore, parse_value
from copgen_cli.latents.store import LatentStore, keep_batch
from copgen_cli.latents.store_format import METADATA_KEY
from copgen_cli.modalities import PUBLISHED, Modality, Split
from copgen_cli.rasters.pictures import encode_png, read_pixels

SCALE = float(os.environ.get("SOAK_SCALE", "1"))
BOTH = (Modality.DEM, Modality.S2L2A)
CELLS = [f"{row}U_{column}R" for row in (464, 465) for column in range(102, 107)]
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        f"copgen_cli.{name}"
        for name in ("app", "data.encoding", "data.npy_moments", "data.preparation", "data.store_parts")
    ]
)


@dataclass(frozen=True)
class Stage:
    """One command on an input that never changes."""

    name: str
    arguments: tuple[str, ...]
    unit: Callable[[str], str]
    """The unit of work that a file of the output belongs to."""


@pytest.fixture(scope="module")
def stages(tmp_path_factory) -> dict[str, Stage]:
    folder = tmp_path_factory.mktemp("input")
    write_subset(folder / "subset", CELLS, modalities=BOTH)
    tiny_autoencoder(channels=(4, 4, 4, 4)).save_pretrained(folder / "vae")
    names = [f"464U_102R_{k}" for k in range(16)] + [f"465U_103R_{k}" for k in range(16)]
    write_patches(folder / "png", names, modalities=BOTH)
    many = [f"{400 + i // 16}U_100R_{i % 16}" for i in range(20 * RECORDS_PER_UNIT)]
    write_moments(folder / "npy", many, modalities=BOTH, shape=(8, 8, 8))
    prepare = ("prepare", "--subset-path", f"{folder}/subset", "--train-ratio", "0.5", "--workers", "2")
    encode = ("encode", "--path", f"{folder}/png", "--vae", f"{folder}/vae", "--device", "cpu", "--batch-size", "4")
    found = (
        Stage("prepare", prepare, lambda path: Path(path).stem.rpartition("_")[0]),
        Stage("encode", encode, lambda path: str(names.index(Path(path).stem) // 2)),
        Stage("encode to store", (*encode, "--to", "lmdb"), str),
        Stage("pack", ("pack", "--input-dir", f"{folder}/npy"), str),
    )
    return {stage.name: stage for stage in found}


def run(arguments: tuple[str, ...], stub_lock: bool) -> None:
    """The command, to be run in a process of its own."""
    from copgen_cli.app import main

    if stub_lock:
        import fcntl

        fcntl.flock = lambda *_: None  # type: ignore[assignment]
    torch.set_num_threads(1)
    sys.argv = ["copgen", "--quiet", *arguments]
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (as long as the process lives)
    main()


def start(stage: Stage, output: Path, *, stub_lock: bool = False) -> BaseProcess:
    process = CONTEXT.Process(target=run, args=((*stage.arguments, "--output-dir", str(output)), stub_lock))
    process.start()
    return process


def finish(process: BaseProcess) -> int | None:
    process.join(600)
    return process.exitcode


def in_place(stage: Stage, output: Path) -> dict[str, tuple[int, int]]:
    """Identity of every file of the output: one that is written again is another."""
    found = {}
    for file in output.rglob("*.*"):
        path = file.relative_to(output).as_posix()
        if file.suffix in (".png", ".npy") and not path.startswith(".copgen"):
            facts = file.stat()
            found[path] = (facts.st_ino, facts.st_mtime_ns)
    return found


def units_in_store(output: Path) -> int:
    """How far the store under construction is."""
    units = 0
    for folder in (output / ".copgen/build").glob("*"):
        if (folder / "data.mdb").is_file():
            with lmdb.open(str(folder), readonly=True, lock=False) as environment, environment.begin() as transaction:
                units += json.loads(transaction.get(METADATA_KEY) or b"{}").get("units", 0)
    return units


@pytest.mark.parametrize("name", ["prepare", "encode", "encode to store", "pack"])
def test_f6_killed_at_100_random_moments(stages, tmp_path, name):
    stage, draw = stages[name], random.Random(6)
    assert finish(start(stage, tmp_path / "first")) == 0  # what is imported and cached at first is no part of the work
    began = time.monotonic()
    assert finish(start(stage, tmp_path / "undisturbed")) == 0
    whole = time.monotonic() - began
    undisturbed = tree(tmp_path / "undisturbed")
    output, kills, rounds, redone, worst = tmp_path / "killed", 0, 0, 0, 0
    before: dict[str, tuple[int, int]] = {}
    units = 0
    while kills < 100 * SCALE:
        process = start(stage, output)
        process.join(draw.uniform(0.1, 0.9) * whole)
        if process.exitcode is None:
            os.kill(process.pid, signal.SIGKILL)
            finish(process)
            kills += 1
        else:
            assert process.exitcode == 0
            assert tree(output) == undisturbed
            rounds += 1
        now = in_place(stage, output)
        again = {stage.unit(path) for path, identity in before.items() if now.get(path) != identity}
        redone, worst, before = redone + len(again), max(worst, len(again)), now
        if process.exitcode == 0:
            shutil.rmtree(output)
            before, units = {}, 0
        else:
            there = units_in_store(output)
            assert there >= units or not there  # a store that is complete has left the place where it was built
            units = there
    assert finish(start(stage, output)) == 0

    print(
        f"{name}: {kills} kills, {rounds} rounds finished between them; {redone} units twice, at most {worst} at once"
    )
    assert tree(output) == undisturbed
    # One unit at a time comes into place, but the two worker processes of prepare end one after the other: as the first
    # leaves a cell and the lock, the second may begin another. What encodes has one thread that writes.
    assert worst <= (2 if name == "prepare" else 1)


@pytest.mark.parametrize("processes", [2, 8])
@pytest.mark.parametrize("stub_lock", [False, True])
@pytest.mark.parametrize("name", ["prepare", "encode", "encode to store", "pack"])
def test_f5_several_processes_on_one_output(stages, tmp_path, name, processes, stub_lock):
    stage = stages[name]
    assert finish(start(stage, tmp_path / "alone")) == 0
    alone = tree(tmp_path / "alone")
    codes: Counter[int | None] = Counter()
    for number in range(max(1, round(3 * SCALE))):
        running = [start(stage, tmp_path / "shared", stub_lock=stub_lock) for _ in range(processes)]
        codes.update(finish(process) for process in running)
        if stub_lock:
            assert finish(start(stage, tmp_path / "shared")) == 0
        assert tree(tmp_path / "shared") == alone, number
        shutil.rmtree(tmp_path / "shared")
    print(f"{name}, {processes} processes, lock {'stubbed' if stub_lock else 'works'}: exit codes {dict(codes)}")
    assert set(codes) <= {0, 1}  # 1: another is writing


WITHOUT_LOOKING_AHEAD = """
import sys
from copgen_cli.app import main
from copgen_cli.latents import packing
from copgen_cli.patches import preparation
packing.require_free_space = preparation.require_free_space = lambda *_: None
if sys.argv[1] != "prepare":
    from copgen_cli.latents import store_parts
    store_parts.require_free_space = lambda *_: None
main()
"""


@pytest.mark.parametrize("name", ["prepare", "encode", "encode to store", "pack"])
def test_f4_a_disk_that_is_full_at_any_point(stages, small_disk, tmp_path, name):
    """The check before the work is switched off, so that writes fail where the disk happens to end."""
    stage = stages[name]
    assert finish(start(stage, tmp_path / "right")) == 0
    right = tree(tmp_path / "right")
    size = sum(map(len, right.values()))
    output = small_disk.folder / "out"
    program = [sys.executable, "-c", WITHOUT_LOOKING_AHEAD, *stage.arguments, "--output-dir", str(output)]
    steps, full = max(4, round(25 * SCALE)), 0
    for step in range(steps):
        full += small_disk.run_with_room(size * step // steps, program)
        for path, data in tree(output).items():
            if not path.startswith((".copgen", "copgen_")):
                assert right.get(path) == data
        assert subprocess.run(program, capture_output=True).returncode == 0
        assert tree(output) == right
        shutil.rmtree(output)
    print(f"{name}: full {full} times of {steps}, continued as often")
    assert full


# -- readers -----------------------------------------------------------------------------------------------------------


def mutants(good: bytes, draw: random.Random, count: int) -> Iterator[bytes]:
    """Copies with a few bytes changed, pieces cut out, doubled or put at the end."""
    for _ in range(count):
        data = bytearray(good)
        for _ in range(draw.randint(1, 6)):
            at = draw.randrange(len(data)) if data else 0
            match draw.randrange(5):
                case 0 | 1:
                    data[at : at + 1] = bytes([draw.randrange(256)])
                case 2:
                    del data[at : at + draw.randint(1, 40)]
                case 3:
                    data[at:at] = data[at : at + draw.randint(1, 40)]
                case 4:
                    data[at:] = data[at : at + draw.randint(0, 200)]
        yield bytes(data)


def hold_reader_to_typed_errors(name: str, read: Callable[[bytes], object], goods: list[bytes]) -> None:
    draw, count, slowest = random.Random(17), round(10_000 * SCALE), 0.0
    refused: Counter[str] = Counter()
    for good in goods:
        for data in mutants(good, draw, count // len(goods)):
            began = time.monotonic()
            try:
                read(data)
                refused["read"] += 1
            except CopgenError as error:
                refused[type(error).__name__] += 1
            slowest = max(slowest, time.monotonic() - began)
    print(f"{name}: {dict(refused)}, slowest {slowest:.2f} s")
    assert slowest < 5
    assert len(refused) > 1


def test_f17_mutated_pictures(tmp_path):
    pixels = patch_pixels("x", grey=False)[:64, :64]
    goods = [picture_bytes(pixels), encode_png(pixels), encode_png(pixels[..., 0]), picture_bytes(pixels, kind="JPEG")]
    file = tmp_path / "mutant.png"

    def read(data: bytes) -> None:
        file.write_bytes(data)
        read_pixels(file)

    hold_reader_to_typed_errors("pictures", read, goods)


def test_f17_mutated_npy_files(tmp_path):
    file = write_moments(tmp_path, ["x"], modalities=[Modality.DEM]) / "train/DEM_thumbnail/x.npy"
    hold_reader_to_typed_errors("npy", lambda data: parse_npy(data, file), [file.read_bytes()])


def test_f17_mutated_values_of_a_published_database():
    value = {modality.spec.folder: moments_of(modality, (2, 4, 4)).tobytes() for modality in PUBLISHED}
    goods = [pickle.dumps(value, protocol=protocol) for protocol in (3, 4, 5)]
    hold_reader_to_typed_errors("published values", lambda data: parse_value(data, "x"), goods)


def fuzz_databases(read: str, good: Path, folder: str, rounds: int, seed: int) -> None:
    """Mutate and read in this process, which a crash would end; the outcome is the exit code."""
    draw = random.Random(seed)
    place = Path(folder)
    place.mkdir()
    for data in mutants(good.read_bytes(), draw, rounds):
        (place / "data.mdb").unlink(missing_ok=True)  # a new inode: an open map of the old one stays as it is
        (place / "data.mdb").write_bytes(data)
        try:
            if read == "store":
                store = LatentStore(place)
                for index in range(len(store)):
                    store[index]
            else:
                database = PublishedStore(place)
                out = np.empty((len(database.modalities), *database.shape), np.float32)
                for name in database.names(Split.TRAIN):
                    try:
                        database.read_into(out, Split.TRAIN, name)
                    except CopgenError:
                        continue
        except CopgenError:
            continue
    os._exit(0)


@pytest.mark.parametrize("read", ["store", "published"])
def test_f17_mutated_databases(stages, tmp_path, read):
    """Bytes of the whole file, the pages of the tree among them; a record of many pages is mostly numbers."""
    if read == "store":
        names = [f"464U_102R_{k}" for k in range(16)]
        write_moments(tmp_path / "npy", names, shape=(8, 8, 8))
        arguments = ("pack", "--input-dir", str(tmp_path / "npy"), "--output-dir", str(tmp_path / "db"))
        process = CONTEXT.Process(target=run, args=(arguments, False))
        process.start()
        assert finish(process) == 0
        good = tmp_path / "db/train/data.mdb"
    else:
        value = {modality.spec.folder: moments_of(modality, (8, 32, 32)).tobytes() for modality in BOTH}
        with lmdb.open(str(tmp_path / "db"), map_size=1 << 24) as environment:
            for k in range(3):
                with environment.begin(write=True) as transaction:
                    transaction.put(f"464U_102R_{k}.npy".encode(), pickle.dumps(value))
        good = tmp_path / "db/data.mdb"
    crashed, batches = 0, 20
    for seed in range(batches):
        rounds = round(10_000 * SCALE / batches)
        process = CONTEXT.Process(target=fuzz_databases, args=(read, good, str(tmp_path / f"{seed}"), rounds, seed))
        process.start()
        process.join(rounds * 5)
        crashed += process.exitcode != 0
        shutil.rmtree(tmp_path / f"{seed}")
    print(f"{read}: {crashed} of {batches} batches of {round(10_000 * SCALE / batches)} mutants crashed")
    assert crashed == 0


# -- workers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("workers", [0, 1, 8])
@pytest.mark.parametrize("persistent", [False, True])
def test_f18_twenty_epochs_of_every_kind_of_worker(stages, tmp_path, method, workers, persistent):
    if not workers and (persistent or method == "spawn"):
        pytest.skip("no workers, no kinds of them")
    assert finish(start(stages["pack"], tmp_path)) == 0
    store = LatentStore(tmp_path / "train").select(["s2_l2a"])
    right = dict(store[i] for i in range(len(store)))  # opened before the fork
    loader = DataLoader(
        store,
        batch_size=64,
        shuffle=True,
        collate_fn=keep_batch,
        num_workers=workers,
        persistent_workers=persistent,
        multiprocessing_context=method if workers else None,
    )
    epochs = max(2, round((20 if method == "fork" or persistent else 4) * SCALE))
    descriptors, shared = [], []
    for _ in range(epochs):
        seen = 0
        for batch in loader:
            for name, moments in zip(batch.names, batch.moments, strict=True):
                assert torch.equal(moments, right[name])
            seen += len(batch.names)
        assert seen == len(store)
        gc.collect()  # what an ended epoch holds in cycles is no leak
        descriptors.append(len(os.listdir("/proc/self/fd")))
        shared.append(len(os.listdir("/dev/shm")))
    print(f"{method}, {workers} workers: descriptors {descriptors}, shared {shared}")
    assert descriptors[-1] <= descriptors[1]
    assert shared[-1] <= shared[1]


# -- the split ---------------------------------------------------------------------------------------------------------


def test_f21_fifty_processes_with_random_hash_seeds_split_alike():
    program = (
        "from copgen_cli.patches.split import SplitRule, split_of\n"
        "cells = {f'{row}U_{col}R' for row in range(400, 440) for col in range(100, 140)}\n"
        "for rule in (SplitRule(0.95, 42), SplitRule(0.8, 7, block=4)):\n"
        "    print(sorted((cell, str(split_of(cell, rule))) for cell in cells))\n"
    )
    said = set()
    for _ in range(50):
        environment = os.environ | {"PYTHONHASHSEED": str(random.SystemRandom().randrange(1 << 32))}
        command = [sys.executable, "-c", program]
        said.add(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    cells = re.findall(r"\('(\w+)', '(train|test|None)'\)", said.pop().splitlines()[0])
    print(f"50 processes agree on {Counter(split for _, split in cells)}")
    assert not said
    assert len(cells) == 1600
