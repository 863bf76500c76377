"""Which autoencoders are to be trained on a tree of patches, and where each goes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from copgen_cli.autoencoding.pictures import Images, reconstruction_psnr, spread
from copgen_cli.autoencoding.rasters import RasterPatches, reconstruction_quality
from copgen_cli.errors import MissingInputError, UnknownNameError, UsageError
from copgen_cli.layout import autoencoders_beside
from copgen_cli.modalities import Family, Modality, Split, modalities_in
from copgen_cli.model import ImageAutoencoder
from copgen_cli.patches import PatchTree, read_tree


@dataclass(frozen=True, slots=True)
class Training:
    """One autoencoder to be trained."""

    name: str
    """Of its modality; of pictures, which share one, `pictures`."""
    patches: Images | RasterPatches
    held_out: Images | RasterPatches
    """Of the test split; there may be none."""
    folder: Path
    """What it is written to."""

    @property
    def is_of_pictures(self) -> bool:
        return not isinstance(self.patches, RasterPatches)

    def quality(self, autoencoder: ImageAutoencoder) -> dict[str, float]:
        """Of held-out patches that are encoded and decoded; by modality and measure."""
        if isinstance(self.held_out, RasterPatches):
            return reconstruction_quality(autoencoder, self.held_out) if self.held_out.names else {}
        return {f"{m}_psnr_db": reconstruction_psnr(autoencoder, spread(f)) for m, f in self.held_out.items()}


def plan_trainings(
    patches: Path, family: Family, chosen: Collection[Modality] | None, *, output: Path | None, pictures: Path
) -> list[Training]:
    """The autoencoders to train, that of pictures first and the others in the family's order.

    Args:
        patches: the prepared tree.
        family: what it was prepared for.
        chosen: which modalities; None is the rasters and classes of the family for which the user's settings name no
            autoencoder, or its pictures where it has no others.
        output: where they go, instead of `pictures` and the folder beside the patches.
        pictures: where the autoencoder of pictures goes.

    Raises:
        UnknownNameError: a modality is none of the family's.
        UsageError: one is a scalar, or pictures and others would go to the same `output`.
        MissingInputError: there are no patches to train on.
    """
    others = [m for m in modalities_in(family) if not (m.spec.is_picture or m.spec.is_scalar)]
    if chosen is None and not others:
        return [_of_pictures(patches, None, output or pictures)]
    for modality in chosen or ():
        _check(modality, family)
    asked = [m for m in others if (m in chosen if chosen is not None else _has_none_named(m))]
    shared = [modality for modality in chosen or () if modality.spec.is_picture]
    if shared and asked and output is not None:
        raise UsageError(
            "Pictures share one autoencoder, and others have one each: they do not go to the same --output.",
            hint=f"Ask for {', '.join(map(str, shared))} in a command of its own.",
        )
    trainings = [_of_pictures(patches, shared, output or pictures)] if shared else []
    if asked:
        tree = read_tree(patches, None, what=f"patches of {family.name}", written_by=f"prepare --family {family.name}")
        there = [m for m in asked if chosen is not None or tree.names[Split.TRAIN][m]]
        trainings += [_of_raster(tree, m, (output or autoencoders_beside(patches)) / m, family) for m in there]
        if not trainings:
            raise _no_patches(f"patches of {family.name}", patches, family)
    return trainings


def _check(modality: Modality, family: Family) -> None:
    if modality not in family.modalities:
        raise UnknownNameError(f"modality of the family {family.name}", str(modality), known=family.modalities)
    if modality.spec.is_scalar:
        raise UsageError(
            f"{modality} needs no autoencoder: a network takes its numbers as they are.",
            hint="Leave it out of --modality.",
        )


def _has_none_named(modality: Modality) -> bool:
    """Whether no autoencoder is named for it; that which it was published with is no reason not to train one."""
    return modality.spec.autoencoder is None or modality.spec.published is not None


def _of_raster(tree: PatchTree, modality: Modality, folder: Path, family: Family) -> Training:
    seen, held_out = (RasterPatches.of(tree, split, modality) for split in (Split.TRAIN, Split.TEST))
    if not seen.names:
        raise _no_patches(f"patches of {modality}", tree.folder, family)
    return Training(str(modality), seen, held_out, folder)


def _no_patches(what: str, patches: Path, family: Family) -> MissingInputError:
    return MissingInputError(what, patches / Split.TRAIN, written_by=f"prepare --family {family.name}")


def _of_pictures(patches: Path, chosen: Collection[Modality] | None, folder: Path) -> Training:
    seen, held_out = (_pictures(patches / split, chosen) for split in (Split.TRAIN, Split.TEST))
    if not seen:
        raise MissingInputError("patches", patches / Split.TRAIN, written_by="prepare")
    return Training("pictures", seen, held_out, folder)


def _pictures(folder: Path, chosen: Collection[Modality] | None) -> Images:
    """The PNG files of a split by modality, in a stable order; modalities without any are left out."""
    wanted = Modality if chosen is None else chosen
    found = {modality: sorted((folder / modality.spec.folder).glob("*.png")) for modality in wanted}
    return {modality: files for modality, files in found.items() if files}
