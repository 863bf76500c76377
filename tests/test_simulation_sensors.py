"""What the sensors of the simulated Earth see: sun, air, clouds, radar, and the rules of the thumbnails."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from datetime import date, datetime, timedelta

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from scipy import ndimage

from copgen_cli.archive.grid import footprint, parse_cell
from copgen_cli.errors import UsageError
from copgen_cli.modalities.render import as_jpeg, as_png, elevation_picture, false_colour, hillshade, true_colour
from copgen_cli.simulation.atmosphere import Air, Sun, at_top_of_atmosphere, clouds_over, sun_at, veiled
from copgen_cli.simulation.climate import climate_of
from copgen_cli.simulation.landcover import Cover
from copgen_cli.simulation.noise import generator_of
from copgen_cli.simulation.optical import cast_shadow, sunlight, through_the_optics
from copgen_cli.simulation.radar import LOOKS, backscatter, slope_effect, speckle
from copgen_cli.simulation.world import (
    ALL_DAYS,
    WORLD_VERSION,
    beyond_swath,
    cells_of_region,
    days_between,
    optical_pass_of,
    radar_pass_of,
    simulate_cell,
    truth_of,
    view_optical,
)

SIZE = 240


@pytest.fixture(scope="module")
def cells():
    return [simulate_cell(cell, 0, size=SIZE) for cell in cells_of_region((-120, -50, 150, 70), 12, seed=0)]


@pytest.fixture
def bumps() -> np.ndarray:
    field = np.random.default_rng(1).standard_normal((90, 90))
    return (ndimage.gaussian_filter(field, 5) * 400).astype(np.float32)


# -- the rules of the thumbnails ---------------------------------------------------------------------------------------


def test_true_colour_follows_the_published_tone_curve():
    reflectance = np.array([0.0, 0.05, 0.3, 0.7], np.float32).reshape(1, 2, 2).repeat(3, axis=0)

    picture = true_colour(reflectance)

    expected = [min(1.3 * value**0.6, 1) * 255 for value in (0, 0.05, 0.3, 0.7)]
    assert_allclose(picture[..., 0].ravel(), np.floor(expected), atol=1)
    assert picture.dtype == np.uint8


def test_false_colour_stretches_decibels_and_adds_them_in_green():
    vv = np.array([[1e-3, 1e-2], [1e-1, 1.0]], np.float32)
    vh = np.array([[1e-4, 1e-4], [1e-2, 1e-2]], np.float32)

    red, green, blue = np.moveaxis(false_colour(vv, vh).astype(int), -1, 0)

    assert_allclose(red, [[0, 85], [170, 255]], atol=1)
    assert_allclose(blue, [[0, 0], [255, 255]], atol=1)
    assert_allclose(green, (red + blue) / 2, atol=1)


def test_pixels_without_data_are_black_and_do_not_stretch_the_others():
    vv = np.array([[1e-9, 1e-2], [1e-1, 1.0]], np.float32)
    without = np.array([[True, False], [False, False]])

    picture = false_colour(vv, vv, without)

    assert_array_equal(picture[0, 0], 0)
    assert_allclose(picture[..., 0], [[0, 0], [127, 255]], atol=1)
    assert_array_equal(true_colour(np.ones((3, 2, 2), np.float32), without)[0, 0], 0)


def test_a_hillshade_is_light_from_the_north_west_stretched_to_all_greys(bumps):
    shade = hillshade(bumps).astype(float)
    down, across = np.gradient(bumps)

    facing = (down + across) / np.sqrt(1 + down**2 + across**2)  # rising southwards and eastwards: towards the sun
    assert np.corrcoef(shade.ravel(), facing.ravel())[0, 1] > 0.9
    assert shade.min() == 0
    assert shade.max() == 255


def test_a_plain_is_a_light_grey_in_a_hillshade_with_steep_slopes():
    """205 in the real pictures: the sun's sine, 0.71, between slopes that look away and slopes that look at it."""
    away = np.linspace(-1, 1, 90) ** 2
    height = (120 * np.exp(-8 * (away[:, None] + away))).astype(np.float32)

    assert hillshade(height)[0, 0] == pytest.approx(209, abs=8)


def test_a_flat_cell_gives_a_hillshade_without_dividing_by_zero():
    assert np.ptp(hillshade(np.zeros((9, 9), np.float32))) == 0
    assert np.ptp(elevation_picture(np.zeros((9, 9), np.float32))) == 0


