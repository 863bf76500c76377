"""Place and time as the few numbers that a network sees, after COP-GEN (2026, arXiv:2603.03239)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from copgen_cli.errors import BrokenInputError, UsageError
from copgen_cli.modalities.spec import ModalitySpec, Rule

Values = NDArray[np.float32]

NOTHING = -30.0
"""Log-variance of numbers that are known: as little as a draw from moments ever uses."""
_YEARS = (1950, 100)
"""The first, and how many the scale of years spans."""


def encode_place(latitude: float, longitude: float) -> Values:
    """Degrees to a unit vector (3,): x to the Gulf of Guinea, z to the north pole.

    Raises:
        ValueError: it is no place on the Earth.
    """
    if not (-90 <= latitude <= 90 and -180 <= longitude <= 360):
        raise ValueError(f"latitude {latitude:g} and longitude {longitude:g} are no place on the Earth")
    north, east = math.radians(latitude), math.radians(longitude)
    x, y = math.cos(north) * math.cos(east), math.cos(north) * math.sin(east)
    return np.array([x, y, math.sin(north)], np.float32)


def decode_place(vector: np.ndarray) -> tuple[float, float]:
    """A vector (3,), of about unit length, to latitude and longitude in degrees."""
    x, y, z = map(float, vector)
    return math.degrees(math.asin(min(max(z, -1.0), 1.0))), math.degrees(math.atan2(y, x))


def encode_time(day: date) -> Values:
    """A date to (3,): sine and cosine of its part of the year, and the year from 1950 to 2050 as -1 to 1."""
    first, span = _YEARS
    turn = 2 * math.pi * day.timetuple().tm_yday / _days_in(day.year)
    return np.array([math.sin(turn), math.cos(turn), 2 * (day.year - first) / span - 1], np.float32)


def decode_time(vector: np.ndarray) -> date:
    """The nearest date; the year is rounded first."""
    first, span = _YEARS
    sine, cosine, scaled = map(float, vector)
    year = min(max(round((scaled + 1) / 2 * span + first), date.min.year), date.max.year)
    days = _days_in(year)
    number = round(math.atan2(sine, cosine) % (2 * math.pi) / (2 * math.pi) * days)
    return date(year, 1, 1) + timedelta(days=(number or days) - 1)


def _days_in(year: int) -> int:
    return date(year, 12, 31).timetuple().tm_yday


def encode_scalar(facts: Mapping[str, Any], spec: ModalitySpec) -> Values:
    """What is said of a place or a time to the numbers of the modality, (3,).

    Args:
        facts: `latitude` and `longitude` in degrees, or `date` in ISO 8601.
        spec: of the modality.

    Raises:
        ValueError or KeyError: it is no place on the Earth, or no date.
    """
    if spec.normalisation.rule is Rule.PLACE:
        return encode_place(float(facts["latitude"]), float(facts["longitude"]))
    return encode_time(date.fromisoformat(str(facts["date"])))


def decode_scalar(numbers: np.ndarray, spec: ModalitySpec) -> dict[str, Any]:
    """The numbers of a place or a time, (3,), to what is said of it; see `encode_scalar`."""
    if spec.normalisation.rule is Rule.PLACE:
        latitude, longitude = decode_place(numbers)
        return {"latitude": round(latitude, 5), "longitude": round(longitude, 5)}
    return {"date": decode_time(numbers).isoformat()}


def scalar_moments(numbers: np.ndarray) -> Values:
    """(3,) numbers of a scalar as moments (2, 1, 3): the numbers, and a log-variance of nothing."""
    return np.stack([numbers[None], np.full((1, len(numbers)), NOTHING, np.float32)]).astype(np.float32)


def read_scalar(file: Path, spec: ModalitySpec) -> Values:
    """The numbers of a scalar of a patch, from the JSON that `copgen prepare` wrote.

    Raises:
        BrokenInputError: it is something else.
    """
    try:
        return encode_scalar(json.loads(file.read_text(encoding="utf-8")), spec)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise BrokenInputError(
            f"{file} is no {spec.title.lower()}: {error}", hint="Run `copgen prepare` again."
        ) from error


def parse_scalar(text: str, spec: ModalitySpec) -> dict[str, Any]:
    """Read `41.9,12.5` or `2020-07-01`.

    Raises:
        UsageError: it is none, or beyond the Earth or the calendar.
    """
    try:
        if spec.normalisation.rule is Rule.PLACE:
            parts = text.split(",")
            if len(parts) != 2:
                raise ValueError("a place is LATITUDE,LONGITUDE")
            latitude, longitude = map(float, parts)
            facts: dict[str, Any] = {"latitude": latitude, "longitude": longitude}
        else:
            facts = {"date": date.fromisoformat(text.strip()).isoformat()}
            first, span = _YEARS
            if not first <= date.fromisoformat(text.strip()).year <= first + span:
                raise ValueError(f"years are {first} to {first + span}")
        encode_scalar(facts, spec)
    except ValueError as error:
        example = "41.9,12.5" if spec.normalisation.rule is Rule.PLACE else "2020-07-01"
        raise UsageError(
            f"{spec.name}={text} can not be understood: {error}.", hint=f"For instance: {spec.name}={example}"
        ) from None
    return facts
