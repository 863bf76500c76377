"""Which autoencoder made some moments: what manifests and stores say of it, so that none is decoded by another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from copgen_cli.errors import MismatchError
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
    def from_dict(cls, values: Mapping[str, Any]) -> AutoencoderFacts:
        fingerprint = values["fingerprint"]
        return cls(str(values["id"]), None if fingerprint is None else str(fingerprint), float(values["scale_factor"]))


def id_of(source: str) -> str:
    """A folder or file by its absolute path, which is valid from everywhere; other names as they are."""
    return str(Path(source).absolute()) if Path(source).exists() else source


def facts_of_tree(moments: Path, named: str | None) -> AutoencoderFacts:
    """The autoencoder that made a tree or database: as `copgen encode` recorded it, or else the one that is named.

    Where neither says, it is taken to be the one of the published workflow.

    Raises:
        MismatchError: the tree was made by another than the one named.
    """
    recorded = settings_of(moments, "encode")
    if recorded is None:
        from copgen_cli.model import DEFAULT_ID, PUBLISHED_SCALE

        return AutoencoderFacts(id_of(named or DEFAULT_ID), None, PUBLISHED_SCALE)
    facts = AutoencoderFacts.from_dict(recorded["autoencoder"])
    if named is not None and id_of(named) != facts.id:
        raise MismatchError(
            f"{moments} was encoded by the autoencoder {facts.id}, not by {named}.",
            hint="Leave out --vae, or encode again: `copgen encode --overwrite`.",
        )
    return facts
