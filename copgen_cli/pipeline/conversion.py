"""Weights of any known form into a diffusers folder: whole or absent, and not made twice."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from filelock import Timeout
from torch import nn

from copgen_cli import __version__
from copgen_cli.errors import BusyError, CopgenError, MismatchError, UsageError
from copgen_cli.modalities import Modality
from copgen_cli.model import (
    WEIGHTS_NAME,
    Autoencoders,
    CopGenTransformer,
    ImageAutoencoder,
    find_weights,
    fingerprint,
    hash_weights,
    load_transformer,
    modalities_of,
    read_autoencoder,
)
from copgen_cli.pipeline.autoencoders import autoencoders_of, rasters_of
from copgen_cli.pipeline.folders import save_model
from copgen_cli.pipeline.pipeline import CopGenPipeline
from copgen_cli.pipeline.sources import Parts, find_parts
from copgen_cli.records import Prediction
from copgen_cli.stages import PRIVATE_FOLDER, ExclusiveLock, foreign_file, move_folder, share_files

MANIFEST_NAME = "copgen_convert.json"
_FILES = (
    MANIFEST_NAME,
    "README.md",
    "model_index.json",
    "scheduler/scheduler_config.json",
    *(f"{part}{name}" for part in ("", "transformer/", "vae/") for name in ("config.json", WEIGHTS_NAME)),
)
"""What earlier versions wrote, whose manifests did not name it."""


@dataclass(frozen=True, slots=True)
class Conversion:
    """What a converted folder was made from; its manifest."""

    source: str
    sha256: str
    """Of the source's file of weights."""
    dtype: str
    num_heads: int
    modalities: tuple[str, ...] | None
    vae: str | None
    """The autoencoder's fingerprint; None where the folder holds a transformer alone."""
    prediction_type: str = str(Prediction.NOISE)
    files: tuple[str, ...] | None = None
    """All that was written, this manifest included; None where an earlier version did not say."""
    version: str = __version__
    vaes: Mapping[str, str] = field(default_factory=dict)
    """Fingerprints of the autoencoders of rasters, by modality."""

    def same_model_as(self, other: Conversion) -> bool:
        """Whether both describe the same folder, whatever the source is called and whichever version converts."""
        return self._content() == other._content()

    def _content(self) -> dict[str, object]:
        return {name: value for name, value in asdict(self).items() if name not in ("source", "files", "version")}

    def written(self, folder: Path) -> set[Path]:
        """The files in a folder that are the conversion's own."""
        return {folder / name for name in (self.files if self.files is not None else _FILES)}


def convert(
    source: str | Path,
    target: Path,
    *,
    vae: str | Path | None = None,
    vae_dir: Path | None = None,
    family: str | None = None,
    num_heads: int | None = None,
    modalities: Sequence[str] | None = None,
    prediction_type: str | None = None,
    dtype: torch.dtype = torch.float32,
    overwrite: bool = False,
) -> bool:
    """Write a transformer, or with an autoencoder a whole pipeline, to `target` in diffusers layout.

    Args:
        source: weights of any form that `load_transformer` reads.
        target: the folder to make.
        vae: of pictures, in any form that `load_autoencoder` reads; None is that of a `source` which is a folder.
        vae_dir: a folder with an autoencoder for each raster; see `autoencoders_of`.
        family: of modalities, see `load_transformer`; None recognises it.
        num_heads, modalities, prediction_type: of a source that does not tell; see `load_transformer`.
        dtype: of the transformer that is written. An autoencoder stays as it is: rounded, it would be another one than
            that which encoded the data.
        overwrite: replace the model that `target` holds.

    Returns:
        Whether anything was written; False where `target` holds this very conversion already.

    Raises:
        CopgenError: there is no autoencoder for a raster, or one is named that the model has no use for.
        MismatchError: `target` holds something else, or tensors and sizes do not fit.
        BrokenInputError: the source is cut short, of another format, or needs more than weights.
        BusyError: another process converts to `target`.
    """
    weights = find_weights(source)
    net = load_transformer(source, num_heads, modalities=modalities, prediction_type=prediction_type, family=family)
    parts = find_parts(source, needs_vae=False)
    autoencoder, of_rasters = _read_autoencoders(net, parts, vae, vae_dir)
    wanted = Conversion(
        source=str(source),
        sha256=hash_weights(weights),
        dtype=str(dtype).removeprefix("torch."),
        num_heads=net.config.num_heads,
        prediction_type=str(net.config.prediction_type),
        modalities=net.config.modalities and tuple(net.config.modalities),
        vae=None if autoencoder is None else fingerprint(autoencoder),
        vaes={str(modality): one.fingerprint for modality, one in of_rasters.items()},
    )
    target = Path(os.path.abspath(target.expanduser()))
    with _alone_with(target) as beside:
        if target.exists() and any(target.iterdir()):
            found = read_manifest(target)
            if found is not None and found.same_model_as(wanted) and not overwrite:
                return False
            _refuse_to_lose(target, found, overwrite)
        nn.Module.to(net, dtype=dtype)  # the method of diffusers warns of modules to keep in float32; this has none
        _save(beside, net, parts, autoencoder, of_rasters)
        _replace(target, beside, _write_manifest(beside, wanted))
    return True


