"""Prepared patches and packed stores as datasets after torchgeo's protocol: a sample is a dict of tensors.

    from torchgeo.datasets import stack_samples
    data = PatchDataset("data/majorTOM/rome/rome_thumbnail_png", {"image": "s1_rtc", "target": "dem"})
    loader = DataLoader(data, batch_size=16, collate_fn=stack_samples)

`PatchDataset` and `StoreDataset` are what torchgeo calls a NonGeoDataset, and need torch alone; `open_geo_dataset`
makes a GeoDataset, which is asked by place and time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from copgen_cli.adapters.patch_folder import open_folder
from copgen_cli.errors import CopgenError
from copgen_cli.latents import LatentStore
from copgen_cli.modalities import Kind, Modality

if TYPE_CHECKING:
    import numpy as np

    from copgen_cli.adapters.patch_geo_dataset import PatchGeoDataset

Sample = dict[str, Any]
Transforms = Callable[[Sample], Sample]


class PatchDataset(Dataset[Sample]):
    """Samples of one patch each: `name`, and a tensor under each key."""

    def __init__(
        self,
        folder: str | Path,
        modalities: Mapping[str, str] | Sequence[str] | None = None,
        *,
        split: str = "train",
        transforms: Transforms | None = None,
    ) -> None:
        """List the patches that have every modality asked for.

        Args:
            folder: what `copgen prepare` wrote.
            modalities: modality by key of the sample, such as {"image": "s2_l2a", "mask": "land_cover"}; or names,
                which are keys themselves; None is all.
            split: `train` or `test`.
            transforms: is applied to each sample.

        Raises:
            MissingInputError: the folder holds no patches.
            MismatchError: it lacks a modality.
        """
        names = list(modalities.values()) if isinstance(modalities, Mapping) else modalities
        self.folder = open_folder(folder, split, names)
        keys = modalities if isinstance(modalities, Mapping) else self.folder.modalities
        self.keys: dict[str, Modality] = dict(zip(map(str, keys), self.folder.modalities, strict=True))
        self.transforms = transforms

    def __len__(self) -> int:
        return len(self.folder.names)

    def __getitem__(self, index: int) -> Sample:
        """One patch: pictures (1 or 3, H, W) from 0 to 255 and rasters (B, H, W) in their unit, both float32; classes
        (H, W) int64; places and dates (3,) float32."""
        name = self.folder.names[index]
        sample: Sample = {key: as_tensor(self.folder.values(name, m), m) for key, m in self.keys.items()}
        sample["name"] = name
        return sample if self.transforms is None else self.transforms(sample)

    def __str__(self) -> str:
        return f"PatchDataset of {', '.join(self.folder.modalities)}\n    type: NonGeoDataset\n    size: {len(self)}"


class StoreDataset(Dataset[Sample]):
    """Samples of one record each: `name`, and under each modality's name its moments (2 C, H, W) as they are stored."""

    def __init__(
        self, folder: str | Path, modalities: Sequence[str] | None = None, *, transforms: Transforms | None = None
    ) -> None:
        """Open the store of one split, the folder that holds `data.mdb`.

        Raises:
            MissingInputError: there is none.
            BrokenInputError: it is damaged.
            MismatchError: it lacks a modality.
        """
        store = LatentStore(folder)
        self.store = store if modalities is None else store.select(modalities)
        self.transforms = transforms

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, index: int) -> Sample:
        batch = self.store.__getitems__([index])
        sample: Sample = {
            str(m): moments[0] for m, moments in zip(self.store.modalities, batch.by_modality(), strict=True)
        }
        sample["name"] = batch.names[0]
        return sample if self.transforms is None else self.transforms(sample)

    def __str__(self) -> str:
        return f"StoreDataset of {', '.join(self.store.modalities)}\n    type: NonGeoDataset\n    size: {len(self)}"


def as_tensor(values: np.ndarray, modality: Modality) -> Tensor:
    """Values of a patch in the types that torchgeo's datasets give: classes (H, W) int64, all else float32."""
    tensor = torch.from_numpy(values.copy())
    return tensor[0].long() if modality.spec.kind is Kind.CLASSES else tensor.float()


def open_geo_dataset(
    folder: str | Path, modality: str, *, split: str = "train", crs: Any = None, transforms: Transforms | None = None
) -> PatchGeoDataset:
    """Patches of one modality as a GeoDataset of torchgeo, sampled by place and joined with others by `&` and `|`.

    Args:
        folder: what `copgen prepare` wrote.
        modality: which one.
        split: `train` or `test`.
        crs: of the dataset; None is that of the first patch. Patches of other zones are warped to it.
        transforms: is applied to each sample.

    Raises:
        CopgenError: torchgeo is not installed.
        MissingInputError: the folder holds no patches.
        MismatchError: it lacks the modality, or the table that says where patches lie.
    """
    if find_spec("torchgeo") is None:
        raise CopgenError(
            "A dataset that is asked by place needs torchgeo, which is not installed.",
            hint="pip install 'copgen[torchgeo]'",
        )
    from copgen_cli.adapters.patch_geo_dataset import PatchGeoDataset

    return PatchGeoDataset(open_folder(folder, split, modality), crs=crs, transforms=transforms)
