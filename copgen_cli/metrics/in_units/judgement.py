"""One score, with the unit that it is in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Judgement:
    """A number of a report; nan where it can not be known."""

    value: float
    unit: str = ""
    band: str = ""
    """Band, or value of a class, that it is of; empty of all together."""


def mean(values: NDArray | Sequence[float]) -> float:
    """The mean; nan of nothing, or where one of the values is nan."""
    return float(np.mean(values)) if len(values) else float("nan")


def over_bands(name: str, values: Sequence[float], unit: str, bands: Sequence[str]) -> dict[str, Judgement]:
    """The mean over bands under `name` and, of several bands, each under `name_band`.

    Raises:
        ValueError: there are not as many values as bands.
    """
    if len(values) != len(bands):
        raise ValueError(f"{len(values)} values of {name}, expected one for each of the bands {', '.join(bands)}")
    if len(bands) == 1:
        return {name: Judgement(float(values[0]), unit, bands[0])}
    each = {f"{name}_{b}": Judgement(float(v), unit, b) for v, b in zip(values, bands, strict=True)}
    return {name: Judgement(mean(values), unit), **each}
