"""The page of all extras, from pyproject.toml: what each brings, and what for, as the comment behind it says."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

PROJECT = Path(__file__).parents[1] / "pyproject.toml"
_LINE = re.compile(r"^([a-z0-9-]+) = \[.*\]  # (.+)$", re.MULTILINE)


def extras() -> dict[str, list[str]]:
    """The packages of each extra."""
    found: dict[str, list[str]] = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    return found


def extras_page() -> str:
    """Markdown: one table."""
    said = dict(_LINE.findall(PROJECT.read_text(encoding="utf-8").partition("[project.optional-dependencies]")[2]))
    parts = [
        "# Extras\n\nWhat most need comes with the package. The rest is asked for by name: in the folder of the clone "
        "`pip install -c constraints.txt '.[scene,studio]'`. A command that lacks one says which.\n"
        "\n| extra | for | brings |\n|---|---|---|\n"
    ]
    for name, packages in sorted(extras().items()):
        brings = ", ".join(f"`{package}`" for package in packages)
        parts.append(f"| `{name}` | {said[name]} | {brings} |\n")
    return "".join(parts)
