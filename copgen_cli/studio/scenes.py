"""A whole area, drawn as `copgen scene` draws it, with the model that is open already."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from copgen_cli import __version__
from copgen_cli.errors import UsageError
from copgen_cli.places import (
    SceneOptions,
    ScenePlan,
    check_scene,
    draw_blocks,
    is_whole,
    plan_scene,
    start_run,
    work_items_of,
    write_scene,
)
from copgen_cli.sampling import LoadedModel
from copgen_cli.settings import Settings
from copgen_cli.studio.results.lines import through_main
from copgen_cli.studio.results.pictures import describe_maps
from copgen_cli.studio.schemas import Ask, Lines, Picture

OUTPUT = "outputs/scene-from-studio"


@dataclass(frozen=True, slots=True)
class CheckedScene:
    """A scene that can be drawn."""

    plan: ScenePlan
    key: str


def check_area(settings: Settings, ask: Ask, model: LoadedModel, config: Path | None) -> CheckedScene:
    """What a request for an area amounts to, as far as it goes together.

    Args:
        settings: with the samples, steps and so on of the request.

    Raises:
        UsageError: it contradicts itself, or takes more windows than the studio draws.
        CopgenError: the packages that a scene needs are not installed.
    """
    assert ask.area is not None
    if ask.uploads or ask.scalars or ask.place:
        raise UsageError("A scene is drawn from a region alone.", hint="Leave files, scalars and the patch out.")
    if (ask.area.cell is None) == (ask.area.bbox is None):
        raise UsageError("A scene needs a cell or a box, and not both.", hint="Leave one of them out.")
    settings = settings.model_copy(update={"region": ask.area.region})
    condition = ",".join(ask.condition) or None
    options = SceneOptions(",".join(ask.generate), condition, bbox=ask.area.bbox, cell=ask.area.cell, spread=ask.spread)
    command = _command(settings, options, model, config)
    plan = plan_scene(settings, options, check_scene(settings, options), model, [*command[1:], "--output", OUTPUT])
    most = settings.studio.most_windows
    if plan.windows > most:
        raise UsageError(f"The area takes {plan.windows:,} windows.", hint=f"This studio draws up to {most:,}.")
    facts = [__version__, plan.settings(), plan.facts()["inputs"], str(model.net.device)]
    return CheckedScene(plan, hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32])


def draw_scene(
    plan: ScenePlan, folder: Path, progress: Callable[[int, int], None]
) -> tuple[list[Picture], list[Path], list[Path]]:
    """Draw a scene into a folder.

    Returns:
        Its pictures, the file of each, and the documents beside them: catalogue, items, `scene.json`.
    """
    steps = plan.network_calls
    with start_run(plan, folder) as run:
        pending = run.pending(work_items_of(plan), is_done=lambda *_: is_whole(folder))
        if pending:
            with contextlib.closing(draw_blocks(plan, run)) as walked:  # type: ignore[type-var]
                step = 0
                for calls in walked:
                    step += calls
                    progress(min(step, steps), steps)
            write_scene(plan, run)
        else:
            run.finish()
    pictures, files = describe_maps(folder, plan.rasters)
    documents = [folder / "collection.json", *sorted(folder.glob("items/*/item.json")), folder / "scene.json"]
    return pictures, files, documents


def lines_of_scene(plan: ScenePlan) -> Lines:
    """The line by which it is made again, and the same in Python."""
    return Lines(command=plan.command, python=through_main(shlex.split(plan.command)))


def _command(settings: Settings, options: SceneOptions, model: LoadedModel, config: Path | None) -> list[str]:
    sample, source = settings.sample, Path(model.source).expanduser()
    words = ["copgen", *(["--config", str(config.absolute())] if config else []), "scene"]
    words += ["--region", settings.region, "--data-dir", str(settings.data_dir.absolute())]
    words += ["--cell", options.cell] if options.cell else []
    words += ["--bbox", *(repr(edge) for edge in options.bbox)] if options.bbox else []
    words += ["--condition", options.condition] if options.condition else []
    words += ["--generate", options.generate or "", "--n-samples", str(sample.n_samples)]
    words += ["--spread"] if options.spread else []
    words += ["--model", str(source.absolute()) if source.exists() else model.source, "--steps", str(sample.steps)]
    words += ["--solver", str(sample.solver), "--guidance-scale", repr(sample.guidance_scale)]
    words += ["--seed", str(sample.seed), "--device", model.net.device.type]
    words += ["--dtype", str(model.net.dtype).removeprefix("torch.")]
    return [*words, *(["--batch-size", str(sample.batch_size)] if sample.batch_size else [])]
