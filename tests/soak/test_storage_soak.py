"""The whole way on S3 whose server fails now and then, and kills on the way. Not part of the suite:

    pytest tests/soak/test_storage_soak.py -s

SOAK_SCALE scales the number of kills; 1, the default, is all of them.
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

from test_storage import OF_A_KIND, SETTINGS, WAY, call
from tiny_archive import rome_rows, write_archive
from tiny_models import tiny_autoencoder
from tiny_s3 import TinyS3
from tiny_subsets import tree

SCALE = float(os.environ.get("SOAK_SCALE", "1"))
FAULTS = 0.05
KILLS = 6


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("soak")
    write_archive(folder / "archive", rome_rows(), size=1068)
    tiny_autoencoder().save_pretrained(folder / "vae")
    (folder / "copgen.toml").write_text(SETTINGS.format(folder=folder))
    for line in WAY:
        code, said = walk(folder, {}, folder / "local", line)
        assert code == 0, said
    return folder


def walk(folder: Path, environment: dict[str, str], place: object, line: str, kill_at: int | None = None):
    there = {"COPGEN_DATA_DIR": f"{place}/data", "COPGEN_RUNS_DIR": f"{place}/runs"}
    return call(folder, environment | there, line.replace("{place}", str(place)), kill_at)


def same(remote: dict[str, bytes], local: dict[str, bytes]) -> None:
    assert remote.keys() == local.keys()
    told = (*OF_A_KIND, "files")  # names in the order in which they were claimed
    assert [name for name in local if remote[name] != local[name] and Path(name).name not in told] == []


def test_a_store_that_fails_in_one_of_twenty_requests_ends_with_the_right_tree(workplace, tmp_path):
    started = time.monotonic()
    with TinyS3(faults=FAULTS, seed=20) as s3:
        environment = s3.environment | {"XDG_CACHE_HOME": str(tmp_path)}
        for line in WAY:
            code, said = walk(workplace, environment, "s3://bucket/way", line)
            assert code == 0, said
        print(
            f"\n{s3.requests:,} requests, {s3.failed:,} of them failed, {len(s3.keys()):,} objects, "
            f"{time.monotonic() - started:.0f} s"
        )
        same(s3.tree("way"), tree(workplace / "local"))


def test_killed_anywhere_on_the_way_and_continued_it_ends_with_the_right_tree(workplace, tmp_path):
    draw, kills = random.Random(7), 0
    with TinyS3(faults=FAULTS, seed=21) as s3:
        environment = s3.environment | {"XDG_CACHE_HOME": str(tmp_path)}
        for number in range(max(1, round(KILLS * SCALE))):
            place = f"s3://bucket/killed{number}"
            for line in WAY[:4]:
                code, said = walk(workplace, environment, place, line, kill_at=draw.randrange(1, 20))
                kills += code == -signal.SIGKILL
                assert code in (0, -signal.SIGKILL), said
                code, said = walk(workplace, environment, place, line)
                assert code == 0, said
            local = tree(workplace / "local")
            same(s3.tree(f"killed{number}"), {name: data for name, data in local.items() if name.startswith("data/")})
        print(f"\n{kills} kills, {s3.requests:,} requests, {s3.failed:,} of them failed")
    assert kills
