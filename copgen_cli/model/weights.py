"""Weights from wherever they are: a file, a folder, a hub. Nothing read here is ever executed."""

from __future__ import annotations

import errno
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from copgen_cli.errors import BrokenInputError, CopgenError, DiskFullError
from copgen_cli.model.bundled import BUNDLED_NAME, bundled_folder

PUBLISHED_ID = "mespinosami/COP-GEN-Beta"
"""Hub id of the released COP-GEN-Beta."""
PUBLISHED_FILE = "nnet_ema_114000.pth"
"""Its weights: the EMA at step 114,000."""
WEIGHTS_NAME = "diffusion_pytorch_model.safetensors"
"""How diffusers calls the weights in a model's folder."""

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_WRAPPERS = ("state_dict", "model_state_dict", "ema", "model")
_PREFIXES = ("module.", "_orig_mod.")


def find_weights(source: str | Path) -> Path:
    """The file of weights that a source stands for, fetched from the hub if it is a hub id.

    Raises:
        CopgenError: there is no such source, or the hub cannot be reached.
        BrokenInputError: a folder has no weights in it.
    """
    if str(source) == BUNDLED_NAME:
        return _weights_in(bundled_folder())
    path = Path(source).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        return _weights_in(path)
    if not _HUB_ID.fullmatch(str(source)):
        raise CopgenError(
            f"There is no file or folder {source}.",
            hint=f"Give the path of weights or of a model's folder, a hub id, or the built-in {BUNDLED_NAME}.",
        )
    if str(source) == PUBLISHED_ID:
        published = fetch_from_hub(PUBLISHED_ID, [PUBLISHED_FILE]) / PUBLISHED_FILE
        if published.is_file():
            return published
        raise CopgenError(
            f"The hub's {PUBLISHED_ID} has no {PUBLISHED_FILE}.", hint="Give the path of the weights themselves."
        )
    wanted = ["config.json", WEIGHTS_NAME, "transformer/config.json", f"transformer/{WEIGHTS_NAME}", "nnet_ema*.pth"]
    return _weights_in(fetch_from_hub(str(source), wanted))


def fetch_from_hub(repo_id: str, patterns: Sequence[str]) -> Path:
    """The cache folder of a hub repository, with the files that match fetched into it; offline, what is there already.

    Raises:
        CopgenError: there is no such repository, or the files are neither in reach nor in the cache.
        DiskFullError: there is no room for them in the cache.
    """
    from huggingface_hub import constants, snapshot_download

    fetch = f"hf download {repo_id}" + (f" {patterns[0]}" if len(patterns) == 1 else "")
    try:
        return Path(snapshot_download(repo_id, allow_patterns=list(patterns)))
    except Exception as error:  # the client passes on what its HTTP library raises, which changes with its version
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise DiskFullError(Path(constants.HF_HUB_CACHE)) from error
        raise CopgenError(
            f"There is no file or folder {repo_id} here, and it could not be fetched from the hub.",
            hint=f"Check the name; without a connection, run `{fetch}` where there is one and give the path it prints.",
        ) from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.safetensors` or PyTorch file, mapped into memory where possible; no code in it is ever run.

    A dictionary around them (`state_dict`, `ema`, …) and a prefix that all names share (`module.`) are taken off.

    Raises:
        BrokenInputError: the file is cut short, of another format, or needs more than weights to be loaded.
    """
    tensors: Any = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    for wrapper in _WRAPPERS:
        if isinstance(tensors, Mapping) and isinstance(tensors.get(wrapper), Mapping):
            tensors = tensors[wrapper]
    if not isinstance(tensors, Mapping) or not tensors:
        raise BrokenInputError(f"{path} holds no tensors by name.", hint="Give a file with a state dict.")
    for name, tensor in tensors.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise BrokenInputError(f"{path}: {name!r} is not a named tensor.", hint="Give a file with a state dict.")
        if tensor.untyped_storage().nbytes() < tensor.nbytes:
            raise BrokenInputError(
                f"{path}: {name} claims more values than the file holds.", hint="Fetch or convert it again."
            )
    while prefix := next((p for p in _PREFIXES if all(name.startswith(p) for name in tensors)), None):
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return dict(tensors)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise BrokenInputError(
            f"{path} is not a whole safetensors file: {error}.", hint="Fetch or convert it again."
        ) from error


def _read_torch(path: Path) -> Any:
    mappable = zipfile.is_zipfile(path)  # older files are read as a whole; one that may not be opened raises here
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mappable)
    except Exception as error:  # on foreign bytes the unpickler raises whatever it stumbles over
        raise BrokenInputError(
            f"{path} is not a file of PyTorch weights: it is cut short, of another format, or would need to run code.",
            hint="Fetch it again, or save its state dict alone (better: as safetensors) where it was made.",
        ) from error


def _weights_in(folder: Path) -> Path:
    """The weights of a model's folder, a pipeline's, a run's, or a training checkpoint's (then the EMA)."""
    for inner in ("ema", "transformer", "model/transformer"):  # a training checkpoint has two, a run has the last
        if (folder / inner / WEIGHTS_NAME).is_file():
            return folder / inner / WEIGHTS_NAME
    for name in (WEIGHTS_NAME, "nnet_ema.pth"):
        if (folder / name).is_file():
            return folder / name
    numbered = {path: re.fullmatch(r"nnet_ema_(\d+)", path.stem) for path in folder.glob("nnet_ema_*.pth")}
    steps = {int(match[1]): path for path, match in numbered.items() if match}
    if steps:
        return steps[max(steps)]
    raise BrokenInputError(
        f"{folder} holds no transformer.",
        hint=f"Looked for {WEIGHTS_NAME} (there, in ema/ and in transformer/) and for nnet_ema.pth.",
    )
