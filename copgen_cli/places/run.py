"""One run of a scene: blocks drawn one after the other and kept on disk, then all rasters written from them.

A run that is stopped goes on at the first block that is not there. Memory is that of a block.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import os
import shlex
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from copgen_cli import __version__
from copgen_cli.errors import MismatchError
from copgen_cli.model import advice_on_calls, choose_device, made_for
from copgen_cli.outputs import synthetic_text
from copgen_cli.places.area import Area
from copgen_cli.places.canvas import Block, Canvas
from copgen_cli.places.catalogue import (
    ATTRIBUTION,
    COLLECTION_FILE,
    build_collection,
    build_item,
    item_path,
    require_pystac,
    tags_of,
)
from copgen_cli.places.drawing import SceneGenerator
from copgen_cli.places.gaps import calls_around
from copgen_cli.places.layers import Layer, Mask
from copgen_cli.places.mosaics import BlockFiles, Mosaic, SceneRaster, rasters_of
from copgen_cli.places.preview import SIDE, Column, draw_preview
from copgen_cli.places.request import Missing, SceneOptions, SceneRequest, check_scene
from copgen_cli.records import Solver
from copgen_cli.sampling import LoadedModel, Tell, check_known, choose_batch_size, load_model, tell_while
from copgen_cli.settings import Settings
from copgen_cli.stages import (
    Executor,
    OncePerProcess,
    Outcome,
    StageRun,
    Status,
    Summary,
    WorkItem,
    require_free_space,
    units_file,
)
from copgen_cli.storage import local_copy

FORMAT = 1
LISTING, PREVIEW = "scene.json", "preview.png"
STAGE = "scene"
_BYTES_PER_SAMPLE = 1.6
"""Of a raster's 8-bit value in a COG with its overviews, about."""
_BYTES_OF_A_CALL = 300_000_000
"""Of one call of the network and of one of the decoder, about."""
_BYTES_PER_PIXEL_GIVEN, _BYTES_PER_PIXEL_DRAWN = 24, 40
"""While a block's conditions are read and rendered, and while its pictures are put together."""


