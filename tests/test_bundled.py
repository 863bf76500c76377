"""The model in the package: whole, small, known by its name, and as good as its card says on places it never saw."""

from __future__ import annotations

import json
from datetime import datetime

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from copgen_cli import CopGenPipeline
from copgen_cli.modalities import PUBLISHED, Modality
from copgen_cli.model.autoencoder import load_autoencoder, to_uint8
from copgen_cli.model.bundled import BUNDLED_NAME, bundled_folder
from copgen_cli.model.checkpoint import load_transformer
from copgen_cli.model.diffusion import denoising_loss_parts, schedule_of
from copgen_cli.model.solvers import made_for, steps_from_noise
from copgen_cli.simulation.world import days_between, simulate_cell

MEGABYTE = 1_000_000
UNSEEN_SEED = 9002
AUTUMN = days_between(datetime(2020, 9, 10), datetime(2020, 11, 5))
"""The season that it learned."""
MIDDLE = np.s_[406:662, 406:662]


@pytest.fixture(scope="module")
def pipe():
    return CopGenPipeline.from_pretrained(BUNDLED_NAME)


def test_every_loader_knows_it_by_name(pipe):
    net = load_transformer(BUNDLED_NAME)
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(net.parameters(), pipe.transformer.parameters(), strict=True))
    assert load_autoencoder(BUNDLED_NAME).fingerprint == pipe.autoencoder.fingerprint
    assert pipe.modalities == tuple(PUBLISHED)


def test_it_is_small_half_precise_and_nothing_in_it_can_run():
    files = [file for file in bundled_folder().rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 30 * MEGABYTE
    assert {file.suffix for file in files} <= {".json", ".md", ".safetensors"}
    for file in files:
        if file.suffix == ".safetensors":
            assert {tensor.dtype for tensor in load_file(file).values()} == {torch.float16}


def test_its_autoencoder_has_a_measured_scale_and_few_parameters(pipe):
    config = json.loads((bundled_folder() / "vae" / "config.json").read_text())
    assert config["scaling_factor"] not in (1.0, 0.18215)
    assert sum(p.numel() for p in pipe.vae.parameters()) <= 3_000_000


def test_its_card_tells_licence_recipe_and_that_pictures_are_synthetic():
    card = (bundled_folder() / "README.md").read_text(encoding="utf-8")
    assert "license: apache-2.0" in card
    assert "**synthetic**" in card
    for command in ("simulate", "prepare", "train-autoencoder", "encode", "train"):
        assert f"copgen {command}" in card


@pytest.fixture(scope="module")
def unseen():
    """One patch of each of three cells that training never saw, by modality: (3, 3, 256, 256) uint8."""
    found: dict[Modality, list[np.ndarray]] = {modality: [] for modality in PUBLISHED}
    for name in ("502U_166R", "529U_182R", "542U_180R"):
        cell = simulate_cell(name, UNSEEN_SEED, days=AUTUMN)
        dem = Image.fromarray(cell.dem).convert("RGB").resize((1068, 1068), Image.Resampling.BILINEAR)
        for modality, picture in zip(PUBLISHED, (np.asarray(dem), cell.s1_rtc, cell.s2_l1c, cell.s2_l2a), strict=True):
            found[modality].append(picture[MIDDLE])
    return {modality: torch.from_numpy(np.stack(p)).permute(0, 3, 1, 2) for modality, p in found.items()}


def test_its_autoencoder_keeps_what_can_be_seen(pipe, unseen):
    """27 dB, and 20 for radar, whose speckle no latent can keep."""
    for modality, pixels in unseen.items():
        mean, _ = pipe.autoencoder.moments(pixels).chunk(2, dim=1)
        decoded = to_uint8(pipe.autoencoder.decode(pipe.autoencoder.scale_factor * mean))
        error = (decoded.float() - pixels.float()).square().mean(dim=(1, 2, 3))
        psnr = (10 * torch.log10(255**2 / error)).mean()
        assert psnr > (20 if modality is Modality.S1RTC else 27), f"{modality}: {psnr:.1f} dB"


def test_its_transformer_knows_noise_from_places_it_never_saw(pipe, unseen):
    """At the middle one of its own steps most of the noise is told; an untrained network tells none (an error of 1)."""
    autoencoder = pipe.autoencoder
    latents = [autoencoder.scale_factor * autoencoder.moments(unseen[m]).chunk(2, dim=1)[0] for m in PUBLISHED]
    schedule, (calls, _) = schedule_of(pipe.transformer), made_for(pipe.transformer)
    middle = steps_from_noise(schedule, calls)[calls // 2]
    steps = [torch.full((3,), middle) for _ in latents]
    of_velocity = denoising_loss_parts(pipe.transformer, latents, steps, generator=torch.Generator().manual_seed(0))
    error = float(schedule.abar[middle]) * of_velocity.mean(dim=1)  # of the noise that the velocity amounts to
    assert error.max() < 0.15, error


def test_it_follows_what_it_is_given_on_places_it_never_saw(pipe, unseen):
    """Its L2A lies nearer to the place whose L1C it was given than what it draws from nothing, everywhere."""
    given = [Image.fromarray(pixels.permute(1, 2, 0).numpy()) for pixels in unseen[Modality.S2L1C]]
    options = {"seed": 0, "output_type": "pt"}
    follows = pipe(generate="s2_l2a", condition={"s2_l1c": given}, **options).images["s2_l2a"]
    dreams = pipe(generate="s2_l2a", num_samples=len(given), **options).images["s2_l2a"]
    truth = unseen[Modality.S2L2A]
    errors = (255 * follows[:, None] - truth).square().mean(dim=(2, 3, 4))  # of each sample to each truth
    assert errors.argmin(dim=1).tolist() == [0, 1, 2]
    assert (errors.diagonal() < (255 * dreams - truth).square().mean(dim=(1, 2, 3)) / 2).all()
