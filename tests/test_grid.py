"""The Major TOM grid: names, corners, footprints and UTM, checked against published rows."""

from __future__ import annotations

import math

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings, strategies as st
from numpy.testing import assert_allclose

from copgen_cli.archive.grid import (
    FOOTPRINT_METRES,
    Cell,
    cells_in_box,
    central_meridian,
    columns_in_row,
    columns_of_row,
    footprint,
    from_utm,
    parse_cell,
    to_utm,
    utm_zone,
)
from copgen_cli.errors import UsageError

ROME = (12.2, 41.6, 13.0, 42.2)


def test_a_published_row_lies_where_it_says():
    place = footprint(parse_cell("454U_120R"))

    assert_allclose([place.centre_lat, place.centre_lon], [40.82386055223662, 14.29270867998482], rtol=0, atol=1e-12)
    assert place.epsg == 32633


def test_rows_of_both_hemispheres_lie_where_their_tables_say(shared):
    rows = []
    for source in ("Core-S2L2A", "Core-DEM"):
        index = (
            shared / "sample_data" / "majortom" / "datasets" / "Major-TOM" / source / "resolve/main/metadata.parquet"
        )
        rows += pq.read_table(index).to_pylist()
    assert rows

    for row in rows:
        cell = parse_cell(row["grid_cell"])
        place = footprint(cell)

        assert (cell.row, cell.col) == (row["grid_row_u"], row["grid_col_r"])
        assert_allclose([place.centre_lat, place.centre_lon], [row["centre_lat"], row["centre_lon"]], atol=1e-9)
        assert row["crs"] == f"EPSG:{place.epsg}"


def test_the_rome_box_holds_47_centres_in_seven_rows_and_columns():
    cells = list(cells_in_box(*ROME))

    assert len(cells) == 47
    assert {cell.row for cell in cells} == set(range(463, 470))
    assert {cell.col for cell in cells} == set(range(101, 108))
    assert cells == sorted(cells)


@pytest.mark.parametrize("box", [(13, 41, 12, 42), (12, 42, 13, 41), (-190, 0, 0, 1), (0, 0, 1, 91)])
def test_a_box_that_is_empty_or_leaves_the_globe_is_refused(box):
    with pytest.raises(UsageError, match="box"):
        list(cells_in_box(*box))


def test_a_box_across_the_equator_and_greenwich_holds_all_four_quadrants():
    names = [cell.name for cell in cells_in_box(-0.1, -0.1, 0.1, 0.1)]

    assert names == ["1D_1L", "1D_0R", "0U_1L", "0U_0R"]


def test_a_box_may_cross_the_antimeridian():
    cells = list(cells_in_box(179.9, -17, -179.9, -16.9))

    names = [cell.name for cell in cells]
    assert {name[-1] for name in names} == {"L", "R"}
    assert set(cells) == {*cells_in_box(179.9, -17, 180, -16.9), *cells_in_box(-180, -17, -179.9, -16.9)}
    assert cells == sorted(cells)


def test_a_corner_on_the_edge_of_a_zone_is_rounded_as_in_the_published_grid():
    """numpy.linspace(-180, 180, n + 1), taken modulo 360, less 180."""
    for row in (-794, -581, 12, 502, 794, 800, 895):
        count = columns_of_row(row)
        published = np.sort(np.mod(np.linspace(-180, 180, count + 1)[:-1], 360) - 180)
        ours = [Cell(row, col).corner[1] for col in columns_in_row(row)]
        assert ours == published.tolist()


def test_the_grid_has_each_corner_in_the_zone_of_its_published_longitude():
    wrong = []
    for row in range(-890, 930):
        count = columns_of_row(row)
        for edge in range(-180, 180, 6):
            col = round(edge * count / 360)
            if col * 360 == edge * count and col in columns_in_row(row):
                lat, lon = Cell(row, col).corner
                if utm_zone(lat, lon) != utm_zone(lat, float(edge)):
                    wrong.append((row, lon))
    assert 100 <= len(wrong) <= 130  # where the published longitude is a hair west of the edge, such as
    assert -120.00000000000003 in {lon for _, lon in wrong}


@pytest.mark.parametrize("name", ["794U_642R", "794D_642R", "502U_1415R", "800D_624R"])
def test_the_last_cell_of_twelve_rows_begins_at_180_degrees(name):
    cell = parse_cell(name)

    assert cell.corner[1] == 180.0
    assert footprint(cell).zone == 1
    with pytest.raises(UsageError):
        parse_cell(name.replace("R", "L"))


@given(st.integers(-1000, 1000), st.integers(-500, 500))
def test_names_and_cells_are_one_to_one(row, col):
    if col in columns_in_row(row):
        assert parse_cell(Cell(row, col).name) == Cell(row, col)


@pytest.mark.parametrize(
    "name", ["", "454U", "454U_120", "454N_120R", "-454U_120R", "454U_120R/..", "1002U_0R", "0U_2004R"]
)
def test_what_is_no_cell_is_refused_with_an_example(name):
    with pytest.raises(UsageError) as caught:
        parse_cell(name)

    assert caught.value.hint


def test_columns_go_once_around_the_earth_in_steps_of_at_most_ten_kilometres():
    assert columns_of_row(0) == 4008
    for row in (0, 500, -900, 1001):
        around = 2 * math.pi * 6378.137 * math.cos(math.radians(row * 180 / 2004))
        assert around / columns_of_row(row) <= 10


@pytest.mark.parametrize(
    ("lat", "lon", "zone"),
    [(41.9, 12.5, 33), (0, -180, 1), (0, 179.9, 60), (60, 4, 32), (60, 2, 31), (78, 8, 31), (78, 15, 33), (78, 41, 37)],
)
def test_zones_follow_the_meridians_but_for_norway_and_svalbard(lat, lon, zone):
    assert utm_zone(lat, lon) == zone


@settings(max_examples=50, deadline=None)
@given(st.floats(-80, 84), st.floats(-4, 4), st.integers(1, 60))
def test_projecting_there_and_back_gives_the_point_again(lat, away, zone):
    lon = (central_meridian(zone) + away + 180) % 360 - 180

    east, north = to_utm(np.array(lat), np.array(lon), zone=zone, south=lat < 0)
    back = from_utm(east, north, zone=zone, south=lat < 0)

    assert_allclose(back[0], lat, atol=1e-10)
    assert abs((back[1] - lon + 180) % 360 - 180) < 1e-10


def test_the_central_meridian_is_the_meridian_arc_shrunk_by_the_scale():
    """WGS 84's quarter meridian is 10 001 965.729 m."""
    east, north = to_utm(np.array(90.0), np.array(15.0), zone=33, south=False)

    assert_allclose([east, north], [500_000, 0.9996 * 10_001_965.729], atol=1e-3)


def test_a_footprint_is_a_square_around_its_centre():
    place = footprint(parse_cell("200D_300L"))
    east, north = to_utm(np.array(place.centre_lat), np.array(place.centre_lon), zone=place.zone, south=place.south)

    assert place.south
    assert place.epsg == 32700 + place.zone
    assert_allclose([east - place.west, place.north - north], FOOTPRINT_METRES / 2, atol=1e-6)
