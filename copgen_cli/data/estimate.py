"""What a download will take, before it: requests and bytes, from sizes that are typical of the archive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from copgen_cli.data.majortom import BANDS, Order
from copgen_cli.modalities import Modality

REQUESTS_PER_PART = 3
"""One to resolve its address, two for its tail."""


@dataclass(frozen=True, slots=True)
class _Sizes:
    """Bytes, as the public archive has them on average."""

    thumbnail: int
    row: int
    footer: int


_TYPICAL: Mapping[Modality, _Sizes] = {
    Modality.DEM: _Sizes(thumbnail=60_000, row=540_000, footer=250_000),
    Modality.S1RTC: _Sizes(thumbnail=1_200_000, row=10_700_000, footer=500_000),
    Modality.S2L1C: _Sizes(thumbnail=180_000, row=10_500_000, footer=1_300_000),
    Modality.S2L2A: _Sizes(thumbnail=180_000, row=10_200_000, footer=1_200_000),
}


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
        bytes_over_wire=on_disk + sum(_TYPICAL[modality].footer for modality, _ in parts),
        bytes_on_disk=on_disk,
    )


def _bytes_of(order: Order) -> int:
    sizes = _TYPICAL[order.product.modality]
    bands = BANDS[order.product.modality]
    wanted = order.bands.of(order.product.modality)
    whole = sizes.thumbnail + (sizes.row - sizes.thumbnail) * len(wanted) // len(bands)
    return max(0, whole - sum(file.size for file in order.kept))
