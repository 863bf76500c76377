"""Rasters of measurements, places and dates that are given to a model of such."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from copgen_cli.errors import BrokenInputError, MismatchError
from copgen_cli.inputs.views import InputFile, Record, Source, View
from copgen_cli.modalities import (
    Modality,
    ModalitySpec,
    Rule,
    encode_scalar,
    normalise_file,
    read_scalar,
    scalar_moments,
)
from copgen_cli.rasters import RasterBands, find_values, is_nodata, read_values, show
from copgen_cli.records import Georeferencing
from copgen_cli.stages import hash_file

NAMES_OF_SCALARS = "given"
"""How the one record is called that only a place or a date is known of."""


def view_values(path: Path, modality: Modality) -> View:
    """A GeoTIFF of measurements or classes: its middle, of the size of the model's patches.

    Raises:
        BrokenInputError: it is unreadable, too small, or contradicts what the modality says.
        MismatchError: its pixels are of another size on the ground.
    """
    spec = modality.spec
    if spec.is_scalar:
        return View(None, scalar_moments(read_scalar(path, spec)), InputFile(path.as_posix(), hash_file(path)))
    values, missing, place = read_middle(path, modality)
    signed = normalise_file(values, spec, missing, str(path))
    shown = show(np.where(missing, spec.blank, values), spec)
    return View(shown, None, InputFile(path.as_posix(), hash_file(path)), place, signed)


def read_middle(path: Path, modality: Modality) -> tuple[np.ndarray, np.ndarray, Georeferencing | None]:
    """The middle of a raster, in the modality's unit.

    Returns:
        (B, S, S) values, (B, S, S) where one is missing, and where the square lies.

    Raises:
        BrokenInputError, MismatchError: see `view_values`.
    """
    spec = modality.spec
    bands = find_values([path])
    values, nodata = read_values(bands)
    if len(values) != len(spec.bands):
        raise BrokenInputError(
            f"{path} has {len(values)} bands, and {modality} {len(spec.bands)}: {', '.join(spec.bands)}.",
            hint="Give these bands, in this order.",
        )
    if bands.place is not None:
        _check_pixels(path, bands, spec)
    height, width = values.shape[1:]
    if min(height, width) < spec.side:
        raise BrokenInputError(
            f"{path} is {width} x {height} px; the model takes {spec.side} x {spec.side} of {modality}.",
            hint="Give a larger raster.",
        )
    top, left = (height - spec.side) // 2, (width - spec.side) // 2
    values = values[:, top : top + spec.side, left : left + spec.side]
    nodata = spec.nodata if nodata is None else nodata
    missing = np.zeros(values.shape, bool) if nodata is None else is_nodata(values, nodata)
    if missing.all():
        raise BrokenInputError(f"No pixel of {path} has a value.", hint="Check its nodata value.")
    if spec.normalisation.rule is Rule.DECIBEL and np.median(values[~missing]) < 0:
        values = np.float32(10) ** (np.where(missing, 0, values).astype(np.float32) / np.float32(10))  # in decibel
    place = bands.place
    if place is not None:
        a, b, c, d, e, f = place.transform
        place = Georeferencing(place.crs, (a, b, c + a * left + b * top, d, e, f + d * left + e * top))
    return values, missing, place


def _check_pixels(path: Path, bands: RasterBands, spec: ModalitySpec) -> None:
    """Raises MismatchError where a raster's pixels are not those of the modality, down or across."""
    assert bands.place is not None
    a, b, _, d, e, _ = bands.place.transform
    across, down = math.hypot(a, d), math.hypot(b, e)
    if bands.pixel_size is None or across < 0.01 * spec.pixel_size:
        told = "in degrees" if bands.pixel_size is not None else "of no known size"
    elif all(math.isclose(size, spec.pixel_size, rel_tol=0.05) for size in (across, down)):
        return
    else:
        told = f"of {across:g} x {down:g} m"
    raise MismatchError(
        f"{path} has pixels {told}, and {spec.name} of {spec.pixel_size:g} m.",
        hint=f"Warp it first to the UTM zone: rio warp --dst-crs EPSG:326NN --res {spec.pixel_size:g}",
    )


@dataclass(frozen=True, slots=True)
class WithScalars:
    """Records of another source, of all of which a place or a date is given."""

    source: Source
    scalars: Mapping[Modality, Mapping[str, Any]]

    @property
    def names(self) -> Any:
        return self.source.names

    @property
    def lacking(self) -> Mapping[str, str]:
        return self.source.lacking

    def read(self, name: str) -> Record:
        record = self.source.read(name)
        return Record(name, {**record.conditions, **views_of_scalars(self.scalars)}, record.truth)

    def stamp(self, name: str) -> str:
        return self.source.stamp(name) + _digest(self.scalars)[:8]

    def describe(self) -> dict[str, Any]:
        return {**self.source.describe(), "given": {str(m): dict(facts) for m, facts in self.scalars.items()}}


@dataclass(frozen=True, slots=True)
class OneRecord:
    """One record without data, to which scalars are given."""

    names: tuple[str, ...] = (NAMES_OF_SCALARS,)

    @property
    def lacking(self) -> Mapping[str, str]:
        return {}

    def read(self, name: str) -> Record:
        return Record(name)

    def stamp(self, name: str) -> str:
        return ""

    def describe(self) -> dict[str, Any]:
        return {}


def views_of_scalars(scalars: Mapping[Modality, Mapping[str, Any]]) -> dict[Modality, View]:
    """What is given of places and dates, as views."""
    views = {}
    for modality, facts in scalars.items():
        told = ", ".join(str(value) for value in facts.values())
        moments = scalar_moments(encode_scalar(facts, modality.spec))
        views[modality] = View(None, moments, InputFile(f"{modality}={told}", _digest({modality: facts})))
    return views


def _digest(scalars: Mapping[Modality, Mapping[str, Any]]) -> str:
    told = {str(modality): dict(facts) for modality, facts in scalars.items()}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
