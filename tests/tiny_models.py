"""Untrained networks small enough for a test: real classes, real sizes of images and latents, few weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import AutoencoderKL

from copgen_cli.modalities import PUBLISHED
from copgen_cli.model.transformer import CopGenTransformer


def tiny_autoencoder(seed: int = 0, *, channels: Sequence[int] = (8, 8, 8, 8), **config) -> AutoencoderKL:
    """An `AutoencoderKL` with 4 latent channels and, as it stands, f = 8; every tensor random."""
    config = {"norm_num_groups": 4, "scaling_factor": 0.7, "mid_block_add_attention": False} | config
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoencoderKL(
            down_block_types=["DownEncoderBlock2D"] * len(channels),
            up_block_types=["UpDecoderBlock2D"] * len(channels),
            block_out_channels=list(channels),
            layers_per_block=1,
            sample_size=256,
            **config,
        )
    return model.eval()


def tiny_transformer(
    seed: int = 0, *, modalities: Sequence[str] = tuple(PUBLISHED), sample_size: int = 32, **sizes
) -> CopGenTransformer:
    """A transformer whose 8 x 8-pixel patches keep the sequence short."""
    sizes = {"patch_size": 8, "hidden_size": 32, "depth": 2, "num_heads": 2} | sizes
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = CopGenTransformer(
            sample_size=sample_size, num_modalities=len(modalities), modalities=[str(m) for m in modalities], **sizes
        )
        for parameter in net.parameters():  # zero biases and unit norms would hide mistakes
            parameter.data.add_(0.05 * torch.randn_like(parameter))
    return net.eval()


def tiny_pipeline(folder: Path, seed: int = 0, **settings) -> Path:
    """A whole pipeline saved in `folder`; settings are those of `tiny_transformer`."""
    from copgen_cli.pipeline.pipeline import CopGenPipeline

    pipeline = CopGenPipeline(transformer=tiny_transformer(seed, **settings), vae=tiny_autoencoder(seed))
    pipeline.save_pretrained(folder)
    return folder
