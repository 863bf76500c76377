"""The STAC item of one picture of a result, as `copgen scene` writes those of its maps."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from copgen_cli.outputs import Provenance, read_provenance
from copgen_cli.places import Grid, SceneRaster, build_single_item
from copgen_cli.rasters import read_georeferencing
from copgen_cli.studio.generation import Kept
from copgen_cli.studio.problems import NotThereError


def item_of(kept: Kept, number: int) -> bytes:
    """As JSON; of a map that which lies in its catalogue.

    Raises:
        NotThereError: nobody knows where the picture lies.
        CopgenError: pystac is not installed.
    """
    file, name = kept.files[number], kept.names[number]
    if kept.is_map:
        return (kept.folder / "items" / name / "item.json").read_bytes()
    known = read_georeferencing(file)
    if known is None or not known[0].crs:
        raise NotThereError.of("place of", name)
    place, (width, height) = known
    provenance = read_provenance(file)
    assert provenance.modality is not None, "a page is no GeoTIFF"
    sample = int(provenance.sample.rpartition("_v")[2]) if provenance.sample else None
    raster = SceneRaster(name, provenance.modality, provenance.kind, sample)
    created = datetime.fromtimestamp(int(file.stat().st_mtime), UTC)
    return build_single_item(
        raster, Grid(place, width, height), _facts(kept, provenance), created, href=f"./{name}.tif"
    )


def _facts(kept: Kept, provenance: Provenance) -> dict[str, Any]:
    """What the item says of how the picture was made; files by their hash, as paths mean nothing elsewhere."""
    record = kept.result.record
    inputs: dict[str, Any] = {}
    for modality, file in provenance.inputs[record].items():
        time = kept.times.get(modality)
        inputs[str(modality)] = {"sha256": file.sha256} | ({"cells": {record: {"timestamp": time}}} if time else {})
    return {**provenance.as_dict(), "scene": record, "inputs": inputs}
