"""The autoencoders of rasters that go with a network which is converted: checked before anything is written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from copgen_cli.errors import CopgenError, MismatchError
from copgen_cli.modalities import Modality, ModalitySpec
from copgen_cli.model import CopGenTransformer, ImageAutoencoder, find_autoencoder, load_autoencoder, modalities_of
from copgen_cli.pipeline.sources import Parts


def rasters_of(net: CopGenTransformer) -> dict[Modality, tuple[int, int, int]]:
    """The rasters of a network, classes among them, with (C, H, W) of their latents; none of one that names nothing."""
    try:
        modalities = modalities_of(net)
    except MismatchError:
        return {}
    shapes = zip(modalities, net.latent_shapes, strict=True)
    return {modality: shape for modality, shape in shapes if not modality.spec.is_picture | modality.spec.is_scalar}


def autoencoders_of(
    rasters: Mapping[Modality, tuple[int, int, int]], parts: Parts, folder: Path | None
) -> dict[Modality, ImageAutoencoder]:
    """The autoencoder of each raster, in float32.

    Args:
        rasters: with (C, H, W) of their latents.
        parts: of the source, which may have autoencoders of its own.
        folder: where there are others, see `find_autoencoder`. Of what is not there, or where this is None, it is the
            source's own, or else the one that the modality was published with.

    Raises:
        CopgenError: there is none for a raster.
        BrokenInputError: one is cut short, of another format, or needs more than weights.
        MismatchError: one is of other bands, or makes other latents than the network takes.
    """
    of = {}
    for modality, shape in rasters.items():
        spec = modality.spec
        named = None if folder is None else find_autoencoder(folder, modality)
        if named is None and modality in parts.vaes:
            of[modality] = load_autoencoder(parts.vaes[modality])
        elif named is not None:
            of[modality] = load_autoencoder(named, scale_factor=spec.scale_factor)
        else:
            of[modality] = _published(modality, folder)
        _check(of[modality], spec, shape)
    return of


def _published(modality: Modality, folder: Path | None) -> ImageAutoencoder:
    """The one that a modality was published with, from the hub."""
    spec = modality.spec
    where = "" if folder is None else f" in {folder}"
    if spec.autoencoder is None:
        raise CopgenError(
            f"There is no autoencoder for {modality}{where}.",
            hint=f"Name a folder that holds {modality}/ or one for each raster: --vae-dir DIR",
        )
    try:
        return load_autoencoder(spec.autoencoder, scale_factor=spec.scale_factor)
    except CopgenError as error:
        repository, _, published = spec.autoencoder.rpartition("/")
        raise CopgenError(
            f"There is no autoencoder for {modality}{where}, and the published one could not be read: {error}",
            hint=f"Fetch it where there is a connection (`hf download {repository} --local-dir DIR`), and name the "
            f"folder that holds {published}/ or {modality}/: --vae-dir DIR",
        ) from error


def _check(autoencoder: ImageAutoencoder, spec: ModalitySpec, latent: tuple[int, int, int]) -> None:
    """Raises MismatchError where an autoencoder can not be that of a modality of these latents."""
    if autoencoder.channels != spec.channels:
        raise MismatchError(
            f"{autoencoder.source} takes {autoencoder.channels} channels, and {spec.name} has {spec.channels}.",
            hint=f"Give the autoencoder of {spec.name}.",
        )
    channels, height, _ = latent
    if autoencoder.latent_channels != channels or height * autoencoder.reduction != spec.side:
        side = spec.side / autoencoder.reduction
        raise MismatchError(
            f"{autoencoder.source} makes latents of {autoencoder.latent_channels} x {side:g} px of a patch of "
            f"{spec.name}, and the network takes {channels} x {height} px.",
            hint="Give the autoencoder that the network was trained with.",
        )
