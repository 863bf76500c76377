"""Prepared patches of one modality as a GeoDataset: torchgeo asks for a box and a time, and gets what lies there.

    radar = open_geo_dataset(folder, "s1_rtc")
    relief = open_geo_dataset(folder, "dem")
    both = IntersectionDataset(radar, relief, spatial_only=True)
    loader = DataLoader(both, sampler=RandomGeoSampler(both, size=128, length=1000), collate_fn=stack_samples)

B bands, H and W pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import geopandas
import numpy as np
import pandas as pd
import rasterio
from pyproj import CRS
from rasterio.warp import Resampling, reproject
from shapely import box
from torchgeo.datasets import GeoDataset

from copgen_cli.adapters.datasets import Transforms, as_tensor
from copgen_cli.adapters.patch_folder import PatchFolder, columns_of, dtype_of, shape_of
from copgen_cli.errors import MismatchError, UsageError
from copgen_cli.modalities import Kind, Modality
from copgen_cli.records import Georeferencing

if TYPE_CHECKING:
    from numpy.typing import NDArray


class PatchGeoDataset(GeoDataset):
    """The patches of a folder in one modality, on one grid; `image`, or `mask` of classes."""

    def __init__(self, folder: PatchFolder, *, crs: Any = None, transforms: Transforms | None = None) -> None:
        """Index the patches of a folder that was opened with one modality.

        Raises:
            UsageError: the modality has no pixels.
            MismatchError: no table says where the patches lie.
        """
        (self.modality,) = folder.modalities
        if self.modality.spec.is_scalar:
            raise UsageError(f"{self.modality} has no pixels.", hint="Read it with PatchDataset.")
        self.folder, self.transforms = folder, transforms
        self.paths = folder.tree.folder
        places = {name: folder.places.of(name, self.modality) for name in folder.names}
        self.places: dict[str, Georeferencing] = {name: place for name, place in places.items() if place is not None}
        if not self.places or len(self.places) < len(places):
            raise MismatchError(
                f"{self.paths} has no table that says where its {folder.split} patches lie.",
                hint="Run `copgen prepare` again, or read them with PatchDataset.",
            )
        self.index = self._index(CRS.from_user_input(crs or next(iter(self.places.values())).crs))
        self._res = (self.modality.spec.patch_pixel_size,) * 2

    def __getitem__(self, query: Any) -> dict[str, Any]:
        """What lies in a box: (B, H, W) float32 with nan outside of all patches, or (H, W) int64 of classes.

        Raises:
            IndexError: nothing lies there.
        """
        x, y, t = self._disambiguate_slice(query)
        found = self.index.iloc[self.index.index.overlaps(pd.Interval(t.start, t.stop, closed="both"))]
        names = found.cx[x.start : x.stop, y.start : y.stop]["patch"]
        if names.empty:
            raise IndexError(f"query: {query} not found in index with bounds: {self.bounds}")
        values = self._merge(list(names), x, y)
        key = "mask" if self.modality.spec.kind is Kind.CLASSES else "image"
        sample: dict[str, Any] = {"crs": self.crs, "bounds": query, key: as_tensor(values, self.modality)}
        return sample if self.transforms is None else self.transforms(sample)

    def _merge(self, names: list[str], x: slice, y: slice) -> NDArray[Any]:
        """(B, H, W) of a box: the first patch that has a value decides."""
        width, height = round((x.stop - x.start) / x.step), round((y.stop - y.start) / y.step)
        grid = {
            "dst_crs": self.crs,
            "dst_transform": rasterio.Affine(x.step, 0, x.start, 0, -y.step, y.stop),
        }
        is_classes = self.modality.spec.kind is Kind.CLASSES
        whole = np.full((shape_of(self.modality)[0], height, width), np.nan, np.float32)
        for name in names:
            place, part = self.places[name], np.full_like(whole, np.nan)
            reproject(
                self.folder.values(name, self.modality).astype(np.float32),
                part,
                src_crs=place.crs,
                src_transform=rasterio.Affine(*place.transform),
                src_nodata=np.nan,
                dst_nodata=np.nan,
                resampling=Resampling.nearest if is_classes else Resampling.bilinear,
                **grid,
            )
            np.copyto(whole, part, where=np.isnan(whole))
        if not is_classes:
            return whole
        return np.nan_to_num(whole, nan=_no_class(self.modality)).astype(dtype_of(self.modality))

    def _index(self, crs: CRS) -> geopandas.GeoDataFrame:
        """Outline and time of each patch; all of time where it is not known."""
        side = self.modality.spec.side
        outlines = []
        for place in self.places.values():
            (left, top), (right, bottom) = place.to_ground(0, 0), place.to_ground(side, side)
            outline = geopandas.GeoSeries([box(left, bottom, right, top)], crs=place.crs)
            outlines.append(outline.to_crs(crs).iloc[0])
        stamps = columns_of(self.folder, [f"{self.modality}_timestamp"])[f"{self.modality}_timestamp"]
        when = [pd.to_datetime(stamp, errors="coerce", utc=True).tz_localize(None) for stamp in stamps]
        first = [pd.Timestamp.min if pd.isna(moment) else moment for moment in when]
        last = [pd.Timestamp.max if pd.isna(moment) else moment for moment in when]
        times = pd.IntervalIndex.from_arrays(first, last, closed="both", name="datetime")
        return geopandas.GeoDataFrame({"patch": list(self.places)}, index=times, geometry=outlines, crs=crs)


def _no_class(modality: Modality) -> float:
    nodata = modality.spec.nodata
    return modality.spec.blank if nodata is None else nodata
