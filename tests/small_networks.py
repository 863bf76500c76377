"""The networks of the oracle, as this package builds them."""

from __future__ import annotations

import numpy as np
import oracle
import torch

from copgen_cli.model.transformer import CopGenTransformer

EXPECTED = oracle.DATA


def network(name: str = "four") -> CopGenTransformer:
    """The oracle's network of that name, in float32 and eval mode."""
    case = oracle.CASES[name]
    net = CopGenTransformer(**case.settings())
    values = oracle.weights(oracle.shapes_of(case))
    net.load_state_dict({key: torch.from_numpy(value) for key, value in values.items()}, strict=True)
    return net.eval()


def expected(name: str) -> torch.Tensor:
    """A number that the oracle computed in float64."""
    return torch.from_numpy(np.load(oracle.DATA, allow_pickle=False)[name])


def latents(what: str, name: str = "four") -> torch.Tensor:
    """(M, B, C, H, W) float32 numbers that a name stands for."""
    return torch.from_numpy(oracle.latents(oracle.CASES[name], what))


def timesteps(name: str = "four") -> torch.Tensor:
    """(M, B) float32."""
    return torch.from_numpy(oracle.timesteps(oracle.CASES[name]))


def relative_error(got, wanted) -> float:
    """The largest, over entries, of |got - wanted| / |wanted|."""
    errors = ((a.double() - b.double()).norm() / b.double().norm() for a, b in zip(got, wanted, strict=True))
    return max(float(error) for error in errors)
