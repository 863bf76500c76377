"""Modalities and families of users: `[modalities.NAME]` and `[families.NAME]` in copgen.toml.

[modalities.heat]
kind = "raster"
files = "heat"                 # a folder of GeoTIFFs: one per cell, or any that cover it
bands = ["day", "night"]
dtype = "float32"
nodata = -9999
unit = "K"
pixel_size = 20
range = [250, 330]

[families.town]
modalities = ["s2_l2a", "heat"]
patch_metres = 2560
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from copgen_cli.errors import UnknownNameError, UsageError
from copgen_cli.modalities import (
    BETA,
    COPGEN_2026,
    PIXEL_METRES,
    SOURCES,
    TILE_METRES,
    ClassValue,
    Family,
    Kind,
    Modality,
    ModalitySpec,
    Normalisation,
    PictureRule,
    Rendering,
    Rule,
    declare,
)
from copgen_cli.settings.sections import HomePath, Section

_OF_RASTERS = {"dtype", "nodata", "range", "normalisation", "least", "unit", "render"}


class ClassSettings(Section):
    value: int
    name: str
    colour: Annotated[str, Field(pattern="^#[0-9a-fA-F]{6}$")]
    """As #rrggbb."""


class ModalitySettings(Section):
    """One modality of a user."""

    kind: Literal["picture", "raster", "classes"]
    title: str | None = None
    """How pictures and tables call it; None is its name."""
    files: HomePath | None = None
    """A folder of pictures or GeoTIFFs, one called like each cell or any that cover it."""
    source: str | None = None
    """A dataset of Major TOM, whose columns the bands are."""
    bands: tuple[str, ...] = ()
    """In the order of the channels."""
    dtype: Literal["uint8", "int16", "uint16", "int32", "float32"] | None = None
    """Of the files, read and written; None is float32, and uint8 of classes."""
    nodata: float | None = None
    unit: str = ""
    pixel_size: PositiveFloat = PIXEL_METRES
    """Metres on the ground."""
    side: PositiveInt | None = None
    """Pixels of a patch along a side; None is what a patch of its family has."""
    normalisation: Literal["linear", "decibel", "log-height"] = "linear"
    range: tuple[float, float] | None = None
    """Values that become -1 and 1; of decibel in dB, of log-height in log(1 + metres)."""
    least: PositiveFloat = 1e-6
    """What values not above 0 become, before a logarithm."""
    classes: tuple[ClassSettings, ...] = ()
    """The table, in the order of the channels."""
    render: tuple[str, ...] = ()
    """One band, or three for red, green and blue; None is the first."""
    grey: bool = False
    """A picture of one channel."""
    autoencoder: str | None = None
    """Folder or hub id; None is the one that `train-autoencoder` makes for it, and of pictures encode.vae."""
    patch_size: PositiveInt | None = None
    """Side of the network's patches in latent pixels; None is train.model.patch_size."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.files is None and self.source is None:
            raise ValueError("it has neither files nor a source: where does it come from?")
        if self.files is not None and self.source is not None:
            raise ValueError("it has files and a source; it comes from one of them")
        if self.kind == "picture" and (self.bands or self.classes or self.source):
            raise ValueError("a picture has neither bands nor classes nor a source, and comes from files")
        if self.kind == "picture" and (idle := sorted(_OF_RASTERS & self.model_fields_set)):
            raise ValueError(f"a picture has no {', '.join(idle)}")
        limit = {"decibel": 300, "log-height": 20}.get(self.normalisation, 1e9)
        if self.range is not None and max(map(abs, self.range)) > limit:
            raise ValueError(f"a range to {self.range[1]:g} is beyond what {self.normalisation} can be")
        if self.kind == "raster" and not self.bands:
            raise ValueError("a raster names its bands")
        if self.kind == "raster" and self.range is None:
            raise ValueError("a raster has a range: the values that become -1 and 1")
        if self.kind == "classes" and (not self.classes or len(self.bands) > 1):
            raise ValueError("classes have a table of them, and one band")
        if self.range is not None and self.range[0] >= self.range[1]:
            raise ValueError(f"the range {self.range[0]:g} to {self.range[1]:g} is empty")
        if len({one.value for one in self.classes}) < len(self.classes):
            raise ValueError("a value is in the table of classes twice")
        if len(set(self.bands)) < len(self.bands):
            raise ValueError("a band is named twice")
        if len(self.render) not in (0, 1, 3) or set(self.render) - set(self.bands):
            raise ValueError("render names one or three of its bands")
        return self


class FamilySettings(Section):
    """An ordered set of modalities that one network knows."""

    modalities: Annotated[tuple[str, ...], Field(min_length=1)]
    """In the network's order."""
    title: str | None = None
    patch_metres: Annotated[float, Field(gt=0, le=min(TILE_METRES))] = BETA.patch_metres
    """Side of a patch on the ground."""
    covers: bool = False
    """Whether patches cover a cell to its edges, overlapping where they must; else those that fit around its middle."""

    @field_validator("modalities")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            raise ValueError("a modality is named twice")
        return value


