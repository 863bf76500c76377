"""How well generated maps of classes agree with true ones, by a confusion matrix that can be summed over batches.

C classes, N images, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from copgen_cli.metrics.confidence import Floats
from copgen_cli.metrics.in_units.judgement import Judgement, mean


@dataclass(frozen=True, slots=True, eq=False)
class Confusion:
    """How many pixels of each true class were generated as which; `sum(rest, start=first)` adds up batches."""

    classes: tuple[int, ...]
    """(C,) values of the raster, without the one that is ignored."""
    counts: NDArray[np.int64]
    """(C, C + 1), rows are the truth; the last column counts what was generated as the ignored value."""

    def __add__(self, other: Confusion) -> Confusion:
        if self.classes != other.classes:
            raise ValueError(f"classes {self.classes} and {other.classes} can not be counted together")
        return Confusion(self.classes, self.counts + other.counts)

    @property
    def accuracy(self) -> float:
        """Share of pixels that have their true class; nan of none."""
        return float(_share(self._hits.sum(), self.counts.sum()))

    @property
    def iou(self) -> Floats:
        """(C,) intersection over union; nan of a class that occurs in neither."""
        return _share(self._hits, self._true + self._generated - self._hits)

    @property
    def f1(self) -> Floats:
        """(C,) harmonic means of precision and recall; nan of a class that occurs in neither."""
        return _share(2 * self._hits, self._true + self._generated)

    @property
    def mean_iou(self) -> float:
        """Over the classes that occur in the truth or in what was generated."""
        return mean(self.iou[np.isfinite(self.iou)])

    @property
    def macro_f1(self) -> float:
        """Mean over the classes that occur in the truth or in what was generated."""
        return mean(self.f1[np.isfinite(self.f1)])

    @property
    def _hits(self) -> NDArray[np.int64]:
        return self.counts.diagonal()

    @property
    def _true(self) -> NDArray[np.int64]:
        return np.asarray(self.counts.sum(axis=1))

    @property
    def _generated(self) -> NDArray[np.int64]:
        return np.asarray(self.counts[:, :-1].sum(axis=0))


def confusion_matrix(
    truth: NDArray[np.integer], generated: NDArray[np.integer], classes: Sequence[int], *, ignore: int | None = None
) -> Confusion:
    """Count which class was generated where.

    Args:
        truth, generated: (N, H, W) values of classes.
        classes: (C,) the values that there are.
        ignore: no class. Where the truth has this value nothing is counted; where only what was generated has it, the
            true class was missed.

    Raises:
        ValueError: shapes differ, or a value is none of these.
    """
    if truth.shape != generated.shape:
        raise ValueError(f"truth has shape {truth.shape} and generated {generated.shape}, expected one shape")
    known = tuple(c for c in classes if c != ignore)
    table = known if ignore is None else (*known, ignore)
    rows, columns = _positions(truth, table), _positions(generated, table)
    cells = rows * (len(known) + 1) + columns
    counts = np.bincount(cells[rows < len(known)], minlength=len(known) * (len(known) + 1))
    return Confusion(known, counts.reshape(len(known), len(known) + 1).astype(np.int64))


def judge_classes(confusion: Confusion) -> dict[str, Judgement]:
    """`accuracy`, `mean_iou` and `macro_f1`, and `iou` and `f1` of each class, such as `iou_5`; shares from 0 to 1."""
    return {
        "accuracy": Judgement(confusion.accuracy),
        "mean_iou": Judgement(confusion.mean_iou),
        "macro_f1": Judgement(confusion.macro_f1),
        **{
            f"{name}_{value}": Judgement(float(score), band=str(value))
            for name, scores in (("iou", confusion.iou), ("f1", confusion.f1))
            for value, score in zip(confusion.classes, scores, strict=True)
        },
    }


def _positions(values: NDArray[np.integer], table: Sequence[int]) -> NDArray[np.intp]:
    """Where in the table each value stands, as one row."""
    order = np.argsort(table)
    ordered = np.asarray(table)[order]
    at = np.searchsorted(ordered, values.ravel()).clip(max=len(table) - 1)
    strange = np.unique(values.ravel()[ordered[at] != values.ravel()]).tolist()
    if strange:
        raise ValueError(f"values {strange} are no classes")
    return order[at]


def _share(part: NDArray[np.int64] | np.integer, whole: NDArray[np.int64] | np.integer) -> Floats:
    """Part over whole; nan where that is nothing."""
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) > 0)
