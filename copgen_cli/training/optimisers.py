"""The optimiser's side of a step: AdamW or Muon, learning rate, averaged weights, and the scale of half precision."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from copgen_cli.model import Block
from copgen_cli.records import LearningRateDecay, Optimizer
from copgen_cli.settings import TrainSettings


def make_optimizer(net: nn.Module, settings: TrainSettings) -> torch.optim.Optimizer:
    """The optimiser that the settings name, with decay on all parameters."""
    if settings.optimizer is Optimizer.MUON:
        return MuonBesideAdamW(net, settings)
    return _adamw(list(net.parameters()), settings)


def _adamw(parameters: list[nn.Parameter], settings: TrainSettings) -> torch.optim.AdamW:
    """AdamW (arXiv:1711.05101), in one kernel where the device has one."""
    fused = {p.device.type for p in parameters} <= {"cuda", "cpu"}
    return torch.optim.AdamW(
        parameters,
        lr=settings.lr,
        betas=settings.betas,
        eps=settings.eps,
        weight_decay=settings.weight_decay,
        fused=fused,
        foreach=None if fused else True,
    )


class MuonBesideAdamW(torch.optim.Optimizer):
    """Muon on the matrices of the blocks, AdamW on everything else: embeddings, heads, norms and biases.

    Muon makes the singular values of an update alike, so that directions that gradients seldom take are learned as
    fast as the others. Its updates are scaled to the size of AdamW's (arXiv:2502.16982, section 2.2): one learning
    rate and one decay serve both. It needs whole matrices, not shards of them.
    """

    def __init__(self, net: nn.Module, settings: TrainSettings) -> None:
        blocks = [module for module in net.modules() if isinstance(module, Block)]
        matrices = [p for block in blocks for p in block.parameters() if p.ndim == 2]
        chosen = set(map(id, matrices))
        self._muon = torch.optim.Muon(
            matrices, lr=settings.lr, weight_decay=settings.weight_decay, adjust_lr_fn="match_rms_adamw"
        )
        self._adamw = _adamw([p for p in net.parameters() if id(p) not in chosen], settings)
        super().__init__([*self._muon.param_groups, *self._adamw.param_groups], self._adamw.defaults)

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for part, group in zip((self._muon, self._adamw), self.param_groups, strict=True):
            part.param_groups, part.state = [group], self.state  # loading a state replaces both
            part.step()


def learning_rate(k: int, settings: TrainSettings) -> float:
    """The rate of update k, counted from 0: a linear rise from 0, then constant, or half a cosine down to 0."""
    if k < settings.warmup:
        return settings.lr * k / settings.warmup
    if settings.decay is LearningRateDecay.COSINE:
        gone = (k - settings.warmup) / max(settings.steps - settings.warmup, 1)
        return settings.lr * (1 + math.cos(math.pi * min(gone, 1.0))) / 2
    return settings.lr


def ema_decay(k: int, settings: TrainSettings) -> float:
    """What update k, counted from 0, keeps of the averaged weights."""
    return min(settings.ema_decay, (1 + k) / (10 + k)) if settings.ema_warmup else settings.ema_decay


class AveragedWeights:
    """An exponential moving average of a network's parameters, in float32, beginning as a copy.

    Kept as a list parallel to the parameters, so that it is sharded just as they are.
    """

    def __init__(self, net: nn.Module) -> None:
        self.net = net
        self.values = [tensor.clone() for tensor in self._here()]

    def update(self, decay: float) -> None:
        """values = decay values + (1 - decay) parameters, all tensors at once."""
        torch._foreach_lerp_(self.values, self._here(), 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The network has the averaged weights inside the block, and its own again afterwards, bit for bit."""
        own = [tensor.clone() for tensor in self._here()]
        torch._foreach_copy_(self._here(), self.values)
        try:
            yield
        finally:
            torch._foreach_copy_(self._here(), own)

    @torch.no_grad()
    def _here(self) -> list[Tensor]:
        """The parameters, or what this process holds of them."""
        for module in self.net.modules():
            reshard = getattr(module, "reshard", None)
            if callable(reshard):  # after a forward pass it may still hold the whole of its parameters
                reshard()
        return [p.to_local() if hasattr(p, "to_local") else p.detach() for p in self.net.parameters()]


@dataclass(slots=True)
class LossScale:
    """The factor that keeps gradients inside float16 (arXiv:1710.03740): halved on overflow, doubled after a calm time.

    It decides by the norm over all processes, so that it is the same on each.
    """

    value: float = 2.0**16
    calm: int = 0
    """Steps since it last changed."""
    patience: int = 2000

    def update(self, *, overflowed: bool) -> None:
        if overflowed:
            self.value, self.calm = max(self.value / 2, 1.0), 0
            return
        self.calm += 1
        if self.calm >= self.patience:
            self.value, self.calm = self.value * 2, 0


def gradient_norm(net: nn.Module) -> Tensor:
    """The norm of all gradients together, over all shards of a sharded network; a scalar in float32."""
    norm = nn.utils.get_total_norm([p.grad for p in net.parameters() if p.grad is not None])
    return norm.full_tensor() if hasattr(norm, "full_tensor") else norm


@torch.no_grad()
def scale_gradients(net: nn.Module, factor: float) -> None:
    if factor != 1.0:
        torch._foreach_mul_([p.grad for p in net.parameters() if p.grad is not None], factor)
