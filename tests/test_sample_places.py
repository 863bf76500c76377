"""What is generated lies somewhere: by the table of patches, in the listing, and for programs that read maps."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sample_commands import call_copgen, one_thread, save_folder, small_model

from copgen_cli.errors import BrokenInputError
from copgen_cli.modalities.builtin import Modality
from copgen_cli.outputs.georeferencing import map_note, read_places
from copgen_cli.records import Footprint

PLACE = Footprint("EPSG:32633", (10.0, 0.0, 300_000.25, 0.0, -10.0, 4_600_000.5))


def write_table(file: Path) -> Path:
    """Two patches; the elevation of the first lies in a neighbouring zone, that of the second is not known apart."""
    columns = {
        "patch": ["a_0", "a_1"],
        "crs": [PLACE.crs, PLACE.crs],
        **{name: [value, value] for name, value in zip("abcdef", PLACE.transform, strict=True)},
        "dem_crs": ["EPSG:32632", None],
        "dem_c": [700_000.0, None],
        "dem_f": [4_500_000.0, None],
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), file)
    return file


def test_a_patch_lies_where_its_modality_does_or_else_where_the_table_says(tmp_path):
    places = read_places(write_table(tmp_path / "test_metadata.parquet"))

    assert places.of("a_1", Modality.DEM) == PLACE
    assert places.of("a_0", Modality.S2L2A) == PLACE
    assert places.of("a_0", Modality.DEM) == Footprint("EPSG:32632", (10.0, 0.0, 700_000.0, 0.0, -10.0, 4_500_000.0))
    assert places.of("b_0", Modality.DEM) is None


def test_without_a_table_nothing_is_known_and_a_damaged_one_is_an_error(tmp_path):
    (tmp_path / "damaged.parquet").write_bytes(b"PAR1 nothing")
    pq.write_table(pa.table({"x": [1]}), tmp_path / "other.parquet")

    assert read_places(tmp_path / "absent.parquet").of("a_0", Modality.DEM) is None
    for name in ("damaged", "other"):
        with pytest.raises(BrokenInputError, match=name):
            read_places(tmp_path / f"{name}.parquet")


def test_the_note_for_maps_holds_crs_and_transform_in_the_order_of_gdal():
    note = ElementTree.fromstring(map_note(PLACE))

    assert note.tag == "PAMDataset"
    assert note.findtext("SRS") == "EPSG:32633"
    numbers = [float(number) for number in (note.findtext("GeoTransform") or "").split(",")]
    assert numbers == [300_000.25, 10.0, 0.0, 4_600_000.5, 0.0, -10.0]


def test_generated_patches_carry_their_place(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    patches = tmp_path / "data" / "majorTOM" / "rome" / "rome_thumbnail_png"
    save_folder(patches / "test" / Modality.S1RTC.facts.folder, Modality.S1RTC, ["a_0", "x_9"])
    write_table(patches / "test_metadata.parquet")
    with one_thread():
        call = call_copgen(
            capsys, "sample", "--model", small_model(tmp_path / "model"), "--condition", "s1_rtc", "--generate", "dem",
            "--steps", 1, "--save-as", "pngs", "--output", "o",
        )  # fmt: skip

    records = json.loads(Path("o/samples.json").read_text())["records"]
    assert call.code == 0, call.err
    assert records["a_0"]["places"]["dem"]["crs"] == "EPSG:32632"
    assert records["x_9"]["places"] == {}
    assert {path.name for path in Path("o/dem").iterdir()} == {"a_0_v1.png", "a_0_v1.png.aux.xml", "x_9_v1.png"}
