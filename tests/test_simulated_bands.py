"""The raw bands of a simulated cell: what the thumbnails were made of, at true size, and what no picture shows."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
from numpy.testing import assert_array_equal
from PIL import Image

from copgen_cli.archive.grid import Footprint, footprint, parse_cell
from copgen_cli.modalities import PUBLISHED, Modality, as_jpeg, false_colour, hillshade, true_colour
from copgen_cli.simulation.archive import write_archive
from copgen_cli.simulation.atmosphere import Sun, cirrus_reflectance, clouds_over
from copgen_cli.simulation.bands.columns import (
    CLEAR,
    LAND_COVER,
    SHADOW,
    THICK,
    THIN,
    cloud_mask,
    optical_columns,
    radar_columns,
)
from copgen_cli.simulation.bands.spectra import BANDS, DRY, MOIST, ROOFS
from copgen_cli.simulation.landcover import Cover
from copgen_cli.simulation.world import days_between, optical_pass_of, radar_pass_of, truth_of, view_optical, view_radar

CELL, SEED = "455U_306R", 0  # woods, fields, bare ground and a lake in July, under a few clouds
OPTICAL = (Modality.S2L1C, Modality.S2L2A)
SIDES = {10: 1068, 20: 534, 60: 178}


@dataclass(frozen=True)
class Raster:
    values: np.ndarray
    dtype: str
    crs: str
    transform: tuple[float, ...]
    nodata: float | None
    compression: str


def read(data: bytes) -> Raster:
    with rasterio.open(io.BytesIO(data)) as dataset:
        assert dataset.count == 1
        return Raster(
            dataset.read(1),
            dataset.dtypes[0],
            dataset.crs.to_string(),
            tuple(dataset.transform)[:6],
            dataset.nodata,
            dataset.profile["compress"],
        )


def product_of(root: Path, source: Modality) -> dict:
    folder = root / "datasets" / "Major-TOM" / source.source.name / "resolve" / "main"
    (product,) = pq.read_table(folder / "images" / "part_00001.parquet").to_pylist()
    (about,) = pq.read_table(folder / "metadata.parquet").to_pylist()
    return about | product


def thumbnail_of(product: dict) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(product["thumbnail"])))


def mean_difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(float) - other).mean())


@pytest.fixture(scope="module")
def earth(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("earth")
    assert list(write_archive(root, [CELL], SEED, gaps=None, bands=True)) == [CELL]
    return root


@pytest.fixture(scope="module")
def products(earth) -> dict[Modality, dict]:
    return {source: product_of(earth, source) for source in PUBLISHED}


@pytest.fixture(scope="module")
def rasters(products) -> dict[Modality, dict[str, Raster]]:
    """Of each source, by column."""
    return {
        source: {name: read(products[source][name]) for name in source.source.columns if name != "compressed"}
        for source in PUBLISHED
    }


@pytest.fixture(scope="module")
def land_cover(earth) -> Raster:
    return read((earth / "land_cover" / f"{CELL}.tif").read_bytes())


@pytest.fixture(scope="module")
def place() -> Footprint:
    return footprint(parse_cell(CELL))


# -- the form ----------------------------------------------------------------------------------------------------------


def must_lie(raster: Raster, place: Footprint, *, side: int, dtype: str, nodata: float | None) -> None:
    assert raster.values.shape == (side, side)
    assert raster.dtype == dtype
    assert raster.nodata == nodata
    assert raster.crs == f"EPSG:{place.epsg}"
    assert raster.transform == (10_680 / side, 0, place.west, 0, -10_680 / side, place.north)
    assert raster.compression == "deflate"


@pytest.mark.parametrize("source", OPTICAL)
def test_reflectance_has_the_size_type_and_place_of_its_band(rasters, place, source):
    metres = {name: band.metres for name, band in BANDS.items()} | {"B10": 60}
    names = [name for name in source.source.columns if name != "cloud_mask"]

    assert len(names) == (13 if source is Modality.S2L1C else 12)
    for name in names:
        must_lie(rasters[source][name], place, side=SIDES[metres[name]], dtype="uint16", nodata=0)
        assert rasters[source][name].values.min() > 0  # no edge of a swath here


def test_the_other_columns_have_their_size_type_and_place(rasters, land_cover, place):
    for source in OPTICAL:
        must_lie(rasters[source]["cloud_mask"], place, side=1068, dtype="uint8", nodata=None)
    for name in ("vv", "vh"):
        must_lie(rasters[Modality.S1RTC][name], place, side=1068, dtype="float32", nodata=-32768)
    must_lie(rasters[Modality.DEM]["DEM"], place, side=356, dtype="float32", nodata=-32767)
    must_lie(land_cover, place, side=1068, dtype="uint8", nodata=0)


def test_bands_beyond_the_edge_of_a_swath_have_no_data_and_are_clear():
    truth = truth_of("463U_102R", 0, size=240)
    visit = replace(optical_pass_of(truth.cell, truth.place, 0), nodata=0.3, cloud_cover=0.2)
    radar = replace(radar_pass_of(truth.cell, 0), nodata=0.2)

    optical_view, radar_view = view_optical(truth, visit, 0, bands=len(BANDS)), view_radar(truth, radar, 0)
    optical = optical_columns(optical_view, Modality.S2L1C, truth.place)
    power = radar_columns(radar_view, truth.place)

    for name in ("B04", "B11", "B10"):
        assert (read(optical[name]).values == 0).mean() == pytest.approx(visit.nodata, abs=0.02)
    assert_array_equal(read(optical["B04"]).values == 0, optical_view.beyond)
    assert (read(optical["cloud_mask"]).values[optical_view.beyond] == CLEAR).all()
    for name in ("vv", "vh"):
        assert_array_equal(read(power[name]).values == -32768, radar_view.beyond)


# -- what stands behind the thumbnails ---------------------------------------------------------------------------------


@pytest.mark.parametrize("source", OPTICAL)
def test_red_green_and_blue_give_the_thumbnail_of_sentinel_2(rasters, products, source):
    colours = np.stack([rasters[source][name].values for name in ("B04", "B03", "B02")])

    rendered = true_colour(colours.astype(np.float32) / 10_000)

    assert mean_difference(rendered, thumbnail_of(products[source])) < 2.2  # of which JPEG makes 1.9
    middles = (colours + np.float32(0.5)) / 10_000  # of whole numbers, so that rounding can't matter
    assert as_jpeg(true_colour(middles)) == products[source]["thumbnail"]
    for other in (rendered[..., ::-1], np.roll(rendered, 2, axis=1)):  # neither swapped nor shifted
        assert mean_difference(other, thumbnail_of(products[source])) > 3


def test_power_gives_the_thumbnail_of_sentinel_1(rasters, products):
    vv, vh = (rasters[Modality.S1RTC][name].values for name in ("vv", "vh"))

    rendered, thumbnail = false_colour(vv, vh), thumbnail_of(products[Modality.S1RTC])

    assert mean_difference(rendered, thumbnail) < 1
    middle = slice(54, -54)
    assert mean_difference(rendered[middle, middle], thumbnail[middle, middle]) < 1


def test_heights_give_the_thumbnail_of_the_elevation(rasters, products):
    height = rasters[Modality.DEM]["DEM"].values

    assert mean_difference(hillshade(height), thumbnail_of(products[Modality.DEM])) < 1
    assert (height.min(), height.max()) == pytest.approx(
        (products[Modality.DEM]["min_val"], products[Modality.DEM]["max_val"])
    )


def test_without_bands_the_pictures_are_the_same_and_the_columns_null(tmp_path, products):
    list(write_archive(tmp_path, [CELL], SEED, gaps=None))

    for source in PUBLISHED:
        plain = product_of(tmp_path, source)
        with_bands = products[source]
        raw = [name for name in source.source.columns if name != "compressed"]
        assert plain == with_bands | dict.fromkeys(raw)
    assert not (tmp_path / "land_cover").exists()


# -- what no picture shows ---------------------------------------------------------------------------------------------


def ground(land_cover: Raster, rasters: dict[Modality, dict[str, Raster]], *classes: int) -> np.ndarray:
    """(1068, 1068) whether a pixel is of these classes, and no cloud or shadow lies on it."""
    return np.isin(land_cover.values, classes) & (rasters[Modality.S2L2A]["cloud_mask"].values == CLEAR)


@pytest.mark.parametrize("source", OPTICAL)
def test_woods_are_greener_than_crops_bare_ground_and_water(rasters, land_cover, source):
    red, near = (rasters[source][name].values.astype(float) for name in ("B04", "B08"))
    index = (near - red) / (near + red)

    woods, crops, bare, water = (
        float(np.median(index[ground(land_cover, rasters, number)])) for number in (2, 5, 8, 1)
    )

    assert woods > crops > bare > water
    assert woods > 0.6 * (1 if source is Modality.S2L2A else 0.6)
    assert bare < 0.3
    assert water < 0


def test_water_is_dark_in_the_near_infrared_and_darker_beyond(rasters, land_cover):
    bands = rasters[Modality.S2L2A]
    water, land = ground(land_cover, rasters, 1), ground(land_cover, rasters, 2, 5, 8, 11)

    assert water.sum() > 10_000
    assert np.median(bands["B08"].values[water]) < 250
    assert np.median(bands["B08"].values[land]) > 1200
    half = bands["B11"].values.repeat(2, axis=0).repeat(2, axis=1)
    assert np.median(half[water]) < np.median(bands["B08"].values[water])


def test_leaves_rise_over_the_red_edge_and_fall_where_their_water_absorbs(rasters, land_cover):
    bands = rasters[Modality.S2L2A]
    woods = ground(land_cover, rasters, 2).reshape(534, 2, 534, 2).all(axis=(1, 3))

    red_edge = [float(np.median(bands[name].values[woods])) for name in ("B05", "B06", "B07", "B8A")]
    shortwave = [float(np.median(bands[name].values[woods])) for name in ("B8A", "B11", "B12")]

    assert red_edge == sorted(red_edge)
    assert red_edge[-1] > 2 * red_edge[0]
    assert shortwave == sorted(shortwave, reverse=True)


def test_the_air_adds_blue_and_takes_the_light_of_vapour(rasters, land_cover):
    top, surface = rasters[Modality.S2L1C], rasters[Modality.S2L2A]
    woods = ground(land_cover, rasters, 2)

    def gain(name: str) -> float:
        there = woods if top[name].values.shape == woods.shape else woods[3::6, 3::6]
        return float(np.median(top[name].values[there].astype(float) - surface[name].values[there]))

    assert gain("B02") > gain("B03") > gain("B04") > gain("B08")
    assert gain("B01") > gain("B02") > 200
    assert np.median(top["B09"].values) < 0.6 * np.median(surface["B09"].values)
    assert np.median(top["B10"].values) < 30
    assert "B10" not in surface


def test_the_cloud_mask_covers_what_the_table_says_and_is_alike_at_both_levels(rasters, products):
    mask = rasters[Modality.S2L2A]["cloud_mask"].values
    cover = products[Modality.S2L2A]["cloud_cover"]

    assert cover > 3
    assert 100 * np.isin(mask, (THICK, THIN)).mean() == pytest.approx(cover, abs=1)
    assert set(np.unique(mask)) <= {CLEAR, THICK, THIN, SHADOW}
    assert_array_equal(mask, rasters[Modality.S2L1C]["cloud_mask"].values)
    blue = rasters[Modality.S2L2A]["B02"].values
    assert np.median(blue[mask == THIN]) > 1.5 * np.median(blue[mask == CLEAR])


@pytest.mark.parametrize("cover", [0.02, 0.1, 0.25])
def test_masks_of_clouds_of_every_kind_cover_their_share_and_cirrus_is_thin(cover):
    clouds = [clouds_over(1068, 10.0, cover, Sun(0.8, 2.5), "a word", number) for number in range(6)]

    masks = [cloud_mask(1068, each, None) for each in clouds]

    assert {each.is_cirrus for each in clouds} == {True, False}
    for each, mask in zip(clouds, masks, strict=True):
        assert np.isin(mask, (THICK, THIN)).mean() == pytest.approx(cover, abs=0.025)
        assert (mask == SHADOW).mean() < 1.8 * cover
        assert bool((mask == THICK).any()) is not each.is_cirrus
        assert bool((cirrus_reflectance(1068, each)[mask == THIN] > 0.005).all()) is each.is_cirrus  # B10


def test_thick_clouds_are_brighter_than_thin_ones_and_shadows_darker_than_sunlit_ground():
    truth = truth_of("463U_102R", 0, size=240)
    summer = days_between(datetime(2020, 6, 1), datetime(2020, 8, 31))
    for number in range(4):
        visit = optical_pass_of(truth.cell, truth.place, 0, number, days=summer, clear=True)
        sunlit = view_optical(truth, replace(visit, cloud_cover=0.0), 0).l2a_bands
        view = view_optical(truth, replace(visit, cloud_cover=0.2), 0)
        mask = cloud_mask(240, view.clouds, None)

        change = {value: float(np.median((view.l2a_bands / sunlit)[:, mask == value])) for value in np.unique(mask)}
        assert change[CLEAR] == pytest.approx(1, abs=0.03)
        assert change[SHADOW] < 0.9
        assert change.get(THICK, 99.0) > change[THIN] > 1.2


def test_land_cover_has_values_of_the_table_where_the_kinds_of_ground_are(land_cover):
    truth = truth_of(CELL, SEED)

    assert set(LAND_COVER) == set(Cover)
    assert set(LAND_COVER.values()) <= set(Modality("land_cover").spec.class_values) - {0}
    assert len(np.unique(land_cover.values)) >= 6
    for cover, value in LAND_COVER.items():
        assert (land_cover.values[truth.land.cover == cover] == value).all(), cover


def test_every_kind_of_ground_has_a_spectrum_that_nature_allows():
    tables = [np.array(list(MOIST.values())), np.array(list(DRY.values())), ROOFS]

    assert set(MOIST) == set(Cover) - {Cover.FIELD, Cover.BUILT}
    assert set(DRY) < set(MOIST)
    for table in tables:
        assert table.shape[1] == len(BANDS)
        assert (table > 0).all()
        assert (table < 0.85).all()


def test_the_same_seed_gives_the_same_bands_in_another_place_of_a_part(tmp_path):
    neighbours = ["454U_306R", CELL]
    list(write_archive(tmp_path / "two", neighbours, SEED, size=96, gaps=None, bands=True, cells_per_part=2))
    list(write_archive(tmp_path / "one", [CELL], SEED, size=96, gaps=None, bands=True))

    for source in PUBLISHED:
        path = f"datasets/Major-TOM/{source.source.name}/resolve/main/images/part_00001.parquet"
        two, one = (pq.read_table(tmp_path / root / path).to_pylist() for root in ("two", "one"))
        assert two[1] == one[0]
    one, two = (tmp_path / root / "land_cover" / f"{CELL}.tif" for root in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
