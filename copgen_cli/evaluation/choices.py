"""Which metrics are computed, and what they need: a feature network, a perceptual distance, training pictures."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from copgen_cli.errors import CopgenError, UsageError
from copgen_cli.evaluation.pictures import Pictures, read_training
from copgen_cli.metrics import (
    DEFAULT_METRICS,
    LEAST_SIDE,
    NEED_FEATURES,
    NEED_MODEL,
    OF_MEASUREMENTS,
    AutoencoderFeatures,
    Compare,
    FeatureNetwork,
    Metric,
    load_features,
    load_lpips,
    parse_metrics,
    require_ssim,
)
from copgen_cli.model import BUNDLED_NAME, bundled_folder
from copgen_cli.sampling import LoadedModel


def choose_metrics(text: str | None, *, has_model: bool, has_training: bool) -> tuple[frozenset[Metric], list[str]]:
    """Those that are asked for, or else all that can be had, and what is left out.

    Raises:
        UsageError: a metric that is asked for needs what is not given.
        CopgenError: SSIM is asked for, and scikit-image is not installed.
    """
    lacking = set() if has_model else set(NEED_MODEL)
    lacking |= set() if has_training else {Metric.COPYING}
    if text is not None:
        chosen = parse_metrics(text)
        for metric in chosen:
            if metric in lacking:
                what = "--model" if metric in NEED_MODEL else "--training"
                raise UsageError(f"The metric {metric} needs {what}.", hint="Give it, or leave the metric out.")
        if Metric.SSIM in chosen:
            require_ssim()
        return frozenset(chosen), []
    notes = []
    if find_spec("skimage") is None:
        lacking.add(Metric.SSIM)
        notes.append("SSIM is left out: it needs scikit-image (pip install 'copgen[evaluate]').")
    return frozenset(m for m in DEFAULT_METRICS if m not in lacking), notes


def choose_features(
    source: str | None, model: LoadedModel | None, metrics: frozenset[Metric], *, explicit: bool, device: Any
) -> tuple[FeatureNetwork | None, frozenset[Metric]]:
    """The named network; else the bundled autoencoder, so that models can be compared; else the model's own.

    Returns:
        The network, and the metrics without those that it would be needed for where there is none.
    """
    if not metrics & (NEED_FEATURES | {Metric.CYCLE}):
        return None, metrics
    if source is not None:
        return load_features(source, device), metrics
    try:
        bundled_folder()
    except CopgenError:
        if model is not None:
            return AutoencoderFeatures(model.autoencoder), metrics
        if explicit:
            needing = ", ".join(m for m in Metric if m in metrics & NEED_FEATURES)
            raise UsageError(
                f"A feature network is needed for {needing}, and this installation comes without one.",
                hint="Name one with --features: the folder of an autoencoder, or inception.",
            ) from None
        return None, metrics - NEED_FEATURES
    return load_features(BUNDLED_NAME, device), metrics


def leave_out_small(
    metrics: frozenset[Metric], side: int, network: FeatureNetwork | None, notes: list[str], *, explicit: bool
) -> frozenset[Metric]:
    """The metrics that pictures of that many pixels along their shorter side are large enough for.

    Raises:
        UsageError: one that is asked for by name is not among them.
    """
    least = LEAST_SIDE | dict.fromkeys(NEED_FEATURES, network.least_side if network else 1)
    small = [m for m in Metric if m in metrics and side < least.get(m, 1)]
    if small:
        message = f"Pictures of {side} px are too small for {', '.join(f'{m} (from {least[m]} px)' for m in small)}."
        if explicit:
            raise UsageError(message, hint="Leave that out of --metrics, or give larger pictures.")
        notes.append(message)
    return metrics - set(small)


def metrics_of_measurements(text: str | None) -> frozenset[Metric]:
    """Those that are asked for, or all; raises UsageError where one is of pictures."""
    metrics = frozenset(parse_metrics(text)) if text else OF_MEASUREMENTS
    if metrics - OF_MEASUREMENTS:
        raise UsageError(
            f"{', '.join(sorted(metrics - OF_MEASUREMENTS))} can not be had of measurements.",
            hint=f"Choose of {', '.join(sorted(OF_MEASUREMENTS))}.",
        )
    return metrics


def told_of(metrics: frozenset[Metric], *, explicit: bool) -> frozenset[Metric]:
    """The metrics whose absence is news: all that are asked for, else those that most sets of pictures give."""
    return metrics if explicit else metrics & (NEED_FEATURES | {Metric.RETRIEVAL, Metric.COPYING})


def find_training(
    folder: Path | None, sizes: Mapping[str, tuple[int, int]], metrics: frozenset[Metric], seed: int, *, required: bool
) -> dict[str, Pictures]:
    """What `read_training` finds, where copies are looked for.

    Raises:
        CopgenError: it finds nothing, though training pictures are required.
    """
    if Metric.COPYING not in metrics:
        return {}
    found = read_training(folder, sizes, seed) if folder else {}
    if required and not found:
        lacking = f"There are no training pictures of {', '.join(sizes)} in {folder}"
        raise CopgenError(
            f"{lacking if folder else 'What the model was trained on is not known'}, and copying needs that.",
            hint="Name them with --training, or leave copying out of --metrics.",
        )
    return found


def choose_perceptual(metrics: frozenset[Metric], device: Any) -> Compare | None:
    return load_lpips(device) if Metric.LPIPS in metrics else None
