"""The joint denoiser: one U-ViT over the tokens of all modalities, after COP-GEN-Beta (arXiv:2504.08548).

The backbone is U-ViT (arXiv:2209.12152) with norms on the residual stream; one timestep per modality comes from
UniDiffuser (arXiv:2303.06555). Tensor names are those of the released checkpoint, so its weights load as they are.

B batch, M modalities, C latent channels, H and W latent pixels, D model width, p side of a patch. Modality i has
latents of its own (C_i, H_i, W_i) and patches of its own side p_i: N = M + sum of (H_i / p_i) (W_i / p_i) tokens.
COP-GEN-Beta is the case of four modalities of one shape; COP-GEN (2026, arXiv:2603.03239) that of ten rasters and two
scalars, whose latents are (1, 1, 3) and become three tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

NORM_EPS = 1e-5
PREDICTION_TYPES = ("epsilon", "v_prediction")
SHORT = 512
"""Tokens up to which the scores of all pairs are cheap to keep."""


def timestep_embedding(timesteps: Tensor, width: int) -> Tensor:
    """Sinusoidal embedding of timesteps, always in float32: half precision would round a timestep near 1000.

    Args:
        timesteps: (B,) integers or floats in [0, 1000]; fractions are meant as they stand.
        width: length of the embedding.

    Returns:
        (B, width) float32: cosines, then sines, at frequencies exp(-ln(10000) i / half); one zero ends an odd width.
    """
    half = width // 2
    index = torch.arange(half, dtype=torch.float32, device=timesteps.device)
    angles = timesteps.float()[:, None] * torch.exp(-math.log(10000.0) * index / half)
    embedding = torch.cat([angles.cos(), angles.sin()], dim=-1)
    return F.pad(embedding, (0, 1)) if width % 2 else embedding


class PatchEmbedding(nn.Module):
    """(B, C, H, W) latents to (B, (H / p) (W / p), D) tokens in row-major order."""

    def __init__(self, in_channels: int, patch_size: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, width, kernel_size=patch_size, stride=patch_size)

    def forward(self, latents: Tensor) -> Tensor:
        return self.proj(latents).flatten(2).transpose(1, 2)


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(query key^T / sqrt(width)) value for (B, heads, N, width) tensors, by the kernel that is fastest.

    That is the fused one, except for short sequences in bfloat16 on a CPU: two products take 0.3 to 0.8 of its time.
    """
    if query.device.type == "cpu" and query.dtype == torch.bfloat16 and query.shape[-2] <= SHORT:
        return ((query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)).softmax(-1) @ value
    return F.scaled_dot_product_attention(query, key, value)