@dataclass(frozen=True, eq=False)
class ScenePlan:
    """A scene that can be drawn."""

    request: SceneRequest
    generator: SceneGenerator
    command: str
    """The line by which it is made again."""
    recipe: OncePerProcess[ScenePlan]
    """How another process comes by it."""
    notes: tuple[str, ...] = ()
    """What of the settings could not be had."""

    @property
    def canvas(self) -> Canvas:
        return self.generator.canvas

    @property
    def rasters(self) -> list[SceneRaster]:
        request = self.request
        return rasters_of(request.sample.generated, request.sample.n_samples, request.filled, spread=request.spread)

    @functools.cached_property
    def blocks(self) -> tuple[Block, ...]:
        """Those that hold anything of the area."""
        return tuple(block for block in self.canvas.blocks if _holds(block, self.canvas, self.request.area))

    @property
    def calls_per_window(self) -> int:
        steps = self.request.sample.steps
        return calls_around(steps) if self.request.filled else steps

    @property
    def windows(self) -> int:
        """Of all blocks and samples."""
        return sum(len(block.windows) for block in self.blocks) * self.request.sample.n_samples

    @property
    def network_calls(self) -> int:
        """How often the network sees a window; with guidance, both times count as one."""
        return self.windows * self.calls_per_window

    @property
    def bytes(self) -> int:
        """About what is written at most at a time: blocks, rasters without overviews, and COGs made of these."""
        grid, sample = self.canvas.grid, self.request.sample
        pixels = grid.width * grid.height
        blocks = pixels * 3 * sample.n_samples * len(sample.generated)
        values = sum(raster.bands * (4 if raster.dtype == "float32" else 1) for raster in self.rasters)
        return blocks + round(pixels * values * (1 + _BYTES_PER_SAMPLE))

    @property
    def memory(self) -> int:
        """About what the largest block needs beside the model."""
        sample = self.request.sample
        window = self.canvas.window
        latents = max((_reach(b.window_rows) + window) * (_reach(b.window_columns) + window) for b in self.blocks)
        pixels = latents * self.canvas.reduction**2
        layers = _BYTES_PER_PIXEL_GIVEN * len(self.request.layers) + 3 * sample.n_samples * len(sample.generated)
        return _BYTES_OF_A_CALL + pixels * (layers + _BYTES_PER_PIXEL_DRAWN)

    def facts(self) -> dict[str, Any]:
        """All that determines the rasters, as JSON."""
        request, generator = self.request, self.generator
        sample, grid, canvas = request.sample, request.grid, self.canvas
        other = generator.model.autoencoders.dtype
        of_autoencoder = (
            {} if other == generator.model.net.dtype else {"autoencoder_dtype": str(other).removeprefix("torch.")}
        )
        return {
            "format": FORMAT,
            "synthetic": True,
            "software": f"copgen {__version__}",
            "attribution": ATTRIBUTION,
            "scene": request.name,
            "command": self.command,
            "area": {
                "name": request.area.name,
                "bounds": list(request.area.bounds),
                "cut": request.area.cut,
                "sha256": _hash_json(request.area.polygon),
            },
            "grid": {
                "crs": grid.place.crs,
                "transform": list(grid.place.transform),
                "width": grid.width,
                "height": grid.height,
            },
            "model": {"id": generator.model.source, "sha256": generator.model.sha256},
            "generate": [str(modality) for modality in sample.generated],
            "condition": [str(modality) for modality in sample.conditions],
            "filled": [str(modality) for modality in request.filled],
            "inputs": request.inputs(),
            "mask": request.gaps.describe() if request.gaps else None,
            "missing": str(request.missing),
            "n_samples": sample.n_samples,
            "seed": sample.seed,
            "steps": sample.steps,
            "solver": "repaint" if request.filled else str(sample.solver),
            "guidance_scale": sample.guidance_scale,
            "windows": {
                "side": canvas.window * canvas.reduction,
                "stride": canvas.stride * canvas.reduction,
                "block": canvas.block * canvas.reduction,
            },
            "dtype": str(generator.model.net.dtype).removeprefix("torch."),
            **of_autoencoder,
            "device": generator.model.autoencoder.device.type,
            "threads": torch.get_num_threads(),
        }

    def settings(self) -> dict[str, Any]:
        """What must not change while a folder is being filled."""
        facts = self.facts()
        model = facts["model"]["sha256"]
        for name in ("command", "inputs", "mask", "software", "attribution", "device", "threads", "model"):
            del facts[name]
        return {**facts, "model": model, "spread": self.request.spread}


def open_scene(
    settings: Settings,
    options: SceneOptions,
    source: str,
    dtypes: tuple[torch.dtype, torch.dtype],
    command: Sequence[str],
) -> ScenePlan:
    """Check what is asked for, load the model, and put it to the request.

    Args:
        settings: of the model's use and the windows.
        options: what is asked for.
        source: the model.
        dtypes: arithmetic of its network and of its autoencoder.
        command: the words after `copgen`.

    Raises:
        CopgenError: what is asked for does not go together, or is not there.
    """
    request = check_scene(settings, options)
    device = choose_device(settings.sample.device)
    dtype, of_autoencoder = dtypes
    model = load_model(source, device=device, dtype=dtype, autoencoder_dtype=of_autoencoder)
    return plan_scene(settings, options, request, model, command)


