"""Which records go to which shard: contiguous ranges of their order, of as many records each as can be."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from copgen_cli.errors import UsageError
from copgen_cli.latents.store_builder import store_bytes

if TYPE_CHECKING:
    from copgen_cli.latents.packing import SplitPlan

_OVERHEAD = 0.02
"""Of a file, beside its records: pages of its tree, names, and what transactions leave unused."""


@dataclass(frozen=True, slots=True)
class Dealt:
    """A split, and the files that it becomes, or those of them that are to be made."""

    plan: SplitPlan
    stores: tuple[SplitPlan, ...]
    """The plan itself where it is one file."""
    sharded: bool = False


@dataclass(frozen=True, slots=True)
class Sharding:
    """How splits are dealt to files; one file each where neither is given."""

    shards: int | None = None
    """Of the split with the most records; others get shards of about as many records, as many as they need."""
    shard_bytes: int | None = None
    """The most that a shard takes."""

    def settings(self) -> dict[str, Any]:
        """What the manifest says of it: nothing for single files, as manifests before."""
        values = {"shards": self.shards, "shard_bytes": self.shard_bytes}
        return {key: value for key, value in values.items() if value is not None}

    def deal(self, plans: Sequence[SplitPlan]) -> list[Dealt]:
        """The files of each split that has records.

        Raises:
            UsageError: there are fewer records than shards, or one record takes more than a shard may.
        """
        plans = [plan for plan in plans if plan.names]
        if self.shards is None and self.shard_bytes is None:
            return [Dealt(plan, (plan,)) for plan in plans]
        most = max((len(plan.names) for plan in plans), default=0)
        if self.shards is not None and self.shards > most > 0:
            raise UsageError(
                f"{most:,} records can not be dealt to {self.shards:,} shards.",
                hint=f"Ask for at most {most:,}, or give the size of a shard with --shard-bytes.",
            )
        return [Dealt(plan, _cut(plan, self._number(plan, most)), sharded=True) for plan in plans]

    def _number(self, plan: SplitPlan, most: int) -> int:
        """How many shards a split becomes."""
        if self.shards is not None:
            return -(-len(plan.names) * self.shards // most)
        assert self.shard_bytes is not None
        fixed, each = store_bytes(0, plan.record_bytes), store_bytes(1, plan.record_bytes) - store_bytes(0, 1)
        fitting = int((self.shard_bytes - fixed) / (each * (1 + _OVERHEAD)))
        if fitting < 1:
            raise UsageError(
                f"A record takes {each:,} bytes, which with what belongs to a file is more than {self.shard_bytes:,}.",
                hint="Give more bytes a shard with --shard-bytes; some gigabytes are usual.",
            )
        return -(-len(plan.names) // fitting)


def _cut(plan: SplitPlan, number: int) -> tuple[SplitPlan, ...]:
    count = len(plan.names)
    bounds = [count * i // number for i in range(number + 1)]
    return tuple(
        replace(
            plan,
            names=plan.names[start:stop],
            incomplete={},
            origin=f"{plan.source} {i} of {number}",
            shard=i,
            start=start,
        )
        for i, (start, stop) in enumerate(itertools.pairwise(bounds))
    )
