"""The autoencoders of a tree of patches: one for all pictures, one for each raster; loaded when they are needed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from copgen_cli.errors import CopgenError, MismatchError
from copgen_cli.latents.autoencoder_record import AutoencoderFacts, id_of
from copgen_cli.latents.store_format import Part, settings_of_parts
from copgen_cli.layout import autoencoder_recipe
from copgen_cli.modalities import Modality, ModalitySpec
from copgen_cli.model import ImageAutoencoder, find_autoencoder, load_autoencoder
from copgen_cli.storage import local_source


class Encoder:
    """An autoencoder that is loaded when it is first needed; a run that has nothing to do never needs it."""

    def __init__(
        self,
        source: str,
        *,
        spec: ModalitySpec,
        device: torch.device,
        dtype: torch.dtype,
        known: tuple[AutoencoderFacts, tuple[int, int, int]] | None,
    ) -> None:
        """Name the autoencoder.

        Args:
            source: folder, file, hub id or built-in name.
            spec: of a modality that it encodes.
            device, dtype: see `ImageAutoencoder`.
            known: what an earlier run on the same output said of it, whose word is taken for that source.
        """
        self.source = id_of(source)
        self._spec, self._device, self._dtype = spec, device, dtype
        self._recorded = known if known is not None and known[0].id == self.source else None

    @property
    def facts(self) -> AutoencoderFacts:
        return self._recorded[0] if self._recorded is not None else self._facts_of(self.model)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(2 C, H, W) of the moments of a patch."""
        if self._recorded is not None:
            return self._recorded[1]
        side = self._spec.side // self.model.reduction
        return 2 * self.model.latent_channels, side, side

    @cached_property
    def model(self) -> ImageAutoencoder:
        """Raises MismatchError where its weights are no longer those of the earlier run, or of other bands."""
        is_own = autoencoder_recipe(
            Path(local_source(self.source))
        ).is_file()  # then its file tells the scale that was measured
        scale = None if self._spec.is_picture or is_own else self._spec.scale_factor
        model = load_autoencoder(self.source, device=self._device, dtype=self._dtype, scale_factor=scale)
        if model.channels != self._spec.channels:
            raise MismatchError(
                f"The autoencoder {self.source} takes {model.channels} channels, and {self._spec.name} has "
                f"{self._spec.channels}.",
                hint="Name another, or train one: copgen train-autoencoder",
            )
        if self._spec.side % model.reduction:
            raise MismatchError(
                f"The autoencoder {self.source} halves sides {model.reduction.bit_length() - 1} times, and a patch of "
                f"{self._spec.name} has {self._spec.side} px.",
                hint="Take one with fewer levels, or patches of another size.",
            )
        if self._recorded is not None and self._facts_of(model) != self._recorded[0]:
            raise MismatchError(
                f"The weights of the autoencoder {self.source} have changed since this output was begun.",
                hint="Give --overwrite to encode all of it anew.",
            )
        return model

    def check_weights_here(self) -> None:
        """Compare weights that lie on this disk with those of the earlier run, though nothing is left to encode.

        Raises:
            MismatchError: they have changed.
        """
        here = Path(self.source).expanduser()
        if self._recorded is not None and (here.is_file() or any(here.rglob("*.safetensors"))):
            _ = self.model

    def _facts_of(self, model: ImageAutoencoder) -> AutoencoderFacts:
        return AutoencoderFacts(self.source, model.fingerprint, model.scale_factor)


class Encoders:
    """What encodes each modality of a tree."""

    def __init__(
        self,
        modalities: Sequence[Modality],
        sources: Mapping[Modality, str],
        *,
        device: torch.device,
        dtype: torch.dtype,
        known: Mapping[str, Any] | None,
    ) -> None:
        """Name the autoencoders.

        Args:
            modalities: of the tree, in its order.
            sources: the autoencoder of each that is no scalar.
            device, dtype: see `ImageAutoencoder`.
            known: settings of an earlier run on the same output.
        """
        self.modalities = tuple(modalities)
        self._dtype = dtype
        recorded = {} if known is None else _recorded(known, self.modalities)
        by_source: dict[tuple[str, bool], Encoder] = {}
        self.of: dict[Modality, Encoder] = {}
        for modality, source in sources.items():
            key = (source, modality.spec.is_picture)
            if key not in by_source or not modality.spec.is_picture:
                by_source[key] = Encoder(
                    source, spec=modality.spec, device=device, dtype=dtype, known=recorded.get(modality)
                )
            self.of[modality] = by_source[key]

    @property
    def parts(self) -> tuple[Part, ...]:
        """Shape and autoencoder of each modality."""
        return tuple(
            Part((2, 1, len(m.spec.bands)), AutoencoderFacts.none())
            if m.spec.is_scalar
            else Part(self.of[m].shape, self.of[m].facts)
            for m in self.modalities
        )

    def settings(self) -> dict[str, Any]:
        """What moments depend on, for manifests."""
        return settings_of_parts(self.modalities, self.parts) | {"arithmetic": self.arithmetic}

    @property
    def patch_bytes(self) -> int:
        """Of the moments of one patch in all modalities in float32."""
        return sum(4 * math.prod(part.shape) for part in self.parts)

    @property
    def arithmetic(self) -> str:
        return str(self._dtype).removeprefix("torch.")

    @property
    def source(self) -> str:
        """Names of all autoencoders."""
        return ", ".join(dict.fromkeys(encoder.source for encoder in self.of.values()))

    def check_weights_here(self) -> None:
        """See `Encoder.check_weights_here`."""
        for encoder in dict.fromkeys(self.of.values()):
            encoder.check_weights_here()


def autoencoder_sources(modalities: Sequence[Modality], vae: str, folders: Sequence[Path]) -> dict[Modality, str]:
    """Which autoencoder encodes each modality that is no scalar.

    Args:
        modalities: some.
        vae: of all pictures.
        folders: where there may be one for each raster; see `find_autoencoder`.

    Raises:
        CopgenError: there is none for a raster.
    """
    sources = {}
    for modality in modalities:
        spec = modality.spec
        if spec.is_scalar:
            continue
        if spec.is_picture:
            sources[modality] = spec.autoencoder or vae
            continue
        found = next(filter(None, (find_autoencoder(folder, modality) for folder in folders)), None)
        if found is None and spec.autoencoder is None:
            raise CopgenError(
                f"There is no autoencoder for {modality}.",
                hint=f"Train one: copgen train-autoencoder --family ...; or name a folder that holds {modality}/: "
                "--vae-dir DIR",
            )
        sources[modality] = str(found) if found is not None else str(spec.autoencoder)
    return sources


def _recorded(
    known: Mapping[str, Any], modalities: Sequence[Modality]
) -> dict[Modality, tuple[AutoencoderFacts, tuple[int, int, int]]]:
    """Shape and autoencoder of each modality, as a manifest tells them."""
    if not {"shape", "shapes"} & known.keys():
        return {}  # of a run that did not come so far
    if "autoencoders" not in known:
        facts, (channels, height, width) = AutoencoderFacts.from_dict(known["autoencoder"]), known["shape"]
        return dict.fromkeys(modalities, (facts, (channels, height, width)))
    found = {}
    for modality in modalities:
        if modality in known["autoencoders"] and not modality.spec.is_scalar:
            channels, height, width = known["shapes"][modality]
            found[modality] = AutoencoderFacts.from_dict(known["autoencoders"][modality]), (channels, height, width)
    return found