def test_thumbnails_are_files_of_the_real_kind_and_png_keeps_every_value(cells):
    for cell in cells[:2]:
        for picture, mode in ((cell.dem, "L"), (cell.s1_rtc, "RGB")):
            image = Image.open(io.BytesIO(as_png(picture)))
            assert (image.format, image.mode) == ("PNG", mode)
            assert_array_equal(np.asarray(image), picture)
        image = Image.open(io.BytesIO(as_jpeg(cell.s2_l2a)))
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (SIZE, SIZE))
        assert np.abs(np.asarray(image).astype(int) - cell.s2_l2a).mean() < 6


# -- sun, air, clouds --------------------------------------------------------------------------------------------------


def test_the_sun_stands_in_the_south_east_over_rome_and_in_the_north_east_over_cape_town():
    rome, cape = sun_at(41.9, datetime(2021, 6, 21)), sun_at(-33.9, datetime(2021, 12, 21))

    assert math.degrees(rome.elevation) == pytest.approx(62, abs=3)
    assert 110 < math.degrees(rome.azimuth) < 160
    assert 45 < math.degrees(cape.azimuth) < 90


def test_at_noon_of_the_solstice_the_sun_is_as_high_as_latitude_and_tilt_say():
    sun = sun_at(41.9, datetime(2021, 6, 21), solar_hour=12)

    assert math.degrees(sun.elevation) == pytest.approx(90 - 41.9 + 23.45, abs=0.2)
    assert math.degrees(sun.azimuth) == pytest.approx(180, abs=0.5)


def test_the_air_veils_dark_ground_bluish_and_dims_bright_ground():
    sun, air = Sun(math.radians(50), 2.5), Air(aerosol=0.15, angstrom=1.0)

    dark = at_top_of_atmosphere(np.full((3, 1, 1), 0.02, np.float32), sun, air).ravel()
    bright = at_top_of_atmosphere(np.full((3, 1, 1), 0.6, np.float32), sun, air).ravel()

    assert (dark > 0.02).all()
    assert dark[2] > dark[1] > dark[0]
    assert (bright < 0.6).all()


def test_top_of_atmosphere_pictures_are_bluer_and_flatter_than_those_of_the_surface(cells):
    for cell in cells:
        seen = cell.s2_l2a.any(axis=-1)
        top, surface = cell.s2_l1c[seen].astype(float), cell.s2_l2a[seen].astype(float)
        blueness = [(colours[:, 2] - colours[:, 0]).mean() for colours in (top, surface)]
        assert blueness[0] > blueness[1]
        if surface.mean() < 150:  # snow saturates both
            assert top.std() < surface.std()


def test_clouds_cover_the_share_asked_for_and_throw_their_shadow_away_from_the_sun():
    sun = Sun(math.radians(40), math.radians(150))  # in the south-south-east

    clouds = clouds_over(400, 25.0, 0.12, sun, "a word")

    assert (clouds.opacity > 0.05).mean() == pytest.approx(0.12, abs=0.03)
    spectrum = np.fft.rfft2(clouds.shadow) * np.conj(np.fft.rfft2(clouds.opacity))
    row, col = np.unravel_index(np.argmax(np.fft.irfft2(spectrum)), (400, 400))
    row, col = (row + 200) % 400 - 200, (col + 200) % 400 - 200
    assert row < 0  # northwards
    assert col < 0  # westwards
    assert math.degrees(math.atan2(col, row) % (2 * math.pi)) == pytest.approx(
        180 + 30, abs=5
    )  # of 150 degrees' opposite


def test_a_clear_sky_changes_nothing():
    ground = np.full((3, 8, 8), 0.1, np.float32)

    assert clouds_over(8, 10.0, 0.0, Sun(1.0, 1.0), "x") is None
    assert veiled(ground, None) is ground


def test_slopes_that_face_the_sun_are_lighter_and_a_wall_throws_a_shadow(bumps):
    sun = Sun(math.radians(35), math.radians(135))
    light = sunlight(bumps, 30.0, sun)
    down, across = np.gradient(bumps)
    assert np.corrcoef(light.ravel(), (-across - down).ravel())[0, 1] > 0.8  # faces south-east

    wall = np.zeros((60, 60), np.float32)
    wall[:, 40:] = 300
    shadow = cast_shadow(wall, 30.0, Sun(math.radians(35), math.radians(90)))
    assert shadow[30, 30]
    assert not shadow[30, 5]
    assert not shadow[30, 50]


