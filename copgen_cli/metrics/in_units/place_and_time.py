"""How far a generated place or date lies from the true one.

N places. A true place or date that is not known (nan, NaT) is left out of the means.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import numpy as np
from numpy.typing import NDArray

from copgen_cli.metrics.confidence import Floats
from copgen_cli.metrics.in_units.judgement import Judgement, mean

EARTH_RADIUS_KM = 6371.0088
"""Mean radius of the Earth (IUGG 1980)."""
DAYS_OF_YEAR = 365.25

Dates = NDArray[np.datetime64] | Sequence[date]


def great_circle_km(truth: NDArray, generated: NDArray) -> Floats:
    """Distance along the sphere by the haversine formula (Sinnott 1984).

    Args:
        truth, generated: (N, 2) latitude and longitude in degrees.

    Returns:
        (N,) km.
    """
    north, east = np.radians(np.asarray(truth, np.float64)).T
    to_north, to_east = np.radians(np.asarray(generated, np.float64)).T
    across = np.cos(north) * np.cos(to_north) * np.sin((to_east - east) / 2) ** 2
    haversine = np.sin((to_north - north) / 2) ** 2 + across
    return np.asarray(2 * EARTH_RADIUS_KM * np.arcsin(np.sqrt(np.minimum(haversine, 1))))


def days_apart(truth: Dates, generated: Dates) -> Floats:
    """(N,) days between two dates each, whichever is earlier."""
    return np.abs((_days(generated) - _days(truth)) / np.timedelta64(1, "D"))


def season_days_apart(truth: Dates, generated: Dates) -> Floats:
    """(N,) days between the parts of the year that two dates each fall in: from 0 to half a year, 182.6.

    The year is a circle, so that the end of December is near the beginning of January; which year it is does not count.
    """
    apart = np.abs(_part_of_year(generated) - _part_of_year(truth))
    return np.asarray(np.minimum(apart, 1 - apart) * DAYS_OF_YEAR)


def judge_places(truth: NDArray, generated: NDArray) -> dict[str, Judgement]:
    """`distance`, the mean over places (N, 2) in degrees, and `distance_median`, in km."""
    known = np.isfinite(truth).all(axis=1)
    return _mean_and_median("distance", great_circle_km(truth[known], generated[known]), "km")


def judge_times(truth: Dates, generated: Dates) -> dict[str, Judgement]:
    """`time`, the mean over dates (N,), and `time_median`; `season` and `season_median`; in days."""
    known = ~np.isnat(_days(truth))
    dates = _days(truth)[known], _days(generated)[known]
    return {
        **_mean_and_median("time", days_apart(*dates), "days"),
        **_mean_and_median("season", season_days_apart(*dates), "days"),
    }


def _mean_and_median(name: str, values: Floats, unit: str) -> dict[str, Judgement]:
    median = float(np.median(values)) if len(values) else float("nan")
    return {name: Judgement(mean(values), unit), f"{name}_median": Judgement(median, unit)}


def _days(dates: Dates) -> NDArray[np.datetime64]:
    return np.asarray(dates, "datetime64[D]")


def _part_of_year(dates: Dates) -> Floats:
    """(N,) from 0 on the first of January to below 1."""
    days = _days(dates)
    years = days.astype("datetime64[Y]")
    first, next_first = years.astype("datetime64[D]"), (years + 1).astype("datetime64[D]")
    return np.asarray((days - first) / (next_first - first))