def plan_scene(
    settings: Settings, options: SceneOptions, request: SceneRequest, model: LoadedModel, command: Sequence[str]
) -> ScenePlan:
    """Put a model to a request.

    Raises:
        UsageError: the model does not know a modality that is asked for.
        CopgenError: the packages that a scene needs are not installed.
    """
    require_pystac()
    check_known(request.sample.roles, model.modalities, model.source)
    reduction, window = model.autoencoder.reduction, int(model.net.config.sample_size)
    patch = int(model.net.config.patch_size)
    overlap = min(-(-settings.scene.overlap // reduction), window - patch)
    stride = max((window - overlap) // patch, 1) * patch
    steps, solver = settings.sample.calls(made_for(model.net))
    request = replace(request, sample=replace(request.sample, steps=steps, solver=solver))
    advice = advice_on_calls(model.net, steps, Solver.DDIM if request.filled else solver)  # whose steps gaps take, too
    notes = (*_clipped(settings, window * reduction, (window - patch) * reduction), *([advice] if advice else ()))
    canvas = Canvas(request.grid, window, reduction, stride, max(settings.scene.block // reduction, window))
    guided = request.sample.guidance_scale != 0 and bool(request.sample.conditions)
    size = settings.sample.batch_size or choose_batch_size(
        model.net, model.autoencoders, guided=guided, device=model.autoencoder.device
    )
    generator = SceneGenerator(model, request.sample, canvas, request.layers, request.gaps, size)
    dtypes = model.net.dtype, model.autoencoders.dtype
    without_token = settings.download.model_copy(update={"token": None})
    travelling = settings.model_copy(update={"download": without_token})
    recipe = OncePerProcess(open_scene, travelling, options, model.source, dtypes, tuple(command))
    return ScenePlan(request, generator, shlex.join(["copgen", *command]), recipe, notes)


def _clipped(settings: Settings, window: int, most: int) -> tuple[str, ...]:
    notes = []
    if settings.scene.overlap > most:
        notes.append(f"Windows of {window} px overlap by {most} px at most.")
    if settings.scene.block < window:
        notes.append(f"A block is no smaller than a window of {window} px.")
    return tuple(notes)


def start_run(plan: ScenePlan, output: Path, *, overwrite: bool = False, dry_run: bool = False) -> StageRun:
    """The run that fills a folder with a scene.

    Raises:
        MismatchError: the folder holds a scene of other settings.
    """
    facts = plan.facts()
    return StageRun(
        STAGE,
        output,
        settings=plan.settings(),
        inputs={"inputs": facts["inputs"], "mask": facts["mask"]},
        overwrite=overwrite,
        beside=(LISTING, PREVIEW, COLLECTION_FILE),
        unrecorded=functools.partial(_unrecorded_maps, plan.rasters),
        dry_run=dry_run,
    )


def _unrecorded_maps(rasters: Sequence[SceneRaster], output: Path) -> Iterator[Path]:
    """Files under the names of a scene's rasters where no finished run has left its record."""
    if not units_file(output, STAGE).is_file():
        yield from (file for raster in rasters if (file := output / f"{raster.name}.tif").exists())


def work_items_of(plan: ScenePlan) -> list[WorkItem[SceneRaster]]:
    return [WorkItem(raster.name, raster) for raster in plan.rasters]


def is_whole(output: Path) -> bool:
    """Whether what lies beside the maps of a finished scene is there."""
    return all((output / name).is_file() for name in (LISTING, PREVIEW, COLLECTION_FILE))


def draw_blocks(
    plan: ScenePlan, run: StageRun, *, afresh: bool = False, executor: Executor | None = None
) -> Iterator[int]:
    """Draw the blocks that no earlier run has drawn; yields numbers of windows as they are walked one call further.

    Args:
        plan: the scene.
        run: of its folder.
        afresh: draw those as well.
        executor: who draws, a block at a time; this process where there is none.

    Raises:
        DiskFullError: there is less room than the scene will take.
    """
    require_free_space(run.output, plan.bytes)
    files = _block_files(plan, run)
    if afresh:
        files.clear()
    _created(files)
    if executor is not None:
        return _draw_elsewhere(plan, files, executor)
    return tell_while(functools.partial(_draw, plan, files))


def write_scene(plan: ScenePlan, run: StageRun) -> Summary:
    """All rasters from the blocks, their catalogue, the preview and `scene.json`."""
    files = _block_files(plan, run)
    facts, created = plan.facts(), _created(files)
    request = plan.request
    mosaic = Mosaic(plan.canvas, request.area, files, request.missing is Missing.LEAVE_OUT)
    with ExitStack() as stack:
        maps = {raster: stack.enter_context(run.place.writing(f"{raster.name}.tif")) for raster in plan.rasters}
        mosaic.write(maps, lambda raster: tags_of(raster, facts))
    items = {
        raster: run.place.write(item_path(raster), build_item(raster, request.grid, facts, created))
        for raster in plan.rasters
    }
    run.place.write(COLLECTION_FILE, build_collection(plan.rasters, request.grid, facts, created))
    run.place.write(PREVIEW, _preview(plan, run.output))
    borders = {raster.name: plan.canvas.borders for raster in plan.rasters}
    listing = facts | {"created": created.isoformat(), "files": [f"{r.name}.tif" for r in plan.rasters]}
    listing |= {"polygon": request.area.polygon}
    run.place.write(LISTING, (json.dumps(listing | {"borders": borders}, indent=1) + "\n").encode())
    for raster, item in items.items():  # last, for a run that is stopped before writes all of it again
        run.record(Outcome(raster.name, Status.DONE, (run.place.describe(f"{raster.name}.tif"), item)))
    return run.finish()


def seconds_of(plan: ScenePlan) -> float:
    """About how long it will take, by a call of the network and one of the decoder."""
    model, canvas, sample = plan.generator.model, plan.canvas, plan.request.sample
    size, config = plan.generator.batch_size, plan.generator.model.net.config
    shape = (size, config.in_channels, canvas.window, canvas.window)
    guided = 2 if sample.guidance_scale and sample.conditions else 1
    latents = [torch.zeros(shape, device=model.net.device) for _ in model.modalities]
    steps = [torch.zeros(size, device=model.net.device) for _ in model.modalities]
    times = []
    with torch.no_grad():
        for work in (lambda: model.net(latents, steps), lambda: model.autoencoder.decode(latents[0])):
            work()
            started = time.perf_counter()
            work()
            times.append((time.perf_counter() - started) / size)
    network, decoder = times
    per_window = network * plan.calls_per_window * guided + decoder * (len(sample.generated) + len(plan.request.layers))
    return plan.windows * per_window


def _reach(edges: Sequence[int]) -> int:
    return edges[-1] - edges[0]


def _draw(plan: ScenePlan, files: BlockFiles, tell: Tell[int]) -> None:
    walked = plan.request.sample.n_samples * plan.calls_per_window
    for block in plan.blocks:
        if files.has(block):
            tell(walked * len(block.windows))
            continue
        files.save(block, plan.generator.draw(block, tell))


def _draw_elsewhere(plan: ScenePlan, files: BlockFiles, executor: Executor) -> Iterator[int]:
    walked = plan.request.sample.n_samples * plan.calls_per_window
    missing = [block for block in plan.blocks if not files.has(block)]
    yield walked * sum(len(block.windows) for block in plan.blocks if block not in missing)
    if missing:
        files.folder.mkdir(parents=True, exist_ok=True)
        executor.require(files.folder)
    work = functools.partial(_draw_block, recipe=plan.recipe, expected=_identity(plan), files=files)
    for windows in executor.map(work, missing):
        yield walked * windows


def _draw_block(block: Block, recipe: OncePerProcess[ScenePlan], expected: str, files: BlockFiles) -> int:
    """Runs in a worker: draw and keep one block; how many windows it has.

    Raises:
        MismatchError: the worker's plan is another, for the model or a raster is not the same there.
    """
    plan = recipe.get()
    if _identity(plan) != expected:
        raise MismatchError(
            f"A worker on {socket.gethostname()} finds another model or other rasters under the same names.",
            hint="Workers need the same files as the driver, on a shared disk, and the same --runs-dir.",
        )
    files.save(block, plan.generator.draw(block))
    return len(block.windows)


def _identity(plan: ScenePlan) -> str:
    """Tells all that the pictures of blocks depend on."""
    return _hash_json([plan.settings(), plan.facts()["inputs"], plan.facts()["mask"]])


def _block_files(plan: ScenePlan, run: StageRun) -> BlockFiles:
    """In a folder that is named by all that they depend on: those of another scene are never taken for them."""
    return BlockFiles(run.building / _hash_json([plan.settings(), run.header.inputs])[:16])


def _hash_json(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _holds(block: Block, canvas: Canvas, area: Area) -> bool:
    """Whether a block has any of an area's ground, by pixels that it touches."""
    if not area.cut:
        return True
    from rasterio.features import geometry_mask

    grid = canvas.pixels_of(block.rows, block.columns).coarse(canvas.reduction)
    shape = area.polygon_in(grid.place.crs)
    return not geometry_mask([shape], (grid.height, grid.width), grid.affine, all_touched=True).all()


def _created(files: BlockFiles) -> datetime:
    """When the scene was begun, the same after a stop; SOURCE_DATE_EPOCH says otherwise, as it does for other tools."""
    stated = os.environ.get("SOURCE_DATE_EPOCH", "")
    if stated.isdecimal():
        return datetime.fromtimestamp(int(stated), UTC)
    file = files.folder / "begun"
    if not file.is_file():
        files.folder.mkdir(parents=True, exist_ok=True)
        file.write_text(datetime.now(UTC).isoformat(timespec="seconds"))
    return datetime.fromisoformat(file.read_text())


def _preview(plan: ScenePlan, folder: Path) -> bytes:
    request, sample = plan.request, plan.request.sample
    columns = [
        Column(modality.spec.title, "given", _small(plan, request.layers[modality])) for modality in sample.conditions
    ]
    for modality in sample.generated:
        if modality in request.filled:
            columns.append(
                Column(modality.spec.title, "with gaps", _small(plan, request.layers[modality], request.gaps))
            )
        rasters = [raster for raster in plan.rasters if raster.modality is modality and raster.kind == "sample"]
        for raster in rasters[:4]:
            caption = "generated" if len(rasters) == 1 else f"sample {raster.sample}"
            columns.append(Column(modality.spec.title, caption, _read_small(folder / f"{raster.name}.tif")))
        if modality in request.truth:
            columns.append(Column(modality.spec.title, "truth", _small(plan, request.truth[modality])))
    footer = f"Synthetic, by copgen {__version__} · model {plan.generator.model.source} · seed {sample.seed}"
    page = draw_preview(columns, request.grid, request.area.name, footer)
    text = synthetic_text(f"A synthetic scene: {request.name}.", plan.facts())
    stream = io.BytesIO()
    page.save(stream, "PNG", pnginfo=text)
    return stream.getvalue()


def _small(plan: ScenePlan, layer: Layer, gaps: Mask | None = None) -> np.ndarray:
    """A layer of the whole area, small enough for the preview, read block by block; white where there is none."""
    grid, canvas = plan.request.grid, plan.canvas
    factor = max(1, max(grid.width, grid.height) // SIDE)
    whole = np.zeros((-(-grid.height // factor), -(-grid.width // factor), 3), np.uint8)
    for part in grid.parts(max(canvas.block * canvas.reduction // factor, 1) * factor):
        left, top = map(round, grid.place.to_pixels(part.place.transform[2], part.place.transform[5]))
        pixels, known = layer.read(part)
        known = known if gaps is None else known & ~gaps.read(part)
        shown = np.where(known[..., None], pixels, np.uint8(255))[::factor, ::factor]
        row, column = top // factor, left // factor
        whole[row : row + shown.shape[0], column : column + shown.shape[1]] = shown
    return whole


def _read_small(file: Path) -> np.ndarray:
    import rasterio

    with rasterio.open(local_copy(file), driver="GTiff") as dataset:
        factor = max(1, max(dataset.width, dataset.height) // SIDE)
        shape = (dataset.count, -(-dataset.height // factor), -(-dataset.width // factor))
        values: np.ndarray = dataset.read(out_shape=shape)
    return values[0] if len(values) == 1 else values.transpose(1, 2, 0)


def counts_of(plan: ScenePlan) -> Mapping[str, Any]:
    """What is to be done, in numbers."""
    grid = plan.request.grid
    return {
        "crs": grid.place.crs,
        "width": grid.width,
        "height": grid.height,
        "cells": sum(len(layer.describe().get("cells", ())) for layer in list(plan.request.layers.values())[:1]),
        "blocks": len(plan.blocks),
        "windows": plan.windows,
        "network_calls": plan.network_calls,
        "rasters": len(plan.rasters),
        "bytes": plan.bytes,
        "memory": plan.memory,
    }
