"""A few of the pictures that were judged, kept small for the report."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from copgen_cli.evaluation.pictures import Pictures, PictureSet
from copgen_cli.evaluation.scores import Copy

PLACES = 3
SAMPLES = 2
SIDE = 192
"""Pixels of a picture in the report."""


@dataclass(frozen=True, slots=True)
class Column:
    """Pictures of the chosen places under one heading."""

    title: str
    rows: tuple[tuple[str, ...], ...]
    """Per place, one or more pictures as data URLs."""


@dataclass(frozen=True, slots=True)
class CopyExample:
    """A sample and the training picture that it is most like."""

    condition: str
    sample: str
    training: str
    ratio: float
    """Their distance, over that of a held-out truth to its nearest training picture."""


@dataclass(slots=True)
class ExamplePictures:
    """Pictures by target, in the order that they came."""

    places: dict[str, tuple[str, ...]] = field(default_factory=dict)
    columns: dict[str, list[Column]] = field(default_factory=dict)
    copies: dict[str, list[CopyExample]] = field(default_factory=dict)

    def add(self, pictures: PictureSet) -> None:
        """Keep some samples of a set; of the first set of a target, the truth as well."""
        shown = _spread(len(pictures.names))
        names = tuple(pictures.names[i] for i in shown)
        columns = self.columns.setdefault(pictures.target, [])
        self.places.setdefault(pictures.target, names if pictures.matched else ("",) * len(names))
        if not columns:
            rows = shown if pictures.matched else _spread(len(pictures.truth_names))
            columns.append(Column("truth", tuple((thumbnail(pictures.truth[i]),) for i in rows)))
        columns.append(
            Column(_heading(pictures), tuple(tuple(map(thumbnail, pictures.samples[i][:SAMPLES])) for i in shown))
        )

    def add_reconstruction(self, target: str, truth: Pictures, names: tuple[str, ...], pictures: Pictures) -> None:
        """Keep what the autoencoder alone makes of the chosen places."""
        shown = _spread(len(names))
        self.places[target] = tuple(names[i] for i in shown)
        self.columns[target] = [
            Column("truth", tuple((thumbnail(truth[i]),) for i in shown)),
            Column("autoencoder alone", tuple((thumbnail(pictures[i]),) for i in shown)),
        ]

    def add_copy(self, target: str, condition: str, found: Copy) -> None:
        """Keep the sample of a set that is most like a training picture."""
        example = CopyExample(condition, thumbnail(found.sample), thumbnail(found.training), found.ratio)
        self.copies.setdefault(target, []).append(example)


def thumbnail(picture: np.ndarray) -> str:
    """A data URL of a picture (H, W, 3), made no larger than `SIDE`."""
    image = Image.fromarray(picture)
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=88)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"


def _heading(pictures: PictureSet) -> str:
    if pictures.translations:
        return f"after {pictures.translations} translations via {pictures.via}"
    return "generated" if pictures.conditions is None else f"from {pictures.condition}"


def _spread(n: int) -> list[int]:
    """Some places, evenly over all of them."""
    return sorted({int(i) for i in np.linspace(0, n - 1, min(PLACES, n)).round()})
