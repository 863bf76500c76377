"""From a checkpoint to a pipeline's folder, ready to sample with and to be loaded from Python."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from copgen_cli.model import WEIGHTS_NAME, Autoencoders, load_transformer
from copgen_cli.pipeline import save_model
from copgen_cli.stages import MANIFEST, PRIVATE_FOLDER, Claims, ExclusiveLock, disk_full_is_an_error, share_files

MADE_FROM = "copgen_export.json"
"""What an exported model says of the checkpoint that it came from."""


def export_model(
    checkpoint: Path, target: Path, autoencoders: Autoencoders | None, claims: Claims | None = None
) -> None:
    """Write the averaged weights of a checkpoint as the pipeline `target`, in place of an earlier one.

    Args:
        checkpoint: of training.
        target: the pipeline's folder.
        autoencoders: those that made the latents; without them the folder has none, and whoever samples names it.
        claims: of the folder around it: what they do not name is not replaced.

    Raises:
        MismatchError: the target holds what copgen did not write.
    """
    if claims is not None:
        claims.require(target)
    net = load_transformer(checkpoint / "ema")
    with _alone(target) as (beside, old), disk_full_is_an_error(target):
        save_model(beside, net, autoencoders)
        share_files(beside)
        (beside / MADE_FROM).write_text(json.dumps(_origin(checkpoint, autoencoders)) + "\n", encoding="utf-8")
        if claims is not None:
            claims.require(target)
            claims.take(target / file.relative_to(beside) for file in beside.rglob("*") if file.is_file())
        if target.exists():
            os.rename(target, old)
        os.rename(beside, target)


def is_exported(checkpoint: Path, target: Path, autoencoders: Autoencoders | None) -> bool:
    """Whether `target` is what `export_model` makes of these."""
    try:
        return json.loads((target / MADE_FROM).read_text(encoding="utf-8")) == _origin(checkpoint, autoencoders)
    except (OSError, ValueError):
        return False


def exported_files(target: Path) -> list[Path]:
    """The files of a model that an earlier version exported, which kept no record of them."""
    if not (target / MADE_FROM).is_file():
        return []
    names = [MADE_FROM, "README.md", "model_index.json", "scheduler/scheduler_config.json"]
    names += [f"{part}/{name}" for part in ("transformer", "vae") for name in ("config.json", WEIGHTS_NAME)]
    return [target / name for name in names]


def _origin(checkpoint: Path, autoencoders: Autoencoders | None) -> dict[str, str | None]:
    manifest = hashlib.sha256((checkpoint / MANIFEST).read_bytes()).hexdigest()  # which holds hashes of all weights
    return {
        "checkpoint": checkpoint.name,
        "manifest": manifest,
        "autoencoder": None if autoencoders is None else autoencoders.fingerprint(autoencoders.of),
    }


def put_right(target: Path) -> None:
    """Undo what an export that was killed left half done."""
    with _alone(target):
        pass


@contextmanager
def _alone(target: Path) -> Iterator[tuple[Path, Path]]:
    """Where the next model is written and the last one is put, while nobody else exports to `target`."""
    private = target.parent / PRIVATE_FOLDER / target.name
    private.mkdir(parents=True, exist_ok=True)
    beside, old, lock = (private / name for name in ("new", "old", "lock"))
    with ExclusiveLock(lock):
        if old.exists() and not target.exists():
            os.rename(old, target)
        for leftover in (beside, old):
            shutil.rmtree(leftover, ignore_errors=True)
        try:
            yield beside, old
        finally:
            shutil.rmtree(beside, ignore_errors=True)
            if target.exists():
                shutil.rmtree(old, ignore_errors=True)
            lock.unlink(missing_ok=True)  # nobody waits on an unlinked lock: filelock looks at its link count
            for folder in (private, private.parent):
                with suppress(OSError):  # not empty
                    folder.rmdir()
