"""The sizes of training that have a name: values below any file, variable or option, and above the defaults."""

from __future__ import annotations

from enum import StrEnum
from typing import Any


class Preset(StrEnum):
    TINY = "tiny"
    """Seconds on one core: for trying the command and for tests."""
    SMALL = "small"
    """An hour on a laptop."""
    BASE = "base"
    """The published network and optimiser (arXiv:2504.08548)."""


def preset_values(preset: Preset) -> dict[str, Any]:
    """The `train` section of a preset, as a settings file would hold it."""
    return _VALUES[preset]


_VALUES: dict[Preset, dict[str, Any]] = {
    Preset.TINY: {
        "model": {"patch_size": 8, "hidden_size": 32, "depth": 2, "num_heads": 2},
        "steps": 20,
        "batch_size": 4,
        "lr": 1e-3,
        "warmup": 2,
        "ema_decay": 0.9,
        "save_every": 10,
        "validate_every": 10,
        "preview_every": 0,
        "preview_samples": 2,
        "preview_steps": 4,
    },
    Preset.SMALL: {
        "model": {"patch_size": 4, "hidden_size": 256, "depth": 8, "num_heads": 4},
        "positions": "sine",
        "steps": 2_000,
        "batch_size": 16,
        "lr": 5e-4,
        "betas": (0.9, 0.99),
        "warmup": 100,
        "ema_decay": 0.998,
        "ema_warmup": True,
        "save_every": 100,
        "validate_every": 200,
        "preview_every": 500,
        "preview_steps": 20,
    },
    Preset.BASE: {
        "model": {"patch_size": 2, "hidden_size": 1024, "depth": 20, "num_heads": 16},
        "steps": 500_000,
        "batch_size": 512,
        "lr": 2e-4,
        "betas": (0.99, 0.99),
        "warmup": 5_000,
        "ema_decay": 0.9999,
        "save_every": 1_000,
        "validate_every": 5_000,
        "preview_every": 5_000,
        "preview_steps": 50,
    },
}
