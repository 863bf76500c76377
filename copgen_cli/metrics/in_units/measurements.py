"""How far generated values lie from true ones: errors in the unit, spectral angle, PSNR and SSIM.

N images, B bands, H and W pixels. A mask `valid` is (N, H, W) or (N, B, H, W), true where there are data; without one
all pixels count whose truth is finite.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import minimum_filter

from copgen_cli.metrics.confidence import Floats
from copgen_cli.metrics.in_units.judgement import Judgement, mean, over_bands
from copgen_cli.metrics.pairwise import SSIM_WINDOW, psnr, ssim_map
from copgen_cli.modalities import BACKSCATTER, Kind, ModalitySpec, Rule

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class BandErrors:
    """Of one band, in its unit."""

    mae: float
    rmse: float
    bias: float
    """Mean of generated less true."""


def judge_values(
    truth: NDArray,
    generated: NDArray,
    valid: Mask | None = None,
    *,
    spec: ModalitySpec,
    data_range: float | None = None,
    structure: bool = True,
) -> dict[str, Judgement]:
    """Score rasters of one modality.

    Args:
        truth, generated: (N, B, H, W) in the modality's unit; backscatter is linear power, and judged in dB.
        valid: mask of the pixels that count.
        spec: of the modality, a raster.
        data_range: what PSNR and SSIM hold errors against, in the unit of the errors; without one, for each band
            the range of its truth.
        structure: SSIM too, which needs scikit-image.

    Returns:
        `mae`, `rmse`, `bias`, `psnr` and `ssim`, each as a mean over bands and, of several bands, of each; of several
        bands of reflectance `spectral_angle` in degrees.

    Raises:
        ValueError: shapes or bands do not fit, or the modality is no raster.
        CopgenError: scikit-image is not installed.
    """
    if spec.kind is not Kind.RASTER:
        raise ValueError(f"{spec.name} is of {spec.kind}, which has no errors in a unit")
    in_decibel = spec.normalisation.rule is Rule.DECIBEL
    unit, bands = "dB" if in_decibel else spec.unit, spec.bands
    if in_decibel:
        truth, generated = to_decibels(truth), to_decibels(generated)
    errors = band_errors(truth, generated, valid)
    found = {
        **over_bands("mae", [e.mae for e in errors], unit, bands),
        **over_bands("rmse", [e.rmse for e in errors], unit, bands),
        **over_bands("bias", [e.bias for e in errors], unit, bands),
        **over_bands("psnr", psnr_of_bands(truth, generated, valid, data_range), "dB", bands),
    }
    if structure:
        found |= over_bands("ssim", ssim_of_bands(truth, generated, valid, data_range), "", bands)
    if spec.unit.startswith("reflectance") and len(bands) > 1:
        found["spectral_angle"] = Judgement(spectral_angle(truth, generated, valid), "°")
    return found


def to_decibels(power: NDArray) -> Floats:
    """10 log10 of linear power; what is below the least power that normalisation knows counts as that much."""
    return np.asarray(10 * np.log10(np.maximum(power.astype(np.float64), BACKSCATTER.least)))


def band_errors(truth: NDArray, generated: NDArray, valid: Mask | None = None) -> list[BandErrors]:
    """Errors of each band over all pixels of all images that count.

    Args:
        truth, generated: (N, B, H, W) in one unit.
        valid: mask of the pixels that count.
    """
    found = []
    for t, g, kept in _bands(truth, generated, valid):
        apart = g[kept] - t[kept]
        found.append(BandErrors(mean(np.abs(apart)), float(np.sqrt(mean(np.square(apart)))), mean(apart)))
    return found


def spectral_angle(truth: NDArray, generated: NDArray, valid: Mask | None = None) -> float:
    """Angle between the spectra of a pixel (Kruse et al. 1993) in degrees, mean over pixels that count in all bands.

    It is computed as 2 atan2(|u - v|, |u + v|) of unit vectors, which is exact for small angles as well (Kahan 2006).
    A true spectrum of zeros has no direction and is left out; a generated one counts as 90 degrees.
    """
    kept = _kept(truth, generated, valid).all(axis=1) & (truth != 0).any(axis=1)
    true_directions, directions = (_directions(x.transpose(0, 2, 3, 1)[kept]) for x in (truth, generated))
    apart = np.linalg.norm(true_directions - directions, axis=1)
    together = np.linalg.norm(true_directions + directions, axis=1)
    return mean(np.degrees(2 * np.arctan2(apart, together)))


def psnr_of_bands(
    truth: NDArray, generated: NDArray, valid: Mask | None = None, data_range: float | None = None
) -> list[float]:
    """Peak signal-to-noise ratio of each band in dB, mean over images with pixels that count.

    Args:
        truth, generated: (N, B, H, W) in one unit.
        valid: mask of the pixels that count.
        data_range: the peak; without one the range of the band's truth in all images. Where that is none, only images
            without an error have a ratio.
    """
    found = []
    for t, g, kept in _bands(truth, generated, valid):
        peak = _range_of(t[kept]) if data_range is None else data_range
        found.append(mean([psnr(t[i][k], g[i][k], peak) for i, k in enumerate(kept) if k.any()]))
    return found


def ssim_of_bands(
    truth: NDArray, generated: NDArray, valid: Mask | None = None, data_range: float | None = None
) -> list[float]:
    """Structural similarity of each band, mean over the pixels around which a whole window counts, then over images.

    Args:
        truth, generated: (N, B, H, W) in one unit.
        valid: mask of the pixels that count.
        data_range: as of `psnr_of_bands`.

    Raises:
        CopgenError: scikit-image is not installed.
    """
    found = []
    for t, g, kept in _bands(truth, generated, valid):
        of_images = []
        span = _range_of(t[kept]) if data_range is None else data_range
        for i, k in enumerate(kept):
            whole = minimum_filter(k, size=SSIM_WINDOW, mode="constant", cval=False)
            if whole.any():
                of_images.append(mean(ssim_map(t[i], g[i], span)[whole]))
        found.append(mean(of_images))
    return found


def _bands(truth: NDArray, generated: NDArray, valid: Mask | None) -> list[tuple[Floats, Floats, Mask]]:
    """Of each band truth and generated, with nan for what is no number, and what counts; each (N, H, W)."""
    kept = _kept(truth, generated, valid)
    return [(_numbers(truth[:, b]), _numbers(generated[:, b]), kept[:, b]) for b in range(truth.shape[1])]


def _kept(truth: NDArray, generated: NDArray, valid: Mask | None) -> Mask:
    """(N, B, H, W) which pixels count."""
    if truth.ndim != 4 or truth.shape != generated.shape:
        shapes = f"{truth.shape} and {generated.shape}"
        raise ValueError(f"truth and generated have shapes {shapes}, expected twice (images, bands, height, width)")
    known = np.isfinite(truth)
    if valid is None:
        return known
    mask = valid[:, None] if valid.ndim == 3 else valid
    if mask.shape not in (truth.shape, (len(truth), 1, *truth.shape[2:])):
        raise ValueError(f"valid has shape {valid.shape}, expected that of the truth {truth.shape}, or without bands")
    return known & mask


def _numbers(values: NDArray) -> Floats:
    """float64, with nan for infinity too."""
    return np.where(np.isfinite(values), values.astype(np.float64), np.nan)


def _directions(spectra: NDArray) -> Floats:
    """(P, B) spectra in units of their norm; zeros stay zeros."""
    numbers = _numbers(spectra)
    norm = np.linalg.norm(numbers, axis=1, keepdims=True)
    return np.asarray(np.divide(numbers, norm, out=np.zeros_like(numbers), where=norm != 0))


def _range_of(values: Floats) -> float:
    """Highest less lowest; nan where there is none."""
    return (float(np.ptp(values)) if len(values) else 0.0) or float("nan")
