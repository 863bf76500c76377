"""Where a map lies: areas as people have them, and the pixels that cover them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio
import shapely
from hypothesis import given, settings, strategies as st
from rasterio.transform import Affine
from rasterio.warp import transform

from copgen_cli.archive import from_utm, to_utm, utm_zone
from copgen_cli.errors import BrokenInputError, CopgenError, MismatchError, UsageError
from copgen_cli.modalities import Modality
from copgen_cli.places.area import Area, area_of_box, area_of_cell, read_area
from copgen_cli.places.grid import Grid, crop_to_area, extent_of_raster, grid_of_area, grid_of_raster
from copgen_cli.places.layers import open_raster
from copgen_cli.rasters import find_bands
from copgen_cli.records import Georeferencing

ROME = [[12.45, 41.85], [12.55, 41.85], [12.55, 41.95], [12.45, 41.95], [12.45, 41.85]]


def geojson(path, *shapes):
    features = [{"type": "Feature", "properties": {}, "geometry": shape} for shape in shapes]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def polygon(ring):
    return {"type": "Polygon", "coordinates": [ring]}


def raster(path, *, crs, affine, size=(60, 80), dtype="uint16", count=3):
    with rasterio.open(
        path, "w", driver="GTiff", width=size[1], height=size[0], count=count, dtype=dtype, crs=crs, transform=affine
    ) as file:
        file.write(np.full((count, *size), 700, dtype))
    return path


@pytest.mark.parametrize("zone", range(1, 61))
@pytest.mark.parametrize("latitude", [-61.5, -0.3, 0.3, 47.2, 71.0])
def test_corners_lie_where_they_belong_in_every_zone_and_on_both_hemispheres(zone, latitude):
    longitude = zone * 6 - 183 + 1.7
    grid = grid_of_area(area_of_box(longitude, latitude, longitude + 0.04, latitude + 0.02))

    south = latitude < 0
    expected = utm_zone(latitude + 0.01, longitude + 0.02)
    assert grid.place.crs == f"EPSG:{(32700 if south else 32600) + expected}"
    columns, rows = np.array([0, grid.width, 0, grid.width]), np.array([0, 0, grid.height, grid.height])
    xs, ys = grid.place.to_ground(columns, rows)
    ours = from_utm(np.asarray(xs), np.asarray(ys), zone=expected, south=south)
    gdal_lon, gdal_lat = transform(grid.place.crs, "EPSG:4326", xs, ys)
    east, north = to_utm(np.array(gdal_lat), np.array(gdal_lon), zone=expected, south=south)
    assert np.hypot(east - xs, north - ys).max() < 0.5 * 10 / 100  # half a pixel; it is millimetres
    assert ours[0].min() <= latitude <= latitude + 0.02 <= ours[0].max()
    assert ours[1].min() <= longitude <= longitude + 0.04 <= ours[1].max()


@given(st.floats(-170, 170), st.floats(-75, 80), st.floats(0.005, 0.3))
@settings(max_examples=60, deadline=None)
def test_a_grid_covers_its_area_and_hardly_more(west, south, size):
    area = area_of_box(west, south, west + size, south + size / 2)
    grid = grid_of_area(area)
    left, bottom, right, top = area.bounds_in(grid.place.crs)
    low_x, low_y, high_x, high_y = grid.bounds

    assert low_x <= left + 1e-6
    assert low_y <= bottom + 1e-6
    assert high_x >= right - 1e-6
    assert high_y >= top - 1e-6
    assert max(left - low_x, bottom - low_y, high_x - right, high_y - top) <= 80
    assert low_x % 80 == low_y % 80 == 0


def test_a_rotated_raster_of_ten_metres_is_its_own_grid(tmp_path):
    affine = Affine.translation(500_000, 4_600_000) @ Affine.rotation(17) @ Affine.scale(10, -10)
    file = raster(tmp_path / "a.tif", crs="EPSG:32633", affine=affine)

    grid = grid_of_raster(find_bands([file], Modality.S2L2A))

    assert grid is not None
    assert grid.affine.almost_equals(affine)
    assert (grid.width, grid.height) == (80, 60)


@pytest.mark.parametrize(
    ("crs", "affine"),
    [
        ("EPSG:4326", Affine(1e-4, 0, 12.5, 0, -1e-4, 41.9)),
        ("EPSG:32633", Affine(20, 0, 5e5, 0, -20, 46e5)),
        ("EPSG:3857", Affine(10, 0, 1_400_000, 0, -10, 5_150_000)),
    ],
)
def test_a_raster_in_degrees_or_of_other_pixels_gets_a_grid_of_its_zone(tmp_path, crs, affine):
    bands = find_bands([raster(tmp_path / "a.tif", crs=crs, affine=affine)], Modality.S2L2A)

    assert grid_of_raster(bands) is None
    area = extent_of_raster(bands)
    grid = grid_of_area(area)
    assert grid.place.crs == ("EPSG:32633" if affine.c > 1000 or affine.c >= 12 else "EPSG:32632")
    left, bottom, right, top = area.bounds_in(grid.place.crs)
    assert grid.bounds[0] <= left < right <= grid.bounds[2]
    assert grid.bounds[1] <= bottom < top <= grid.bounds[3]


def test_a_raster_without_a_crs_is_refused_with_how_to_assign_one(tmp_path):
    file = raster(tmp_path / "a.tif", crs=None, affine=Affine(10, 0, 5e5, 0, -10, 46e5))

    with pytest.raises(MismatchError, match="has no CRS") as refused:
        open_raster([file], Modality.S2L2A)

    assert "rio edit-info --crs" in refused.value.hint


def test_an_area_within_a_raster_is_cut_out_of_its_own_pixels(tmp_path):
    affine = Affine(10, 0, 500_003, 0, -10, 4_600_007)
    grid = grid_of_raster(find_bands([raster(tmp_path / "a.tif", crs="EPSG:32633", affine=affine)], Modality.S2L2A))
    assert grid is not None
    inner = Area.of_polygon(grid.part(10, 20, 20, 30).outline(), name="inner")

    part = crop_to_area(grid, inner)

    assert abs(part.place.transform[2] - 500_203) <= 10
    assert (part.place.transform[2] - 500_003) % 10 == 0
    assert 30 <= part.width <= 32


def test_an_area_elsewhere_is_refused(tmp_path):
    affine = Affine(10, 0, 500_000, 0, -10, 4_600_000)
    grid = grid_of_raster(find_bands([raster(tmp_path / "a.tif", crs="EPSG:32633", affine=affine)], Modality.S2L2A))
    assert grid is not None

    with pytest.raises(UsageError, match="no ground in common"):
        crop_to_area(grid, area_of_box(1, 41, 1.1, 41.1))


@pytest.mark.parametrize("box", [(179.5, 0, -179.5, 1), (170, 0, 181, 1)])
def test_a_box_across_the_antimeridian_is_refused_in_words(box):
    with pytest.raises(UsageError, match=r"antimeridian|leaves the globe"):
        area_of_box(*box)


def test_a_polygon_across_the_antimeridian_is_refused_in_words(tmp_path):
    ring = [[-179.5, 0], [179.5, 0], [179.5, 1], [-179.5, 1], [-179.5, 0]]

    with pytest.raises(UsageError, match="antimeridian"):
        read_area(geojson(tmp_path / "a.geojson", polygon(ring)))


def test_an_area_at_a_pole_is_refused_with_what_to_do():
    with pytest.raises(UsageError, match="UTM has no zones") as refused:
        grid_of_area(area_of_box(10, 84.5, 12, 85))

    assert "--crs EPSG:3995" in refused.value.hint
    assert grid_of_area(area_of_box(10, 84.5, 10.2, 84.6), "EPSG:3995").place.crs == "EPSG:3995"


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:2229", "nonsense"])
def test_a_projection_that_is_not_in_metres_is_refused(crs):
    with pytest.raises(UsageError, match="--crs"):
        grid_of_area(area_of_box(12, 41, 12.1, 41.1), crs)


def test_files_of_shapes_are_read_whatever_their_crs(tmp_path):
    import pyogrio.raw

    shape = shapely.box(500_000, 4_600_000, 503_000, 4_602_000)
    file = tmp_path / "area.gpkg"
    pyogrio.raw.write(
        file, np.array([shape.wkb], object), field_data=[], fields=[], crs="EPSG:32633", geometry_type="Polygon",
        driver="GPKG",
    )  # fmt: skip

    area = read_area(file)

    left, bottom, right, top = area.bounds_in("EPSG:32633")
    assert (left, bottom, right, top) == pytest.approx((500_000, 4_600_000, 503_000, 4_602_000), abs=0.2)


def test_a_shape_that_crosses_itself_is_repaired_and_that_is_said(tmp_path):
    bow = [[12.4, 41.8], [12.5, 41.9], [12.5, 41.8], [12.4, 41.9], [12.4, 41.8]]

    area = read_area(geojson(tmp_path / "bow.geojson", polygon(bow)))

    assert "repaired" in area.notes[0]
    assert shapely.geometry.shape(area.polygon).is_valid
    assert area.bounds == pytest.approx((12.4, 41.8, 12.5, 41.9))


@pytest.mark.parametrize(
    ("box", "crs"),
    [
        ((100, 0, 101, 1), "EPSG:32633"),
        ((-80, 0, -79, 1), "EPSG:32633"),
        ((-80, -70, 80, 80), None),
        ((-20, 0, 30, 10), None),
    ],
)
def test_an_area_that_a_projection_does_not_reach_is_refused(box, crs):
    with pytest.raises(UsageError, match=r"does not reach|on the ground in a part"):
        grid_of_area(area_of_box(*box), crs)


def test_a_projection_is_called_by_its_code_however_it_is_written():
    assert grid_of_area(area_of_box(12, 41, 12.1, 41.1), "epsg:32633").place.crs == "EPSG:32633"


def test_a_point_beside_a_polygon_gets_ground_of_its_own(tmp_path):
    file = geojson(tmp_path / "a.geojson", polygon(ROME), {"type": "Point", "coordinates": [12.8, 41.9]})

    assert read_area(file).bounds[2] == pytest.approx(12.8 + 0.0154, abs=1e-3)


def test_a_table_without_shapes_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text("x,y\n1,2\n")

    with pytest.raises(BrokenInputError, match="no shape"):
        read_area(tmp_path / "a.csv")


def test_outlines_go_round_counter_clockwise_whichever_way_a_grid_lies():
    for affine in (Affine(10, 0, 5e5, 0, -10, 46e5), Affine(10, 0, 5e5, 0, 10, 46e5)):
        ring = Grid(Georeferencing("EPSG:32633", tuple(affine)[:6]), 90, 60).outline()["coordinates"][0]
        assert shapely.LinearRing(ring).is_ccw


def test_a_point_gets_ground_around_it(tmp_path):
    area = read_area(geojson(tmp_path / "p.geojson", {"type": "Point", "coordinates": [12.5, 41.9]}))
    grid = grid_of_area(area)

    assert 256 <= grid.width <= 275
    assert 256 <= grid.height <= 275


@pytest.mark.parametrize("content", ["", "{}", '{"type": "FeatureCollection", "features": []}', "no shapes at all"])
def test_a_file_without_shapes_is_refused_in_one_line(tmp_path, content):
    file = tmp_path / "a.geojson"
    file.write_text(content)

    with pytest.raises((BrokenInputError, UsageError)) as refused:
        read_area(file)

    assert "\n" not in str(refused.value)


def test_without_the_packages_for_shapes_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyogrio", None)

    with pytest.raises(CopgenError) as refused:
        read_area(geojson(tmp_path / "a.geojson", polygon(ROME)))

    assert "copgen[scene]" in refused.value.hint


def test_a_cells_area_is_the_ground_of_its_pictures():
    area = area_of_cell("465U_103R")
    left, bottom, right, top = area.bounds_in("EPSG:32633")

    assert (right - left, top - bottom) == pytest.approx((10_680, 10_680), abs=3)  # edges are straight in degrees
