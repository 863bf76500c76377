"""Patches and stores as xarray's trees and torchgeo's datasets: the values of the files, at their places."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
import torch
from tiny_rasters import write_raster
from tiny_stores import tiny_store
from tiny_subsets import patch_pixels, write_patches
from torch.utils.data import DataLoader
from torchgeo_here import require_torchgeo

from copgen_cli.adapters import PatchDataset, StoreDataset, open_geo_dataset, open_patches, open_store
from copgen_cli.errors import MismatchError
from copgen_cli.latents import LatentStore
from copgen_cli.layout import patch_file, split_index
from copgen_cli.modalities import Modality, Split

NAMES = ["464U_102R_0", "464U_102R_1"]
"""Side by side."""
LEFT, TOP, METRES = 500_000.0, 4_600_000.0, 1920.0


def heights(number: int) -> np.ndarray:
    """(1, H, W), in which every pixel differs, and the first has no value."""
    side = Modality("dem_m").spec.side
    values = np.arange(side * side, dtype=np.float32).reshape(1, side, side) + 10_000 * number
    values[0, 0, 0] = -9999
    return values


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two patches with a thumbnail, heights and classes, and a table of the first's time alone."""
    folder = write_patches(tmp_path_factory.mktemp("patches"), NAMES, modalities=[Modality("s2_l2a")])
    for number, name in enumerate(NAMES):
        for modality, values in (("dem_m", heights(number)), ("land_cover", np.full((1, 192, 192), 10 * (number + 1)))):
            spec = Modality(modality).spec
            affine = rasterio.Affine(spec.pixel_size, 0, LEFT + number * METRES, 0, -spec.pixel_size, TOP)
            file = patch_file(folder, Split.TRAIN, Modality(modality), name, ".tif")
            write_raster(file, values.astype(spec.dtype), affine=affine, nodata=-9999 if modality == "dem_m" else None)
    rows = [
        {"grid_cell": "464U_102R", "patch": name, "crs": "EPSG:32633", "a": 10.0, "b": 0.0, "c": LEFT + n * METRES,
         "d": 0.0, "e": -10.0, "f": TOP, "centre_lon": 15.0 + n, "centre_lat": 41.5,
         "dem_m_timestamp": ["2020-07-01T10:00:00Z", None][n]}
        for n, name in enumerate(NAMES)
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), split_index(folder, Split.TRAIN))
    return folder


def test_patches_are_a_tree_of_labelled_arrays_in_the_units_of_their_files(folder):
    tree = open_patches(folder)

    assert set(tree.children) == {"s2_l2a", "dem_m", "land_cover"}
    one = tree["dem_m"]["values"].sel(patch=NAMES[1])
    assert one.attrs["units"] == "m"
    np.testing.assert_array_equal(one.values, np.where(heights(1) == -9999, np.nan, heights(1)))
    picture = tree["s2_l2a"]["values"].isel(patch=0)
    np.testing.assert_array_equal(
        picture.transpose("y", "x", "band"), patch_pixels(f"train s2_l2a {NAMES[0]}", grey=False)
    )
    assert tree["lon"].sel(patch=NAMES[1]) == 16


def test_a_part_of_a_tree_is_what_that_part_of_the_whole_is(folder):
    values = open_patches(folder, ["dem_m"])["dem_m"]["values"]
    whole = values.values

    assert (
        values.isel(patch=[1, 0], x=[3, 1], y=slice(2, 9, 3)).values == whole[[1, 0]][..., 2:9:3, :][..., [3, 1]]
    ).all()
    assert values.isel(patch=-1, y=5, x=-1, band=0).values == whole[-1, 0, 5, -1]
    assert values.isel(patch=slice(0, 0)).shape == (0, *whole.shape[1:])


def test_a_patch_is_read_when_its_values_are_asked_for_and_not_before(folder, tmp_path):
    broken = write_patches(tmp_path, NAMES, modalities=[Modality("dem")])
    patch_file(broken, Split.TRAIN, Modality("dem"), NAMES[0], ".png").write_bytes(b"no picture")

    values = open_patches(broken)["dem"]["values"]

    assert values.sel(patch=NAMES[1]).values.std() > 0
    with pytest.raises(Exception, match=NAMES[0]):
        values.sel(patch=NAMES[0]).load()


