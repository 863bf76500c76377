"""What a download will take, before it: requests and bytes, from sizes that are typical of the archive."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from copgen_cli.archive.products import Order

REQUESTS_PER_PART = 3
"""One to resolve its address, two for its tail."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Of what is still to be fetched; the index tables are not in it."""

    products: int
    parts: int
    requests: int
    bytes_over_wire: int
    bytes_on_disk: int


def estimate(orders: Sequence[Order]) -> Estimate:
    """About what fetching these products takes, if nothing fails."""
    parts = {(order.product.modality, order.path) for order in orders}
    on_disk = sum(_bytes_of(order) for order in orders)
    return Estimate(
        products=len(orders),
        parts=len(parts),
        requests=REQUESTS_PER_PART * len(parts) + len(orders),
        bytes_over_wire=on_disk + sum(modality.facts.typical.footer for modality, _ in parts),
        bytes_on_disk=on_disk,
    )


def _bytes_of(order: Order) -> int:
    facts = order.product.modality.facts
    wanted = order.bands.of(order.product.modality)
    rest = facts.typical.row - facts.typical.thumbnail
    whole = facts.typical.thumbnail + rest * len(wanted) // max(len(facts.bands), 1)
    return max(0, whole - sum(file.size for file in order.kept))