def declare_users(
    modalities: Mapping[str, ModalitySettings], families: Mapping[str, FamilySettings]
) -> tuple[Family, ...]:
    """Make a user's modalities and families known, in place of those declared before.

    Raises:
        UsageError: a key contradicts another; it is named.
    """
    made = tuple(
        Family(name, one.title or name, one.modalities, one.patch_metres, one.covers) for name, one in families.items()
    )
    declare([_spec_of(name, one, made) for name, one in modalities.items()], made)
    for one in made:
        for name in one.modalities:
            _check_side(Modality(name).spec, one)
    return made


def _spec_of(name: str, one: ModalitySettings, families: tuple[Family, ...]) -> ModalitySpec:
    if not name.isidentifier():
        raise UsageError(
            f"modalities.{name}: letters, digits and underscores make a name.", hint=f"Such as {name.replace('-', '_')}"
        )
    source = None
    if one.source is not None:
        by_name = {known.name: known for known in SOURCES}
        if one.source not in by_name:
            raise UnknownNameError(f"value of modalities.{name}.source", one.source, known=list(by_name))
        source = by_name[one.source]
        for band in one.bands:
            if band not in source.columns:
                raise UnknownNameError(f"band of modalities.{name}.bands", band, known=source.columns)
    kind = Kind(one.kind)
    if kind is Kind.PICTURE:
        bands: tuple[str, ...] = ("grey",) if one.grey else ("red", "green", "blue")
        normalisation, rendering = Normalisation(Rule.PICTURE), Rendering.PLAIN
    elif kind is Kind.CLASSES:
        bands = one.bands or (name,)
        normalisation, rendering = Normalisation(Rule.ONE_HOT), Rendering.CLASSES
    else:
        assert one.range is not None
        bands = one.bands
        normalisation, rendering = Normalisation(Rule(one.normalisation), *one.range, one.least), Rendering.STRETCH
    low, high = _shown(one) if kind is Kind.RASTER else (0.0, 1.0)
    return ModalitySpec(
        name=name,
        title=one.title or name,
        kind=kind,
        bands=bands,
        side=one.side or max(_side_in(name, one, families), 1),
        pixel_size=one.pixel_size,
        normalisation=normalisation,
        picture=PictureRule(rendering, one.render or bands[:1], low=low, high=high),
        folder=name,
        dtype=one.dtype or ("float32" if kind is Kind.RASTER else "uint8"),
        nodata=one.nodata,
        unit=one.unit,
        source=source,
        files=None if one.files is None else str(Path(one.files).expanduser().absolute()),
        classes=tuple(ClassValue(c.value, c.name, c.colour) for c in one.classes),
        autoencoder=one.autoencoder,
        patch_size=one.patch_size,
        grey=one.grey,
    )


def _shown(one: ModalitySettings) -> tuple[float, float]:
    """Least and most of its picture, in its unit."""
    assert one.range is not None
    low, high = one.range
    if one.normalisation == "decibel":
        return 10 ** (low / 10), 10 ** (high / 10)
    if one.normalisation == "log-height":
        return math.expm1(low), math.expm1(high)
    return low, high


def _side_in(name: str, one: ModalitySettings, families: tuple[Family, ...]) -> int:
    """Pixels of a patch along a side, in the families that know the modality."""
    sides = {family.patch_metres / one.pixel_size for family in families if name in family.modalities}
    if len(sides) > 1:
        raise UsageError(
            f"modalities.{name} is in families with patches of different sizes.", hint=f"Set modalities.{name}.side."
        )
    return round(sides.pop() if sides else BETA.patch_metres / one.pixel_size)


def _check_side(spec: ModalitySpec, family: Family) -> None:
    """Raises UsageError where a patch of the family is no patch of the modality."""
    pixel_size = spec.patch_pixel_size
    if not spec.is_scalar and abs(spec.side * pixel_size - family.patch_metres) > 1e-6:
        raise UsageError(
            f"families.{family.name}: a patch of {family.patch_metres:g} m is not {spec.side} px of {spec.name}, "
            f"which has {pixel_size:g} m a pixel.",
            hint=f"Set patch_metres = {spec.side * pixel_size:g}, or another modality: beta's have patches of "
            f"{BETA.patch_metres:g} m, those of {COPGEN_2026.name} of {COPGEN_2026.patch_metres:g} m.",
        )


def validate_users(values: Mapping[str, Any]) -> tuple[dict[str, ModalitySettings], dict[str, FamilySettings]]:
    """The two sections of merged settings, before the others, whose values may name what they declare.

    Raises:
        ValidationError: of pydantic, with a location that begins with `modalities` or `families`.
    """
    both = _Vocabulary.model_validate({key: values.get(key, {}) for key in ("modalities", "families")})
    return both.modalities, both.families


class _Vocabulary(Section):
    modalities: dict[str, ModalitySettings]
    families: dict[str, FamilySettings]
