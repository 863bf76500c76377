"""Prepared patches and packed stores as xarray trees, a group per modality, read when values are asked for.

    patches = open_patches("data/majorTOM/rome/rome_thumbnail_png")
    patches["s2_l2a"]["values"].sel(patch="464U_102R_0")            # (band, y, x)
    store = open_store("data/majorTOM/rome/rome_thumbnail_npy_lmdb/train")
    store["dem"]["mean"].std()                                      # over (patch, channel, y, x)

B bands or channels, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from copgen_cli.adapters.patch_folder import PatchFolder, columns_of, dtype_of, open_folder, shape_of
from copgen_cli.errors import CopgenError
from copgen_cli.latents import LatentStore
from copgen_cli.modalities import Modality

if TYPE_CHECKING:
    import xarray


def open_patches(
    folder: str | Path, modalities: Sequence[str] | None = None, *, split: str = "train"
) -> xarray.DataTree:
    """The patches of a split: `values` (patch, band, y, x) of each modality, in the unit of its files.

    Rasters have nan where they have no value. Coordinates of the root are the patch's name, its cell and its middle in
    degrees.

    Args:
        folder: what `copgen prepare` wrote.
        modalities: which ones; None is all that the folder has.
        split: `train` or `test`.

    Raises:
        CopgenError: xarray is not installed.
        MissingInputError: the folder holds no patches.
        MismatchError: it lacks a modality.
    """
    xr = _xarray()
    opened = open_folder(folder, split, modalities)
    facts = columns_of(opened, ["grid_cell", "centre_lon", "centre_lat"])
    cells = [cell or name.rpartition("_")[0] for name, cell in zip(opened.names, facts["grid_cell"], strict=True)]
    root = {
        "patch": list(opened.names),
        "grid_cell": ("patch", cells),
        "lon": ("patch", np.array(facts["centre_lon"], np.float64), {"units": "degrees_east"}),
        "lat": ("patch", np.array(facts["centre_lat"], np.float64), {"units": "degrees_north"}),
    }
    groups = {str(modality): _patches_of(opened, modality) for modality in opened.modalities}
    return xr.DataTree.from_dict({"/": xr.Dataset(coords=root, attrs={"split": str(opened.split)}), **groups})


def open_store(folder: str | Path, modalities: Sequence[str] | None = None) -> xarray.DataTree:
    """The store of one split: `mean` and `log_variance` (patch, channel, y, x) of each modality, unscaled.

    Args:
        folder: the one that holds `data.mdb`.
        modalities: which ones; None is all.

    Raises:
        CopgenError: xarray is not installed.
        MissingInputError: there is no store.
        BrokenInputError: it is damaged.
        MismatchError: it lacks a modality.
    """
    xr = _xarray()
    store = LatentStore(folder)
    store = store if modalities is None else store.select(modalities)
    root = xr.Dataset(coords={"patch": list(store.names)})
    groups = {str(modality): _moments_of(store.select([modality])) for modality in store.modalities}
    return xr.DataTree.from_dict({"/": root, **groups})


def _patches_of(folder: PatchFolder, modality: Modality) -> xarray.Dataset:
    xr, spec = _xarray(), modality.spec
    shape = (len(folder.names), *shape_of(modality))

    def read(rows: Sequence[int]) -> np.ndarray:
        return np.stack([folder.values(folder.names[row], modality) for row in rows])

    dims = ("patch", "number") if spec.is_scalar else ("patch", "band", "y", "x")
    facts = {"long_name": spec.title, "units": spec.unit, "pixel_size": spec.patch_pixel_size}
    values = xr.Variable(dims, _lazily(read, shape, np.dtype(dtype_of(modality))), facts)
    bands = list(spec.bands) if len(dims) == 4 and len(spec.bands) == shape[1] else None
    return xr.Dataset({"values": values}, coords={"band": bands} if bands else None)


def _moments_of(store: LatentStore) -> xarray.Dataset:
    xr = _xarray()
    part = store.metadata.parts[store.metadata.modalities.index(store.modalities[0])]
    channels, height, width = part.shape
    half = channels // 2

    def reading(channels: slice) -> Callable[[Sequence[int]], np.ndarray]:
        return lambda rows: store.__getitems__(list(rows)).by_modality()[0][:, channels].numpy()

    def moments(channels: slice) -> Any:
        array = _lazily(reading(channels), (len(store), half, height, width), np.dtype(store.metadata.dtype))
        return xr.Variable(("patch", "channel", "y", "x"), array)

    facts = {"autoencoder": part.autoencoder.id, "scale_factor": part.autoencoder.scale_factor}
    return xr.Dataset({"mean": moments(slice(half)), "log_variance": moments(slice(half, None))}, attrs=facts)


def _lazily(read: Callable[[Sequence[int]], np.ndarray], shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
    """An array of xarray that calls `read` with the rows that are asked for, after its guide to backends."""
    from xarray.backends import BackendArray
    from xarray.core import indexing

    class Rows(BackendArray):
        def __init__(self) -> None:
            self.shape, self.dtype = shape, dtype

        def __getitem__(self, key: Any) -> Any:
            support = indexing.IndexingSupport.OUTER
            return indexing.explicit_indexing_adapter(key, shape, support, self._read)

        def _read(self, key: tuple[Any, ...]) -> np.ndarray:
            rows = np.arange(shape[0])[key[0]]
            wanted = [int(row) for row in np.atleast_1d(rows)]
            values = read(wanted) if wanted else np.empty((0, *shape[1:]), dtype)
            for axis in range(len(shape) - 1, 0, -1):  # the last first: a whole number takes its axis away
                values = values[(slice(None),) * axis + (key[axis],)]
            return values if rows.ndim else values[0]

    return indexing.LazilyIndexedArray(Rows())


def _xarray() -> Any:
    try:
        import xarray
    except ImportError as error:
        raise CopgenError(
            "A view for xarray needs xarray, which is not installed.", hint="pip install 'copgen[xarray]'"
        ) from error
    return xarray
