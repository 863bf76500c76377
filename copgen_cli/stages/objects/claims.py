"""Which objects of an output are not ours: those that were there before the run, and that no record names."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from copgen_cli.stages.claims import PRIVATE_FOLDER, Claims, foreign_file, read_records
from copgen_cli.storage import list_output

MANIFESTS = "copgen_*.json"


@dataclass(frozen=True, slots=True)
class ObjectClaims(Claims):
    """Without a note for each name: a worker needs the names that are taken, and nothing else."""

    theirs: set[str] = field(default_factory=set)
    """Names relative to the folder of what copgen did not write."""

    def look_anew(self, told: Iterable[str] | None = None) -> None:
        """List the output.

        Args:
            told: what was not ours when the run that is continued began; None where none is.
        """
        there = list_output(self.folder, private=PRIVATE_FOLDER, manifests=MANIFESTS)
        records = read_records(self.folder)
        before = there.keys() if told is None else there.keys() & set(told)
        self.theirs.clear()
        self.theirs.update(name for name in before if not records.name(name))

    def take(self, targets: Iterable[Path]) -> None:
        for target in targets:
            if self._relative(target) in self.theirs:
                raise foreign_file(target)

    def adopt(self, files: Iterable[Path]) -> None:
        self.theirs.difference_update(self._relative(file) for file in files)

    def owns(self, file: Path) -> bool:
        return self._relative(file) not in self.theirs

    def exist(self) -> bool:
        there = list_output(self.folder, private=PRIVATE_FOLDER, manifests=MANIFESTS)
        records = read_records(self.folder)
        return any(not records.name(name) for name in there.keys() - self.theirs)

    def forget(self) -> None:
        pass
