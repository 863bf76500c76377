"""From a checkpoint to a pipeline's folder, ready to sample with and to be loaded from Python."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from copgen_cli.model import ImageAutoencoder, load_transformer, make_scheduler
from copgen_cli.pipeline import CopGenPipeline
from copgen_cli.stages import MANIFEST, ExclusiveLock, disk_full_is_an_error, share_files

MADE_FROM = "copgen_export.json"
"""What an exported model says of the checkpoint that it came from."""


def export_model(checkpoint: Path, target: Path, autoencoder: ImageAutoencoder | None) -> None:
    """Write the averaged weights of a checkpoint as the pipeline `target`, in place of what is there.

    Args:
        checkpoint: of training.
        target: the pipeline's folder.
        autoencoder: the one that made the latents; without it the folder has no `vae/`, and whoever samples names it.
    """
    net = load_transformer(checkpoint / "ema")
    with _alone(target) as (beside, old), disk_full_is_an_error(target):
        if autoencoder is not None:
            CopGenPipeline(transformer=net, vae=autoencoder.model).save_pretrained(beside)
        else:
            net.save_pretrained(beside / "transformer")
            make_scheduler().save_pretrained(beside / "scheduler")
        share_files(beside)
        (beside / MADE_FROM).write_text(json.dumps(_origin(checkpoint, autoencoder)) + "\n", encoding="utf-8")
        if target.exists():
            os.rename(target, old)
        os.rename(beside, target)


def is_exported(checkpoint: Path, target: Path, autoencoder: ImageAutoencoder | None) -> bool:
    """Whether `target` is what `export_model` makes of these."""
    try:
        return json.loads((target / MADE_FROM).read_text(encoding="utf-8")) == _origin(checkpoint, autoencoder)
    except (OSError, ValueError):
        return False


def _origin(checkpoint: Path, autoencoder: ImageAutoencoder | None) -> dict[str, str | None]:
    manifest = hashlib.sha256((checkpoint / MANIFEST).read_bytes()).hexdigest()  # which holds hashes of all weights
    return {
        "checkpoint": checkpoint.name,
        "manifest": manifest,
        "autoencoder": None if autoencoder is None else autoencoder.fingerprint,
    }


def put_right(target: Path) -> None:
    """Undo what an export that was killed left half done."""
    with _alone(target):
        pass


@contextmanager
def _alone(target: Path) -> Iterator[tuple[Path, Path]]:
    """Where the next model is written and the last one is put, while nobody else exports to `target`."""
    beside, old = (target.with_name(f".{target.name}.{name}") for name in ("new", "old"))
    lock = target.with_name(f".{target.name}.lock")
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
