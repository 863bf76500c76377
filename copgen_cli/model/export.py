"""From a checkpoint to a pipeline's folder, ready to sample with and to be loaded from Python."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from uuid import uuid4

from copgen_cli.model.autoencoder import ImageAutoencoder
from copgen_cli.model.checkpoint import load_transformer
from copgen_cli.model.pipeline import CopGenPipeline
from copgen_cli.model.solvers import make_scheduler


def export_model(checkpoint: Path, target: Path, autoencoder: ImageAutoencoder | None) -> None:
    """Write the averaged weights of a checkpoint as the pipeline `target`, in place of what is there.

    Args:
        checkpoint: of training.
        target: the pipeline's folder.
        autoencoder: the one that made the latents; without it the folder has no `vae/`, and whoever samples names it.
    """
    net = load_transformer(checkpoint / "ema")
    beside = target.with_name(f".{target.name}.{uuid4().hex[:12]}")
    try:
        if autoencoder is not None:
            CopGenPipeline(transformer=net, vae=autoencoder.model).save_pretrained(beside)
        else:
            net.save_pretrained(beside / "transformer")
            make_scheduler().save_pretrained(beside / "scheduler")
        old = target.with_name(f".{target.name}.old-{uuid4().hex[:12]}")
        if target.exists():
            os.rename(target, old)
        os.rename(beside, target)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
