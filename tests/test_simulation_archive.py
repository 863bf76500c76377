"""An archive of simulated cells is one that a reader of Major TOM can't tell from the real thing."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
from collections import Counter
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from copgen_cli.app import app
from copgen_cli.archive.grid import footprint, from_utm, parse_cell
from copgen_cli.errors import MismatchError, UsageError
from copgen_cli.modalities import PUBLISHED, Modality
from copgen_cli.simulation.archive import METADATA_COLUMNS, PART_COLUMNS, PUBLIC_HOST, write_archive
from copgen_cli.simulation.climate import climate_of
from copgen_cli.simulation.products import Gaps
from copgen_cli.simulation.world import cells_of_region, days_between

ROME = (12.2, 41.6, 13.0, 42.2)
SIZE = 120
OFTEN = Gaps(without_radar=0.2, without_elevation=0.2, second_date=0.5, repeated_radar=0.9, before_2017=0.2)


def folder(root: Path, source: Modality) -> Path:
    return root / "datasets" / "Major-TOM" / source.source.name / "resolve" / "main"


def rows_of(root: Path, source: Modality) -> list[dict]:
    return pq.read_table(folder(root, source) / "metadata.parquet").to_pylist()


def tree(root: Path) -> dict[str, str]:
    files = sorted(file for file in root.rglob("*") if file.is_file())
    return {str(file.relative_to(root)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.fixture(scope="module")
def cells() -> list[str]:
    return cells_of_region(ROME, 14, 0)


@pytest.fixture(scope="module")
def archive(tmp_path_factory, cells) -> Path:
    root = tmp_path_factory.mktemp("earth")
    assert sorted(write_archive(root, cells, 0, size=SIZE, gaps=OFTEN, bands=True, cells_per_part=5)) == sorted(cells)
    return root


@pytest.mark.parametrize("source", list(PUBLISHED))
def test_tables_and_parts_have_the_columns_and_types_of_the_real_ones(archive, shared, source):
    real = folder(shared / "sample_data" / "majortom", source)

    for file in ("metadata.parquet", "images/part_00001.parquet"):
        assert pq.read_schema(folder(archive, source) / file).equals(pq.read_schema(real / file)), file


@pytest.mark.parametrize("source", list(PUBLISHED))
def test_every_row_of_a_table_leads_to_its_product_alone_in_a_row_group(archive, source):
    rows = rows_of(archive, source)
    assert rows

    for row in rows:
        assert row["parquet_url"].startswith(
            f"{PUBLIC_HOST}/datasets/Major-TOM/{source.source.name}/resolve/main/images/"
        )
        part = pq.ParquetFile(archive / row["parquet_url"].removeprefix(f"{PUBLIC_HOST}/"))
        assert part.metadata.num_row_groups == part.metadata.num_rows
        product = part.read_row_group(row["parquet_row"]).to_pylist()[0]
        assert product["grid_cell"] == row["grid_cell"]
        assert list(product) == list(PART_COLUMNS[source])
        if source.source.has_product:
            assert product["product_id"] == row["product_id"]
            assert product["product_datetime"] == row["timestamp"]
        image = Image.open(io.BytesIO(product["thumbnail"]))
        image.load()
        optical = source in (Modality.S2L1C, Modality.S2L2A)
        assert image.format == ("JPEG" if optical else "PNG")
        assert image.mode == ("L" if source is Modality.DEM else "RGB")
        assert image.size == ((SIZE // 3,) * 2 if source is Modality.DEM else (SIZE,) * 2)


def test_rows_come_south_to_north_and_say_where_their_cell_lies(archive):
    for source in PUBLISHED:
        rows = rows_of(archive, source)
        order = [(row["grid_row_u"], row["grid_col_r"]) for row in rows]
        assert order == sorted(order)
        for row in rows:
            place = footprint(parse_cell(row["grid_cell"]))
            if row["crs"].endswith(str(place.epsg)):
                assert (row["centre_lat"], row["centre_lon"]) == (place.centre_lat, place.centre_lon)


def test_the_irregularities_of_the_real_archive_are_there(archive, cells):
    optical, radar, elevation = (rows_of(archive, source) for source in (Modality.S2L2A, Modality.S1RTC, Modality.DEM))
    per_cell = Counter(row["grid_cell"] for row in radar)

    assert {row["grid_cell"] for row in optical} == set(cells)
    assert set(per_cell) < set(cells)
    assert {row["grid_cell"] for row in elevation} < set(cells)
    assert max(Counter(row["grid_cell"] for row in optical).values()) == 2
    assert all(row["crs"].startswith("EPSG:EPSG:326") for row in radar)
    assert {row["crs"] for row in radar} == {"EPSG:EPSG:32633", "EPSG:EPSG:32632"}
    assert all(row["crs"] == "EPSG:32633" for row in [*optical, *elevation])
    assert any(row["timestamp"] < "2017" for row in optical)
    assert any(row["cloud_cover"] > 10 for row in optical)
    assert all(0 <= row["cloud_cover"] < 25 for row in optical)
    pairs = [[row for row in radar if row["grid_cell"] == cell] for cell, count in per_cell.items() if count == 2]
    assert any(one["product_id"] == other["product_id"] and one["crs"] == other["crs"] for one, other in pairs)
    assert any(one["orbit_state"] != other["orbit_state"] for one, other in pairs)


def test_both_optical_levels_pair_up_row_by_row(archive):
    for top, surface in zip(rows_of(archive, Modality.S2L1C), rows_of(archive, Modality.S2L2A), strict=True):
        assert top["product_id"] == surface["product_id"].replace("MSIL2A", "MSIL1C")
        for column in ("grid_cell", "timestamp", "cloud_cover", "nodata", "geometry"):
            assert top[column] == surface[column]


def test_bands_of_the_next_zone_lie_in_it(archive):
    row = next(row for row in rows_of(archive, Modality.S1RTC) if row["crs"] == "EPSG:EPSG:32632")
    part = pq.ParquetFile(archive / row["parquet_url"].removeprefix(f"{PUBLIC_HOST}/"))
    tags = Image.open(io.BytesIO(part.read_row_group(row["parquet_row"]).to_pylist()[0]["vv"])).tag_v2

    west, north = tags[33922][3:5]
    lat, lon = from_utm(np.array(west + 5340), np.array(north - 5340), zone=32, south=False)
    assert 32632 in tags[34735]
    assert (float(lat), float(lon)) == pytest.approx((row["centre_lat"], row["centre_lon"]), abs=1e-9)


def test_bands_are_georeferenced_tiffs_when_asked_for_and_null_otherwise(archive, tmp_path, cells):
    row = rows_of(archive, Modality.DEM)[0]
    part = pq.ParquetFile(folder(archive, Modality.DEM) / "images" / "part_00001.parquet")
    image = Image.open(io.BytesIO(part.read_row_group(0).to_pylist()[0]["DEM"]))
    height = np.asarray(image)
    place = footprint(parse_cell(row["grid_cell"]))
    assert (height.max(), height.min()) == pytest.approx((row["max_val"], row["min_val"]))
    assert image.tag_v2[33922][3:5] == (place.west, place.north)
    assert place.epsg in image.tag_v2[34735]

    optical = pq.ParquetFile(folder(archive, Modality.S2L2A) / "images" / "part_00001.parquet").read_row_group(0)
    sizes = {name: Image.open(io.BytesIO(optical[name][0].as_py())).size[0] for name in ("B04", "B11", "B01")}
    assert sizes == {"B04": SIZE, "B11": SIZE // 2, "B01": SIZE // 6}

    list(write_archive(tmp_path, cells[:1], 0, size=SIZE, gaps=None))
    plain = pq.ParquetFile(folder(tmp_path, Modality.S2L2A) / "images" / "part_00001.parquet").read_row_group(0)
    assert plain["B04"][0].as_py() is None


def test_without_gaps_every_cell_is_once_in_all_sources_and_passes_the_usual_filter(tmp_path, cells):
    list(write_archive(tmp_path, cells[:6], 0, size=96, gaps=None))

    for source in PUBLISHED:
        rows = rows_of(tmp_path, source)
        assert [row["grid_cell"] for row in rows] == cells[:6]
        assert all(row["nodata"] == 0 for row in rows)
        assert all(row.get("cloud_cover", 0) <= 10 for row in rows)
        assert all(row.get("timestamp", "2018") >= "2017" for row in rows)


def test_the_same_seed_gives_the_same_bytes_in_another_process_with_another_hash_seed(tmp_path, cells):
    program = (
        "import sys; from pathlib import Path; from copgen_cli.simulation.archive import write_archive\n"
        f"list(write_archive(Path(sys.argv[1]), {cells[:2]!r}, 7, size=96))"
    )
    list(write_archive(tmp_path / "here", cells[:2], 7, size=96))
    hash_seed = "4242" if os.environ.get("PYTHONHASHSEED") != "4242" else "1"
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "there")], check=True, env=environment)
    assert tree(tmp_path / "there") == tree(tmp_path / "here")


def test_an_interrupted_run_continues_to_the_same_archive(tmp_path, archive, cells):
    options = {"size": SIZE, "gaps": OFTEN, "bands": True, "cells_per_part": 5}
    run = write_archive(tmp_path, cells, 0, **options)
    next(run)
    run.close()
    first = folder(tmp_path, Modality.DEM) / "images" / "part_00001.parquet"
    written = first.stat().st_mtime_ns
    assert not (folder(tmp_path, Modality.DEM) / "metadata.parquet").exists()

    assert len(list(write_archive(tmp_path, cells, 0, **options))) == len(cells)

    assert first.stat().st_mtime_ns == written
    assert tree(tmp_path) == tree(archive)


def test_a_folder_with_another_earth_is_not_overwritten_by_chance(tmp_path, cells):
    list(write_archive(tmp_path, cells[:1], 0, size=96))

    with pytest.raises(MismatchError, match="seed"):
        list(write_archive(tmp_path, cells[:1], 1, size=96))
    list(write_archive(tmp_path, cells[:1], 1, size=96, overwrite=True))


def test_an_archive_that_was_not_simulated_is_neither_mixed_with_nor_replaced(tmp_path, cells):
    mirrored = folder(tmp_path, Modality.DEM) / "images" / "part_00001.parquet"
    mirrored.parent.mkdir(parents=True)
    mirrored.write_bytes(b"from elsewhere")
    other = mirrored.with_name("part_00099.parquet")
    other.write_bytes(b"and more")

    for overwrite in (False, True):
        with pytest.raises(MismatchError, match=r"part_00001\.parquet"):
            list(write_archive(tmp_path, cells[:1], 0, size=96, overwrite=overwrite))
        assert mirrored.read_bytes() == b"from elsewhere"
        assert other.read_bytes() == b"and more"


def test_days_without_sun_are_refused_before_anything_is_written(tmp_path):
    days = days_between(datetime(2020, 12, 3), datetime(2020, 12, 20))
    (polar,) = cells_of_region((20, 70, 30, 72), 1, 0)

    with pytest.raises(UsageError, match="in the dark"):
        list(write_archive(tmp_path / "none", [polar], 0, size=96, days=days))

    assert not (tmp_path / "none").exists()


def test_several_processes_leave_the_same_archive(tmp_path, archive, cells):
    list(write_archive(tmp_path, cells, 0, size=SIZE, gaps=OFTEN, bands=True, cells_per_part=5, workers=2))

    assert tree(tmp_path) == tree(archive)


def test_a_name_that_is_no_cell_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(UsageError):
        list(write_archive(tmp_path / "none", ["here"], 0))

    assert not (tmp_path / "none").exists()


def test_the_command_writes_thumbnails_of_the_real_size_and_names_the_endpoint(tmp_path):
    run = CliRunner().invoke(
        app,
        ["simulate", "--region", "rome", "--cells", "1", "--seed", "3", "--output", str(tmp_path / "earth"), "--json"],
    )

    assert run.exit_code == 0, run.output
    facts = json.loads(run.stdout)
    assert facts["endpoint"] == (tmp_path / "earth").as_uri()
    assert len(facts["cells"]) == 1
    for source in PUBLISHED:
        part = pq.ParquetFile(folder(tmp_path / "earth", source) / "images" / "part_00001.parquet")
        thumbnail = Image.open(io.BytesIO(part.read_row_group(0)["thumbnail"][0].as_py()))
        assert thumbnail.size == (source.source.thumbnail_size,) * 2


def test_a_dry_run_names_the_cells_and_writes_nothing(tmp_path):
    command = ["simulate", "--bbox", "6", "45", "7", "46", "--cells", "4", "--output", str(tmp_path / "earth")]

    run = CliRunner().invoke(app, [*command, "--dry-run", "--json"])

    assert run.exit_code == 0, run.output
    assert len(json.loads(run.stdout)["cells"]) == 4
    assert json.loads(run.stdout)["done_before"] == 0
    assert not (tmp_path / "earth").exists()


def test_a_dry_run_tells_what_is_done_and_refuses_what_the_run_would(tmp_path, cells):
    def dry_run(*more):
        command = ["simulate", "--region", "rome", "--cells", "2", "--output", str(tmp_path), "--dry-run", "--json"]
        return CliRunner().invoke(app, [*command, *more])

    list(write_archive(tmp_path, cells_of_region(ROME, 2, 0), 0))

    assert json.loads(dry_run().stdout)["done_before"] == 2
    assert isinstance(dry_run("--seed", "1").exception, MismatchError)
    assert isinstance(dry_run("--bbox", "6", "45", "7", "46").exception, UsageError)


def test_days_and_ruggedness_reach_the_archive_and_other_days_are_another_archive(tmp_path):
    def simulate(*more):
        command = ["simulate", "--bbox", "0", "44", "40", "50", "--cells", "1", "--no-gaps", "--rugged", "0.8"]
        return CliRunner().invoke(app, [*command, "--output", str(tmp_path / "earth"), *more])

    days = ("--start-date", "2020-09-10", "--end-date", "2020-09-12")

    assert simulate(*days).exit_code == 0
    (row,) = rows_of(tmp_path / "earth", Modality.S2L2A)
    assert row["timestamp"][:8] in ("20200910", "20200911", "20200912")
    assert climate_of(footprint(parse_cell(row["grid_cell"])), 0).rugged.mean() >= 0.8
    assert isinstance(simulate().exception, MismatchError)  # on any day
    assert isinstance(simulate("--start-date", "2021-01-02", "--end-date", "2021-01-01").exception, UsageError)


def test_every_source_has_its_columns_written_down():
    assert set(METADATA_COLUMNS) == set(PART_COLUMNS) == set(PUBLISHED)
