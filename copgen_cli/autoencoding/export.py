"""What a run of training leaves: a finished autoencoder as a diffusers folder, with its scale and its recipe."""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from copgen_cli import __version__
from copgen_cli.autoencoding.pictures import MEASURED, Images, subject_of
from copgen_cli.autoencoding.state import STATE_NAME, alone_in, check_recipe, read_state, recipe_of, restore_state
from copgen_cli.autoencoding.subject import Subject
from copgen_cli.layout import autoencoder_recipe
from copgen_cli.model import WEIGHTS_NAME, ImageAutoencoder, read_autoencoder
from copgen_cli.stages import (
    PRIVATE_FOLDER,
    Claims,
    disk_full_is_an_error,
    put_in_place,
    share_files,
    write_atomically,
)

if TYPE_CHECKING:
    from copgen_cli.settings import AutoencoderSettings


def is_finished(patches: Images | Subject, settings: AutoencoderSettings, output: Path) -> bool:
    """Whether the run in `output` has all updates behind it, and the autoencoder that they made is written.

    Raises:
        MismatchError: it was made by another recipe.
        BrokenInputError: its state cannot be read.
    """
    if not (output / STATE_NAME).is_file():
        return False
    saved = read_state(output / STATE_NAME)
    check_recipe(saved["recipe"], recipe_of(settings, subject_of(patches)), output)
    try:
        written = json.loads(autoencoder_recipe(output).read_text(encoding="utf-8"))["recipe"]["steps"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return bool(saved["step"] == written and written >= settings.steps and (output / WEIGHTS_NAME).is_file())


def export_autoencoder(
    patches: Images | Subject, settings: AutoencoderSettings, output: Path, device: torch.device
) -> float:
    """Write the averaged weights of the state in `output` as a diffusers folder there, with their measured scale.

    They are rounded to float16 first, which halves the file and is far below what training resolves, so that whatever
    folder they are copied to later, they are the same weights. `recipe.json` beside them says how they were made.

    Returns:
        The scaling factor: one over the standard deviation of latents drawn for training images (arXiv:2112.10752,
        section D.1).
    """
    with alone_in(output) as claims:
        return _export(subject_of(patches), settings, output, device, claims)


def _export(
    subject: Subject, settings: AutoencoderSettings, output: Path, device: torch.device, claims: Claims
) -> float:
    state = restore_state(output, settings, subject, device)
    ema = state.ema.half().float()
    generator = np.random.default_rng([settings.seed, 1 << 40])  # beyond any update's
    autoencoder = ImageAutoencoder(ema, device=device)
    pieces = (piece for drawn in subject.measured(MEASURED, generator) for piece in drawn.split(8))
    moments = torch.cat([autoencoder.encode(piece.to(device)) for piece in pieces])
    mean, log_variance = moments.chunk(2, dim=1)
    variance = mean.var() + log_variance.clamp(-30, 20).exp().mean()  # of a draw: between and within posteriors
    scale = 1 / math.sqrt(variance.item())
    if settings.frozen_encoder and settings.init_from is not None:
        scale = float(read_autoencoder(settings.init_from).config.scaling_factor)  # of the same latents
    ema.register_to_config(scaling_factor=scale)
    with disk_full_is_an_error(output), tempfile.TemporaryDirectory(dir=output / PRIVATE_FOLDER) as folder:
        beside = Path(folder, "vae")  # made with the permissions that the user's umask gives
        ema.half().save_pretrained(beside)
        share_files(beside)
        put_in_place({output / file.name: file for file in beside.iterdir()}, claims)
    recipe = settings.model_dump(mode="json", exclude={"save_every", "max_time", *subject.unused})
    recipe |= {"steps": state.step, "of": settings.steps, **subject.identity()}
    facts = {"copgen": __version__, "recipe": recipe, "images": dict(subject.counts), "scaling_factor": scale}
    write_atomically(autoencoder_recipe(output), (json.dumps(facts, indent=2) + "\n").encode(), claims)
    return scale
