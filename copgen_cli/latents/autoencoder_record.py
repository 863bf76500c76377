"""Which autoencoder made some moments: what manifests and stores say of it, so that none is decoded by another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from copgen_cli.errors import MismatchError
from copgen_cli.modalities import Modality
from copgen_cli.stages import settings_of


@dataclass(frozen=True, slots=True)
class AutoencoderFacts:
    """One autoencoder; it alone can decode what a model makes of its moments."""

    id: str
    """Hub id, built-in name, or absolute path."""
    fingerprint: str | None
    """SHA-256 of its weights; None where a tree or database of the published workflow does not say."""
    scale_factor: float

    @classmethod
    def none(cls) -> AutoencoderFacts:
        """Of a scalar, whose numbers are their own latents."""
        return cls("none", None, 1.0)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> AutoencoderFacts:
        fingerprint = values["fingerprint"]
        return cls(str(values["id"]), None if fingerprint is None else str(fingerprint), float(values["scale_factor"]))


def id_of(source: str) -> str:
    """A folder or file by its absolute path, which is valid from everywhere; other names as they are."""
    return str(Path(source).absolute()) if Path(source).exists() else source


def facts_of_tree(moments: Path, named: str | None, modalities: Sequence[Modality]) -> dict[Modality, AutoencoderFacts]:
    """The autoencoder of each modality of a tree or database: as `copgen encode` recorded it, or else as it is named.

    Where neither says, that of pictures is taken to be the one of the published workflow, and those of others to be
    the ones that their family was published with.

    Raises:
        MismatchError: the tree was made by another than the one named.
    """
    recorded = settings_of(moments, "encode")
    if recorded is None:
        return {modality: _presumed(modality, named) for modality in modalities}
    if "autoencoders" in recorded:
        return {m: AutoencoderFacts.from_dict(recorded["autoencoders"][m]) for m in modalities}
    facts = AutoencoderFacts.from_dict(recorded["autoencoder"])
    if named is not None and id_of(named) != facts.id:
        raise MismatchError(
            f"{moments} was encoded by the autoencoder {facts.id}, not by {named}.",
            hint="Leave out --vae, or encode again: `copgen encode --overwrite`.",
        )
    return dict.fromkeys(modalities, facts)


def _presumed(modality: Modality, named: str | None) -> AutoencoderFacts:
    from copgen_cli.model import DEFAULT_ID, PUBLISHED_SCALE

    spec = modality.spec
    if spec.is_scalar:
        return AutoencoderFacts.none()
    if spec.is_picture:
        return AutoencoderFacts(id_of(named or DEFAULT_ID), None, PUBLISHED_SCALE)
    return AutoencoderFacts(spec.autoencoder or str(modality), None, spec.scale_factor or 1.0)
