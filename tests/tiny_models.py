"""Untrained networks small enough for a test: real classes, real sizes of images and latents, few weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import AutoencoderKL

from copgen_cli.modalities import COPGEN_2026, PUBLISHED, Modality, modalities_in
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


def compvis_names(model: AutoencoderKL, levels: int) -> dict[str, torch.Tensor]:
    """The tensors of a diffusers autoencoder under CompVis names; linear layers of attention are 1 x 1 convolutions."""
    attention = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
    renamed = {}
    for name, tensor in model.state_dict().items():
        if "attentions" in name and tensor.ndim == 2:
            tensor = tensor[..., None, None]
        for new, old in attention.items():
            name = name.replace(f"mid_block.attentions.0.{new}.", f"mid.attn_1.{old}.")
        for i in range(levels):
            name = name.replace(f"encoder.down_blocks.{i}.resnets.", f"encoder.down.{i}.block.")
            name = name.replace(f"encoder.down_blocks.{i}.downsamplers.0", f"encoder.down.{i}.downsample")
            name = name.replace(f"decoder.up_blocks.{i}.resnets.", f"decoder.up.{levels - 1 - i}.block.")
            name = name.replace(f"decoder.up_blocks.{i}.upsamplers.0", f"decoder.up.{levels - 1 - i}.upsample")
        name = name.replace("mid_block.resnets.0", "mid.block_1").replace("mid_block.resnets.1", "mid.block_2")
        name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        renamed[name] = tensor
    return renamed


def tiny_raster_autoencoder(modality: Modality, seed: int = 0) -> AutoencoderKL:
    """As COP-GEN (2026) has them, but narrow: its bands, 8 latent channels, f = 8, attention in the middle alone."""
    channels = modality.spec.channels
    return tiny_autoencoder(
        seed,
        channels=(32, 32, 32, 32),
        in_channels=channels,
        out_channels=channels,
        latent_channels=8,
        norm_num_groups=32,
        mid_block_add_attention=True,
    )


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


def tiny_copgen_2026(seed: int = 0) -> CopGenTransformer:
    """A narrow network of all twelve modalities of COP-GEN (2026), under its own names and of its latents."""
    specs = [modality.spec for modality in modalities_in(COPGEN_2026)]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = CopGenTransformer(
            num_modalities=len(specs),
            modalities=[spec.published for spec in specs],
            latent_shapes=[list(spec.latent) for spec in specs],
            patch_sizes=[spec.patch_size for spec in specs],
            hidden_size=32,
            depth=2,
            num_heads=2,
        )
        for parameter in net.parameters():
            parameter.data.add_(0.05 * torch.randn_like(parameter))
    return net.eval()


def tiny_pipeline(folder: Path, seed: int = 0, **settings) -> Path:
    """A whole pipeline saved in `folder`; settings are those of `tiny_transformer`."""
    from copgen_cli.pipeline.pipeline import CopGenPipeline

    pipeline = CopGenPipeline(transformer=tiny_transformer(seed, **settings), vae=tiny_autoencoder(seed))
    pipeline.save_pretrained(folder)
    return folder
