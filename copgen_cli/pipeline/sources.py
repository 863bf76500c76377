"""Where the parts of a pipeline are: a folder, a hub repository, a file of weights, the package.

Parts are read by this package's own loaders. The names of libraries and classes that a `model_index.json` holds are
never imported, so that a folder from a stranger can do no more than hold weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import diffusers
import torch
from diffusers import AutoencoderKL, SchedulerMixin

from copgen_cli.errors import BrokenInputError
from copgen_cli.layout import model_folder
from copgen_cli.modalities import Modality
from copgen_cli.model import (
    BUNDLED_NAME,
    DEFAULT_HUB,
    DEFAULT_ID,
    PUBLISHED_ID,
    Autoencoders,
    CopGenTransformer,
    HubOptions,
    ImageAutoencoder,
    bundled_folder,
    fetch_from_hub,
    load_autoencoder,
    load_transformer,
    read_autoencoder,
    scheduler_for,
    weight_patterns,
)
from copgen_cli.pipeline.carried import INDEX_NAME, VAES, carried
from copgen_cli.storage import local_source

_SCHEDULER_CONFIG = "scheduler/scheduler_config.json"


@dataclass(frozen=True, slots=True)
class Parts:
    """Where each part of a pipeline is read from."""

    transformer: str | Path
    vae: str | Path
    scheduler: Path | None
    """Its configuration; None means the one this package sets up."""
    variant: str | None = None
    hub: HubOptions = DEFAULT_HUB
    vaes: Mapping[Modality, Path] = field(default_factory=dict)
    """Of rasters."""

    def load_transformer(
        self,
        num_heads: int | None = None,
        modalities: Sequence[str] | None = None,
        prediction_type: str | None = None,
    ) -> CopGenTransformer:
        return load_transformer(
            self.transformer,
            num_heads,
            modalities=modalities,
            prediction_type=prediction_type,
            variant=self.variant,
            hub=self.hub,
        )

    def load_vae(self) -> AutoencoderKL:
        return read_autoencoder(self.vae, self.variant, self.hub)

    def load_autoencoders(
        self, modalities: Sequence[Modality], *, device: torch.device, dtype: torch.dtype
    ) -> Autoencoders:
        """The autoencoder of each modality that is no scalar; one for all pictures.

        Raises:
            BrokenInputError: there is none for a raster.
        """
        pictures = [modality for modality in modalities if modality.spec.is_picture]
        of: dict[Modality, ImageAutoencoder] = {}
        if pictures:
            shared = ImageAutoencoder(self.load_vae(), source=str(self.vae), device=device, dtype=dtype)
            of = dict.fromkeys(pictures, shared)
        for modality in modalities:
            if modality.spec.is_picture or modality.spec.is_scalar:
                continue
            if modality not in self.vaes:
                raise BrokenInputError(
                    f"{self.transformer} holds no autoencoder of {modality} in {VAES}/.",
                    hint="Convert it with --vae-dir, or train it again with the autoencoders in place.",
                )
            of[modality] = load_autoencoder(self.vaes[modality], device=device, dtype=dtype)
        return Autoencoders({modality: of[modality] for modality in modalities if modality in of})

    def load_scheduler(self, net: CopGenTransformer) -> SchedulerMixin:
        """The source's own, or one for the schedule of its network.

        Raises:
            BrokenInputError: its configuration is not that of a scheduler of diffusers.
        """
        return scheduler_for(net) if self.scheduler is None else _read_scheduler(self.scheduler)


def find_parts(
    source: str | Path,
    *,
    needs_vae: bool = True,
    variant: str | None = None,
    hub: HubOptions = DEFAULT_HUB,
) -> Parts:
    """The parts of the pipeline that a source stands for; a hub id's are fetched, and the folder of a run has one.

    A file of weights, and the published hub id, hold a transformer alone; the published autoencoder goes with it.

    Args:
        source: a folder, a hub id, a file of weights, or the name of the model in the package.
        needs_vae: whether there has to be an autoencoder.
        variant, hub: of the files; see `find_weights`.

    Raises:
        CopgenError: there is no such source, or the hub cannot be reached.
        BrokenInputError: a folder holds a transformer and no autoencoder, and `needs_vae`.
    """
    path = Path(local_source(source)).expanduser()
    if str(source) == BUNDLED_NAME:
        path = bundled_folder()
    elif path.is_file() or str(source) == PUBLISHED_ID:
        return Parts(source, DEFAULT_ID, None, hub=hub)
    elif not path.is_dir():
        path = fetch_from_hub(str(source), _names_on_the_hub(variant), hub)
    elif (model_folder(path) / INDEX_NAME).is_file() and not (path / INDEX_NAME).is_file():
        path = model_folder(path)  # of a run of training
    vaes = carried(path)
    if needs_vae and not vaes and not (path / "vae").is_dir():
        raise BrokenInputError(
            f"{source} holds no autoencoder in vae/.",
            hint="Give a whole pipeline's folder: `copgen train` writes one to model/, `copgen convert` with --vae.",
        )
    scheduler = path / _SCHEDULER_CONFIG
    return Parts(path, path / "vae", scheduler if scheduler.is_file() else None, variant, hub, vaes)


def _names_on_the_hub(variant: str | None) -> list[str]:
    names = ["config.json", *weight_patterns(variant)]
    return [
        INDEX_NAME,
        _SCHEDULER_CONFIG,
        *(f"{part}/{name}" for part in ("transformer", "vae", f"{VAES}/*") for name in names),
        "nnet_ema*.pth",
    ]


def _read_scheduler(file: Path) -> SchedulerMixin:
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        kind = getattr(diffusers, str(config["_class_name"]))
        if not issubclass(kind, SchedulerMixin):
            raise TypeError(f"{kind.__name__} is no scheduler")
        return kind.from_config(config)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BrokenInputError(
            f"{file} is not the configuration of a scheduler of diffusers: {error}.",
            hint="Remove its folder to use the one that fits the model, or fetch the model again.",
        ) from error