def test_a_store_is_a_tree_of_means_and_log_variances(tmp_path):
    folder = tiny_store(tmp_path / "store") / "train"
    stored = LatentStore(folder)

    tree = open_store(folder, ["s1_rtc", "dem"])

    assert list(tree.children) == ["s1_rtc", "dem"]
    name, moments = stored.select(["dem"])[7]
    one = tree["dem"].sel(patch=name)
    np.testing.assert_array_equal(np.concatenate([one["mean"], one["log_variance"]]), moments[0])
    assert tree["dem"].attrs["scale_factor"] == 0.5


def test_a_patch_dataset_gives_samples_that_torch_makes_batches_of(folder):
    data = PatchDataset(folder, {"image": "dem_m", "mask": "land_cover"})

    sample = data[1]
    batch = next(iter(DataLoader(data, batch_size=2)))

    assert sample["name"] == NAMES[1]
    assert sample["image"].dtype == torch.float32
    np.testing.assert_array_equal(sample["image"][0, 1:], heights(1)[0, 1:])
    assert (sample["mask"].dtype, sample["mask"].ndim, int(sample["mask"][5, 5])) == (torch.int64, 2, 20)
    assert batch["image"].shape == (2, *sample["image"].shape)


def test_a_dataset_of_a_modality_that_is_not_there_says_which_are(folder):
    with pytest.raises(MismatchError, match=r"no s1_rtc; it has .*dem_m"):
        PatchDataset(folder, ["s1_rtc"])


def test_a_store_dataset_gives_moments_by_modality(tmp_path):
    data = StoreDataset(tiny_store(tmp_path / "store") / "test", ["s2_l2a", "dem"])

    sample = data[-1]

    assert (sample["name"], list(sample)) == ("test_0002", ["s2_l2a", "dem", "name"])
    torch.testing.assert_close(sample["dem"], LatentStore(tmp_path / "store/test").select(["dem"])[2][1][0])
    with pytest.raises(IndexError):
        data[3]


# -- with the real torchgeo ----------------------------------------------------------------------------------------


def test_torchgeo_stacks_samples_of_patches_and_stores(folder, tmp_path):
    require_torchgeo()
    from torchgeo.datasets import stack_samples

    patches = PatchDataset(folder, ["s2_l2a", "dem_m"])
    store = StoreDataset(tiny_store(tmp_path / "store") / "train")

    batch = next(iter(DataLoader(patches, batch_size=2, collate_fn=stack_samples)))
    assert (batch["name"], batch["s2_l2a"].shape) == (NAMES, (2, 3, 256, 256))
    assert next(iter(DataLoader(store, batch_size=4, collate_fn=stack_samples)))["dem"].shape == (4, 8, 8, 8)


def test_torchgeo_samples_boxes_across_the_edge_of_two_patches(folder):
    require_torchgeo()
    data = open_geo_dataset(folder, "dem_m")
    side, pixel = Modality("dem_m").spec.side, Modality("dem_m").spec.pixel_size
    edge = LEFT + METRES

    box = data[edge - 2 * pixel : edge + 2 * pixel, TOP - 5 * pixel : TOP - 2 * pixel]

    values = np.concatenate([heights(0)[0, 2:5, side - 2 :], heights(1)[0, 2:5, :2]], axis=1)
    np.testing.assert_allclose(box["image"][0], values)
    with pytest.raises(IndexError):
        data[0:10, 0:10]


def test_torchgeo_joins_heights_with_classes_and_samples_both(folder):
    require_torchgeo()
    from torchgeo.datasets import IntersectionDataset, stack_samples
    from torchgeo.samplers import GridGeoSampler

    classes = open_geo_dataset(folder, "land_cover")
    both = IntersectionDataset(classes, open_geo_dataset(folder, "dem_m"), spatial_only=True)

    loader = DataLoader(both, sampler=GridGeoSampler(classes, size=96), batch_size=4, collate_fn=stack_samples)
    batches = list(loader)

    assert sum(len(batch["mask"]) for batch in batches) == 8  # two by two in each of the two patches
    assert batches[0]["image"].shape == (4, 1, 96, 96)
    assert {int(value) for batch in batches for value in batch["mask"].unique()} == {10, 20}


def test_torchgeo_asks_by_time_where_a_patch_has_one(folder):
    require_torchgeo()
    import pandas as pd

    data = open_geo_dataset(folder, "dem_m")

    x, y, _ = data.bounds
    later = slice(pd.Timestamp("2023-01-01"), pd.Timestamp("2024-01-01"))
    whole = data[x, y, later]["image"][0]

    assert torch.isnan(whole[:, : whole.shape[1] // 2]).all()  # of 2020
    assert not torch.isnan(whole[1:, whole.shape[1] // 2 :]).any()  # of no known date
