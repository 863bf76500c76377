"""A map of a subset's cells, coloured by split; drawn with matplotlib, which is an extra."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping

from copgen_cli.archive import FOOTPRINT_METRES, footprint, parse_cell
from copgen_cli.errors import CopgenError
from copgen_cli.modalities import Split

MAP_FILE = "split_map.png"

_COLOURS = {Split.TRAIN: "#4477aa", Split.TEST: "#ee6677", None: "#bbbbbb"}  # told apart by colour-blind readers too
_LABELS = {Split.TRAIN: "train", Split.TEST: "test", None: "left out"}
_METRES_PER_DEGREE = 111_320


def draw_split_map(cells: Mapping[str, Split | None], title: str) -> bytes:
    """A PNG of the cells' squares in longitude and latitude.

    Raises:
        CopgenError: matplotlib is not installed.
    """
    require_matplotlib()
    from matplotlib.collections import PolyCollection
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 6), layout="constrained", dpi=150)
    axes = figure.add_subplot()
    for split, label in _LABELS.items():
        squares = [_square(cell) for cell, its in cells.items() if its is split]
        if squares:
            named = f"{label}: {len(squares):,}"
            axes.add_collection(PolyCollection(squares, facecolors=_COLOURS[split], edgecolors="white", label=named))
    axes.autoscale_view()
    if cells:
        axes.set_aspect(1 / _shrinking(sum(axes.get_ylim()) / 2))
        axes.legend(
            title=f"Cells of {title}", frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(_LABELS)
        )
    axes.ticklabel_format(useOffset=False)
    axes.set(xlabel="longitude (degrees)", ylabel="latitude (degrees)")
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    return drawn.getvalue()


def require_matplotlib() -> None:
    """Raises CopgenError where it is not installed: before the work, not after it."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise CopgenError(
            "Drawing the map needs matplotlib, which is not installed.",
            hint="Install it with `pip install 'copgen[plot]'`, or leave out --visualize.",
        ) from None


def _square(cell: str) -> list[tuple[float, float]]:
    """Corners of a cell's pictures in longitude and latitude; near enough for a drawing."""
    place = footprint(parse_cell(cell))
    high = FOOTPRINT_METRES / _METRES_PER_DEGREE / 2
    wide = high / _shrinking(place.centre_lat)
    signs = ((-1, -1), (1, -1), (1, 1), (-1, 1))
    return [(place.centre_lon + x * wide, place.centre_lat + y * high) for x, y in signs]


def _shrinking(lat: float) -> float:
    """Length of a degree of longitude over that of one of latitude."""
    return max(math.cos(math.radians(lat)), 0.01)
