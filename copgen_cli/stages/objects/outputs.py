"""Which of the two kinds an output wants: on a disk, or in an object store."""

from __future__ import annotations

from pathlib import Path

from copgen_cli.stages.claims import PRIVATE_FOLDER, Claims
from copgen_cli.stages.manifest import Journal
from copgen_cli.stages.objects.claims import ObjectClaims
from copgen_cli.stages.objects.journal import ObjectJournal
from copgen_cli.stages.objects.private_folder import ObjectPrivateFolder
from copgen_cli.stages.private_folder import PrivateFolder
from copgen_cli.storage import is_remote


def private_folder_of(output: Path, stage: str) -> PrivateFolder | ObjectPrivateFolder:
    return ObjectPrivateFolder(output, stage) if is_remote(output) else PrivateFolder(output, stage)


def journal_of(output: Path, stage: str) -> Journal:
    file = output / PRIVATE_FOLDER / f"{stage}.journal"
    return ObjectJournal(file) if is_remote(output) else Journal(file)


def claims_of(output: Path) -> Claims:
    """Those of a stage's run; `look_anew` comes first."""
    return ObjectClaims(output) if is_remote(output) else Claims(output)