class Attention(nn.Module):
    """Self-attention over all tokens, in the dtype that its input has."""

    def __init__(self, width: int, num_heads: int, qkv_bias: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        qkv = self.qkv(x).view(batch, tokens, 3, self.num_heads, width // self.num_heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each (B, heads, N, D / heads)
        mixed = attend(query, key, value)
        return self.proj(mixed.transpose(1, 2).reshape(batch, tokens, width))


class MLP(nn.Module):
    """Two linear layers around an exact (erf) GELU."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """A block with its norms on the residual stream; with `joins_skip` it first takes in its mirror block's output."""

    def __init__(
        self, width: int, num_heads: int, mlp_ratio: float, qkv_bias: bool, *, joins_skip: bool = False
    ) -> None:
        super().__init__()
        if joins_skip:
            self.skip_linear = nn.Linear(2 * width, width)
            self.norm1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.attn = Attention(width, num_heads, qkv_bias)
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = MLP(width, round(width * mlp_ratio))
        self.norm3 = nn.LayerNorm(width, eps=NORM_EPS)

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        if skip is not None:
            x = self.norm1(self.skip_linear(torch.cat([x, skip], dim=-1)))
        x = self.norm2(x + self.attn(x))
        return self.norm3(x + self.mlp(x))


class CopGenTransformer(ModelMixin, ConfigMixin):
    """Predicts the noise, or the velocity, in the latents of M modalities, each noised to its own timestep.

    Args:
        sample_size: side of the latents, in latent pixels, where all have one shape.
        in_channels: channels of a latent, likewise.
        patch_size: side of a patch, in latent pixels, likewise.
        hidden_size: width of the model.
        depth: input and output blocks together, without the middle one; even.
        num_heads: attention heads; must divide `hidden_size`.
        mlp_ratio: hidden width of a block's MLP over `hidden_size`.
        qkv_bias: whether the q, k, v projection has a bias.
        mlp_time_embed: whether each modality's timestep embedding goes through an MLP of its own.
        num_modalities: M.
        modalities: names of the modalities in the model's order; None says nothing of them.
        prediction_type: what the output means, in diffusers' words: "epsilon", the noise, as in the released
            checkpoint, or "v_prediction", the velocity. It changes nothing here, but tells those who call.
        rescale_betas_zero_snr: whether its noise schedule ends in noise alone, likewise (arXiv:2305.08891).
        distilled_steps: calls that it was distilled to sample in, likewise; None is a network of any number of them.
        latent_shapes: (C, H, W) of each modality, where they differ; then `sample_size` and `in_channels` say nothing.
        patch_sizes: side of a patch of each modality; None is `patch_size` for all.

    Raises:
        ValueError: the sizes do not fit one another, `modalities` does not name M different ones, there is no such
            `prediction_type`, or noise is predicted where it is all that there is.
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ["Block"]  # noqa: RUF012 - diffusers reads these as plain class attributes
    _repeated_blocks = ["Block"]  # noqa: RUF012
    _skip_layerwise_casting_patterns = ["pos_embed", "patch_embeds", "norm"]  # noqa: RUF012

    @register_to_config
    def __init__(
        self,
        sample_size: int = 32,
        in_channels: int = 4,
        patch_size: int = 2,
        hidden_size: int = 1024,
        depth: int = 20,
        num_heads: int = 16,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = False,
        mlp_time_embed: bool = False,
        num_modalities: int = 4,
        modalities: list[str] | None = None,
        prediction_type: str = "epsilon",
        latent_shapes: list[list[int]] | None = None,
        patch_sizes: list[int] | None = None,
        rescale_betas_zero_snr: bool = False,
        distilled_steps: int | None = None,
    ) -> None:
        super().__init__()
        _check_sizes(hidden_size, depth, num_heads, num_modalities, modalities)
        _check_prediction(prediction_type, distilled_steps, ends_in_noise=rescale_betas_zero_snr)
        shapes = latent_shapes or [[in_channels, sample_size, sample_size]] * num_modalities
        self.latent_shapes: tuple[tuple[int, int, int], ...] = tuple((c, h, w) for c, h, w in shapes)
        """(C, H, W) of each modality."""
        self.patch_sizes = tuple(patch_sizes or [patch_size] * num_modalities)
        _check_patches(self.latent_shapes, self.patch_sizes, num_modalities)
        self.grids = tuple((h // p, w // p) for (_, h, w), p in zip(self.latent_shapes, self.patch_sizes, strict=True))
        """Rows and columns of patches of each modality."""
        self.hidden_size, self.num_modalities = hidden_size, num_modalities
        self.gradient_checkpointing = False

        sizes = list(zip([c for c, _, _ in self.latent_shapes], self.patch_sizes, strict=True))
        self.patch_embeds = nn.ModuleList(PatchEmbedding(c, p, hidden_size) for c, p in sizes)
        tokens = num_modalities + sum(rows * columns for rows, columns in self.grids)
        self.pos_embed = nn.Parameter(torch.zeros(1, tokens, hidden_size))
        self.time_img_embeds = (
            nn.ModuleList(
                nn.Sequential(
                    nn.Linear(hidden_size, 4 * hidden_size), nn.SiLU(), nn.Linear(4 * hidden_size, hidden_size)
                )
                for _ in range(num_modalities)
            )
            if mlp_time_embed
            else None
        )

        def blocks(count: int, *, joins_skip: bool = False) -> nn.ModuleList:
            return nn.ModuleList(
                Block(hidden_size, num_heads, mlp_ratio, qkv_bias, joins_skip=joins_skip) for _ in range(count)
            )

        self.in_blocks = blocks(depth // 2)
        self.mid_block = Block(hidden_size, num_heads, mlp_ratio, qkv_bias)
        self.out_blocks = blocks(depth // 2, joins_skip=True)
        self.norm = nn.LayerNorm(hidden_size, eps=NORM_EPS)
        self.decoder_preds = nn.ModuleList(nn.Linear(hidden_size, p * p * c) for c, p in sizes)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self.apply(initialise)

    def forward(
        self,
        latents: Sequence[Tensor],
        timesteps: Sequence[Tensor],
        *,
        heads: Sequence[int] | None = None,
        interpolate_positions: bool = False,
    ) -> list[Tensor]:
        """Predict the noise (or velocity) of every modality, or of those in `heads`.

        Args:
            latents: M tensors (B, C_i, H_i, W_i), scaled latents with the noise of their timestep, of any float dtype.
            timesteps: M tensors (B,), integers or floats in [0, 1000]: 0 is clean, 1000 is noise.
            heads: positions of the modalities to predict, in the order wanted; None is all. Others cost no head.
            interpolate_positions: stretch the learnt positions to latents of another size than in training (bicubic).

        Returns:
            A tensor (B, C_i, H_i, W_i) per entry of `heads`, in the dtype that the weights (or autocast) compute in.

        Raises:
            ValueError: shapes are not those above, or differ from the training size without `interpolate_positions`.
        """
        grids = self._check_inputs(latents, timesteps, interpolate_positions)
        dtype = self.pos_embed.dtype
        times = [self._embed_time(i, timestep, dtype) for i, timestep in enumerate(timesteps)]
        patches = [embed(latent.to(dtype)) for embed, latent in zip(self.patch_embeds, latents, strict=True)]
        x = torch.cat([*times, *patches], dim=1) + self._positions(grids)

        skips = []
        for block in self.in_blocks:
            x = self._run(block, x)
            skips.append(x)
        x = self._run(self.mid_block, x)
        for block in self.out_blocks:
            x = self._run(block, x, skips.pop())

        wanted = range(self.num_modalities) if heads is None else heads
        return [self._predict(i, x, grids) for i in wanted]

    def _embed_time(self, modality: int, timestep: Tensor, dtype: torch.dtype) -> Tensor:
        """(B,) timesteps of one modality to its (B, 1, D) token."""
        token = timestep_embedding(timestep, self.hidden_size).to(dtype)
        if self.time_img_embeds is not None:
            token = self.time_img_embeds[modality](token)
        return token[:, None]

    def _positions(self, grids: Sequence[tuple[int, int]]) -> Tensor:
        """The (1, N, D) learnt positions; those of patches stretched to grids of other sizes, bicubic in float32."""
        if tuple(grids) == self.grids:
            return self.pos_embed
        of_times, *of_patches = self.pos_embed.split([self.num_modalities, *(r * c for r, c in self.grids)], dim=1)
        stretched = [of_times]
        for learnt, before, now in zip(of_patches, self.grids, grids, strict=True):
            grid = learnt.unflatten(1, before).permute(0, 3, 1, 2).float()
            grid = F.interpolate(grid, size=now, mode="bicubic", align_corners=False)
            stretched.append(grid.flatten(2).transpose(1, 2).to(learnt.dtype))
        return torch.cat(stretched, dim=1)

    def _run(self, block: nn.Module, *inputs: Tensor) -> Tensor:
        """One block; while gradient checkpointing is on, its activations are computed again in the backward pass."""
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return self._gradient_checkpointing_func(block, *inputs)
        return block(*inputs)

    def _predict(self, modality: int, x: Tensor, grids: Sequence[tuple[int, int]]) -> Tensor:
        """(B, N, D) last states to the (B, C, H, W) output of one modality: its patches are (row, column, channel)."""
        start = self.num_modalities + sum(rows * columns for rows, columns in grids[:modality])
        rows, columns = grids[modality]
        channels, side = self.latent_shapes[modality][0], self.patch_sizes[modality]
        states = self.norm(x[:, start : start + rows * columns])
        pixels = self.decoder_preds[modality](states).view(-1, rows, columns, side, side, channels)
        return pixels.permute(0, 5, 1, 3, 2, 4).reshape(-1, channels, rows * side, columns * side)

    def _check_inputs(
        self, latents: Sequence[Tensor], timesteps: Sequence[Tensor], interpolate_positions: bool
    ) -> list[tuple[int, int]]:
        """Rows and columns of every modality's patch grid, once the inputs are known to fit the model."""
        if len(latents) != self.num_modalities or len(timesteps) != self.num_modalities:
            raise ValueError(
                f"{len(latents)} latents and {len(timesteps)} timesteps for a model of {self.num_modalities} modalities"
            )
        batch = latents[0].shape[0]
        shapes = [tuple(latent.shape) for latent in latents]
        for shape, (channels, _, _) in zip(shapes, self.latent_shapes, strict=True):
            if len(shape) != 4 or shape[:2] != (batch, channels):
                raise ValueError(f"latents of shapes {shapes}, expected (batch, {channels}, height, width)")
        if any(timestep.shape != (batch,) for timestep in timesteps):
            raise ValueError(f"timesteps of shapes {[tuple(t.shape) for t in timesteps]}, expected all ({batch},)")
        return [self._grid_of(i, shape, interpolate_positions) for i, shape in enumerate(shapes)]

    def _grid_of(self, modality: int, shape: tuple[int, ...], interpolate_positions: bool) -> tuple[int, int]:
        height, width = shape[2:]
        side = self.patch_sizes[modality]
        if height % side or width % side:
            raise ValueError(f"latents of {height} x {width} are not made of patches of {side}")
        if not interpolate_positions and shape[2:] != self.latent_shapes[modality][1:]:
            _, rows, columns = self.latent_shapes[modality]
            raise ValueError(
                f"latents of {height} x {width}, but the model was trained at {rows} x {columns}; "
                "interpolate_positions=True stretches its positions"
            )
        return height // side, width // side


def initialise(module: nn.Module) -> None:
    """Truncated normal linear weights and zero biases; convolutions and norms stay as PyTorch makes them."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _check_prediction(prediction_type: str, distilled_steps: int | None, *, ends_in_noise: bool) -> None:
    if prediction_type not in PREDICTION_TYPES:
        raise ValueError(f"prediction_type {prediction_type!r} is none of {', '.join(PREDICTION_TYPES)}")
    if ends_in_noise and prediction_type != "v_prediction":
        raise ValueError("rescale_betas_zero_snr needs prediction_type v_prediction")
    if distilled_steps is not None and distilled_steps < 1:
        raise ValueError(f"distilled_steps is {distilled_steps}, expected at least 1")


def _check_sizes(
    hidden_size: int, depth: int, num_heads: int, num_modalities: int, modalities: Sequence[str] | None
) -> None:
    if num_heads < 1 or hidden_size % num_heads:
        raise ValueError(f"hidden_size {hidden_size} is not a multiple of num_heads {num_heads}")
    if depth % 2 or depth < 2:
        raise ValueError(f"depth {depth} is not even: it counts the input and output blocks, which mirror one another")
    if modalities is not None and (len(modalities) != num_modalities or len(set(modalities)) != num_modalities):
        raise ValueError(f"modalities {list(modalities)} do not name {num_modalities} different ones")


def _check_patches(shapes: Sequence[tuple[int, int, int]], patch_sizes: Sequence[int], num_modalities: int) -> None:
    if not len(shapes) == len(patch_sizes) == num_modalities:
        told = f"{len(shapes)} latent_shapes and {len(patch_sizes)} patch_sizes"
        raise ValueError(f"{told} for {num_modalities} modalities")
    for (_, height, width), side in zip(shapes, patch_sizes, strict=True):
        if side < 1 or height % side or width % side:
            size = f"{height}" if height == width else f"{height} x {width}"
            raise ValueError(f"sample_size {size} is not a multiple of patch_size {side}")
