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
    import tomllib

    file = config or Path("copgen.toml")
    names = list(BUILT_IN_REGIONS)
    try:
        configured = tomllib.loads(file.read_text(encoding="utf-8")).get("regions", {})
    except (OSError, ValueError):
        configured = {}
    return [*names, *(name for name in configured if name not in names)]
