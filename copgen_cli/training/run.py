"""A training run as a command sees it: data opened, folder locked, progress drawn, and the model written at the end."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from copgen_cli import console, launching
from copgen_cli.errors import CopgenError, MismatchError, MissingInputError, NotFiniteError, UsageError
from copgen_cli.latents import INDEX_FILE, LatentStore, StoreCache, open_store
from copgen_cli.layout import (
    checkpoints_folder,
    metrics_file,
    model_folder,
    previews_folder,
    split_store,
)
from copgen_cli.modalities import BETA, Family, Modality, Split, modalities_in
from copgen_cli.model import (
    BUNDLED_NAME,
    DEFAULT_ID,
    PUBLISHED_SCALE,
    Autoencoders,
    ImageAutoencoder,
    choose_device,
    choose_training_dtype,
    estimate_bytes,
    load_autoencoder,
)
from copgen_cli.pipeline import INDEX_NAME
from copgen_cli.records import LatentPart, LatentSpec, StopReason, TrainReport
from copgen_cli.stages import (
    Claims,
    Mirror,
    PrivateFolder,
    World,
    join_world,
    list_checkpoints,
    mirrored,
    recorded_files,
    remove_leftovers,
    step_folder,
)
from copgen_cli.storage import as_path, is_remote, local_source
from copgen_cli.training.export import MADE_FROM, export_model, exported_files, is_exported, put_right
from copgen_cli.training.loop import Run, train as take_steps
from copgen_cli.training.metrics_log import TENSORBOARD, Metrics, event_files, is_log, metrics_of
from copgen_cli.training.new_network import make_network
from copgen_cli.training.preview import Preview
from copgen_cli.training.resumption import find_resumption, named_checkpoint
from copgen_cli.training.setup import Prepared, check_amounts, prepare_run

if TYPE_CHECKING:
    from copgen_cli.settings import TrainSettings


def train(
    settings: TrainSettings,
    store: Path,
    folder: Path,
    *,
    overwrite: bool,
    json: bool,
    cache: StoreCache | None = None,
) -> int:
    """Train in this process, alone or as one of several.

    Args:
        settings: of the run.
        store: the packed store, with a folder per split.
        folder: where the run lives.
        overwrite: forget what an earlier run left there.
        json: report in JSON.
        cache: of shards.

    Returns:
        The exit code.
    """
    device = choose_device(settings.device)
    if overwrite:
        _refuse_to_remove_what_is_needed(folder, settings)
    train_data, test_data, spec = open_data(store, cache)
    world = join_world(device, settings.rendezvous_timeout, console.warn)
    with (
        launching.stop_requests(settings.max_time) as asked_to_stop,
        _worked_on(folder, world, overwrite=overwrite) as mirror,
        _only_run_in(mirror.here, world),
    ):
        folder = mirror.here
        claims = own_files(folder) if world.is_main else Claims(folder)
        if world.is_main:
            claims.require(*(_written_by_a_run(folder) if overwrite else (metrics_file(folder), model_folder(folder))))
        prepared = prepare_run(
            train_data, test_data, spec, settings, checkpoints_folder(folder), world, afresh=overwrite
        )
        autoencoders = find_autoencoders(settings, spec, train_data, world.device) if world.is_main else None
        if overwrite and world.is_main:  # only now: what is wrong with the new run is better known before
            claims.remove(*_written_by_a_run(folder))
        preview = _preview(prepared, test_data or train_data, folder, autoencoders, claims)
        run = replace(prepared.run, preview=preview, claims=claims)
        if settings.mixed_precision == "auto" and world.is_main:
            _mention_faster_arithmetic(prepared.run)
        if world.is_main:
            last = _follow(run, prepared, mirror, claims, asked_to_stop)
        else:
            last = _exhaust(take_steps(run, prepared.state, asked_to_stop))
        reason = last.stopped if last is not None and last.stopped is not None else StopReason.FINISHED
        if world.is_main:
            facts = _finish(prepared, mirror, last, autoencoders, claims)
            console.result_json(facts) if json else console.result(_TITLES.get(reason, f"Stopped by {reason}"), **facts)
        world.leave()
    return launching.EXIT_CODES[reason]


PUBLISHED_LATENT = (4, 32)
"""Channels and side of the latents of a thumbnail's patch."""

