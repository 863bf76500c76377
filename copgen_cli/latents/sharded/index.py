"""Which shards a store has, and what is in each: `index.json`, beside the folders of the shards.

    train/index.json            this file, written after all others
    train/names.bin             the names of all records, as `.names` of a store has them: each padded to one width
    train/shard-00000/data.mdb  the first shard, a packed store like any other (`store_format`)

The index is JSON: `format`, `version`, `metadata` (the `.copgen` record of a store, of all records together), `names`
(file, bytes, sha256), and `shards` in the order of records (file, records, first and last name, bytes, sha256, source).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from copgen_cli.errors import BrokenInputError, MismatchError, MissingInputError
from copgen_cli.latents.store_format import DATA_FILE, StoreMetadata
from copgen_cli.stages import safe_path

INDEX_FILE = "index.json"
NAMES_FILE = "names.bin"
FORMAT = "copgen sharded store"
VERSION = 1

_HINT = "Copy the store again from where it was packed, or pack it again with `copgen pack --overwrite`."


@dataclass(frozen=True, slots=True)
class IndexedFile:
    """A file of a store, as the index describes it."""

    path: str
    """Relative to the index, with forward slashes."""
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Shard:
    """A run of records in a file of their own."""

    file: IndexedFile
    records: int
    first: str | None
    """Name of its first record; None where all that it was to hold was broken."""
    last: str | None
    source: str
    """As in the shard's own metadata."""


@dataclass(frozen=True, slots=True)
class ShardIndex:
    metadata: StoreMetadata
    """Of all records together."""
    names: IndexedFile
    shards: tuple[Shard, ...]

    def as_json(self) -> bytes:
        names = self.names
        values = {
            "format": FORMAT,
            "version": VERSION,
            "metadata": json.loads(self.metadata.as_json()),
            "names": {"file": names.path, "bytes": names.bytes, "sha256": names.sha256},
            "shards": [
                {
                    "file": shard.file.path,
                    "records": shard.records,
                    "first": shard.first,
                    "last": shard.last,
                    "bytes": shard.file.bytes,
                    "sha256": shard.file.sha256,
                    "source": shard.source,
                }
                for shard in self.shards
            ],
        }
        return json.dumps(values, indent=1, ensure_ascii=False).encode() + b"\n"

    @classmethod
    def from_json(cls, data: bytes, file: Path) -> ShardIndex:
        """Read an index.

        Raises:
            MismatchError: it is of a newer format.
            BrokenInputError: it is not what it should be, or names a file outside of its folder.
        """
        try:
            values = json.loads(data)
            if values["format"] != FORMAT:
                raise ValueError(f"its format is {values['format']!r}")
            if values["version"] != VERSION:
                raise MismatchError(
                    f"{file} is an index of version {values['version']}; this copgen reads version {VERSION}.",
                    hint="Use the copgen that wrote it or a newer one, or pack again with `copgen pack --overwrite`.",
                )
            metadata = StoreMetadata.from_json(json.dumps(values["metadata"]).encode(), file)
            index = cls(metadata, _file(values["names"]), tuple(_shard(shard) for shard in values["shards"]))
            _check(index)
        except MismatchError:
            raise
        except BrokenInputError as error:
            raise BrokenInputError(f"The index {file} can not be used: {error}", hint=_HINT) from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise BrokenInputError(f"The index {file} can not be read: {error}.", hint=_HINT) from error
        return index


def index_of(path: Path) -> Path | None:
    """The index that a path stands for, itself or the folder's; None where there is none."""
    file = path if path.name == INDEX_FILE else path / INDEX_FILE
    return file if file.is_file() else None


def read_index(file: Path) -> ShardIndex:
    """Read the index in a file.

    Raises:
        MissingInputError: there is none.
        MismatchError: it is of a newer format.
        BrokenInputError: it is damaged, or names a file outside of its folder.
    """
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        raise MissingInputError("packed store", file.parent, written_by="pack") from None
    return ShardIndex.from_json(data, file)


def shard_folder(number: int) -> str:
    """The folder of a shard, beside the index."""
    return f"shard-{number:05}"


def _file(values: Mapping[str, Any]) -> IndexedFile:
    path, size, sha256 = str(values["file"]), int(values["bytes"]), str(values["sha256"])
    safe_path(path)
    if size < 0 or len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
        raise ValueError(f"size or SHA-256 of {path} is none")
    return IndexedFile(path, size, sha256)


def _shard(values: Mapping[str, Any]) -> Shard:
    first, last = (None if values[key] is None else str(values[key]) for key in ("first", "last"))
    shard = Shard(_file(values), int(values["records"]), first, last, str(values["source"]))
    if Path(shard.file.path).name != DATA_FILE or shard.records < 0:
        raise ValueError(f"{shard.file.path} is no shard")
    return shard


def _check(index: ShardIndex) -> None:
    """Raises ValueError where the parts of an index contradict one another."""
    shards: Sequence[Shard] = index.shards
    total = sum(shard.records for shard in shards)
    if total != index.metadata.count:
        raise ValueError(f"its shards hold {total:,} records, not {index.metadata.count:,}")
    if len({shard.file.path for shard in shards}) < len(shards):
        raise ValueError("it names a shard twice")
