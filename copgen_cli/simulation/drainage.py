"""Where water runs: depressions, receivers, drained area, and the stream-power erosion that follows from them.

A landscape drains along the minimum spanning tree of its pixels when an edge costs the height of its upper end: the
way from a pixel to the border of the tree is the way with the lowest pass (the priority flood of Barnes, Lehman &
Mulla 2014, doi:10.1016/j.cageo.2013.04.024, finds the same one). Sums and maxima along those ways are taken by
pointer doubling: log2 of the longest way many array operations, no loop over pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csgraph

Index = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Drainage:
    """The drainage tree of an (n, n) raster; pixels are counted row by row, and n * n stands for the outside."""

    receiver: Index
    """(n * n + 1,) the pixel that each one drains to."""
    filled: NDArray[np.float64]
    """(n, n) height after every depression has been filled to its brim."""
    area: NDArray[np.float64]
    """(n, n) drained area, in pixels, the pixel itself included."""


def drain(
    height: NDArray[np.float64], outlet: NDArray[np.bool_], rain: NDArray[np.float64], *, diagonals: bool = True
) -> Drainage:
    """Find the drainage of a raster.

    Args:
        height: (n, n) metres.
        outlet: (n, n) pixels that drain straight to the outside: the border, the sea.
        rain: (n, n) what each pixel adds to the drained area, 1 for a whole pixel.
        diagonals: let water run to all eight neighbours rather than to four; takes twice the time.
    """
    size = height.shape[0]
    flat = height.ravel()
    first, second, distance = _neighbours(size, diagonals)
    upper, drop = np.maximum(flat[first], flat[second]), np.abs(flat[first] - flat[second])
    ways_out = np.flatnonzero(outlet)
    # among ways over the same pass the steepest wins: the second term only breaks ties
    cost = np.concatenate([upper - 1e-3 * drop / distance, flat[ways_out]])
    cost -= cost.min() - 1  # a sparse graph takes a cost of zero for no edge
    outside = size * size
    ends = np.concatenate([first, np.full(len(ways_out), outside)]), np.concatenate([second, ways_out])
    graph = coo_array((cost, ends), shape=(outside + 1, outside + 1)).tocsr()
    tree = csgraph.minimum_spanning_tree(graph)
    _, receiver = csgraph.breadth_first_order(tree, outside, directed=False)
    receiver = receiver.astype(np.intp)
    receiver[outside] = outside
    area = _sum_upstream(receiver, np.append(rain.ravel(), 0.0))[:-1].reshape(size, size)
    filled = _highest_downstream(receiver, np.append(flat, -np.inf))[:-1].reshape(size, size)
    return Drainage(receiver, filled, area)


def erode(drainage: Drainage, strength: NDArray[np.float64]) -> NDArray[np.float64]:
    """One implicit step of stream-power erosion (Braun & Willett 2013, doi:10.1016/j.geomorph.2012.10.008, n = 1).

    The scheme h = (h0 + F h_receiver) / (1 + F) is an affine map of the receiver's height, and affine maps along a
    way compose, so the whole tree is solved by pointer doubling.

    Args:
        drainage: of the raster to erode.
        strength: (n, n) F = K dt A^m / dx; outlets keep their height.

    Returns:
        (n, n) eroded heights, metres.
    """
    size = strength.shape[0]
    factor = np.append(strength.ravel() / (1 + strength.ravel()), 0.0)
    offset = np.append(drainage.filled.ravel() / (1 + strength.ravel()), 0.0)
    outside = size * size
    outlets = drainage.receiver == outside
    factor[outlets] = 0.0
    offset[:-1][outlets[:-1]] = drainage.filled.ravel()[outlets[:-1]]
    receiver = drainage.receiver
    while (receiver != outside).any():
        offset = offset + factor * offset[receiver]
        factor = factor * factor[receiver]
        receiver = receiver[receiver]
    return offset[:-1].reshape(size, size)


def _sum_upstream(receiver: Index, weight: NDArray[np.float64]) -> NDArray[np.float64]:
    outside = len(receiver) - 1
    total = weight.copy()
    while (receiver != outside).any():
        total = total + np.bincount(receiver, weights=total, minlength=len(receiver))
        total[outside] = 0.0
        receiver = receiver[receiver]
    return total


def _highest_downstream(receiver: Index, height: NDArray[np.float64]) -> NDArray[np.float64]:
    outside = len(receiver) - 1
    highest = height
    while (receiver != outside).any():
        highest = np.maximum(highest, highest[receiver])
        receiver = receiver[receiver]
    return highest


@lru_cache(maxsize=4)
def _neighbours(size: int, diagonals: bool) -> tuple[Index, Index, NDArray[np.float64]]:
    """Both ends of every edge among neighbours, once each, and its length in pixels."""
    index = np.arange(size * size).reshape(size, size)
    pairs = [(index[:, :-1], index[:, 1:]), (index[:-1], index[1:])]
    if diagonals:
        pairs += [(index[:-1, :-1], index[1:, 1:]), (index[:-1, 1:], index[1:, :-1])]
    first = np.concatenate([one.ravel() for one, _ in pairs])
    second = np.concatenate([other.ravel() for _, other in pairs])
    straight = 2 * size * (size - 1)
    return first, second, np.where(np.arange(len(first)) < straight, 1.0, 2**0.5)
