"""One download, step by step: indices, plan, estimate, products, manifest. A command draws between the steps."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from copgen_cli.archive.index import WorldIndex, refresh_index
from copgen_cli.archive.opening import open_archive, open_in_worker, stored_token
from copgen_cli.archive.products import (
    Bands,
    OpenParts,
    Order,
    Plan,
    fetch_product,
    fetch_together,
    group_by_part,
    interleave,
    is_fetched,
    plan_orders,
    write_indices,
)
from copgen_cli.archive.selection import Selection, SelectionCounts, select
from copgen_cli.cluster import ClusterExecutor
from copgen_cli.layout import subset_index
from copgen_cli.modalities import Modality, archived_in, columns_in, in_index_order
from copgen_cli.settings import Settings
from copgen_cli.stages import (
    OncePerProcess,
    Outcome,
    Place,
    StageRun,
    Status,
    Summary,
    Threads,
    WorkItem,
    local_executor,
    read_header,
    require_free_space,
    settings_of,
)

STAGE = "download"
REQUESTS_PER_PART = 3
"""One to resolve its address, two for its tail."""
TRIES_OF_BROKEN = 2
"""Further tries of a product whose bytes do not decode: they may have been damaged on the way."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Of what is still to be fetched; the index tables are not in it."""

    products: int
    parts: int
    requests: int
    bytes_over_wire: int
    bytes_on_disk: int


