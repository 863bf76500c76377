"""Ten thousand mutations of what an archive sends: each is read, or refused with an error of ours, and soon.

Not part of the suite: `pytest tests/soak/test_download_fuzz.py`. SOAK_SCALE scales the number of mutations.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tiny_archive import rome_rows, write_archive

from copgen_cli.errors import CopgenError
from copgen_cli.modalities import Modality

MUTATIONS = int(10_000 * float(os.environ.get("SOAK_SCALE", "1")))
LONGEST = 5.0
MOST_MEMORY = 1 << 30


def mutate(data: bytes, draw: random.Random, tail: int) -> bytes:
    """Flip, overwrite, cut, repeat or insert; mostly in the last `tail` bytes, where a Parquet file says what it is."""
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 8))):
        first = max(0, len(changed) - tail) if draw.random() < 0.8 else 0
        place = draw.randrange(first, len(changed)) if len(changed) > first else 0
        length = draw.choice((1, 1, 4, 16))
        kind = draw.randrange(5)
        if kind == 0:
            changed[place : place + 1] = bytes([draw.randrange(256)])
        elif kind == 1:
            changed[place : place + length] = draw.choice((b"\xff", b"\0", b"\x7f", b"\x80")) * length
        elif kind == 2:
            del changed[place : place + length]
        elif kind == 3:
            changed[place:place] = changed[place : place + length]
        else:
            changed[place:place] = draw.randbytes(length)
    return bytes(changed)


def read_part(file: Path) -> None:
    from copgen_cli.archive.opening import FolderFile
    from copgen_cli.archive.parquet_ranges import PartReader
    from copgen_cli.archive.remote import Traffic
    from copgen_cli.rasters.integrity import check_thumbnail

    part = PartReader(FolderFile(file, Traffic()), file.name)
    value = part.read_row(1, [name for name in ("grid_cell", "thumbnail") if name in part.columns])["thumbnail"]
    assert isinstance(part.binary_columns, tuple)
    check_thumbnail(value if isinstance(value, bytes) else b"", "a thumbnail")


def read_index(file: Path) -> None:
    from copgen_cli.archive.index import WorldIndex
    from copgen_cli.archive.products import Bands, plan_orders
    from copgen_cli.archive.selection import select
    from copgen_cli.settings.sections import RegionSettings

    region = RegionSettings(bbox=(12.2, 41.6, 13.0, 42.2))
    index = WorldIndex(Modality.S2L2A, file, None, current=True)
    plan_orders({Modality.S2L2A: index}, select({Modality.S2L2A: file}, region), Bands.parse("none"))


def read_thumbnail(file: Path) -> None:
    from copgen_cli.rasters.integrity import check_thumbnail

    check_thumbnail(file.read_bytes(), "a thumbnail")


def read_mutations(
    read: Callable[[Path], None], original: Path, tail: int, seeds: range, folder: Path, last: str
) -> None:
    """Read mutations one by one; the seed under way is noted, for whoever finds the process dead."""
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY * 4, MOST_MEMORY * 4))
    data, read_whole, refused, longest = original.read_bytes(), 0, 0, 0.0
    for seed in seeds:
        Path(last).write_text(str(seed))
        mutation = folder / f"mutation{original.suffix}"
        mutation.write_bytes(mutate(data, random.Random(seed), tail))
        began = time.monotonic()
        try:
            read(mutation)
            read_whole += 1
        except CopgenError:
            refused += 1
        longest = max(longest, time.monotonic() - began)
    memory = int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) >> 10
    print(f"{refused} refused, {read_whole} read, {longest:.2f} s at most, {memory} MB at most")
    assert longest < LONGEST
    assert memory << 20 < MOST_MEMORY


@pytest.mark.parametrize("what", ["part", "index", "thumbnail"])
def test_f17_mutations_are_read_or_refused(tmp_path, what):
    archive = write_archive(tmp_path / "archive", rome_rows(), parts=1, size=48)
    thumbnail = tmp_path / "thumbnail.png"
    thumbnail.write_bytes(next(iter(archive.thumbnails.values())))
    read, original, tail = {
        "part": (read_part, archive.part(Modality.S2L2A), 20_000),
        "index": (read_index, archive.table(Modality.S2L2A), 6_000),
        "thumbnail": (read_thumbnail, thumbnail, 1 << 20),
    }[what]
    last = str(tmp_path / "seed")
    process = multiprocessing.get_context("forkserver").Process(
        target=read_mutations, args=(read, original, tail, range(MUTATIONS), tmp_path, last)
    )
    process.start()
    process.join()
    assert process.exitcode == 0, f"at seed {Path(last).read_text()}"
