"""Values in their unit to [-1, 1], which autoencoders take, and back; by the rule of a modality.

The rules and numbers of `copgen-2026` are those of COP-GEN (2026, arXiv:2603.03239).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from copgen_cli.errors import BrokenInputError
from copgen_cli.modalities.spec import ModalitySpec, Rule

Values = NDArray[np.float32]


def normalise(values: np.ndarray, spec: ModalitySpec) -> Values:
    """Values of a raster or of classes to what the modality's autoencoder takes.

    Args:
        values: (B, H, W) in the modality's unit; of classes (1, H, W).
        spec: of the modality, no scalar.

    Returns:
        (channels, H, W) float32, about in [-1, 1]; a linear rule does not clip.

    Raises:
        ValueError: a class is none of the table's.
    """
    rule = spec.normalisation
    low, width = np.float32(rule.low), np.float32(rule.high - rule.low)
    match rule.rule:
        case Rule.PICTURE:
            return values.astype(np.float32) / np.float32(127.5) - 1
        case Rule.LINEAR:
            unit = (values.astype(np.float32) - low) / width
        case Rule.DECIBEL:
            power = np.where(values <= 0, np.float32(rule.least), values.astype(np.float32))
            unit = (np.float32(10) * np.log10(power) - low) / width
        case Rule.LOG_HEIGHT:
            height = np.where(values <= 0, np.float32(rule.least), values.astype(np.float32))
            unit = (np.log1p(height) - low) / width
        case _:
            unit = np.stack([values[0] == value for value in spec.class_values]).astype(np.float32)
            if not unit.any(axis=0).all():
                strange = sorted(set(np.unique(values).tolist()) - set(spec.class_values))
                raise ValueError(f"values {strange} are no classes")
    return 2 * unit - 1


def normalise_file(values: np.ndarray, spec: ModalitySpec, missing: np.ndarray | None, name: str) -> Values:
    """As `normalise`, of what a file holds: with the least value, or the first class, where one is missing.

    Args:
        values: (B, H, W) as they are in the file.
        spec: of the modality.
        missing: (B, H, W) bool.
        name: of the file, for messages.

    Raises:
        BrokenInputError: a value is not finite, or no class.
    """
    if missing is not None and missing.any():
        values = np.where(missing, spec.blank, values)
    if not np.isfinite(values).all():
        raise BrokenInputError(f"{name} holds values that are no numbers", hint="Declare its nodata value.")
    try:
        return normalise(values, spec)
    except ValueError as error:
        raise BrokenInputError(f"{name}: {error}", hint=f"Known: {', '.join(map(str, spec.class_values))}.") from error


def to_values(decoded: np.ndarray, spec: ModalitySpec) -> np.ndarray:
    """What an autoencoder gives, (..., channels, H, W) about in [-1, 1], to values in the modality's unit.

    Returns:
        (..., B, H, W) float32; of classes (..., 1, H, W) int64.
    """
    rule = spec.normalisation
    unit = (decoded.astype(np.float32) + 1) / 2
    low, width = np.float32(rule.low), np.float32(rule.high - rule.low)
    match rule.rule:
        case Rule.PICTURE:
            return np.clip(unit, 0, 1) * np.float32(255)
        case Rule.LINEAR:
            return unit * width + low if rule.low else unit * width
        case Rule.DECIBEL:
            decibel = np.clip(unit, 0, 1) * width + low
            return np.maximum(np.float32(10) ** (decibel / np.float32(10)), np.float32(rule.least))
        case Rule.LOG_HEIGHT:
            return np.expm1(np.clip(unit, 0, 1) * width + low)
        case _:
            return np.asarray(spec.class_values)[decoded.argmax(axis=-3)][..., None, :, :]