class Download:
    """The download of one region; a context manager that holds the lock of its folder.

    Args:
        settings: region, sources, endpoint and the rest.
        overwrite: fetch everything anew.
        verify: compare what is there with its recorded hashes.
        dry_run: write nothing.
        executor: the cluster that fetches; this process where there is none.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        overwrite: bool,
        verify: bool,
        dry_run: bool,
        executor: ClusterExecutor | None = None,
    ) -> None:
        self.sources: tuple[Modality, ...] = in_index_order(
            settings.download.sources or archived_in(settings.chosen_family)
        )
        self.counts: tuple[SelectionCounts, ...] = ()
        self._settings, self._verify, self._dry_run = settings, verify, dry_run
        self._executor = executor
        self._bands = Bands.parse(settings.download.bands or ",".join(columns_in(settings.chosen_family)) or "none")
        self._region = settings.region_settings()
        self._subset = settings.workspace.subset
        self._run = StageRun(
            STAGE,
            self._subset,
            settings=self._recorded_settings(),
            overwrite=overwrite,
            fixed=False,
            beside=[subset_index(Path(), modality).as_posix() for modality in self.sources],
            dry_run=dry_run,
        )
        self._stack = ExitStack()
        self._indices: dict[Modality, WorldIndex] = {}
        self._selection: Selection | None = None
        self._plan = Plan((), {}, {})
        self._todo: list[WorkItem[Order]] = []

    def __enter__(self) -> Download:
        with ExitStack() as stack:
            stack.enter_context(self._run)
            wanted, place = self._settings.download, self._run.place
            if self._dry_run:  # a place that vanishes, for what has to be looked at
                vanishing = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                place = Place(vanishing, vanishing)
            self._spool = place.temporary
            self._index_place = Place(vanishing if self._dry_run else self._settings.data_dir, self._spool)
            self._archive = open_archive(
                wanted.endpoint,
                spool=self._spool,
                token=wanted.token.get_secret_value() if wanted.token else stored_token(wanted.endpoint),
                connections=wanted.workers,
                retries=wanted.retries,
                timeout=wanted.timeout,
            )
            stack.callback(self._archive.close)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    # -- the steps, in their order -----------------------------------------------------------------------------------

    def refresh(self) -> Iterator[WorldIndex]:
        """Bring the index of each source up to date, all at a time."""
        yield from Threads(len(self.sources)).map(self._refresh, self.sources)

    def plan(self) -> None:
        """Select cells and find out what is missing of them.

        Raises:
            NoCommonCellsError: no cell passes all filters in all sources.
        """
        indices = {modality: self._indices[modality] for modality in self.sources}
        self._run.made_from({modality.source.name: index.revision for modality, index in indices.items()})
        self._selection = select({modality: index.table for modality, index in indices.items()}, self._region)
        self.counts = self._selection.counts
        self._plan = plan_orders(indices, self._selection, self._bands)
        pending = self._run.pending(self._plan.units, verify=self._verify, is_done=is_fetched)
        self._todo = [replace(unit, item=self._without_what_is_there(unit)) for unit in pending]

    def fetch(self) -> Iterator[Outcome]:
        """Fetch what is missing, after looking whether there is room for it."""
        require_free_space(self._subset, self.estimate.bytes_on_disk)
        self._drop_indices_of_other_sources()
        write_indices(self._subset, self._plan.tables, self._run.place)
        for key, reason in self._plan.refused.items():
            refusal = Outcome(key, Status.FAILED, reason=reason)
            self._run.record(refusal)
            yield refusal
        yield from self._fetch_here() if self._executor is None else self._fetch_elsewhere(self._executor)

    def _fetch_here(self) -> Iterator[Outcome]:
        parts = OpenParts(self._archive, [unit.item for unit in self._todo])
        paths = {unit.key: unit.item.path for unit in self._todo}
        work = functools.partial(fetch_product, parts=parts, place=self._run.place)
        workers = self._settings.download.workers
        executor = local_executor(workers, processes=False)
        for outcome in self._run.run(interleave(self._todo, workers), work, executor=executor, retries=TRIES_OF_BROKEN):
            parts.done(paths[outcome.key])
            yield outcome

    def _fetch_elsewhere(self, cluster: ClusterExecutor) -> Iterator[Outcome]:
        if not self._todo:
            return
        cluster.require(self._run.shared)
        wanted = self._settings.download
        token = wanted.token.get_secret_value() if wanted.token and cluster.connection.private else None
        archive = OncePerProcess(
            open_in_worker,
            wanted.endpoint,
            self._spool.absolute(),
            token,
            wanted.workers,
            wanted.retries,
            wanted.timeout,
        )
        work = functools.partial(
            fetch_together,
            archive=archive,
            place=self._run.place_elsewhere,
            threads=wanted.workers,
            retries=TRIES_OF_BROKEN,
        )
        for fetched in cluster.map(work, group_by_part(self._todo)):
            self._archive.traffic.add(requests=fetched.requests, bytes=fetched.bytes, repeated=fetched.repeated)
            for outcome in fetched.outcomes:
                self._run.record(outcome)
                yield outcome

    def finish(self) -> Summary:
        return self._run.finish()

    # -- what there is to say ----------------------------------------------------------------------------------------

    @property
    def total(self) -> int:
        """Products of the region, those included whose row can not be used."""
        return len(self._plan.units) + len(self._plan.refused)

    @property
    def already(self) -> int:
        return len(self._plan.units) - len(self._todo)

    @property
    def estimate(self) -> Estimate:
        return estimate([unit.item for unit in self._todo])

    def outlook(self) -> dict[str, Any]:
        """What a dry run reports: totals, the sizes among them estimated from what is typical of the archive."""
        return {
            "cells": self._cells,
            "done_before": self.already,
            **asdict(self.estimate),
            "folder": str(self._subset),
        }

    def traffic(self) -> dict[str, int]:
        """What a run reports beside its summary: cells, and what went over the wire."""
        traffic = self._archive.traffic
        return {
            "cells": self._cells,
            "requests": traffic.requests,
            "repeated_requests": traffic.repeated,
            "bytes_received": traffic.bytes,
        }

    @property
    def _cells(self) -> int:
        assert self._selection is not None, "plan() comes first"
        return len(self._selection.cells)

    # -- inside ------------------------------------------------------------------------------------------------------

    def _refresh(self, modality: Modality) -> WorldIndex:
        kept = self._settings.workspace.world_index(modality)
        self._indices[modality] = refresh_index(self._archive, modality, kept, self._index_place)
        return self._indices[modality]

    def _without_what_is_there(self, unit: WorkItem[Order]) -> Order:
        known = self._run.recorded(unit.key)
        files = known.files if known is not None else ()
        intact = tuple(file for file in files if self._run.is_intact(file, verify=self._verify))
        return replace(unit.item, kept=intact)

    def _drop_indices_of_other_sources(self) -> None:
        """The subset is what this run selects; later stages take the sources whose index is there."""
        finished = read_header(self._subset, STAGE)
        for settings in (settings_of(self._subset, STAGE), finished and finished.settings):
            before = map(Modality.of_source, (settings or {}).get("sources", ()))
            for modality in set(before) - set(self.sources):
                self._run.claims.remove(subset_index(self._subset, modality))

    def _recorded_settings(self) -> dict[str, Any]:
        return {
            **self._region.model_dump(mode="json"),
            "sources": [modality.source.name for modality in self.sources],
            "bands": self._settings.download.bands,
        }


def estimate(orders: Sequence[Order]) -> Estimate:
    """About what fetching these products takes, if nothing fails."""
    parts = {(order.product.modality, order.path) for order in orders}
    on_disk = sum(_bytes_of(order) for order in orders)
    return Estimate(
        products=len(orders),
        parts=len(parts),
        requests=REQUESTS_PER_PART * len(parts) + len(orders),
        bytes_over_wire=on_disk + sum(modality.source.typical.footer for modality, _ in parts),
        bytes_on_disk=on_disk,
    )


def _bytes_of(order: Order) -> int:
    source = order.product.modality.source
    wanted = order.bands.of(order.product.modality)
    rest = source.typical.row - source.typical.thumbnail
    whole = source.typical.thumbnail + rest * len(wanted) // max(len(source.columns), 1)
    return max(0, whole - sum(file.size for file in order.kept))
