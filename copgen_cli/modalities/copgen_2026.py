"""The twelve modalities of COP-GEN (2026, arXiv:2603.03239): rasters of native bands, classes, place and time.

Each is brought to [-1, 1] before its autoencoder (`normalise`), and back to its unit after it (`to_values`). The order
is that of the network: names sorted as ASCII text, which its checkpoints do not tell.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float32]

LEAST_POWER = np.float32(2.6380407689430285e-06)
"""What backscatter without a value, or below it, becomes."""
_DECIBEL = (-55.787186, 40.225800)
_LEAST_HEIGHT = np.float32(5.899129519093549e-06)
_LOG_HEIGHT = (0.000006, 9.088)
_YEARS = (1950, 100)
"""The first, and how many the scale of years spans."""


class ValueKind(StrEnum):
    """What the values of a modality are, which decides how they are normalised."""

    REFLECTANCE = "reflectance"
    """10,000 times the reflectance."""
    BACKSCATTER = "backscatter"
    """Linear power."""
    HEIGHT = "height"
    """Metres."""
    CLASSES = "classes"
    PLACE = "place"
    """Latitude and longitude in degrees."""
    TIME = "time"
    """A date."""


@dataclass(frozen=True, slots=True)
class RasterFacts:
    """What is known of one modality of the family."""

    kind: ValueKind
    bands: tuple[str, ...]
    """In the order of the autoencoder's channels."""
    side: int
    """Pixels of a patch of 1920 m along a side; 1 of a scalar."""
    latent: tuple[int, int, int]
    """(C, H, W)."""
    scale_factor: float = 1.0
    """What a drawn latent is multiplied by; the autoencoders' files do not hold it."""
    classes: tuple[int, ...] = ()
    """Values of the raster, in the order of the autoencoder's channels."""

    @property
    def patch(self) -> int:
        """Side of the network's patches, in latent pixels."""
        return 1 if self.kind in (ValueKind.PLACE, ValueKind.TIME) else 2


def _reflectance(bands: str, side: int, scale_factor: float) -> RasterFacts:
    return RasterFacts(ValueKind.REFLECTANCE, tuple(bands.split()), side, (8, side // 8, side // 8), scale_factor)


_LAND_COVER = (0, 1, 2, 4, 5, 7, 8, 9, 10, 11)
_CLOUD_MASK = (0, 1, 2, 3)

COPGEN_2026: dict[str, RasterFacts] = {
    "3d_cartesian_lat_lon": RasterFacts(ValueKind.PLACE, ("x", "y", "z"), 1, (1, 1, 3)),
    "DEM_DEM": RasterFacts(ValueKind.HEIGHT, ("DEM",), 64, (8, 8, 8), 0.404247),
    "LULC_LULC": RasterFacts(ValueKind.CLASSES, ("LULC",), 192, (8, 24, 24), 0.464794, _LAND_COVER),
    "S1RTC_vh_vv": RasterFacts(ValueKind.BACKSCATTER, ("vv", "vh"), 192, (8, 24, 24), 0.633804),
    "S2L1C_B01_B09_B10": _reflectance("B01 B09 B10", 32, 0.565812),
    "S2L1C_B02_B03_B04_B08": _reflectance("B04 B03 B02 B08", 192, 0.772514),
    "S2L1C_B05_B06_B07_B11_B12_B8A": _reflectance("B05 B06 B07 B8A B11 B12", 96, 0.765817),
    "S2L1C_cloud_mask": RasterFacts(ValueKind.CLASSES, ("cloud_mask",), 192, (8, 24, 24), 0.557045, _CLOUD_MASK),
    "S2L2A_B01_B09": _reflectance("B01 B09", 32, 0.571367),
    "S2L2A_B02_B03_B04_B08": _reflectance("B04 B03 B02 B08", 192, 0.853416),
    "S2L2A_B05_B06_B07_B11_B12_B8A": _reflectance("B05 B06 B07 B8A B11 B12", 96, 0.567267),
    "mean_timestamps": RasterFacts(ValueKind.TIME, ("sin", "cos", "year"), 1, (1, 1, 3)),
}


def normalise(values: np.ndarray, facts: RasterFacts) -> Values:
    """Values of a raster to what its autoencoder takes.

    Args:
        values: (B, H, W) in the modality's unit; of classes (1, H, W).
        facts: of the modality, no scalar.

    Returns:
        (channels, H, W) float32, about in [-1, 1]; reflectance is not clipped.

    Raises:
        ValueError: a class is none of the table's.
    """
    match facts.kind:
        case ValueKind.REFLECTANCE:
            unit = values.astype(np.float32) / np.float32(10_000)
        case ValueKind.BACKSCATTER:
            power = np.where(values <= 0, LEAST_POWER, values.astype(np.float32))
            low, high = _DECIBEL
            unit = (np.float32(10) * np.log10(power) - np.float32(low)) / np.float32(high - low)
        case ValueKind.HEIGHT:
            height = np.where(values <= 0, _LEAST_HEIGHT, values.astype(np.float32))
            low, high = _LOG_HEIGHT
            unit = (np.log1p(height) - np.float32(low)) / np.float32(high - low)
        case _:
            unit = np.stack([values[0] == value for value in facts.classes]).astype(np.float32)
            if not unit.any(axis=0).all():
                strange = sorted(set(np.unique(values).tolist()) - set(facts.classes))
                raise ValueError(f"values {strange} are no classes")
    return 2 * unit - 1


def to_values(decoded: np.ndarray, facts: RasterFacts) -> np.ndarray:
    """What an autoencoder gives, (..., channels, H, W) about in [-1, 1], to values in the modality's unit.

    Returns:
        (..., B, H, W) float32; of classes (..., 1, H, W) int64.
    """
    unit = (decoded.astype(np.float32) + 1) / 2
    match facts.kind:
        case ValueKind.REFLECTANCE:
            return unit * np.float32(10_000)
        case ValueKind.BACKSCATTER:
            low, high = _DECIBEL
            decibel = np.clip(unit, 0, 1) * np.float32(high - low) + np.float32(low)
            return np.maximum(np.float32(10) ** (decibel / np.float32(10)), LEAST_POWER)
        case ValueKind.HEIGHT:
            low, high = _LOG_HEIGHT
            return np.expm1(np.clip(unit, 0, 1) * np.float32(high - low) + np.float32(low))
        case _:
            return np.asarray(facts.classes)[decoded.argmax(axis=-3)][..., None, :, :]


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
