"""Which device and which arithmetic "auto" stands for."""

from __future__ import annotations

import torch

from copgen_cli.errors import UsageError


def choose_device(name: str = "auto") -> torch.device:
    """The device of that name; "auto" is CUDA, else Apple's, else the CPU.

    Raises:
        UsageError: there is no such device here.
    """
    if name == "auto":
        has_mps = torch.backends.mps.is_available()
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if has_mps else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError(
            f"There is no device {name!r} here.", hint="Choose auto, cpu, cuda, cuda:1 or mps; see `copgen info`."
        ) from error
    return device


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """The arithmetic of that name for using a model; "auto" is bfloat16 on CUDA and float32 elsewhere."""
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]