def test_the_optics_blur_evenly_and_keep_the_light():
    picture = np.zeros((3, 9, 9), np.float32)
    picture[:, 4, 4] = 64

    blurred = through_the_optics(picture.copy())

    assert_allclose(blurred[0, 3:6, 3:6], [[1, 6, 1], [6, 36, 6], [1, 6, 1]])
    assert_allclose(through_the_optics(np.ones((3, 9, 9), np.float32)), 1, atol=1e-6)


# -- radar -------------------------------------------------------------------------------------------------------------


def test_speckle_is_gamma_of_the_stated_looks_and_correlates_over_two_pixels():
    field = speckle(600, generator_of("speckle")).astype(float)

    assert field.mean() == pytest.approx(1, abs=0.01)
    assert field.var() == pytest.approx(1 / LOOKS, rel=0.05)
    fluctuation = field - field.mean()
    correlation = [(fluctuation[:, :-k] * fluctuation[:, k:]).mean() / field.var() for k in (1, 2, 3)]
    assert_allclose(correlation, [2 / 3, 1 / 3, 0], atol=0.03)


def test_slopes_that_face_the_radar_are_brighter(bumps):
    across = np.gradient(bumps, 30.0)[1]

    ascending, descending = slope_effect(bumps, 30.0, ascending=True), slope_effect(bumps, 30.0, ascending=False)

    assert np.corrcoef(ascending.ravel(), across.ravel())[0, 1] > 0.7  # looks east: ground rising eastwards faces it
    assert np.corrcoef(descending.ravel(), across.ravel())[0, 1] < -0.7
    assert_allclose(slope_effect(np.zeros((5, 5), np.float32), 30.0, ascending=True), 0, atol=1e-6)


def test_water_is_dark_in_vh_and_towns_are_bright(cells):
    levels: dict[Cover, list[float]] = {cover: [] for cover in Cover}
    for cell in cells:
        truth = cell.truth
        vv, vh = backscatter(truth.land, truth.height, truth.height_pixel, cell.radar, 0, cell.cell)
        for cover in Cover:
            there = truth.land.cover == cover
            if there.sum() > 300:
                levels[cover].append(10 * np.log10(np.median(vh[there])))
                assert np.median(vv[there]) > np.median(vh[there])

    assert max(levels[Cover.WATER]) < -23
    assert min(levels[Cover.BUILT]) > -14
    for cover in (Cover.BROADLEAF, Cover.CONIFER, Cover.FIELD, Cover.GRASS):
        assert max(levels[Cover.WATER]) < min(levels[cover]) < max(levels[cover]) < min(levels[Cover.BUILT])


# -- all together ------------------------------------------------------------------------------------------------------


def test_all_views_show_the_same_place(cells):
    """Edges coincide: the agreement of edge maps is best where no view is shifted against the other."""
    shifts = (-9, -6, -3, 0, 3, 6, 9)

    def edges(picture: np.ndarray) -> np.ndarray:
        grey = ndimage.gaussian_filter(picture.reshape(*picture.shape[:2], -1).mean(axis=-1), 1.0)
        return ndimage.gaussian_gradient_magnitude(grey, 1.0)

    def agreement(first: np.ndarray, second: np.ndarray, shift: int) -> float:
        moved = np.roll(second, shift, axis=(0, 1))
        return float(np.corrcoef(first[20:-20, 20:-20].ravel(), moved[20:-20, 20:-20].ravel())[0, 1])

    found: dict[str, list[list[float]]] = {"s1_rtc": [], "dem": [], "s2_l1c": []}
    for cell in cells:
        optical = edges(cell.s2_l2a)
        dem = np.asarray(Image.fromarray(cell.dem).resize((SIZE, SIZE)))
        for name, other in (("s1_rtc", cell.s1_rtc), ("dem", dem), ("s2_l1c", cell.s2_l1c)):
            found[name].append([agreement(optical, edges(other), shift) for shift in shifts])
    for name, curves in found.items():
        curve = np.mean(curves, axis=0)
        assert shifts[int(curve.argmax())] == 0, name
        assert curve.max() > curve[[0, -1]].max() + 0.03, name