_TITLES = {
    StopReason.FINISHED: "Trained",
    StopReason.TIME: "Stopped by the clock; the same command goes on",
}


def open_data(store: Path, cache: StoreCache | None = None) -> tuple[LatentStore, LatentStore | None, LatentSpec]:
    """The two splits of a packed store, and what its latents are.

    Args:
        store: its folder; or the index of its shards that are trained on.
        cache: of shards.

    Raises:
        MissingInputError: there is no packed train split.
        BrokenInputError: a store is damaged.
    """
    is_index = store.name == INDEX_FILE
    train_data = open_store(store if is_index else split_store(store, Split.TRAIN), cache)
    test_folder = split_store(store.parents[1] if is_index else store, Split.TEST)
    test_data = open_store(test_folder, cache) if test_folder.is_dir() else None
    if test_data is None or not len(test_data):
        console.note("The test split is empty: there will be no validation.")
        test_data = None
    parts = [
        LatentPart((channels // 2, height, width), a.id, a.fingerprint, a.scale_factor)
        for (channels, height, width), a in ((part.shape, part.autoencoder) for part in train_data.metadata.parts)
    ]
    return train_data, test_data, LatentSpec(tuple(train_data.modalities), tuple(parts))


def own_files(folder: Path) -> Claims:
    """The claims to names in a run's folder, those included that a run of an earlier version did not write down."""
    claims = Claims(folder)
    claims.look_anew()
    for checkpoint in list_checkpoints(checkpoints_folder(folder)):
        claims.adopt(recorded_files(checkpoint))
    if is_log(metrics_file(folder)):
        claims.adopt([metrics_file(folder), *previews_folder(folder).glob("step-*.png"), *event_files(folder)])
    claims.adopt(exported_files(model_folder(folder)))
    return claims


def _written_by_a_run(folder: Path) -> tuple[Path, ...]:
    return (
        checkpoints_folder(folder),
        previews_folder(folder),
        model_folder(folder),
        folder / TENSORBOARD,
        metrics_file(folder),
    )


def _refuse_to_remove_what_is_needed(folder: Path, settings: TrainSettings) -> None:
    """Raises UsageError where a run that is to replace another needs something of it."""
    removed = {path.resolve() for path in _written_by_a_run(folder)}
    resume = None if settings.resume in ("auto", "none") else settings.resume
    for option, source in (("resume", resume), ("init-from", settings.init_from), ("vae", settings.vae)):
        place = None if source is None else as_path(source).expanduser().resolve()
        if place is not None and removed & {place, *place.parents}:
            raise UsageError(
                f"--overwrite would remove {source}, which --{option} needs.",
                hint="Choose another --workdir, which leaves it where it is.",
            )


def check(settings: TrainSettings, store: Path, processes: int) -> None:
    """What can be known to be wrong before several processes are started."""
    train_data, _, _ = open_data(store)
    check_amounts(len(train_data.names), settings, processes)


def export(settings: TrainSettings, store: Path, folder: Path, *, dry_run: bool, json: bool) -> None:
    """Write the model of the newest whole checkpoint or of the named one, also while a run is at work.

    Raises:
        MissingInputError: there is no checkpoint.
        BrokenInputError: the named one is not whole.
    """
    train_data, _, spec = open_data(store)
    with _worked_on(folder, World(torch.device("cpu")), overwrite=False, locked=False) as mirror:
        here = mirror.here
        checkpoint = _checkpoint_to_export(here, settings.resume)
        facts = {"checkpoint": str(checkpoint), "model": str(mirror.name_of(model_folder(here)))}
        if dry_run:
            console.forecast("Would export", json=json, **facts)
            return
        claims = own_files(here)
        claims.require(model_folder(here))
        autoencoders = find_autoencoders(settings, spec, train_data, torch.device("cpu"))
        export_model(checkpoint, model_folder(here), autoencoders, claims)
        mirror.push(model_folder(here), last=(INDEX_NAME, MADE_FROM))
    console.result_json(facts) if json else console.result("Exported", **facts)


def _checkpoint_to_export(folder: Path, choice: str) -> Path:
    """The one that is named, though the run went on from there; else the newest that is whole."""
    if choice not in ("auto", "none"):
        return named_checkpoint(choice)
    found = find_resumption(checkpoints_folder(folder), "auto")
    for passed in found.passed:
        console.warn(f"passed over {passed.folder.name}: {passed.reason}")
    if found.folder is None:
        raise MissingInputError("checkpoint", checkpoints_folder(folder), written_by="train")
    return found.folder


def tell_plan(
    settings: TrainSettings, store: Path, folder: Path, processes: int, *, overwrite: bool, json: bool
) -> None:
    """What a run would do, with totals; nothing is written."""
    if overwrite:
        _refuse_to_remove_what_is_needed(folder, settings)
    train_data, test_data, spec = open_data(store)
    check_amounts(len(train_data.names), settings, processes)
    world = World(choose_device(settings.device))
    with _worked_on(folder, world, overwrite=overwrite, locked=False) as mirror:
        checkpoints = checkpoints_folder(mirror.here)
        prepared = prepare_run(train_data, test_data, spec, settings, checkpoints, world, afresh=overwrite)
    net, chosen = prepared.state.net, prepared.run.settings
    micro_batch = min(chosen.micro_batch or 1, chosen.batch_size // processes)
    facts = {
        "modalities": ", ".join(prepared.run.modalities),
        "parameters": sum(parameter.numel() for parameter in net.parameters()),
        "tokens": net.pos_embed.shape[1],
        "samples": len(train_data.names),
        "test_samples": 0 if test_data is None else len(test_data.names),
        "batch": f"{chosen.batch_size} = {processes} x {chosen.batch_size // processes}, {micro_batch} at a time",
        "steps": chosen.steps,
        "goes_on_from_step": prepared.state.step,
        "steps_per_epoch": round(len(train_data.names) / chosen.batch_size, 2),
        "epochs": round(chosen.steps * chosen.batch_size / len(train_data.names), 2),
        "device": str(prepared.run.world.device),
        "mixed_precision": chosen.mixed_precision,
        "memory_per_process": f"about {estimate_bytes(net, chosen, micro_batch) / 2**30:.2f} GiB",
        "disk_per_checkpoint": f"{16 * sum(p.numel() for p in net.parameters()) / 2**30:.2f} GiB",
        "data": store,
        "checkpoints": checkpoints_folder(folder),
        "metrics": metrics_file(folder),
        "previews": previews_folder(folder),
        "model": model_folder(folder),
    }
    console.forecast("Would train", json=json, **facts)


def tell_network(settings: TrainSettings, family: Family, store: Path, *, json: bool) -> None:
    """What a run would train, where there is no data yet: the network of a family whose latents are known.

    Raises:
        MissingInputError: the family leaves its latents to autoencoders that are not there yet.
    """
    spec = latents_of_family(family)
    if spec is None:
        raise MissingInputError("packed store", store, written_by="pack")
    net = make_network(spec, settings)
    facts = {
        "modalities": ", ".join(settings.modalities or spec.modalities),
        "parameters": sum(parameter.numel() for parameter in net.parameters()),
        "tokens": net.pos_embed.shape[1],
        "batch": settings.batch_size,
        "steps": settings.steps,
        "memory_per_process": f"about {estimate_bytes(net, settings, 1) / 2**30:.2f} GiB with one sample at a time",
        "disk_per_checkpoint": f"{16 * sum(p.numel() for p in net.parameters()) / 2**30:.2f} GiB",
        "data": f"none yet in {store}: run `copgen pack` first",
    }
    console.forecast("Would train", json=json, **facts)


def latents_of_family(family: Family) -> LatentSpec | None:
    """The latents that a family was published with; None where it leaves them to autoencoders."""
    modalities = modalities_in(family)
    if family == BETA:
        return LatentSpec.alike(modalities, *PUBLISHED_LATENT, DEFAULT_ID, None, PUBLISHED_SCALE)
    parts = [
        LatentPart(m.spec.latent, m.spec.autoencoder or "none", None, m.spec.scale_factor or 1.0)
        for m in modalities
        if m.spec.latent is not None
    ]
    return LatentSpec(modalities, tuple(parts)) if len(parts) == len(modalities) else None


def _follow(
    run: Run, prepared: Prepared, mirror: Mirror, claims: Claims, asked_to_stop: Callable[[], StopReason | None]
) -> TrainReport | None:
    """Draw the progress and write the metrics of a run; its last report, None where it had nothing left to do."""
    state, folder = prepared.state, mirror.here
    for passed in prepared.resumption.passed:
        console.warn(f"passed over {passed.folder.name}: {passed.reason}")
    if prepared.resumption.folder is not None:
        begun = mirror.name_of(prepared.resumption.folder)
        console.note(f"Going on from {begun}, step {state.step} of {run.settings.steps}.")
    for name, (then, now) in prepared.changed.items():
        console.warn(f"train.{name} is {now}, was {then}: the run takes another course from here")
    metrics = Metrics(
        metrics_file(folder),
        claims,
        from_step=state.step,
        trackers=run.settings.trackers,
        settings=run.settings.model_dump(mode="json"),
    )

    def record(report: TrainReport) -> None:
        if report.step % run.settings.log_every == 0 or report.validation or report.checkpoint or report.stopped:
            metrics.write(metrics_of(report))

    reports = take_steps(replace(run, record=record), state, asked_to_stop)
    last = None
    try:
        shown = console.track(
            reports, total=run.settings.steps, label="Training", done=state.step, unit="steps", describe=_describe
        )
        for last in shown:
            _mention(last)
            if last.checkpoint is not None:
                _mirror_checkpoint(mirror, last.checkpoint)
    finally:
        metrics.close()
    return last


def _mirror_checkpoint(mirror: Mirror, checkpoint: Path) -> None:
    """Put a finished checkpoint, and what was logged and drawn up to it, where the run lives."""
    here = mirror.here
    mirror.push(metrics_file(here), previews_folder(here), here / TENSORBOARD)
    mirror.push(checkpoint)
    mirror.keep_like(checkpoints_folder(here))


def _describe(report: TrainReport) -> str:
    return f"loss {report.loss:.4f}, {report.samples_per_second:.3g} samples/s, lr {report.lr:.2g}"


def _mention(report: TrainReport) -> None:
    if report.validation is not None:
        parts = ", ".join(f"{modality} {loss:.4f}" for modality, loss in report.validation.by_modality.items())
        known = f"; {report.validation.train_loss:.4f} on places of the train split"
        console.note(f"Step {report.step}: validation loss {report.validation.loss:.4f} ({parts}){known}")
    if report.checkpoint is not None:
        console.detail(f"Step {report.step}: wrote {report.checkpoint}")
    if report.preview is not None:
        console.note(f"Step {report.step}: drew {report.preview}")


def _exhaust(reports: Iterator[TrainReport]) -> TrainReport | None:
    last = None
    for report in reports:
        last = report
    return last


def find_autoencoders(
    settings: TrainSettings, spec: LatentSpec, data: LatentStore, device: torch.device
) -> Autoencoders | None:
    """The autoencoders that made the latents, on the device; None, with a warning, where one can not be had.

    Raises:
        MismatchError: the one that `settings.vae` names, or that the initial weights belong to, is another.
    """
    _check_initial_weights(settings, spec)
    loaded: dict[tuple[str, float], ImageAutoencoder] = {}
    of: dict[Modality, ImageAutoencoder] = {}
    for modality, part in zip(spec.modalities, spec.parts, strict=True):
        if modality.spec.is_scalar:
            continue
        named = settings.vae is not None and modality.spec.is_picture
        name = settings.vae if settings.vae is not None and named else part.autoencoder
        scale = None if modality.spec.is_picture else part.scale_factor
        try:
            if (name, part.scale_factor) not in loaded:
                loaded[name, part.scale_factor] = load_autoencoder(name, device=device, scale_factor=scale)
        except CopgenError as problem:
            if named:
                raise
            console.warn(
                f"{problem} There will be no previews, and the model will be written without its autoencoder, "
                "which `copgen sample` needs: name it with --vae, now or later with --export."
            )
            return None
        of[modality] = loaded[name, part.scale_factor]
        data.require_autoencoder(modality, of[modality].fingerprint, name)
    return Autoencoders(of)


def _check_initial_weights(settings: TrainSettings, spec: LatentSpec) -> None:
    """Weights of a whole pipeline tell which autoencoder's latents they know."""
    source = settings.init_from
    part = spec.common
    if source is None or part is None or part.fingerprint is None:
        return
    if source != BUNDLED_NAME and not (Path(local_source(source)) / "vae").is_dir():
        return
    theirs = load_autoencoder(source).fingerprint
    if theirs != part.fingerprint:
        raise MismatchError(
            f"{source} was trained on latents of another autoencoder ({theirs[:12]}) than the data's "
            f"({part.fingerprint[:12]}, {part.autoencoder}).",
            hint=f"Encode and pack the data with `--vae {source}`, or start from other weights.",
        )


def _preview(
    prepared: Prepared, data: LatentStore, folder: Path, autoencoders: Autoencoders | None, claims: Claims
) -> Preview | None:
    """What draws previews: the main process, with the help of all where each holds a shard of the network."""
    run = prepared.run
    possible = run.world.tell("yes" if autoencoders is not None else None) is not None
    if run.settings.preview_every == 0 or not possible or not (run.world.is_main or run.world.is_sharded):
        return None
    samples = replace(run.samples, moments=data.select(run.modalities))
    return Preview(
        previews_folder(folder),
        samples,
        data.names,
        run.modalities,
        autoencoders,
        run.settings,
        title=folder.name,
        claims=claims,
    )


def _mention_faster_arithmetic(run: Run) -> None:
    on_cpu = run.world.device.type == "cpu" and run.settings.mixed_precision == "no"
    if on_cpu and choose_training_dtype("auto", run.world.device) == torch.bfloat16:
        console.note("This processor multiplies bfloat16: --mixed-precision bf16 would take about half the time.")


def _finish(
    prepared: Prepared, mirror: Mirror, last: TrainReport | None, autoencoders: Autoencoders | None, claims: Claims
) -> dict[str, Any]:
    """Write the model of the newest checkpoint, and say how the run ended."""
    state, folder = prepared.state, mirror.here
    if last is not None and not math.isfinite(last.loss):
        raise NotFiniteError(
            f"The run ended at step {state.step} without a finite loss: no model is written.",
            hint="Lower --lr, and begin anew with --overwrite or go on from an earlier checkpoint with --resume.",
        )
    checkpoint = step_folder(checkpoints_folder(folder), state.step)
    if last is None and prepared.resumption.folder is not None:
        checkpoint = prepared.resumption.folder  # of another run, where --resume named one with nothing left to do
    if last is None and is_exported(checkpoint, model_folder(folder), autoencoders):
        console.note(console.NOTHING_TO_DO)
    else:
        export_model(checkpoint, model_folder(folder), autoencoders, claims)
        _mirror_model(mirror)
    facts: dict[str, Any] = {"step": state.step, "of": prepared.run.settings.steps, "skipped": state.skipped}
    if last is not None:
        facts["loss"] = last.loss
    return {
        **facts,
        "checkpoint": str(mirror.name_of(checkpoint)),
        "model": str(mirror.name_of(model_folder(folder))),
    }


def _mirror_model(mirror: Mirror) -> None:
    """Put the model, and the end of the log, where the run lives."""
    if metrics_file(mirror.here).is_file():
        mirror.push(metrics_file(mirror.here), previews_folder(mirror.here), mirror.here / TENSORBOARD)
    mirror.push(model_folder(mirror.here), last=(INDEX_NAME, MADE_FROM))


@contextmanager
def _worked_on(folder: Path, world: World, *, overwrite: bool, locked: bool = True) -> Iterator[Mirror]:
    """A run's folder to work on: of one in an object store the main process keeps a copy on this machine, which all
    processes of the run see."""
    if not is_remote(folder):
        yield Mirror(folder, folder)
    elif world.is_main:
        own = [path.relative_to(folder).as_posix() for path in _written_by_a_run(folder)]
        mark = (model_folder(folder) / MADE_FROM).relative_to(folder).as_posix()
        checkpoints = checkpoints_folder(folder).name
        with mirrored(
            folder, own=own, checkpoints=checkpoints, marks=(mark,), overwrite=overwrite, locked=locked
        ) as mirror:
            world.tell(str(mirror.here))
            yield mirror
    else:
        here = world.tell(None)
        assert here is not None
        yield Mirror(folder, Path(here))


@contextmanager
def _only_run_in(folder: Path, world: World) -> Iterator[None]:
    """Hold the lock of a run's folder, in the main process.

    Raises:
        BusyError: another run holds it.
    """
    if not world.is_main:
        yield
        return
    private = PrivateFolder(folder, "train")
    private.take()
    try:
        remove_leftovers(checkpoints_folder(folder))
        put_right(model_folder(folder))
        yield
    finally:
        private.leave()
