"""Weights from wherever they are: a file, a folder, a hub. Nothing read here is ever executed."""

from __future__ import annotations

import errno
import hashlib
import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from copgen_cli.errors import BrokenInputError, CopgenError, DiskFullError
from copgen_cli.model.bundled import BUNDLED_NAME, bundled_folder
from copgen_cli.storage import local_source

PUBLISHED_ID = "mespinosami/COP-GEN-Beta"
"""Hub id of the released COP-GEN-Beta."""
PUBLISHED_FILE = "nnet_ema_114000.pth"
"""Its weights: the EMA at step 114,000."""
WEIGHTS_NAME = "diffusion_pytorch_model.safetensors"
"""How diffusers calls the weights in a model's folder."""

_STEM = "diffusion_pytorch_model"
_INDEX = ".index.json"
_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_WRAPPERS = ("state_dict", "model_state_dict", "ema", "model")
_AVERAGED = "ema_model."
"""Of the tensors of an average, among those of the network that it follows."""
_PREFIXES = ("module.", "_orig_mod.", _AVERAGED)


@dataclass(frozen=True, slots=True)
class HubOptions:
    """How a hub is asked, as everywhere in diffusers and huggingface_hub."""

    revision: str | None = None
    """Branch, tag or commit."""
    cache_dir: str | Path | None = None
    token: str | bool | None = None
    """None is the stored one, if there is one; False is none."""
    local_files_only: bool = False
    force_download: bool = False


DEFAULT_HUB = HubOptions()


def find_weights(source: str | Path, variant: str | None = None, hub: HubOptions = DEFAULT_HUB) -> Path:
    """The file of weights that a source stands for, fetched from the hub if it is a hub id.

    Args:
        source: a file, a folder, a hub id, or the name of the model in the package.
        variant: of a folder's weights, such as "fp16" in `diffusion_pytorch_model.fp16.safetensors`.
        hub: how a hub is asked.

    Returns:
        The file; of weights in several files, their index.

    Raises:
        CopgenError: there is no such source, or the hub cannot be reached.
        BrokenInputError: a folder has no weights in it.
    """
    if str(source) == BUNDLED_NAME:
        return _weights_in(bundled_folder())
    path = Path(local_source(source)).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        return _weights_in(path, variant)
    if str(source) == PUBLISHED_ID:
        published = fetch_from_hub(PUBLISHED_ID, [PUBLISHED_FILE], hub) / PUBLISHED_FILE
        if published.is_file():
            return published
        raise CopgenError(
            f"The hub's {PUBLISHED_ID} has no {PUBLISHED_FILE}.", hint="Give the path of the weights themselves."
        )
    names = ["config.json", *weight_patterns(variant)]
    wanted = [*names, *(f"transformer/{name}" for name in names), "nnet_ema*.pth"]
    return _weights_in(fetch_from_hub(str(source), wanted, hub), variant)


def weight_patterns(variant: str | None) -> list[str]:
    """Names of the files, in a model's folder, that its weights may have."""
    if variant is None:
        return [WEIGHTS_NAME, f"{WEIGHTS_NAME}{_INDEX}", f"{_STEM}-*-of-*.safetensors"]
    shards = f"{_STEM}.{variant}-*-of-*.safetensors"
    return [f"{_STEM}.{variant}.safetensors", f"{WEIGHTS_NAME}.{variant}{_INDEX}", shards]


def find_in_folder(folder: Path, variant: str | None = None) -> Path | None:
    """The weights in a model's folder under diffusers' names: a file, or the index of several; None without any."""
    whole, index, _ = weight_patterns(variant)
    return next((folder / name for name in (whole, index) if (folder / name).is_file()), None)


def has_configuration(weights: Path) -> bool:
    """Whether the `config.json` beside a file of weights is its own: that of diffusers' folders is."""
    return weights.name.startswith(f"{_STEM}.")


def hash_weights(weights: Path) -> str:
    """SHA-256 of a file of weights, or of the index of several and of these, one after the other."""
    digest = hashlib.sha256()
    for file in (weights, *(_shards_of(weights) if weights.name.endswith(_INDEX) else ())):
        with file.open("rb") as stream:
            while piece := stream.read(1 << 22):
                digest.update(piece)
    return digest.hexdigest()


