"""From the thumbnails of a cell to patches: which pixels, in which order, and where they lie on the ground."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from tiny_subsets import CELLS, picture_bytes, thumbnail_file, write_subset

from copgen_cli.archive.grid import Cell, columns_of_row, footprint, from_utm, parse_cell, to_utm
from copgen_cli.errors import BrokenInputError, MissingInputError
from copgen_cli.layout import subset_index
from copgen_cli.modalities import BETA, Modality, Split
from copgen_cli.patches.cutting import Cutting, Window, cut, shift, windows
from copgen_cli.patches.georeferencing import georeferencing_of
from copgen_cli.patches.scenes import choose, is_plain_name, read_subset
from copgen_cli.patches.table import CellFacts, patch_table
from copgen_cli.records import Georeferencing, Product, Scene

CELL = CELLS[0]
GOLDEN = {Modality.DEM: "DEM", Modality.S1RTC: "S1RTC", Modality.S2L2A: "S2L2A"}


def product(modality: Modality = Modality.S2L2A, **values) -> Product:
    place = footprint(parse_cell(values.get("cell", CELL)))
    usual = {
        "cell": CELL,
        "product_id": "id",
        "timestamp": None,
        "cloud_cover": None,
        "centre_lon": place.centre_lon,
        "centre_lat": place.centre_lat,
        "crs": f"EPSG:{place.epsg}",
        "part_url": "",
        "part_row": 0,
    }
    return Product(modality, **(usual | values))


def scene_of(folder, pictures: dict[Modality, bytes]) -> Scene:
    thumbnails = {}
    for modality, data in pictures.items():
        thumbnails[modality] = folder / f"{modality}.png"
        thumbnails[modality].write_bytes(data)
    return Scene(CELL, {modality: product(modality) for modality in pictures}, thumbnails)


# -- pixels ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("center_crop", [False, True])
def test_patches_are_bit_for_bit_those_of_the_published_workflow(shared, center_crop):
    folder = shared / "golden/patchify"
    recorded = json.loads((folder / "patchify.json").read_text())["std"]
    thumbnails = {modality: folder / f"std_{name}_input.png" for modality, name in GOLDEN.items()}
    scene = Scene(CELL, {modality: product(modality) for modality in GOLDEN}, thumbnails)

    patches = cut(scene, Split.TEST, Cutting(modalities=tuple(GOLDEN), center_crop=center_crop)).patches

    for patch in patches:
        for modality, name in GOLDEN.items():
            got = hashlib.sha256(np.ascontiguousarray(patch.pixels[modality]).tobytes()).hexdigest()
            hashes = recorded["center_crop_sha256"] if center_crop else recorded["sha256"]
            assert got == (hashes[name] if center_crop else hashes[name][str(patch.position)])
    assert len(patches) == (1 if center_crop else 16)


def test_patch_k_is_row_times_four_plus_column_of_the_central_1024_pixels_unmirrored(tmp_path):
    down, right = np.meshgrid(np.arange(1068), np.arange(1068), indexing="ij")
    pixels = np.dstack([down // 5, right // 5, (down + 2 * right) % 251]).astype(np.uint8)

    patches = cut(scene_of(tmp_path, {Modality.S1RTC: picture_bytes(pixels)}), Split.TRAIN).patches

    assert [patch.name for patch in patches] == [f"{CELL}_{k}" for k in range(16)]
    for k, patch in enumerate(patches):
        top, left = 22 + 256 * (k // 4), 22 + 256 * (k % 4)
        np.testing.assert_array_equal(patch.pixels[Modality.S1RTC], pixels[top : top + 256, left : left + 256])


def test_elevation_is_enlarged_threefold_with_bilinear_interpolation_and_has_three_equal_channels(tmp_path):
    grey = np.random.default_rng(0).integers(0, 256, (356, 356), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(grey).resize((1068, 1068), Image.Resampling.BILINEAR))[22:278, 22:278]

    for data in (picture_bytes(grey), picture_bytes(grey, "RGB")):
        first = cut(scene_of(tmp_path, {Modality.DEM: data}), Split.TRAIN).patches[0].pixels[Modality.DEM]
        np.testing.assert_array_equal(first, np.repeat(expected[..., None], 3, axis=2))


def test_an_elevation_thumbnail_may_be_a_few_pixels_off(tmp_path):
    grey = np.random.default_rng(0).integers(0, 256, (356, 358), dtype=np.uint8)
    whole = np.asarray(Image.fromarray(grey).resize((1074, 1068), Image.Resampling.BILINEAR))

    first = cut(scene_of(tmp_path, {Modality.DEM: picture_bytes(grey)}), Split.TRAIN).patches[0].pixels[Modality.DEM]

    np.testing.assert_array_equal(first[..., 0], whole[22:278, 25:281])


def test_thumbnails_a_few_pixels_off_are_cut_from_their_middles_as_published(tmp_path):
    draw = np.random.default_rng(0)
    grey = draw.integers(0, 256, (355, 360), dtype=np.uint8)
    radar, optical = (draw.integers(0, 256, (1071, 1067, 3), dtype=np.uint8) for _ in range(2))
    enlarged = np.asarray(Image.fromarray(grey).resize((1083, 1068), Image.Resampling.BILINEAR))
    pictures = {Modality.DEM: grey, Modality.S1RTC: radar, Modality.S2L2A: optical}

    patches = cut(scene_of(tmp_path, {m: picture_bytes(pixels) for m, pixels in pictures.items()}), Split.TRAIN).patches

    for patch in patches:
        row, col = divmod(patch.position, 4)
        for modality, whole in ((Modality.DEM, enlarged), (Modality.S1RTC, radar), (Modality.S2L2A, optical)):
            top, left = (round((side - 1024) / 2) + 256 * k for side, k in zip(whole.shape, (row, col), strict=False))
            expected = whole[top : top + 256, left : left + 256]
            got = patch.pixels[modality][..., 0] if modality is Modality.DEM else patch.pixels[modality]
            np.testing.assert_array_equal(got, expected)


def test_a_tile_of_the_newer_grid_is_cut_from_its_middle_and_lies_around_the_same_centre(tmp_path):
    draw = np.random.default_rng(0)
    optical = draw.integers(0, 256, (1056, 1056, 3), dtype=np.uint8)
    grey = draw.integers(0, 256, (352, 352), dtype=np.uint8)
    enlarged = np.asarray(Image.fromarray(grey).resize((1056, 1056), Image.Resampling.BILINEAR))

    pictures = {Modality.DEM: picture_bytes(grey), Modality.S2L2A: picture_bytes(optical)}
    patches = cut(scene_of(tmp_path, pictures), Split.TRAIN).patches

    np.testing.assert_array_equal(patches[0].pixels[Modality.S2L2A], optical[16:272, 16:272])
    np.testing.assert_array_equal(patches[0].pixels[Modality.DEM][..., 0], enlarged[16:272, 16:272])
    usual = shift(georeferencing_of(product()), windows(BETA, (1068, 1068), 256)[0])
    assert patches[0].georeferencing.transform == pytest.approx(usual.transform)


def test_a_patch_of_an_odd_picture_lies_half_a_pixel_off(tmp_path):
    pixels = np.zeros((1069, 1067, 3), np.uint8)

    middle = Cutting(modalities=(Modality.S1RTC,), center_crop=True)
    (patch,) = cut(scene_of(tmp_path, {Modality.S1RTC: picture_bytes(pixels)}), Split.TRAIN, middle).patches

    usual = shift(georeferencing_of(product()), windows(BETA, (1068, 1068), 256, True)[0]).transform
    top, left = round((1069 - 256) / 2), round((1067 - 256) / 2)
    assert patch.georeferencing.transform[2] - usual[2] == pytest.approx(10 * (left - (1067 - 256) / 2))
    assert usual[5] - patch.georeferencing.transform[5] == pytest.approx(10 * (top - (1069 - 256) / 2))


def test_thumbnails_of_two_grids_are_refused_as_such(tmp_path):
    pictures = {m: np.zeros((side, side, 3), np.uint8) for m, side in ((Modality.S1RTC, 1056), (Modality.S2L2A, 1068))}

    with pytest.raises(BrokenInputError, match="different grids"):
        cut(scene_of(tmp_path, {m: picture_bytes(pixels) for m, pixels in pictures.items()}), Split.TRAIN)


@pytest.mark.parametrize("size", [(356, 356), (128, 128), (1073, 1068), (1100, 1068)])
def test_a_thumbnail_of_another_size_is_refused_with_both_sizes(tmp_path, size):
    height, width = size
    pixels = np.zeros((height, width, 3), np.uint8)

    with pytest.raises(BrokenInputError, match=f"{width} x {height} px, and no tile: these are 1068 x 1068"):
        cut(scene_of(tmp_path, {Modality.S2L2A: picture_bytes(pixels)}), Split.TRAIN)


def test_a_coloured_elevation_is_refused(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (356, 356, 3), dtype=np.uint8)

    with pytest.raises(BrokenInputError, match="coloured"):
        cut(scene_of(tmp_path, {Modality.DEM: picture_bytes(pixels)}), Split.TRAIN)


# -- on the ground ---------------------------------------------------------------------------------------------------


def test_the_corner_of_a_picture_is_right_in_every_zone_and_on_both_hemispheres():
    worst = 0.0
    for zone in range(1, 61):
        for row in (-870, -450, -1, 0, 450, 890):
            lon = zone * 6 - 183 + 2.9  # near the zone's edge, where projections err most
            cell = Cell(row, int(lon * columns_of_row(row) // 360))
            place = footprint(cell)
            there = georeferencing_of(product(cell=cell.name))
            assert there.crs == f"EPSG:{place.epsg}"
            worst = max(worst, abs(there.transform[2] - place.west), abs(there.transform[5] - place.north))
    assert worst < 0.5 * 10  # half a pixel


def test_a_published_row_lies_where_the_archive_says():
    # Core-S2L2A, cell 454U_120R: its centre as printed from the public metadata
    there = georeferencing_of(product(cell="454U_120R", centre_lat=40.82386055223662, centre_lon=14.29270867998482))
    place = footprint(parse_cell("454U_120R"))

    assert there.crs == "EPSG:32633"
    assert there.transform[2] == pytest.approx(place.west, abs=0.01)
    assert there.transform[5] == pytest.approx(place.north, abs=0.01)


def test_a_picture_in_a_neighbouring_zone_is_placed_in_its_own_projection():
    lat, lon = 42.0, 12.2  # zone 33, near its edge to 32
    there = georeferencing_of(product(crs="EPSG:32632", centre_lat=lat, centre_lon=lon))
    a, _, x, _, e, y = there.transform

    back = from_utm(np.array(x + 534 * a), np.array(y + 534 * e), zone=32, south=False)
    assert there.crs == "EPSG:32632"
    assert (float(back[0]), float(back[1])) == pytest.approx((lat, lon), abs=1e-9)


def test_patches_tile_the_picture_on_the_ground():
    whole = georeferencing_of(product())
    _, _, x, _, _, y = whole.transform

    corners = {w.position: shift(whole, w).transform for w in windows(BETA, (1068, 1068), 256)}

    assert corners[0] == (10, 0, x + 220, 0, -10, y - 220)
    assert corners[7] == (10, 0, x + 220 + 3 * 2560, 0, -10, y - 220 - 2560)
    assert shift(whole, *windows(BETA, (1068, 1068), 256, True)).transform == (10, 0, x + 4060, 0, -10, y - 4060)
    sheared = Georeferencing("EPSG:32633", (10, 1, 5, 2, -10, 7))
    assert shift(sheared, Window(0, top=3, left=4)).transform == (10, 1, 5 + 40 + 3, 2, -10, 7 + 8 - 30)


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:32661", "EPSG:32600", "", "EPSG:", "EPSG:326x3"])
def test_a_projection_that_is_not_utm_is_refused(crs):
    with pytest.raises(BrokenInputError, match="not UTM"):
        georeferencing_of(product(crs=crs))


@pytest.mark.parametrize("centre", [{"centre_lat": 91.0}, {"centre_lon": float("nan")}])
def test_a_centre_nowhere_on_earth_is_refused(centre):
    with pytest.raises(BrokenInputError, match="nowhere"):
        georeferencing_of(product(**centre))


def test_the_table_places_every_patch(tmp_path):
    subset = read_subset(write_subset(tmp_path, [CELL]))
    scene = subset.scenes[0]

    table = pq.read_table(
        pa.BufferReader(patch_table([CellFacts(scene)], Cutting(modalities=subset.modalities)))
    ).to_pylist()

    patches = cut(scene, Split.TRAIN).patches
    assert [row["patch"] for row in table] == [patch.name for patch in patches]
    for row, patch in zip(table, patches, strict=True):
        assert (row["grid_cell"], row["patch_num"]) == (CELL, patch.position)
        assert 4 * row["patch_row"] + row["patch_col"] == patch.position
        assert tuple(row[letter] for letter in "abcdef") == patch.georeferencing.transform
        assert row["crs"] == row["s1_rtc_crs"] == "EPSG:32633"
        assert row["s2_l1c_product_id"] == scene.products[Modality.S2L1C].product_id
        assert row["s2_l1c_timestamp"] == scene.products[Modality.S2L1C].timestamp
        east, north = to_utm(np.array(row["centre_lat"]), np.array(row["centre_lon"]), zone=33, south=False)
        assert float(east) == pytest.approx(row["c"] + 1280, abs=1e-3)
        assert float(north) == pytest.approx(row["f"] - 1280, abs=1e-3)


def test_each_modality_keeps_its_own_place_in_the_table():
    scene = Scene(CELL, {Modality.DEM: product(Modality.DEM), Modality.S2L2A: product(crs="EPSG:32632")}, {})

    table = pq.read_table(
        pa.BufferReader(patch_table([CellFacts(scene)], Cutting(modalities=tuple(scene.products), center_crop=True)))
    ).to_pylist()

    (row,) = table
    assert (row["crs"], row["dem_crs"], row["s2_l2a_crs"]) == ("EPSG:32633", "EPSG:32633", "EPSG:32632")
    assert row["dem_c"] == row["c"] != row["s2_l2a_c"]
    assert row["patch"] == f"{CELL}_center"
    assert row["patch_num"] is None


# -- which cells -----------------------------------------------------------------------------------------------------


def test_only_cells_of_every_source_are_scenes_and_the_others_are_named(tmp_path):
    write_subset(tmp_path, CELLS, size=24)
    write_subset(tmp_path, CELLS[:2], modalities=[Modality.S1RTC], size=24)

    subset = read_subset(tmp_path)

    assert [scene.cell for scene in subset.scenes] == list(CELLS[:2])
    assert subset.incomplete == {CELLS[2]: "not in Core-S1RTC"}


def test_two_modalities_are_enough(tmp_path):
    subset = read_subset(write_subset(tmp_path, modalities=[Modality.S2L2A, Modality.DEM], size=24))

    assert subset.modalities == (Modality.DEM, Modality.S2L2A)
    assert len(subset.scenes) == 3


def test_a_cell_listed_twice_counts_once_by_its_latest_product():
    early, late = product(timestamp="20180101T000000"), product(timestamp="20200101T000000")
    twice = [product(crs="EPSG:32632", part_row=1), product(crs="EPSG:32633", part_row=0)]

    assert choose([late, early]) == choose([early, late]) == {CELL: late}
    assert choose(twice) == choose(twice[::-1])


@pytest.mark.parametrize("column", ["grid_cell", "crs", "centre_lat", "product_id"])
def test_an_index_without_a_column_is_named_with_the_column(tmp_path, column):
    write_subset(tmp_path, [CELL], size=24)
    index = subset_index(tmp_path, Modality.S2L2A)
    pq.write_table(pq.read_table(index).drop_columns([column]), index)

    with pytest.raises(BrokenInputError, match=f"Core-S2L2A.*no column {column}"):
        read_subset(tmp_path)


def test_an_index_that_is_no_table_is_named(tmp_path):
    write_subset(tmp_path, [CELL], size=24)
    subset_index(tmp_path, Modality.DEM).write_bytes(b"PAR1 and nothing else")

    with pytest.raises(BrokenInputError, match="Core-DEM"):
        read_subset(tmp_path)


def test_a_folder_without_an_index_says_what_to_run(tmp_path):
    with pytest.raises(MissingInputError) as caught:
        read_subset(tmp_path)
    assert "copgen download" in caught.value.hint


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "a\\b", "a\nb", "a\x00", "x" * 300])
def test_names_that_could_leave_their_folder_are_refused(tmp_path, name):
    write_subset(tmp_path, [CELL], size=24)
    index = subset_index(tmp_path, Modality.S2L2A)
    table = pq.read_table(index)
    for column, refused in (("product_id", CELL), ("grid_cell", name)):
        pq.write_table(table.set_column(table.column_names.index(column), column, pa.array([name])), index)
        assert refused in read_subset(tmp_path).refused
    assert not is_plain_name(name)
    assert thumbnail_file(tmp_path, CELL, Modality.S2L2A).is_file()
