"""How far samples of one place differ, and pictures averaged until only what samples can know is left.

N places, n samples of each, H and W pixels.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from copgen_cli.metrics.confidence import Floats

BLOCK = 8
"""Side in pixels of the squares that `block_means` averages over: what one latent pixel covers."""


def block_means(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(..., H // 8, W // 8, C) means of pictures (..., H, W, C) over squares, what is left at the border cut off.

    Layout and colour stay; speckle and texture, which no sample can know, average out.
    """
    *lead, height, width, channels = pictures.shape
    rows, columns = height // BLOCK, width // BLOCK
    cut = pictures[..., : rows * BLOCK, : columns * BLOCK, :]
    squares = cut.reshape(*lead, rows, BLOCK, columns, BLOCK, channels)
    return np.asarray(squares.mean(axis=(-4, -2), dtype=np.float32))


def layouts(averaged: NDArray[np.float32]) -> NDArray[np.float32]:
    """What lies where in pictures (..., h, w, C): each channel without its mean, then all of one picture in units of
    their norm, so that squared distances are 2 - 2 r, with r the correlation; zeros of an even picture."""
    apart = averaged - averaged.mean(axis=(-3, -2), keepdims=True)
    norm = np.sqrt(np.square(apart).sum(axis=(-3, -2, -1), keepdims=True))
    return np.asarray(np.divide(apart, norm, out=np.zeros_like(apart), where=norm > 1e-3))


def diversity(samples: NDArray[np.uint8]) -> float:
    """Mean over pairs of samples (n, H, W, C) of their root-mean-square difference, in grey levels; nan for one."""
    pairs = [
        float(np.sqrt(np.square(samples[i].astype(np.float32) - samples[j]).mean()))
        for i, j in combinations(range(len(samples)), 2)
    ]
    return float(np.mean(pairs)) if pairs else float("nan")


def mean_over_samples(values: Floats) -> Floats:
    """(N,) means of (N, n), leaving out what is nan; nan where all are."""
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(known, values, 0).sum(1) / np.where(known.any(1), known.sum(1), np.nan))
