"""The records of a run's units while it is under way: in memory while they are few, on disk once they are many.

A temporary database of SQLite, which is gone with the process; of millions of units, a few megabytes are in memory.
"""

from __future__ import annotations

import sqlite3
import tempfile
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

from copgen_cli.errors import DiskFullError

_CACHE_KB = 8_000


class UnitTable:
    """What is known of each unit, by its key, and which units this run was asked for."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        weakref.finalize(self, self._database.close)  # Python 3.13 warns of one that is only collected
        self._database.execute(f"PRAGMA cache_size = -{_CACHE_KB}")
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("CREATE TABLE units (key BLOB PRIMARY KEY, line BLOB, wanted INTEGER) WITHOUT ROWID")
        self._database.execute("BEGIN")
        self.wanted = 0
        """How many units this run was asked for."""

    def get(self, key: str) -> bytes | None:
        """The record of a unit, as a line of a manifest; None where there is none."""
        row = self._database.execute("SELECT line FROM units WHERE key = ?", (_blob(key),)).fetchone()
        return None if row is None else row[0]

    def set(self, key: str, line: bytes) -> None:
        self._write(
            "INSERT INTO units (key, line) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET line = excluded.line",
            _blob(key),
            line,
        )

    def want(self, key: str) -> None:
        """Say that this run was asked for a unit."""
        if not self.is_wanted(key):
            self.wanted += 1
            self._write(
                "INSERT INTO units (key, wanted) VALUES (?, ?) ON CONFLICT DO UPDATE SET wanted = excluded.wanted",
                _blob(key),
                self.wanted,
            )

    def is_wanted(self, key: str) -> bool:
        row = self._database.execute("SELECT wanted FROM units WHERE key = ?", (_blob(key),)).fetchone()
        return row is not None and row[0] is not None

    def lines(self) -> Iterator[tuple[str, bytes]]:
        """Keys and records, by key."""
        for key, line in self._database.execute("SELECT key, line FROM units WHERE line IS NOT NULL ORDER BY key"):
            yield _text(key), line

    def wanted_lines(self) -> Iterator[bytes]:
        """Records of the units that this run was asked for, in the order in which it was."""
        chosen = "SELECT line FROM units WHERE wanted IS NOT NULL AND line IS NOT NULL ORDER BY wanted"
        for (line,) in self._database.execute(chosen):
            yield line

    def change(self, change: Callable[[bytes], bytes]) -> None:
        """Put another in the place of every record."""
        self._database.create_function("changed", 1, change, deterministic=True)
        self._database.execute("UPDATE units SET line = changed(line) WHERE line IS NOT NULL")

    def keep(self, stays: Callable[[str], bool]) -> None:
        """Forget the records of units of which this is not true."""
        gone = [(_blob(key),) for key, _ in self.lines() if not stays(key)]
        self._database.executemany("UPDATE units SET line = NULL WHERE key = ?", gone)

    def _write(self, statement: str, *values: object) -> None:
        try:
            self._database.execute(statement, values)
        except sqlite3.OperationalError as error:
            if "full" in str(error):
                raise DiskFullError(Path(tempfile.gettempdir())) from error
            raise


def _blob(key: str) -> bytes:
    return key.encode("utf-8", "surrogateescape")


def _text(key: bytes) -> str:
    return key.decode("utf-8", "surrogateescape")
