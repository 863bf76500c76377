"""What a modality is: everything that the rest of the package needs to know of one, as data.

Beta's four thumbnails, the twelve of COP-GEN (2026), and what users add in copgen.toml are all described by these
classes; see `builtin` and `registry`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

PIXEL_METRES = 10.0
"""Ground size of a pixel of the optical thumbnails, to which the others are brought."""
DTYPES = ("uint8", "int16", "uint16", "int32", "float32")
"""That rasters of modalities may have."""


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


class Kind(StrEnum):
    """What the values of a modality are."""

    PICTURE = "picture"
    """8 bits, one grey or three colour channels, as people look at them."""
    RASTER = "raster"
    """Measurements in a unit."""
    CLASSES = "classes"
    """Numbers of a table, such as kinds of land cover."""
    SCALAR = "scalar"
    """A few numbers of a whole patch: its place or its time."""


class Rule(StrEnum):
    """How values are brought to [-1, 1] for an autoencoder, and back; see `normalise`."""

    PICTURE = "picture"
    """v / 127.5 - 1."""
    LINEAR = "linear"
    """`low` to `high`, not clipped."""
    DECIBEL = "decibel"
    """Linear power in decibel, `low` to `high`; clipped on the way back."""
    LOG_HEIGHT = "log-height"
    """log(1 + metres), `low` to `high`; clipped on the way back."""
    ONE_HOT = "one-hot"
    """A channel for each class."""
    PLACE = "place"
    """Latitude and longitude as a unit vector."""
    TIME = "time"
    """A date as sine and cosine of the day of the year, and the year."""


@dataclass(frozen=True, slots=True)
class Normalisation:
    """A rule with its parameters."""

    rule: Rule
    low: float = 0.0
    high: float = 1.0
    least: float = 0.0
    """What values that are not above 0 become, where the rule takes a logarithm."""


class Rendering(StrEnum):
    """How values become a picture; see `render`."""

    TRUE_COLOUR = "true colour"
    FALSE_COLOUR = "false colour"
    HILLSHADE = "hillshade"
    STRETCH = "stretch"
    """Each band from `low` to `high`, grey or in red, green and blue."""
    CLASSES = "classes"
    """The colours of the table."""
    PLAIN = "plain"
    """8 bits as they are."""
    PLACE = "place"
    """A point on a map of the world."""
    DATE = "date"


@dataclass(frozen=True, slots=True)
class PictureRule:
    """What a modality's picture is made of."""

    rendering: Rendering
    bands: tuple[str, ...]
    """By name, in the order that the rendering takes them."""
    numbers: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    """Which bands of a file these are, from 1, by how many it has: these alone, or all in the sensor's order."""
    low: float = 0.0
    high: float = 1.0
    """Of a stretch, in the modality's unit."""


@dataclass(frozen=True, slots=True)
class TypicalSizes:
    """Bytes of what is fetched, as the public archive has them on average."""

    thumbnail: int
    row: int
    """All columns of one product."""
    footer: int
    """Of a part file."""


@dataclass(frozen=True, slots=True)
class Source:
    """A dataset of Major TOM."""

    name: str
    """Such as `Core-S2L2A`."""
    thumbnail_size: int
    """Side of its thumbnail in pixels, as the archive holds it."""
    columns: tuple[str, ...]
    """Those of whole GeoTIFF files (`compressed` is a PNG)."""
    typical: TypicalSizes
    has_product: bool = True
    """The archive names the product and its time; a source without them uses the word "id"."""
    has_clouds: bool = False
    """Clouds show in it, and the archive says how many."""


@dataclass(frozen=True, slots=True)
class ClassValue:
    """One line of a table of classes."""

    value: int
    name: str
    colour: str
    """`#rrggbb`."""


