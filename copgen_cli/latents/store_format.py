"""What is in a packed store, byte for byte; readable without pickle from any language that has LMDB.

A store is one LMDB database, `data.mdb`, per split:

    key                        value
    the patch's name, UTF-8    raw little-endian array (M, 2 C, H, W): modalities in index order, mean, log-variance
    .copgen                    JSON: format, version, modalities, shape, dtype, count, autoencoder, source
    .names                     all names in the order of their keys, each padded with zero bytes to one width

That is version 1. Where latents differ in shape or autoencoder, a store is of version 2: a record is the arrays of all
modalities one after the other, each (2 C, H, W), and `.copgen` says of each modality what it is (`specs`), its `shape`
and its `autoencoder`. Place and time have 2 C = 2: the numbers, and a log-variance of nothing.

Names of patches begin with a letter or digit. Keys are sorted by their bytes, as LMDB sorts them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from copgen_cli.errors import BrokenInputError, MismatchError, UnknownNameError
from copgen_cli.latents.autoencoder_record import AutoencoderFacts
from copgen_cli.modalities import Modality, carry, spec_as_dict, spec_from_dict

DATA_FILE = "data.mdb"
LOCK_FILE = "lock.mdb"
"""What LMDB leaves beside a database that it opens with a lock, which no store needs."""
METADATA_KEY = b".copgen"
NAMES_KEY = b".names"
FORMAT = "copgen latent store"
VERSION = 1
MIXED_VERSION = 2
"""Of stores whose modalities differ in shape or autoencoder."""
DTYPES = {"float32": "<f4", "float16": "<f2"}


@dataclass(frozen=True, slots=True)
class Part:
    """One modality of every record."""

    shape: tuple[int, int, int]
    """(2 C, H, W)."""
    autoencoder: AutoencoderFacts

    @property
    def numbers(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class StoreMetadata:
    """The record that describes a store."""

    modalities: tuple[Modality, ...]
    shape: tuple[int, int, int, int] | None
    """(M, 2 C, H, W) of every record; None where modalities differ."""
    dtype: str
    """float32 or float16."""
    count: int
    """Records of patches."""
    autoencoder: AutoencoderFacts | None
    """None where modalities differ."""
    source: str
    """SHA-256 that tells what was packed from anything else."""
    mixed: tuple[Part, ...] = ()
    """Of each modality, where they differ."""

    @property
    def parts(self) -> tuple[Part, ...]:
        """Of each modality, alike or not."""
        if self.shape is None or self.autoencoder is None:
            return self.mixed
        _, *shape = self.shape
        return (Part((shape[0], shape[1], shape[2]), self.autoencoder),) * len(self.modalities)

    @property
    def numbers(self) -> int:
        """Of a record."""
        return sum(part.numbers for part in self.parts)

    @property
    def record_bytes(self) -> int:
        return self.numbers * (2 if self.dtype == "float16" else 4)

    def as_json(self) -> bytes:
        values: dict[str, Any] = {
            "format": FORMAT,
            "version": MIXED_VERSION if self.mixed else VERSION,
            "modalities": [str(modality) for modality in self.modalities],
            "dtype": DTYPES[self.dtype],
            "channels": "mean, then log-variance",
            "count": self.count,
            "source": self.source,
        }
        if self.mixed:
            values["specs"] = [spec_as_dict(modality.spec) for modality in self.modalities]
            values["shapes"] = [list(part.shape) for part in self.mixed]
            values["autoencoders"] = [asdict(part.autoencoder) for part in self.mixed]
        else:
            assert self.shape is not None
            assert self.autoencoder is not None
            values |= {"shape": list(self.shape), "autoencoder": asdict(self.autoencoder)}
        return json.dumps({key: values[key] for key in _ORDER if key in values}, indent=1).encode()

    @classmethod
    def from_json(cls, data: bytes, file: Path) -> StoreMetadata:
        """Read the record.

        Raises:
            MismatchError: it is of another version.
            BrokenInputError: it is not what it should be.
        """
        try:
            values = json.loads(data)
            if values["format"] != FORMAT:
                raise ValueError(f"its format is {values['format']!r}")
            if values["version"] not in (VERSION, MIXED_VERSION):
                raise MismatchError(
                    f"{file} is a store of version {values['version']}; this copgen reads versions {VERSION} and "
                    f"{MIXED_VERSION}.",
                    hint="Pack it again with `copgen pack --overwrite`, or use the copgen that wrote it.",
                )
            is_mixed = values["version"] == MIXED_VERSION
            if is_mixed:
                carry([spec_from_dict(spec) for spec in values["specs"]], f"The store {file}")
            metadata = cls(
                modalities=tuple(Modality(name) for name in values["modalities"]),
                shape=None if is_mixed else _shape(values["shape"]),
                dtype={code: name for name, code in DTYPES.items()}[values["dtype"]],
                count=int(values["count"]),
                autoencoder=None if is_mixed else AutoencoderFacts.from_dict(values["autoencoder"]),
                source=str(values["source"]),
                mixed=_parts(values) if is_mixed else (),
            )
        except MismatchError:
            raise
        except (ValueError, KeyError, TypeError, RecursionError, UnknownNameError) as error:
            raise BrokenInputError(
                f"The metadata of {file} can not be read: {error}.",
                hint="Pack it again with `copgen pack --overwrite`.",
            ) from error
        parts = len(metadata.mixed) if metadata.shape is None else metadata.shape[0]
        if parts != len(metadata.modalities) or len(set(metadata.modalities)) < len(metadata.modalities):
            shape = metadata.shape or [part.shape for part in metadata.mixed]
            raise BrokenInputError(
                f"{file} holds records of shape {shape} for the modalities {', '.join(metadata.modalities)}.",
                hint="Pack it again with `copgen pack --overwrite`.",
            )
        return metadata


_ORDER = (
    "format", "version", "modalities", "specs", "shape", "shapes", "dtype", "channels", "count", "autoencoder",
    "autoencoders", "source",
)  # fmt: skip


def settings_of_parts(modalities: Sequence[Modality], parts: Sequence[Part]) -> dict[str, Any]:
    """What manifests say of shapes and autoencoders: once where all are alike."""
    if all(part == parts[0] for part in parts) and all(modality.spec.is_picture for modality in modalities):
        return {"shape": list(parts[0].shape), "autoencoder": asdict(parts[0].autoencoder)}
    return {
        "shapes": {str(m): list(part.shape) for m, part in zip(modalities, parts, strict=True)},
        "autoencoders": {str(m): asdict(part.autoencoder) for m, part in zip(modalities, parts, strict=True)},
    }


def _parts(values: Mapping[str, Any]) -> tuple[Part, ...]:
    shapes = [_shape((1, *shape))[1:] for shape in values["shapes"]]
    autoencoders = [AutoencoderFacts.from_dict(facts) for facts in values["autoencoders"]]
    return tuple(Part(shape, facts) for shape, facts in zip(shapes, autoencoders, strict=True))


def _shape(values: Any) -> tuple[int, int, int, int]:
    modalities, channels, height, width = (int(value) for value in values)
    if min(modalities, channels, height, width) < 1 or channels % 2 or modalities * channels * height * width > 1 << 28:
        raise ValueError(f"the shape {values} is impossible")
    return modalities, channels, height, width
