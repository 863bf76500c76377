"""Which device and which arithmetic "auto" stands for."""

from __future__ import annotations

import logging
import platform

import torch

from copgen_cli.errors import UsageError

log = logging.getLogger(__name__)


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


def wants_gpu(name: str) -> bool:
    """Whether a device's name asks for CUDA, here or on other machines."""
    return name.partition(":")[0] == "cuda"


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """The arithmetic of that name for an autoencoder in use; "auto" is bfloat16 on CUDA and float32 elsewhere."""
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if name == "bfloat16":
        warn_of_imitation(device)
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]


def choose_sampling_dtypes(name: str, device: torch.device) -> tuple[torch.dtype, torch.dtype]:
    """The arithmetic of that name for the transformer and for the autoencoder that samples are drawn with.

    "auto" is bfloat16 on CUDA; on a CPU it is bfloat16 for the transformer alone, where the CPU multiplies it natively.
    A name counts for both.
    """
    if name == "auto" and device.type == "cpu":
        return (torch.bfloat16 if _cpu_multiplies_bfloat16() else torch.float32), torch.float32
    chosen = choose_dtype(name, device)
    return chosen, chosen


def choose_training_dtype(name: str, device: torch.device) -> torch.dtype:
    """The arithmetic of that name for training; "auto" is bfloat16 where the device multiplies it natively."""
    if name == "auto":
        native = torch.cuda.is_bf16_supported() if device.type == "cuda" else _cpu_multiplies_bfloat16()
        return torch.bfloat16 if native and device.type in ("cuda", "cpu") else torch.float32
    return choose_dtype(name, device)


def warn_of_imitation(device: torch.device) -> None:
    """Tell who chose bfloat16 by name that this processor has no instructions for it."""
    if device.type == "cpu" and platform.machine() in ("x86_64", "AMD64") and not _cpu_multiplies_bfloat16():
        log.warning("this processor only imitates bfloat16, many times slower than it computes in float32")


def _cpu_multiplies_bfloat16() -> bool:
    supported = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(check is not None and check() for check in supported)
