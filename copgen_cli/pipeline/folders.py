"""A model's folder, written whole: a pipeline of diffusers where it knows pictures alone; else likewise, with an
autoencoder for each raster and what its modalities are.

    transformer/  scheduler/  vae/     as in diffusers; vae/ where the model knows pictures
    vaes/<modality>/                   the autoencoder of a raster
    model_index.json                   `modalities`: what each is, in the model's order
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from diffusers import SchedulerMixin

from copgen_cli import __version__
from copgen_cli.modalities import PUBLISHED, spec_as_dict
from copgen_cli.model import Autoencoders, CopGenTransformer, modalities_of, scheduler_for
from copgen_cli.pipeline.carried import INDEX_NAME, VAES
from copgen_cli.pipeline.pipeline import CopGenPipeline


def save_model(
    folder: Path,
    net: CopGenTransformer,
    autoencoders: Autoencoders | None,
    scheduler: SchedulerMixin | None = None,
) -> None:
    """Write a model to a folder that is not there yet.

    Args:
        folder: the folder.
        net: the transformer.
        autoencoders: of its modalities; without them the folder has none, and whoever samples names them.
        scheduler: of a model that it comes from; None is the one that this package sets up.
    """
    scheduler = scheduler_for(net) if scheduler is None else scheduler
    alone = autoencoders.of_all if autoencoders is not None else None
    if alone is not None and set(modalities_of(net)) <= set(PUBLISHED):
        CopGenPipeline(transformer=net, vae=alone.model, scheduler=scheduler).save_pretrained(folder)
        return
    net.save_pretrained(folder / "transformer")
    scheduler.save_pretrained(folder / "scheduler")
    if autoencoders is None:
        return
    for modality, autoencoder in autoencoders.of.items():
        place = folder / "vae" if modality.spec.is_picture else folder / VAES / modality
        if not place.is_dir():
            autoencoder.model.save_pretrained(place)
    index: dict[str, Any] = {
        "_class_name": "CopGenPipeline",
        "copgen_version": __version__,
        "modalities": [spec_as_dict(modality.spec) for modality in modalities_of(net)],
    }
    (folder / INDEX_NAME).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
