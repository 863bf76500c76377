"""Results for the browser: PNGs of the GeoTIFFs that sampling wrote, with the same provenance, and where they lie."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from copgen_cli.inputs import Frame, Record, open_pictures, read_rgb
from copgen_cli.modalities import Modality
from copgen_cli.outputs import Drawing, Provenance, read_provenance, show_deviation, synthetic_text
from copgen_cli.places import SceneRaster
from copgen_cli.rasters import find_values, read_georeferencing, read_values, show
from copgen_cli.records import Georeferencing
from copgen_cli.studio.schemas import Corners, Picture

WGS84 = "EPSG:4326"
KEY = "copgen"
"""Of the tag that holds a map's provenance."""
MOST_SIDE = 1600
"""Pixels of a map as it is shown; its GeoTIFF has all of them."""


def corners_of(place: Georeferencing, width: int, height: int) -> Corners | None:
    """Longitude and latitude of the corners of a picture; None where its CRS is unknown or has no such point there."""
    from rasterio.errors import RasterioError
    from rasterio.warp import transform

    if not place.crs:
        return None
    points = [place.to_ground(*corner) for corner in ((0, 0), (width, 0), (width, height), (0, height))]
    try:
        lon, lat = transform(place.crs, WGS84, [x for x, _ in points], [y for _, y in points])[:2]
    except RasterioError:
        return None
    corners = [(round(x, 7), round(y, 7)) for x, y in zip(lon, lat, strict=True)]
    return corners if np.isfinite(corners).all() else None


def describe_pictures(folder: Path, listing: Mapping[str, Any]) -> tuple[list[Picture], list[Path]]:
    """What `samples.json` lists, and the file of each, in the order in which they are shown."""
    files = sorted((name for name in listing["files"] if name.endswith(".tif")), key=_order)
    described = []
    for number, name in enumerate(files):
        provenance = read_provenance(folder / name)
        assert provenance.modality is not None, "a page is no GeoTIFF"
        known = read_georeferencing(folder / name)
        values = values_of(folder / name, provenance)
        height, width = values.shape[:2] if provenance.modality.spec.is_picture else values.shape[1:]
        described.append(
            Picture.model_validate(
                {
                    "number": number,
                    "modality": str(provenance.modality),
                    "name": Path(name).stem,
                    "kind": provenance.kind,
                    "width": width,
                    "height": height,
                    "corners": None if known is None else corners_of(known[0], width, height),
                    "is_raster": not provenance.modality.spec.is_picture,
                }
            )
        )
    return described, [folder / name for name in files]


def describe_maps(folder: Path, rasters: Sequence[SceneRaster]) -> tuple[list[Picture], list[Path]]:
    """The rasters of a scene, and the file of each."""
    files = [folder / f"{raster.name}.tif" for raster in rasters]
    described = []
    for number, (raster, file) in enumerate(zip(rasters, files, strict=True)):
        known = read_georeferencing(file)
        assert known is not None, "copgen scene knows where it draws"
        place, (width, height) = known
        corners = corners_of(place, width, height)
        name, modality = raster.name, str(raster.modality)
        described.append(
            Picture(
                number=number,
                modality=modality,
                name=name,
                kind=raster.kind,
                width=width,
                height=height,
                corners=corners,
                is_raster=False,
            )
        )
    return described, files


def png_of_map(file: Path) -> bytes:
    """A map, no larger than `MOST_SIDE`, with its provenance; white where it has no value."""
    import rasterio

    with rasterio.open(file, driver="GTiff") as dataset:
        shrink = max(1.0, max(dataset.width, dataset.height) / MOST_SIDE)
        shape = (dataset.count, round(dataset.height / shrink), round(dataset.width / shrink))
        values, known = dataset.read(out_shape=shape), dataset.dataset_mask(out_shape=shape[1:])
        tags = dataset.tags()
    grey = np.repeat(values, 3, axis=0) if len(values) == 1 else values[:3]
    pixels = np.where(known[..., None] > 0, grey.transpose(1, 2, 0), 255)
    stream = io.BytesIO()
    text = synthetic_text(tags.get("TIFFTAG_IMAGEDESCRIPTION", "A synthetic map."), json.loads(tags.get(KEY, "{}")))
    Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8)).save(stream, "PNG", pnginfo=text)
    return stream.getvalue()


def values_of(file: Path, provenance: Provenance) -> np.ndarray:
    """(H, W, 3) uint8 of a picture, (B, H, W) of measurements."""
    assert provenance.modality is not None
    if provenance.modality.spec.is_picture:
        return read_rgb(file)
    return read_values(find_values([file]))[0]


def png_of(file: Path) -> bytes:
    """The PNG that `copgen sample --save-as pngs` writes of the same picture."""
    provenance = read_provenance(file)
    assert provenance.modality is not None
    spec, values = provenance.modality.spec, values_of(file, provenance)
    shown = show_deviation(values) if provenance.kind == "std" and not spec.is_picture else show(values, spec)
    return Drawing(file.name, Image.fromarray(shown), provenance).as_png()


def read_view(file: Path, modality: Modality, frame: Frame) -> Record:
    """A file as the model takes it: fitted to its frame, with what it looks like.

    Raises:
        BrokenInputError, MismatchError: it is damaged, too large, too small, or of something else.
    """
    source = open_pictures({modality: file}, frame)
    return source.read(source.names[0])


def _order(name: str) -> tuple[int, int, list[Any]]:
    """By modality; samples before mean and deviation; samples by number."""
    path = Path(name)
    kind = {"mean": 1, "std": 2}.get(path.stem.rpartition("_")[2], 0)
    parts = path.stem.replace("_v", "_").split("_")
    return Modality(path.parts[0]).order, kind, [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in parts]
