"""The network and what is done with it: noise, sampling, weights on disk, training, the pipeline.

The names below are the Python interface to latents. They are imported when first asked for, so that a light module of
this package costs no more than itself.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from copgen_cli.model.checkpoint import load_transformer
    from copgen_cli.model.diffusion import denoising_loss
    from copgen_cli.model.sampler import sample_latents
    from copgen_cli.model.transformer import CopGenTransformer

__all__ = ["CopGenTransformer", "denoising_loss", "load_transformer", "sample_latents"]

_HOMES = {
    "CopGenTransformer": "transformer",
    "denoising_loss": "diffusion",
    "load_transformer": "checkpoint",
    "sample_latents": "sampler",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
