"""Where each stage's files lie: the names of the published workflow, which reads all of them but the store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from copgen_cli.modalities import BETA, Modality, Split
from copgen_cli.storage import absolute


@dataclass(frozen=True, slots=True)
class Workspace:
    """The folders of one region below the data folder."""

    data_dir: Path
    region: str
    family: str = BETA.name

    @classmethod
    def around(cls, subset: Path, family: str = BETA.name) -> Workspace:
        """The workspace whose region's folder is `subset`."""
        whole = absolute(subset)
        return cls(whole.parent, whole.name, family)

    def world_index(self, modality: Modality) -> Path:
        """The cached metadata of a whole source."""
        return self.data_dir / modality.source.name / "metadata.parquet"

    @property
    def subset(self) -> Path:
        """What was downloaded for the region."""
        return self.data_dir / self.region

    @property
    def patches(self) -> Path:
        """What `prepare` writes: patches in train/ and test/."""
        return self.subset / f"{self._stem}_{'png' if self.family == BETA.name else 'patches'}"

    @property
    def moments(self) -> Path:
        """What `encode` writes: one npy per patch and modality."""
        return self.subset / f"{self._stem}_npy"

    @property
    def store(self) -> Path:
        """What `pack` writes: one LMDB per split."""
        return self.subset / f"{self._stem}_npy_lmdb"

    @property
    def autoencoders(self) -> Path:
        """What `train-autoencoder` makes for the modalities of a family that have none, a folder for each."""
        return self.subset / f"{self._stem}_autoencoders"

    @property
    def _stem(self) -> str:
        return f"{self.region}_{'thumbnail' if self.family == BETA.name else self.family}"


NO_PRODUCT = "id"
"""The published tools' word where a source has no product ids."""


THUMBNAIL_FILE = "thumbnail.png"
"""Of a product, in its folder; JPEG or PNG."""


def subset_index(subset: Path, modality: Modality) -> Path:
    """The rows chosen for a subset."""
    return subset / modality.source.name / "metadata.parquet"


def product_folder(subset: Path, modality: Modality, cell: str, product_id: str) -> Path:
    """Where a product's thumbnail and bands go."""
    return subset / product_path(modality, cell, product_id)


def product_path(modality: Modality, cell: str, product_id: str) -> str:
    """That folder below its subset; the grid row is the part of the cell's name before the underscore."""
    return f"{modality.source.name}/{cell.partition('_')[0]}/{cell}/{product_id}"


def patch_file(folder: Path, split: Split, modality: Modality, name: str, suffix: str) -> Path:
    """The file of one patch in one modality; `suffix` is that of the modality's patches, or `.npy` of moments."""
    return folder / split / modality.spec.folder / f"{name}{suffix}"


def split_index(patches: Path, split: Split) -> Path:
    """The table of one split's patches: cell, position, CRS and affine transform."""
    return patches / f"{split}_metadata.parquet"


def moments_beside(patches: Path) -> Path:
    """Where `encode` writes when no other folder is named: the published workflow's name for it."""
    return patches.with_name(f"{_plain(patches.name)}_npy")


def autoencoders_beside(patches: Path) -> Path:
    """Where `train-autoencoder` puts those of the modalities of a tree, a folder for each."""
    return patches.with_name(f"{_plain(patches.name)}_autoencoders")


def autoencoder_recipe(folder: Path) -> Path:
    """What `train-autoencoder` tells of an autoencoder beside its weights."""
    return folder / "recipe.json"


def store_beside(folder: Path) -> Path:
    """Where a store goes that is packed from a folder of patches or moments."""
    return folder.with_name(f"{_plain(folder.name).removesuffix('_npy')}_npy_lmdb")


def patches_beside(folder: Path) -> Path:
    """Where the patches lie that a folder of moments, or a store, was made from."""
    stem = folder.name.removesuffix("_lmdb").removesuffix("_npy")
    pictures = folder.with_name(f"{stem}_png")
    return pictures if pictures.is_dir() else folder.with_name(f"{stem}_patches")


def _plain(patches: str) -> str:
    """A folder's name without what says that it holds patches."""
    return patches.removesuffix("_png").removesuffix("_patches")


def split_store(store: Path, split: Split) -> Path:
    """The folder of one split's database."""
    return store / split


def run_folder(runs_dir: Path, region: str, preset: str, family: str = BETA.name) -> Path:
    """Where a training run lives when no --workdir is given."""
    return runs_dir / (f"{region}-{preset}" if family == BETA.name else f"{region}-{family}-{preset}")


def student_folder(runs_dir: Path, region: str, preset: str, family: str = BETA.name) -> Path:
    """Where the run of a student lives when no --workdir is given."""
    run = run_folder(runs_dir, region, preset, family)
    return run.with_name(f"{run.name}-student")


def model_folder(workdir: Path) -> Path:
    """The finished pipeline of a training run."""
    return workdir / "model"


def checkpoints_folder(workdir: Path) -> Path:
    """The checkpoints of a training run, one folder per step."""
    return workdir / "checkpoints"


def previews_folder(workdir: Path) -> Path:
    """The pictures that a training run draws on its way."""
    return workdir / "previews"


def metrics_file(workdir: Path) -> Path:
    """What a training run measured, one JSON document per line."""
    return workdir / "metrics.jsonl"