@dataclass(frozen=True, slots=True)
class ModalitySpec:
    """What is known of one modality."""

    name: str
    """How commands, stores and models call it."""
    title: str
    """How pictures and tables call it."""
    kind: Kind
    bands: tuple[str, ...]
    """In the order of the channels; in the archive they are columns of these names."""
    side: int
    """Pixels of a patch along a side; 1 of a scalar."""
    pixel_size: float
    """Ground size of a pixel in metres; 0 of a scalar."""
    normalisation: Normalisation
    picture: PictureRule
    folder: str
    """Name of its folder in trees of patches and moments."""
    dtype: str = "uint8"
    """Of its files, in NumPy's words."""
    nodata: float | None = None
    unit: str = ""
    source: Source | None = None
    """The dataset that it comes from; None where it comes from a user's files, or from what is known of a patch."""
    files: str | None = None
    """A user's folder of GeoTIFFs or pictures."""
    classes: tuple[ClassValue, ...] = ()
    """In the order of the channels."""
    autoencoder: str | None = None
    """Folder or hub id of its own autoencoder; None where one of pictures does, or one is trained for it."""
    latent: tuple[int, int, int] | None = None
    """(C, H, W) of what the network sees; None is what the autoencoder makes of a patch."""
    scale_factor: float | None = None
    """What a drawn latent is multiplied by, where the autoencoder's file does not say."""
    patch_size: int | None = None
    """Side of the network's patches in latent pixels; None is as the network is set up."""
    grey: bool = False
    """A picture of one channel, repeated to three for the autoencoder."""
    published: str | None = None
    """What published checkpoints and datasets call it."""

    @property
    def patch_pixel_size(self) -> float:
        """Metres per pixel of a patch: thumbnails are brought to the pixels of the optical ones."""
        return PIXEL_METRES if self.is_picture and self.source is not None else self.pixel_size

    @property
    def suffix(self) -> str:
        """Of the file of one patch."""
        return {Kind.PICTURE: ".png", Kind.SCALAR: ".json"}.get(self.kind, ".tif")

    @property
    def channels(self) -> int:
        """Of what an autoencoder takes and gives."""
        return len(self.classes) if self.kind is Kind.CLASSES else 3 if self.kind is Kind.PICTURE else len(self.bands)

    def problem(self) -> str | None:
        """What keeps it from being a modality, whoever wrote it; None where nothing does."""
        rule = self.normalisation
        numbers = (self.pixel_size, rule.low, rule.high, rule.least, self.picture.low, self.picture.high)
        limit = {Rule.DECIBEL: 300.0, Rule.LOG_HEIGHT: 20.0}.get(rule.rule, 1e9)
        if self.dtype not in DTYPES or not (self.name.isidentifier() and self.folder.isidentifier()):
            return f"its dtype {self.dtype}, or its name or folder, is none"
        if not all(map(math.isfinite, numbers)) or rule.low >= rule.high or max(abs(rule.low), abs(rule.high)) > limit:
            return f"its range {rule.low:g} to {rule.high:g} can not be"
        if not 1 <= self.side <= 8192 or (not self.is_scalar and not 0.01 <= self.pixel_size <= 100_000):
            return f"a patch of {self.side} px of {self.pixel_size:g} m can not be"
        if not 1 <= len(self.bands) <= 256 or len(self.classes) > 256 or not self.channels:
            return f"it has {len(self.bands)} bands and {len(self.classes)} classes"
        if not self.is_picture and not set(self.picture.bands) <= set(self.bands):
            return f"it shows {', '.join(self.picture.bands)}, which are not all its bands"
        if limits := {"uint8": (0, 255), "int16": (-32768, 32767), "uint16": (0, 65535)}.get(self.dtype):
            low, high = limits
            beyond = [v for v in (*self.class_values, *(() if self.nodata is None else (self.nodata,)))
                      if not low <= v <= high]  # fmt: skip
            if beyond:
                return f"{self.dtype} can not hold {beyond[0]:g}"
        if any(not re.fullmatch("#[0-9a-fA-F]{6}", one.colour) for one in self.classes):
            return "a colour of its classes is not #rrggbb"
        return None

    @property
    def is_picture(self) -> bool:
        return self.kind is Kind.PICTURE

    @property
    def is_scalar(self) -> bool:
        return self.kind is Kind.SCALAR

    @property
    def blank(self) -> float:
        """What stands for a missing value: the first class, the least value of a linear range, else nothing."""
        if self.classes:
            return self.classes[0].value
        return self.normalisation.low if self.normalisation.rule is Rule.LINEAR else 0.0

    @property
    def class_values(self) -> tuple[int, ...]:
        return tuple(one.value for one in self.classes)


@dataclass(frozen=True, slots=True)
class Family:
    """An ordered set of modalities that one network knows, and how cells are cut for it."""

    name: str
    title: str
    modalities: tuple[str, ...]
    """In the network's order."""
    patch_metres: float
    """Side of a patch on the ground."""
    covers: bool = False
    """Whether patches cover a tile to its edges, the last ones moved back over their neighbours. Else as many as fit
    lie side by side around the middle."""

    def starts(self, side: int, patch: int, count: int) -> tuple[int, ...]:
        """Where patches begin along a side.

        Args:
            side: pixels of the tile.
            patch: pixels of a patch.
            count: patches along the side.
        """
        if self.covers:
            return tuple(min(i * patch, side - patch) for i in range(count))
        first = round((side - count * patch) / 2)
        return tuple(first + i * patch for i in range(count))

    def per_side(self, tile_metres: float) -> int:
        """Patches along a side of a tile."""
        count = tile_metres / self.patch_metres
        return math.ceil(count) if self.covers else int(count)
