"""The vocabulary of a process: which modalities and families there are, and how names are read.

Those of the package are always there. Those of users are declared when settings are loaded, and those that a store or
a model carries when it is opened, so that a datum can be understood wherever it goes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, fields, replace
from typing import Any

from copgen_cli.errors import MismatchError, UnknownNameError, UsageError
from copgen_cli.modalities.builtin import BETA, FAMILIES, SOURCES, SPECS
from copgen_cli.modalities.spec import (
    ClassValue,
    Family,
    Kind,
    ModalitySpec,
    Normalisation,
    PictureRule,
    Rendering,
    Rule,
    Source,
)

_known: dict[str, Modality] = {}
_families: dict[str, Family] = {}
_users: set[str] = set()
"""Modalities of the settings that were loaded last."""
_user_families: set[str] = set()


class _Vocabulary(type):
    """`Modality` as a list of what is known, and as a look-up by name."""

    def __iter__(cls) -> Iterator[Modality]:
        return iter(tuple(_known.values()))

    def __len__(cls) -> int:
        return len(_known)

    def __call__(cls, name: str) -> Modality:
        if isinstance(name, Modality):
            return name
        if name in _known:
            return _known[name]
        for modality in _known.values():
            if modality.spec.published == name:
                return modality
        raise UnknownNameError("modality", str(name), known=list(_known))


class Modality(str, metaclass=_Vocabulary):
    """One of the views of a place: its name, with what is known of it.

    `Modality("dem")` looks one up, by its name or by that in published checkpoints; iterating over the class gives all
    in the order of indices on disk.
    """

    spec: ModalitySpec
    DEM: Modality
    S1RTC: Modality
    S2L1C: Modality
    S2L2A: Modality

    @property
    def value(self) -> str:
        return str(self)

    @property
    def order(self) -> int:
        """Index among all modalities, from 0; databases and published checkpoints are in this order."""
        return list(_known).index(self)

    @property
    def source(self) -> Source:
        """The dataset of Major TOM that it comes from.

        Raises:
            ValueError: it comes from none.
        """
        if self.spec.source is None:
            raise ValueError(f"{self} is in no dataset of Major TOM")
        return self.spec.source

    @staticmethod
    def of_source(source: str) -> Modality:
        """The thumbnail of a Major TOM dataset name, such as `Core-S2L2A`."""
        for modality in archived():
            if modality.source.name == source:
                return modality
        raise UnknownNameError("source", source, known=[one.name for one in SOURCES])

    @staticmethod
    def of_folder(folder: str) -> Modality:
        """The modality of a folder name, such as `S2L2A_thumbnail`."""
        for modality in Modality:
            if modality.spec.folder == folder:
                return modality
        raise UnknownNameError("modality folder", folder, known=[m.spec.folder for m in Modality])

    def __reduce__(self) -> tuple[Any, ...]:
        return (_restore, (self.spec,))

    def __copy__(self) -> Modality:
        return self

    def __deepcopy__(self, memo: object) -> Modality:
        return self

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        from pydantic_core import PydanticCustomError, core_schema

        def look_up(value: object) -> Modality:
            if isinstance(value, str):
                try:
                    return Modality(value)
                except UnknownNameError:
                    pass
            names = ", ".join(f"'{name}'" for name in _known)
            raise PydanticCustomError("enum", "it is none of {expected}", {"expected": names})

        return core_schema.no_info_plain_validator_function(
            look_up, serialization=core_schema.plain_serializer_function_ser_schema(str)
        )


def _make(spec: ModalitySpec) -> Modality:
    modality: Modality = str.__new__(Modality, spec.name)
    modality.spec = spec
    return modality


def _restore(spec: ModalitySpec) -> Modality:
    """A modality that comes from another process, which may know more of them."""
    known = _known.get(spec.name)
    return known if known is not None and known.spec == spec else _known.setdefault(spec.name, _make(spec))


def _begin() -> None:
    _known.clear()
    _families.clear()
    _users.clear()
    for spec in SPECS:
        _known[spec.name] = _make(spec)
    for one in FAMILIES:
        _families[one.name] = one


_begin()
Modality.DEM, Modality.S1RTC, Modality.S2L1C, Modality.S2L2A = (_known[name] for name in BETA.modalities)
PUBLISHED = (Modality.DEM, Modality.S1RTC, Modality.S2L1C, Modality.S2L2A)
"""What the published weights of COP-GEN-Beta know, in their order; they do not name it."""


def archived() -> tuple[Modality, ...]:
    """The thumbnail of each dataset of Major TOM, which stands for the dataset where products are spoken of."""
    return PUBLISHED


def require_archived(modalities: Iterable[Modality], command: str) -> None:
    """Raises UsageError where one is no thumbnail of a dataset: the command draws or renders these alone."""
    for modality in modalities:
        if modality not in archived():
            raise UsageError(
                f"`copgen {command}` is for {', '.join(archived())}, not for {modality}.",
                hint="`copgen sample --save-as geotiff` writes measurements where their patch lies.",
            )


def declare(specs: Iterable[ModalitySpec], families: Iterable[Family] = ()) -> None:
    """Make the modalities and families of a user's settings known, in place of those declared before.

    Raises:
        UsageError: a name is taken by one of the package, or a family names what there is not.
    """
    own, sets = list(specs), list(families)
    taken = {name.lower() for s in SPECS for name in (s.name, s.folder, s.published) if name}
    for name in [spec.name for spec in own if spec.name.lower() in taken]:
        raise UsageError(
            f"modalities.{name} is the name of a modality of the package.", hint="Choose another name for it."
        )
    for spec in own:
        if problem := spec.problem():
            raise UsageError(f"modalities.{spec.name}: {problem}.", hint="`copgen config show` prints what it is.")
    for name in [one.name for one in sets if one.name in {f.name for f in FAMILIES}]:
        raise UsageError(f"families.{name} is the name of a family of the package.", hint="Choose another name for it.")
    for name in _users:
        _known.pop(name, None)
    for name in _user_families:
        _families.pop(name, None)
    _users.clear()
    _user_families.clear()
    for spec in own:
        before = _known.get(spec.name)
        _known[spec.name] = before if before is not None and before.spec == spec else _make(spec)
        _users.add(spec.name)
    for one in sets:
        for name in one.modalities:
            if name not in _known:
                raise UnknownNameError(f"modality of families.{one.name}", name, known=list(_known))
        _families[one.name] = one
        _user_families.add(one.name)


def carry(specs: Iterable[ModalitySpec], where: str) -> None:
    """Make the modalities known that a store or a model carries.

    Args:
        where: what carries them, for messages.

    Raises:
        MismatchError: one is known under that name and is another.
    """
    for spec in specs:
        known = _known.get(spec.name)
        if known is None:
            _known[spec.name] = _make(spec)
            continue
        differing = differences(known.spec, spec)
        if differing:
            raise MismatchError(
                f"{where} was made with another {spec.name}: {differing[0]}.",
                hint=f"Mend [modalities.{spec.name}] in copgen.toml, or call the new one by another name.",
            )


_OF_NO_ACCOUNT = {"title", "files", "autoencoder", "picture", "source", "published", "scale_factor"}
"""What may differ without values meaning something else."""


def differences(one: ModalitySpec, other: ModalitySpec) -> list[str]:
    """In which keys two modalities of one name are not the same; those that change no value are left out."""
    keys = [field.name for field in fields(ModalitySpec) if field.name not in _OF_NO_ACCOUNT]
    return [
        f"its {key} is {getattr(other, key)}, not {getattr(one, key)}"
        for key in keys
        if getattr(one, key) != getattr(other, key)
    ]


def spec_as_dict(spec: ModalitySpec) -> dict[str, Any]:
    """A modality as JSON takes it, for stores and models to carry: what says where things lie on a machine is left
    out, and of what the package knows anyway only the name is said."""
    if spec in SPECS:
        return {"name": spec.name}
    values = asdict(replace(spec, files=None, autoencoder=None))
    values["source"] = None if spec.source is None else spec.source.name
    return values


def spec_from_dict(values: Mapping[str, Any]) -> ModalitySpec:
    """Read what `spec_as_dict` wrote.

    Raises:
        ValueError, KeyError or TypeError: it is something else.
    """
    known = {spec.name: spec for spec in SPECS}
    name = str(values["name"])
    if set(values) == {"name"}:
        return known[name]
    rule, picture = values["normalisation"], values["picture"]
    sources = {source.name: source for source in SOURCES}
    latent = values["latent"]
    spec = ModalitySpec(
        name=name,
        title=str(values["title"]),
        kind=Kind(values["kind"]),
        bands=tuple(map(str, values["bands"])),
        side=int(values["side"]),
        pixel_size=float(values["pixel_size"]),
        normalisation=Normalisation(Rule(rule["rule"]), *(float(rule[key]) for key in ("low", "high", "least"))),
        picture=PictureRule(
            Rendering(picture["rendering"]),
            tuple(map(str, picture["bands"])),
            low=float(picture["low"]),
            high=float(picture["high"]),
        ),
        folder=str(values["folder"]),
        dtype=str(values["dtype"]),
        nodata=None if values["nodata"] is None else float(values["nodata"]),
        unit=str(values["unit"]),
        source=None if values["source"] is None else sources[values["source"]],
        classes=tuple(ClassValue(int(c["value"]), str(c["name"]), str(c["colour"])) for c in values["classes"]),
        latent=None if latent is None else (int(latent[0]), int(latent[1]), int(latent[2])),
        scale_factor=None if values["scale_factor"] is None else float(values["scale_factor"]),
        patch_size=None if values["patch_size"] is None else int(values["patch_size"]),
        grey=bool(values["grey"]),
    )
    if problem := spec.problem():
        raise ValueError(f"{spec.name!r} is no modality: {problem}")
    return spec


def families() -> tuple[Family, ...]:
    """All that are known, those of the package first."""
    return tuple(_families.values())


def family(name: str) -> Family:
    """The family of that name; an error names the nearest."""
    if name not in _families:
        raise UnknownNameError("family", name, known=list(_families))
    return _families[name]


def family_with(names: Iterable[str]) -> Family | None:
    """The first family that has all of these modalities; None where none has."""
    wanted = set(names)
    return next((one for one in _families.values() if wanted <= set(one.modalities)), None)


def modalities_in(one: Family) -> tuple[Modality, ...]:
    """Those of a family, in the network's order."""
    return tuple(Modality(name) for name in one.modalities)


def archived_in(one: Family) -> tuple[Modality, ...]:
    """The thumbnails that stand for the datasets of Major TOM that a family is made from, in index order."""
    names = {modality.source.name for modality in modalities_in(one) if modality.spec.source is not None}
    return tuple(modality for modality in archived() if modality.source.name in names)


def columns_in(one: Family) -> tuple[str, ...]:
    """The columns of bands that a family needs of these datasets; none where thumbnails are enough."""
    specs = [modality.spec for modality in modalities_in(one)]
    from_archive = [spec for spec in specs if spec.source is not None and not spec.is_picture]
    return tuple(dict.fromkeys(band for spec in from_archive for band in spec.bands))


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
    """The modality of that name, or the thumbnail of that Major TOM dataset; an error names the nearest."""
    for modality in archived():
        if name == modality.source.name:
            return modality
    return Modality(name)


def in_index_order(modalities: Iterable[Modality]) -> tuple[Modality, ...]:
    """Without repeats, in the order of the registry."""
    chosen = set(modalities)
    return tuple(modality for modality in Modality if modality in chosen)
