"""What is in a packed store, byte for byte; readable without pickle from any language that has LMDB.

A store is one LMDB database, `data.mdb`, per split:

    key                        value
    the patch's name, UTF-8    raw little-endian array (M, 2 C, H, W): modalities in index order, mean, log-variance
    .copgen                    JSON: format, version, modalities, shape, dtype, count, autoencoder, source
    .names                     all names in the order of their keys, each padded with zero bytes to one width

Names of patches begin with a letter or digit. Keys are sorted by their bytes, as LMDB sorts them.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from copgen_cli.errors import BrokenInputError, MismatchError
from copgen_cli.latents.autoencoder_record import AutoencoderFacts
from copgen_cli.modalities import Modality

DATA_FILE = "data.mdb"
LOCK_FILE = "lock.mdb"
"""What LMDB leaves beside a database that it opens with a lock, which no store needs."""
METADATA_KEY = b".copgen"
NAMES_KEY = b".names"
FORMAT = "copgen latent store"
VERSION = 1
DTYPES = {"float32": "<f4", "float16": "<f2"}


@dataclass(frozen=True, slots=True)
class StoreMetadata:
    """The record that describes a store."""

    modalities: tuple[Modality, ...]
    shape: tuple[int, int, int, int]
    """(M, 2 C, H, W) of every record."""
    dtype: str
    """float32 or float16."""
    count: int
    """Records of patches."""
    autoencoder: AutoencoderFacts
    source: str
    """SHA-256 that tells what was packed from anything else."""

    @property
    def record_bytes(self) -> int:
        modalities, channels, height, width = self.shape
        return modalities * channels * height * width * (2 if self.dtype == "float16" else 4)

    def as_json(self) -> bytes:
        values = {
            "format": FORMAT,
            "version": VERSION,
            "modalities": [str(modality) for modality in self.modalities],
            "shape": list(self.shape),
            "dtype": DTYPES[self.dtype],
            "channels": "mean, then log-variance",
            "count": self.count,
            "autoencoder": asdict(self.autoencoder),
            "source": self.source,
        }
        return json.dumps(values, indent=1).encode()

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
            if values["version"] != VERSION:
                raise MismatchError(
                    f"{file} is a store of version {values['version']}; this copgen reads version {VERSION}.",
                    hint="Pack it again with `copgen pack --overwrite`, or use the copgen that wrote it.",
                )
            metadata = cls(
                modalities=tuple(Modality(name) for name in values["modalities"]),
                shape=_shape(values["shape"]),
                dtype={code: name for name, code in DTYPES.items()}[values["dtype"]],
                count=int(values["count"]),
                autoencoder=AutoencoderFacts.from_dict(values["autoencoder"]),
                source=str(values["source"]),
            )
        except MismatchError:
            raise
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise BrokenInputError(
                f"The metadata of {file} can not be read: {error}.",
                hint="Pack it again with `copgen pack --overwrite`.",
            ) from error
        if metadata.shape[0] != len(metadata.modalities) or len(set(metadata.modalities)) < len(metadata.modalities):
            raise BrokenInputError(
                f"{file} holds records of shape {metadata.shape} for the modalities {', '.join(metadata.modalities)}.",
                hint="Pack it again with `copgen pack --overwrite`.",
            )
        return metadata


def _shape(values: Any) -> tuple[int, int, int, int]:
    modalities, channels, height, width = (int(value) for value in values)
    if min(modalities, channels, height, width) < 1 or channels % 2 or modalities * channels * height * width > 1 << 28:
        raise ValueError(f"the shape {values} is impossible")
    return modalities, channels, height, width
