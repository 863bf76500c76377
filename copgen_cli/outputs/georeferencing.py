"""Where what is generated lies on the ground, by the table that `copgen prepare` writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq

from copgen_cli.errors import BrokenInputError
from copgen_cli.modalities import Modality
from copgen_cli.records import Georeferencing
from copgen_cli.storage import readable


@dataclass(frozen=True, slots=True)
class GeoreferencingTable:
    """The footprints of a split's patches, looked up by name."""

    columns: Mapping[str, list[object]] = field(default_factory=dict)
    rows: Mapping[str, int] = field(default_factory=dict)

    def of(self, patch: str, modality: Modality) -> Georeferencing | None:
        """The footprint of a patch in the modality's own grid, or in the table's where it has none; None if unknown."""
        row = self.rows.get(patch)
        if row is None:
            return None
        own = f"{modality}_crs" in self.columns and self.columns[f"{modality}_crs"][row] is not None
        prefix = f"{modality}_" if own else ""
        crs, c, f = (self.columns[f"{prefix}{name}"][row] for name in ("crs", "c", "f"))
        a, b, d, e = (self.columns[name][row] for name in "abde")
        if not isinstance(crs, str) or not all(isinstance(value, float) for value in (a, b, c, d, e, f)):
            return None
        if not modality.spec.is_picture:  # of the size of its own pixels, north up as all tiles are
            a, b, d, e = modality.spec.pixel_size, 0.0, 0.0, -modality.spec.pixel_size
        return Georeferencing(crs, (a, b, c, d, e, f))  # type: ignore[arg-type]


def read_georeferencing_table(table: Path) -> GeoreferencingTable:
    """The places of a split's table; none where there is no table.

    Raises:
        BrokenInputError: the table is damaged, or not one of patches.
    """
    if not table.is_file():
        return GeoreferencingTable()
    try:
        there = set(pq.read_schema(readable(table)).names)
        wanted = ["patch", "crs", *"abcdef", *(f"{m}_{name}" for m in Modality for name in ("crs", "c", "f"))]
        columns = pq.read_table(readable(table), columns=[name for name in wanted if name in there]).to_pydict()
        rows = {name: row for row, name in enumerate(columns["patch"])}
    except (OSError, ValueError, KeyError) as error:  # pyarrow's errors are ValueErrors or OSErrors
        raise BrokenInputError(
            f"{table} is not a table of patches: {error}.", hint="Run `copgen prepare` again."
        ) from error
    return GeoreferencingTable(columns, rows)
