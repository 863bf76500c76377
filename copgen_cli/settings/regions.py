"""The regions that come with the package; users add their own under `[regions.NAME]` in copgen.toml."""

from __future__ import annotations

from pathlib import Path
from typing import Any

BUILT_IN_REGIONS: dict[str, dict[str, Any]] = {
    "rome": {  # the published example
        "bbox": (12.2, 41.6, 13.0, 42.2),
        "start_date": "2017-01-01",
        "end_date": "2025-01-01",
        "cloud_cover": (0.0, 10.0),
        "n_samples": 10,
        "seed": 42,
    },
    "alps": {
        "bbox": (6.5, 45.5, 8.5, 46.5),
        "start_date": "2017-01-01",
        "end_date": "2025-01-01",
        "cloud_cover": (0.0, 10.0),
        "seed": 42,
    },
    "netherlands": {
        "bbox": (4.0, 51.4, 6.5, 53.2),
        "start_date": "2017-01-01",
        "end_date": "2025-01-01",
        "cloud_cover": (0.0, 10.0),
        "seed": 42,
    },
}


def known_regions(config: Path | None = None) -> list[str]:
    """Names of built-in and configured regions, without validating the settings file: for completion and messages."""
    names = list(BUILT_IN_REGIONS)
    return [*names, *(name for name in configured("regions", config) if name not in names)]


def configured(section: str, config: Path | None = None) -> list[str]:
    """Names of the tables of a section of the settings file, as it stands."""
    import tomllib

    file = config or Path("copgen.toml")
    try:
        return list(tomllib.loads(file.read_text(encoding="utf-8")).get(section, {}))
    except (OSError, ValueError):
        return []
