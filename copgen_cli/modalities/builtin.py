"""The vocabulary: modalities and their facts, the roles they play in a sample, and the two splits.

A modality is one member and one row here, appended at the end: the order of members is that of indices on disk.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from copgen_cli.errors import UnknownNameError, UsageError


class Role(StrEnum):
    """What a modality does in one sample."""

    GENERATE = "generate"
    CONDITION = "condition"
    IGNORE = "ignore"
    """Marginalised: noise drawn once and held fixed, at the last timestep."""


class Split(StrEnum):
    """Which half of the data a cell belongs to."""

    TRAIN = "train"
    TEST = "test"


@dataclass(frozen=True, slots=True)
class TypicalSizes:
    """Bytes of what is fetched, as the public archive has them on average."""

    thumbnail: int
    row: int
    """All columns of one product."""
    footer: int
    """Of a part file."""


class Rendering(StrEnum):
    """How bands become the archive's picture; see `render`."""

    TRUE_COLOUR = "true colour"
    FALSE_COLOUR = "false colour"
    HILLSHADE = "hillshade"


@dataclass(frozen=True, slots=True)
class PictureRule:
    """What a modality's picture is made of."""

    rendering: Rendering
    bands: tuple[str, ...]
    """By name, in the order that the rendering takes them."""
    numbers: Mapping[int, tuple[int, ...]]
    """Which bands of a file these are, from 1, by how many it has: these alone, or all in the sensor's order."""


@dataclass(frozen=True, slots=True)
class ModalityFacts:
    """What is known of one modality, and nowhere else."""

    source: str
    """Name of its Major TOM dataset."""
    folder: str
    """Name of its folder in a prepared subset."""
    title: str
    """How pictures and tables call it."""
    thumbnail_size: int
    """Side of its thumbnail in pixels, as the archive holds it."""
    pixel_size: float
    """Ground size of one thumbnail pixel in metres."""
    bands: tuple[str, ...]
    """Columns of whole GeoTIFF files (`compressed` is a PNG)."""
    typical: TypicalSizes
    picture: PictureRule
    grey: bool = False
    """One channel, repeated to three for the autoencoder."""
    has_product: bool = True
    """The archive names the product and its time; a source without them uses the word "id"."""
    has_clouds: bool = False
    """Clouds show in it, and the archive says how many."""


class Modality(StrEnum):
    """One of the views of a place. The order of members is the order of indices on disk and in models."""

    DEM = "dem"
    S1RTC = "s1_rtc"
    S2L1C = "s2_l1c"
    S2L2A = "s2_l2a"

    @property
    def facts(self) -> ModalityFacts:
        return _FACTS[self]

    @property
    def order(self) -> int:
        """Index among all modalities, from 0; databases and published checkpoints are in this order."""
        return list(Modality).index(self)

    @classmethod
    def of_source(cls, source: str) -> Modality:
        """The modality of a Major TOM dataset name, such as `Core-S2L2A`."""
        for modality in cls:
            if modality.facts.source == source:
                return modality
        raise UnknownNameError("source", source, known=[m.facts.source for m in cls])

    @classmethod
    def of_folder(cls, folder: str) -> Modality:
        """The modality of a folder name, such as `S2L2A_thumbnail`."""
        for modality in cls:
            if modality.facts.folder == folder:
                return modality
        raise UnknownNameError("modality folder", folder, known=[m.facts.folder for m in cls])


_ELEVATION = PictureRule(Rendering.HILLSHADE, ("DEM",), {1: (1,)})
_RADAR = PictureRule(Rendering.FALSE_COLOUR, ("vv", "vh"), {2: (1, 2)})
_RED_GREEN_BLUE = ("B04", "B03", "B02")
_L1C = PictureRule(Rendering.TRUE_COLOUR, _RED_GREEN_BLUE, {3: (1, 2, 3), 13: (4, 3, 2)})
_L2A = PictureRule(Rendering.TRUE_COLOUR, _RED_GREEN_BLUE, {3: (1, 2, 3), 12: (4, 3, 2)})
_OPTICAL = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09")
_FACTS = {
    Modality.DEM: ModalityFacts(
        source="Core-DEM",
        folder="DEM_thumbnail",
        title="Elevation (hillshade)",
        thumbnail_size=356,
        pixel_size=30.0,
        bands=("compressed", "DEM"),
        typical=TypicalSizes(thumbnail=60_000, row=540_000, footer=250_000),
        picture=_ELEVATION,
        grey=True,
        has_product=False,
    ),
    Modality.S1RTC: ModalityFacts(
        source="Core-S1RTC",
        folder="S1RTC_thumbnail",
        title="Sentinel-1 RTC",
        thumbnail_size=1068,
        pixel_size=10.0,
        bands=("vv", "vh"),
        typical=TypicalSizes(thumbnail=1_200_000, row=10_700_000, footer=500_000),
        picture=_RADAR,
    ),
    Modality.S2L1C: ModalityFacts(
        source="Core-S2L1C",
        folder="S2L1C_thumbnail",
        title="Sentinel-2 L1C",
        thumbnail_size=1068,
        pixel_size=10.0,
        bands=(*_OPTICAL, "B10", "B11", "B12", "cloud_mask"),
        typical=TypicalSizes(thumbnail=180_000, row=10_500_000, footer=1_300_000),
        picture=_L1C,
        has_clouds=True,
    ),
    Modality.S2L2A: ModalityFacts(
        source="Core-S2L2A",
        folder="S2L2A_thumbnail",
        title="Sentinel-2 L2A",
        thumbnail_size=1068,
        pixel_size=10.0,
        bands=(*_OPTICAL, "B11", "B12", "cloud_mask"),
        typical=TypicalSizes(thumbnail=180_000, row=10_200_000, footer=1_200_000),
        picture=_L2A,
        has_clouds=True,
    ),
}

PUBLISHED = (Modality.DEM, Modality.S1RTC, Modality.S2L1C, Modality.S2L2A)
"""What the published weights know, in their order; they do not name it."""


def parse_modalities(text: str, *, option: str) -> tuple[Modality, ...]:
    """Read a comma-separated list such as `dem,s2_l2a`, in the order given.

    Raises:
        UnknownNameError: a name is not a modality.
        UsageError: a name is there twice.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    chosen = tuple(as_modality(name) for name in names)
    if len(set(chosen)) < len(chosen):
        raise UsageError(f"{option} names a modality twice: {text}", hint="Name each modality once.")
    return chosen


def as_modality(name: str) -> Modality:
    """The modality of that name, or of that Major TOM dataset; an error names the nearest."""
    for modality in Modality:
        if name in (modality, modality.facts.source):
            return modality
    raise UnknownNameError("modality", name, known=list(Modality))


def in_index_order(modalities: Iterable[Modality]) -> tuple[Modality, ...]:
    """Without repeats, in the order of the registry."""
    chosen = set(modalities)
    return tuple(modality for modality in Modality if modality in chosen)