def _read_autoencoders(
    net: CopGenTransformer, parts: Parts, vae: str | Path | None, vae_dir: Path | None
) -> tuple[AutoencoderKL | None, dict[Modality, ImageAutoencoder]]:
    """That of pictures, and those of rasters."""
    rasters = rasters_of(net)
    has_pictures = not rasters or any(modality.spec.is_picture for modality in modalities_of(net))
    if vae_dir is not None and not rasters:
        raise UsageError("The model has no rasters, and pictures share one autoencoder.", hint="Give it with --vae.")
    if vae is not None and not has_pictures:
        raise UsageError("The model has no pictures, and an autoencoder for each raster.", hint="Give --vae-dir DIR.")
    of_rasters = autoencoders_of(rasters, parts, vae_dir)
    beside_it = _autoencoder_of(parts) if vae is None else vae
    if rasters and has_pictures and beside_it is None:
        raise CopgenError("There is no autoencoder for the model's pictures.", hint="Name it with --vae.")
    return None if beside_it is None else read_autoencoder(beside_it), of_rasters


def _save(
    folder: Path,
    net: CopGenTransformer,
    parts: Parts,
    autoencoder: AutoencoderKL | None,
    of_rasters: Mapping[Modality, ImageAutoencoder],
) -> None:
    """Write a transformer alone, a pipeline of pictures, or a model with its rasters."""
    if of_rasters:
        pictures = [modality for modality in modalities_of(net) if modality.spec.is_picture]
        shared = {} if autoencoder is None else dict.fromkeys(pictures, ImageAutoencoder(autoencoder))
        save_model(folder, net, Autoencoders({**shared, **of_rasters}), parts.load_scheduler(net))
    elif autoencoder is None:
        net.save_pretrained(folder)
    else:
        CopGenPipeline(net, autoencoder, parts.load_scheduler(net)).save_pretrained(folder)


def _write_manifest(folder: Path, conversion: Conversion) -> Conversion:
    """Put the manifest into a folder, naming what lies there; the conversion with these names."""
    share_files(folder)
    written = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    named = replace(conversion, files=(MANIFEST_NAME, *written))
    (folder / MANIFEST_NAME).write_text(json.dumps(asdict(named), indent=2) + "\n", encoding="utf-8")
    return named


def _autoencoder_of(parts: Parts) -> Path | None:
    """The autoencoder beside a transformer, where the source is a folder that has one."""
    folder = Path(parts.vae)
    return folder if folder.is_dir() else None


def read_manifest(folder: Path) -> Conversion | None:
    """What a converted folder says of itself; None where it says nothing that can be read."""
    try:
        values = json.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8"))
        named = values["modalities"]
        files = values.get("files")
        lists = {"modalities": named and tuple(named), "files": None if files is None else tuple(map(str, files))}
        return Conversion(**{**values, **lists})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _refuse_to_lose(target: Path, found: Conversion | None, overwrite: bool) -> None:
    if found is None:
        raise MismatchError(
            f"{target} is not empty, and what it holds was not written by this command.",
            hint="Choose a folder that is not there yet.",
        )
    if not overwrite:
        raise MismatchError(
            f"{target} holds another model, converted from {found.source}.",
            hint="Choose another folder, or replace it with --overwrite.",
        )
    files = {file for file in target.rglob("*") if file.is_symlink() or not file.is_dir()}
    strange = sorted(files - found.written(target))
    if strange:
        raise foreign_file(strange[0])


def _replace(target: Path, beside: Path, conversion: Conversion) -> None:
    """Put a finished folder in place of an earlier conversion, if there is one."""
    if target.exists() and not target.samefile(Path.cwd()):  # the folder that a shell stands in has to stay
        shutil.rmtree(target)
    before = read_manifest(target)
    move_folder(beside, target, last=MANIFEST_NAME)
    for file in before.written(target) - conversion.written(target) if before else ():
        file.unlink(missing_ok=True)


@contextmanager
def _alone_with(target: Path) -> Iterator[Path]:
    """An empty place beside the target that no other process writes to; removed in the end."""
    private = target.parent / PRIVATE_FOLDER / target.name
    private.mkdir(parents=True, exist_ok=True)
    lock, beside = private / "lock", private / "new"
    try:
        with ExclusiveLock(lock, timeout=0):
            shutil.rmtree(beside, ignore_errors=True)  # of a run that was killed
            try:
                yield beside
            finally:
                shutil.rmtree(beside, ignore_errors=True)
                lock.unlink(missing_ok=True)
                for folder in (private, private.parent):
                    with suppress(OSError):  # not empty
                        folder.rmdir()
    except Timeout:
        raise BusyError(
            f"Another process converts to {target}.", hint="Wait for it, or choose another folder."
        ) from None