def test_another_seed_is_another_world_and_another_cell_another_place():
    one, other = simulate_cell("463U_102R", 0, size=120), simulate_cell("463U_102R", 1, size=120)
    elsewhere = simulate_cell("463U_106R", 0, size=120)

    for second in (other, elsewhere):
        for name in ("dem", "s1_rtc", "s2_l1c", "s2_l2a"):
            assert not np.array_equal(getattr(one, name), getattr(second, name))


def test_a_seed_gives_the_world_of_its_version():
    """Whoever changes these numbers has made another Earth of every seed, and raises the version."""
    means = {1: {"dem": 134.4, "s1_rtc": 109.1, "s2_l1c": 85.3, "s2_l2a": 61.6}}

    cell = simulate_cell("463U_102R", 0, size=240)

    for name, mean in means[WORLD_VERSION].items():
        assert getattr(cell, name).mean() == pytest.approx(mean, abs=0.1), name


def test_visits_differ_in_day_and_orbit_but_show_one_ground():
    truth = truth_of("463U_102R", 0, size=240)
    first, second = (optical_pass_of(truth.cell, truth.place, 0, number, clear=True) for number in (0, 1))
    radar = [radar_pass_of(truth.cell, 0, number) for number in (0, 1)]

    assert first.when != second.when
    assert radar[0].ascending != radar[1].ascending
    for visit in (first, second):
        assert 9 < (visit.when.hour + visit.when.minute / 60 + truth.place.centre_lon / 15) % 24 < 12  # local morning
        assert visit.cloud_cover <= 0.1
        assert visit.nodata == 0
    pictures = [view_optical(truth, replace(visit, cloud_cover=0.0), 0).l2a for visit in (first, second)]
    edges = [ndimage.gaussian_gradient_magnitude(picture.mean(axis=-1), 1.0).ravel() for picture in pictures]
    assert np.corrcoef(*edges)[0, 1] > 0.3


def test_the_edge_of_a_swath_takes_the_share_asked_for():
    assert beyond_swath(200, 0.0, "x") is None
    assert beyond_swath(200, 0.3, "x").mean() == pytest.approx(0.3, abs=0.01)


def test_cells_of_a_region_are_drawn_by_seed_and_come_in_order():
    box = (12.2, 41.6, 13.0, 42.2)

    assert cells_of_region(box, 5, 3) == cells_of_region(box, 5, 3)
    assert cells_of_region(box, 5, 3) != cells_of_region(box, 5, 4)
    everything = [parse_cell(cell) for cell in cells_of_region(box, 1000, 3)]
    assert everything == sorted(everything)
    assert 40 < len(everything) <= 47


def test_cells_can_be_drawn_from_rugged_country_alone():
    box = (0.0, 44.0, 40.0, 50.0)

    rugged = cells_of_region(box, 6, 3, least_rugged=0.8)

    assert len(rugged) == 6
    assert all(climate_of(footprint(parse_cell(cell)), 3).rugged.mean() >= 0.8 for cell in rugged)
    assert set(cells_of_region(box, 3, 3, least_rugged=0.8)) < set(rugged)  # with more, the others stay
    with pytest.raises(UsageError, match=r"as rugged as 0\.99"):
        cells_of_region((12.2, 41.6, 12.5, 41.8), 1, 0, least_rugged=0.99)


# the second at 61 degrees north, where the sun of December stays low, the third where radar passes on the next UTC day
@pytest.mark.parametrize("cell", ["463U_102R", "680U_40R", "300U_1000L"])
def test_visits_fall_on_the_days_asked_for(cell):
    place = truth_of(cell, 0, size=96)
    days = days_between(datetime(2020, 12, 3), datetime(2020, 12, 20))

    visits = [optical_pass_of(place.cell, place.place, 0, number, days=days) for number in range(20)]
    visits += [radar_pass_of(place.cell, 0, number, days=days) for number in range(20)]

    hours = timedelta(hours=place.place.centre_lon / 15)
    assert {(visit.when + hours).date() for visit in visits} <= {date(2020, 12, day) for day in range(3, 21)}
    assert len({visit.when.date() for visit in visits}) > 8


def test_days_that_are_not_said_are_all_days_and_none_is_refused():
    assert days_between(None, None) == ALL_DAYS
    assert days_between(ALL_DAYS.first, ALL_DAYS.first).count == 1
    with pytest.raises(UsageError, match="after they end"):
        days_between(datetime(2021, 1, 2), datetime(2021, 1, 1))
