"""Boxes of longitude and latitude in degrees: west, south, east, north."""

from __future__ import annotations


def spans_of_box(west: float, east: float) -> tuple[tuple[float, float], ...]:
    """Ranges of longitude of a box, west to east: two where it crosses the antimeridian, west being greater."""
    return ((west, east),) if west <= east else ((-180.0, east), (west, 180.0))


def problem_of_box(west: float, south: float, east: float, north: float) -> str | None:
    """What is wrong with a box in degrees; None where nothing is. West may be greater than east (RFC 7946)."""
    if not (-180 <= west <= 180 and -180 <= east <= 180 and -90 <= south <= 90 and -90 <= north <= 90):
        return "leaves the globe"
    if west == east or south >= north:
        return "is empty: south is less than north, and west and east differ"
    if west > east and east + 360 - west > 180:
        return "crosses the antimeridian the long way round: west and east seem to be swapped"
    return None
