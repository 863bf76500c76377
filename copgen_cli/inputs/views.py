"""What is read of one place: views of it by modality, as pixels, values or moments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from copgen_cli.modalities import Modality
from copgen_cli.records import Georeferencing


@dataclass(frozen=True, slots=True)
class InputFile:
    """What one condition was read from."""

    path: str
    sha256: str
    """Of the file, or of the record's values in a store."""


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """One modality of one record: as pixels, as moments, or as both."""

    pixels: np.ndarray | None
    """(S, S, 3) uint8: the square that the model takes, or what a raster looks like."""
    moments: np.ndarray | None
    """(2 C, h, w): mean and log-variance under the model's autoencoder."""
    file: InputFile
    place: Georeferencing | None = None
    """Where the square lies on the ground, if its file says so."""
    values: np.ndarray | None = None
    """(channels, S, S) float32 of a raster, as its autoencoder takes it."""
    size: tuple[int, int] | None = None
    """Width and height of the picture that the square is the middle of; None where it is all there is."""


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """What there is of one place."""

    name: str
    conditions: Mapping[Modality, View] = field(default_factory=dict)
    truth: Mapping[Modality, View] = field(default_factory=dict)
    """Of modalities that are generated, where the data has them."""

    @property
    def picture_size(self) -> tuple[int, int] | None:
        """Width and height of the first picture that is given; None where none is."""
        return next((view.size for view in self.conditions.values() if view.size is not None), None)

    def place_of(self, modality: Modality) -> Georeferencing | None:
        """Where the first condition lies that says so, as pixels of a modality."""
        for given, view in self.conditions.items():
            if view.place is not None:
                both = given.spec.is_picture and modality.spec.is_picture
                share = 1.0 if both else given.spec.side / modality.spec.side
                a, b, c, d, e, f = view.place.transform
                return Georeferencing(view.place.crs, (a * share, b * share, c, d * share, e * share, f))
        return None


class Source(Protocol):
    """Records by name."""

    @property
    def names(self) -> Sequence[str]:
        """Those that have every condition, sorted."""
        ...

    @property
    def lacking(self) -> Mapping[str, str]:
        """Names that some conditions have and others lack, and which lack them."""
        ...

    def read(self, name: str) -> Record:
        """Raises BrokenInputError where a file of it is not what it should be."""
        ...

    def stamp(self, name: str) -> str:
        """Changes when what the record is read from does."""
        ...

    def describe(self) -> dict[str, Any]:
        """JSON by which `reopen` finds the source again."""
        ...
