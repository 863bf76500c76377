"""Packing shards with workers, killed at random moments. Not part of the suite:

pytest tests/soak/test_shards_soak.py -s
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from copgen_processes import copgen
from tiny_subsets import tree, write_moments

from copgen_cli.latents.packing import RECORDS_PER_UNIT
from copgen_cli.modalities import Modality

KILLS = int(os.environ.get("SOAK_KILLS", "20"))


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_at_random_moments(tmp_path, workers):
    names = [f"{400 + i // 16}U_100R_{i % 16}" for i in range(12 * RECORDS_PER_UNIT)]
    write_moments(tmp_path / "npy", names, modalities=[Modality.DEM], shape=(8, 8, 8))
    call = ("--quiet", "pack", "--input-dir", tmp_path / "npy", "--shards", 6, "--workers", workers, "--output-dir")
    for _ in range(2):  # what is imported and cached at first is no part of the work
        began = time.monotonic()
        with copgen(*call, tmp_path / f"undisturbed{_}") as process:
            assert process.end() == 0, process.said
        whole = time.monotonic() - began
    expected = tree(tmp_path / "undisturbed1")
    output, kills, finished, seen = tmp_path / "store", 0, 0, set()

    draw = random.Random(workers)
    while kills < KILLS:
        with copgen(*call, output) as running:
            running.process.join(draw.uniform(0.05, 0.95) * whole)
            if running.process.exitcode is None:
                os.kill(running.process.pid, signal.SIGKILL)
                running.process.join()
                kills += 1
        files = [file for file in output.rglob("*") if file.is_file() and ".copgen" not in file.parts]
        for file in files:  # whole or absent
            assert file.read_bytes() == expected[file.relative_to(output).as_posix()]
        seen.add(len(files))
        if running.process.exitcode == 0:
            assert tree(output) == expected
            finished += 1
            output = tmp_path / f"store{finished}"
    with copgen(*call, output) as process:
        assert process.end() == 0, process.said

    assert tree(output) == expected
    print(f"{workers} workers: {kills} kills, {finished} runs finished between; files in place then: {sorted(seen)}")
