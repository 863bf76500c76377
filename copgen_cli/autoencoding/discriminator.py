"""The adversary of an autoencoder of pictures: a network that tells true patches from decoded ones, and its losses.

A patch discriminator (PatchGAN, arXiv:1611.07004) with the hinge loss, weighed against the other losses by their
gradients (arXiv:2012.09841, eq. 7), as autoencoders of latent diffusion are trained (arXiv:2112.10752, section G).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_BASE_WIDTH = 32
_LEVELS = 3
_BETAS = (0.5, 0.9)  # a short memory, since what is judged changes with every update
_DELTA = 1e-6  # of eq. 7


class Discriminator(nn.Sequential):
    """Convolutions of 4 x 4 pixels, three of them with stride 2, that give a number for every 8th pixel along a side.

    Each number judges the 46 x 46 pixels around it: texture and edges, and no more of the layout. Nothing is
    normalised: that would hide contrast and saturation, which are judged too, from the layers behind, and statistics of
    a batch would mix modalities. How steep the network is does not matter to the decoder: its gradient is balanced.
    """

    def __init__(self, channels: int = 3) -> None:
        widths = [_BASE_WIDTH * 2**level for level in range(_LEVELS)]
        layers: list[nn.Module] = []
        for before, width in zip([channels, *widths], widths, strict=False):
            layers.append(nn.Conv2d(before, width, kernel_size=4, stride=2, padding=1))
            layers.append(nn.LeakyReLU(0.2))
        super().__init__(*layers, nn.Conv2d(widths[-1], 1, kernel_size=4, padding=1))


@dataclass(slots=True)
class Adversary:
    """A discriminator with the optimiser that it learns by."""

    network: Discriminator
    optimizer: torch.optim.Adam


@dataclass(frozen=True, slots=True, eq=False)
class Verdict:
    """What a discriminator makes of decoded pictures beside true ones."""

    hinge: Tensor
    """Scalar that the discriminator minimises; its graph ends at the decoded pictures."""
    adversarial: Tensor
    """Scalar that the decoder minimises."""
    gradient: Tensor
    """Of `adversarial` with regard to the decoded pictures, in their shape."""


def new_adversary(seed: int, device: torch.device) -> Adversary:
    """An untrained one, whose first weights depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Discriminator().to(device)
    return Adversary(network, torch.optim.Adam(network.parameters(), betas=_BETAS))


def hinge_loss(of_true: Tensor, of_decoded: Tensor) -> Tensor:
    """Mean of how far true pictures fall short of 1 and decoded ones rise above -1, halved; undecided it is 1."""
    return (F.relu(1 - of_true).mean() + F.relu(1 + of_decoded).mean()) / 2


def judge(network: Discriminator, decoded: Tensor, target: Tensor) -> Verdict:
    """Look at pictures (B, 3, H, W) in [-1, 1], decoded and true.

    Neither graph reaches beyond the decoded pictures, and that of the decoder's loss not the discriminator's weights:
    what one of the two minimises never moves the other.
    """
    pictures = decoded.detach().requires_grad_()
    of_decoded = network(pictures).float()
    adversarial = -of_decoded.mean()
    (gradient,) = torch.autograd.grad(adversarial, pictures, retain_graph=True)
    return Verdict(hinge_loss(network(target).float(), of_decoded), adversarial.detach(), gradient)


def with_adversary(loss: Tensor, decoded: Tensor, verdict: Verdict, last_layer: Tensor, weight: float) -> Tensor:
    """A loss with the gradient of `loss` and, balanced beside it, of the adversarial one (arXiv:2012.09841, eq. 7).

    Args:
        loss: all else that is minimised.
        decoded: (B, 3, H, W) that both are of, with the graph that leads to the weights.
        last_layer: weights of the decoder's last layer.
        weight: length of the adversarial gradient there, over that of `loss`.
    """
    (of_loss,) = torch.autograd.grad(loss, last_layer, retain_graph=True)
    (of_adversary,) = torch.autograd.grad(decoded, last_layer, verdict.gradient, retain_graph=True)
    balance = of_loss.norm() / (of_adversary.norm() + _DELTA)
    return loss + weight * balance * (decoded * verdict.gradient).sum()