def fetch_from_hub(repo_id: str, patterns: Sequence[str], hub: HubOptions = DEFAULT_HUB) -> Path:
    """The cache folder of a hub repository, with the files that match fetched into it; offline, what is there already.

    Raises:
        CopgenError: there is no such repository, or the files are neither in reach nor in the cache.
        DiskFullError: there is no room for them in the cache.
    """
    if not _HUB_ID.fullmatch(repo_id):
        raise CopgenError(
            f"There is no file or folder {repo_id}.",
            hint=f"Give the path of weights or of a model's folder, a hub id, or the built-in {BUNDLED_NAME}.",
        )
    from huggingface_hub import constants, snapshot_download

    fetch = f"hf download {repo_id}" + (f" {patterns[0]}" if len(patterns) == 1 else "")
    try:
        return Path(snapshot_download(repo_id, allow_patterns=list(patterns), **asdict(hub)))
    except Exception as error:  # the client passes on what its HTTP library raises, which changes with its version
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise DiskFullError(Path(constants.HF_HUB_CACHE)) from error
        raise CopgenError(
            f"There is no file or folder {repo_id} here, and it could not be fetched from the hub: {_reason(error)}.",
            hint=f"Check the name; without a connection, run `{fetch}` where there is one and give the path it prints.",
        ) from error


def _reason(error: BaseException) -> str:
    """What was wrong at first, in one line: a dead proxy, say, which the client reports as a file not found."""
    while (before := error.__cause__ or error.__context__) is not None:
        error = before
    text = next(iter(str(error).splitlines()), "").rstrip(".")
    return text or type(error).__name__


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors or PyTorch file, mapped into memory where possible; no code in it is ever run.

    A dictionary around them (`state_dict`, `ema`, …) and a prefix that all names share (`module.`) are taken off. Where
    a dictionary holds an average and the network that it follows (`ema_model.`, `online_model.`), it is the average.

    Args:
        path: a file, or the index of several.

    Raises:
        BrokenInputError: a file is cut short, of another format, or needs more than weights to be loaded; or a weight
            is no finite number.
    """
    tensors: Any
    if path.name.endswith(_INDEX):
        tensors = {name: tensor for shard in _shards_of(path) for name, tensor in _read_safetensors(shard).items()}
    else:
        tensors = _read_safetensors(path) if _is_safetensors(path) else _read_torch(path)
    for wrapper in _WRAPPERS:
        if isinstance(tensors, Mapping) and isinstance(tensors.get(wrapper), Mapping):
            tensors = tensors[wrapper]
    if isinstance(tensors, Mapping):
        averaged = {name: t for name, t in tensors.items() if str(name).startswith(_AVERAGED)}
        tensors = averaged or tensors
    if not isinstance(tensors, Mapping) or not tensors:
        raise BrokenInputError(f"{path} holds no tensors by name.", hint="Give a file with a state dict.")
    for name, tensor in tensors.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise BrokenInputError(f"{path}: {name!r} is not a named tensor.", hint="Give a file with a state dict.")
        if tensor.untyped_storage().nbytes() < tensor.nbytes:
            raise BrokenInputError(
                f"{path}: {name} claims more values than the file holds.", hint="Fetch or convert it again."
            )
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise BrokenInputError(
                f"{path}: {name} holds values that are no finite numbers.",
                hint="The training that it comes from went wrong; use an earlier checkpoint.",
            )
    while prefix := next((p for p in _PREFIXES if all(name.startswith(p) for name in tensors)), None):
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return dict(tensors)


def _shards_of(index: Path) -> list[Path]:
    """The files that an index names, all of them in its folder."""
    try:
        names = sorted({str(name) for name in json.loads(index.read_bytes())["weight_map"].values()})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BrokenInputError(f"{index} is no index of weights: {error}.", hint="Fetch the model again.") from error
    for name in names:
        if Path(name).name != name or not (index.parent / name).is_file():
            raise BrokenInputError(f"{index} names {name}, which is not beside it.", hint="Fetch the model again.")
    return [index.parent / name for name in names]


def _is_safetensors(path: Path) -> bool:
    """By its beginning, the length of a header of JSON: files are also called `.bin` or `.ckpt`."""
    with path.open("rb") as stream:
        return path.suffix == ".safetensors" or stream.read(9)[8:] == b"{"


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


def _weights_in(folder: Path, variant: str | None = None) -> Path:
    """The weights of a model's folder, a pipeline's, a run's, or a training checkpoint's (then the EMA)."""
    for inner in ("ema", "transformer", "model/transformer", ""):  # a training checkpoint has two, a run has the third
        weights = find_in_folder(folder / inner, variant)
        if weights is not None:
            return weights
    if (folder / "nnet_ema.pth").is_file():
        return folder / "nnet_ema.pth"
    numbered = {path: re.fullmatch(r"nnet_ema_(\d+)", path.stem) for path in folder.glob("nnet_ema_*.pth")}
    steps = {int(match[1]): path for path, match in numbered.items() if match}
    if steps:
        return steps[max(steps)]
    name = weight_patterns(variant)[0]
    others = sorted(path.name.split(".")[1] for path in folder.glob(f"**/{_STEM}.*.safetensors"))
    raise BrokenInputError(
        f"{folder} holds no transformer.",
        hint=f"Looked for {name} (there, in ema/ and in transformer/) and for nnet_ema.pth."
        + (f" It has the variant {others[0]}." if others else ""),
    )
