"""The index of a whole Major TOM source: one Parquet table, kept on disk and fetched when its ETag changes."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from copgen_cli.archive.remote import Archive, RemoteFile, UnreachableError
from copgen_cli.errors import BrokenInputError, UnavailableError
from copgen_cli.modalities import Modality
from copgen_cli.stages import Place, foreign_file, hash_file
from copgen_cli.storage import is_there, local_copy

ORGANISATION = "Major-TOM"


@dataclass(frozen=True, slots=True)
class WorldIndex:
    """One source's index, on disk."""

    modality: Modality
    file: Path
    revision: str | None
    """What the endpoint's `main` stood for when it last answered: parts are read from there. None for a folder."""
    current: bool
    """False where the endpoint did not answer, and the table is that of an earlier run."""

    @property
    def table(self) -> Path:
        """The table on this machine."""
        return local_copy(self.file)


@dataclass(frozen=True, slots=True)
class _Sidecar:
    etag: str
    size: int
    sha256: str
    """Of the table as it came: one that was damaged since is fetched again."""
    revision: str | None


def refresh_index(archive: Archive, modality: Modality, kept: Path, place: Place) -> WorldIndex:
    """Bring a source's table up to date, fetching it only when the endpoint has another.

    Args:
        kept: where the table lies between runs, with what the endpoint calls it beside.
        place: where a new table is put, under the name of its source: the folder of `kept`'s, or for a dry run another.

    Raises:
        CopgenError: there is neither an answer nor a table, or what came is no table.
        MismatchError: under the table's name lies what copgen did not fetch.
    """
    known = _read_sidecar(kept)
    if _sidecar(kept) is None:
        for file in filter(is_there, (kept, _sidecar_file(kept))):
            raise foreign_file(file)
    try:
        remote = archive.open(index_path(modality))
        if known is None or not known.etag or (known.etag, known.size) != (remote.etag, remote.size):
            kept = _fetch(remote, f"{modality.source.name}/{kept.name}", place)
        return WorldIndex(modality, kept, remote.commit, current=True)
    except (UnreachableError, UnavailableError):
        if known is None:
            raise
        return WorldIndex(modality, kept, known.revision, current=False)


def index_path(modality: Modality) -> str:
    return f"/datasets/{ORGANISATION}/{modality.source.name}/resolve/main/metadata.parquet"


def _fetch(remote: RemoteFile, path: str, place: Place) -> Path:
    kept = place.output / path
    with place.writing(path, needed=remote.size) as beside:
        remote.save(beside)
        try:
            pq.read_schema(beside)
        except (pa.ArrowException, OSError) as error:
            raise BrokenInputError(
                f"The index for {kept} is no Parquet table: {error}", hint="Check --endpoint, and run again."
            ) from None
        sidecar = _Sidecar(remote.etag or "", beside.stat().st_size, hash_file(beside), remote.commit)
        # before the table: a kill between leaves one that is known for ours, and for another than described
        place.write(_sidecar_file(Path(path)).as_posix(), f"{json.dumps(asdict(sidecar))}\n".encode())
    return kept


def _sidecar_file(kept: Path) -> Path:
    return kept.with_suffix(".json")


def _read_sidecar(kept: Path) -> _Sidecar | None:
    """What the table on disk is; None where there is none, or another than the sidecar describes."""
    known = _sidecar(kept)
    try:
        is_so = known is not None and kept.stat().st_size == known.size and hash_file(local_copy(kept)) == known.sha256
        return known if is_so else None
    except OSError:
        return None


def _sidecar(kept: Path) -> _Sidecar | None:
    """What is said of the table; None where nothing is."""
    try:
        values = json.loads(_sidecar_file(kept).read_bytes())
        return _Sidecar(str(values["etag"]), int(values["size"]), str(values["sha256"]), values["revision"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
