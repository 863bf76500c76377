"""What a scene says of its rasters: STAC items and their collection, and tags in the files themselves.

STAC 1.1 with the projection and processing extensions. No extension has a field for what is synthetic: it is said in
plain (`synthetic`), by the processing level (L4, from models), and by the roles of the asset.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from copgen_cli import __version__
from copgen_cli.errors import CopgenError
from copgen_cli.places.grid import Grid
from copgen_cli.places.mosaics import SceneRaster

PROJECTION = "https://stac-extensions.github.io/projection/v2.0.0/schema.json"
PROCESSING = "https://stac-extensions.github.io/processing/v1.2.0/schema.json"
GEOTIFF = "image/tiff; application=geotiff"
COG = f"{GEOTIFF}; profile=cloud-optimized"
COLLECTION_FILE = "collection.json"
ATTRIBUTION = (
    "Synthetic, made by copgen. What it imitates is Copernicus data (Sentinel-1, Sentinel-2, Copernicus DEM); where "
    "such data are the condition, it contains modified Copernicus data."
)
_LICENCE = "https://sentinels.copernicus.eu/documents/247904/690755/Sentinel_Data_Legal_Notice"
_PROVIDERS = [
    {"name": "copgen", "roles": ["processor"], "description": f"copgen {__version__}"},
    {"name": "European Union, Copernicus programme", "roles": ["licensor"], "url": "https://www.copernicus.eu"},
]


def require_pystac() -> Any:
    """Raises CopgenError where it is not installed: before the work, not after it."""
    try:
        import pystac
    except ImportError:
        raise CopgenError(
            "The catalogue of a scene is written with pystac, which is not installed.",
            hint="Install it with `pip install 'copgen[scene]'`.",
        ) from None
    return pystac


def item_path(raster: SceneRaster) -> str:
    return f"items/{raster.name}/item.json"


def describe_raster(raster: SceneRaster, facts: Mapping[str, Any]) -> dict[str, Any]:
    """All that one raster says of itself: the facts of the scene, and which of its rasters it is."""
    return {**facts, "kind": "scene", "raster": raster.kind, "modality": str(raster.modality), "sample": raster.sample}


def tags_of(raster: SceneRaster, facts: Mapping[str, Any]) -> dict[str, str]:
    """Tags of a GeoTIFF: TIFF's own for people and programs for maps, and all facts as JSON."""
    conditions = ", ".join(facts["condition"]) or "nothing"
    shown = f"{raster.kind} of the samples" if raster.sample is None else f"sample {raster.sample}"
    return {
        "TIFFTAG_IMAGEDESCRIPTION": f"Synthetic: {raster.modality} given {conditions}, {shown}.",
        "TIFFTAG_SOFTWARE": f"copgen {__version__}",
        "TIFFTAG_COPYRIGHT": ATTRIBUTION,
        "Synthetic": "true",
        "copgen": json.dumps(describe_raster(raster, facts), sort_keys=True),
    }


def build_item(raster: SceneRaster, grid: Grid, facts: Mapping[str, Any], created: datetime) -> bytes:
    """The STAC item of a raster of a scene as JSON.

    Its time is that of the conditions where these tell it, and else that of the run.
    """
    pystac = require_pystac()
    item = _item(raster, grid, facts, created, href=f"../../{raster.name}.tif", media_type=COG)
    item.collection_id = facts["scene"]
    for relation in ("root", "parent", "collection"):
        item.add_link(pystac.Link(relation, f"../../{COLLECTION_FILE}", "application/json"))
    return _as_json(item.to_dict(include_self_link=False, transform_hrefs=False))


def build_single_item(
    raster: SceneRaster, grid: Grid, facts: Mapping[str, Any], created: datetime, *, href: str
) -> bytes:
    """The STAC item of a GeoTIFF that belongs to no collection, as JSON.

    Args:
        href: of the GeoTIFF, from the item's own folder.

    Raises:
        CopgenError: pystac is not installed.
    """
    item = _item(raster, grid, facts, created, href=href, media_type=GEOTIFF)
    return _as_json(item.to_dict(include_self_link=False, transform_hrefs=False))


def _item(
    raster: SceneRaster, grid: Grid, facts: Mapping[str, Any], created: datetime, *, href: str, media_type: str
) -> Any:
    pystac = require_pystac()
    outline = grid.outline()
    longitudes, latitudes = zip(*outline["coordinates"][0], strict=True)
    moments = sorted(_times_of(facts))
    item = pystac.Item(
        id=f"{facts['scene']}-{raster.name}",
        geometry=outline,
        bbox=[min(longitudes), min(latitudes), max(longitudes), max(latitudes)],
        datetime=moments[0] if moments else created,
        properties=_properties(raster, grid, facts, created),
        stac_extensions=[PROJECTION, PROCESSING],
    )
    item.add_asset(
        "data",
        pystac.Asset(
            href=href,
            title=f"{raster.modality.spec.title}, {raster.kind}",
            media_type=media_type,
            roles=["data", "synthetic"],
        ),
    )
    return item


def build_collection(rasters: Sequence[SceneRaster], grid: Grid, facts: Mapping[str, Any], created: datetime) -> bytes:
    """The STAC collection of a scene as JSON."""
    pystac = require_pystac()
    longitudes, latitudes = zip(*grid.outline()["coordinates"][0], strict=True)
    moments = sorted(_times_of(facts)) or [created]
    collection = pystac.Collection(
        id=facts["scene"],
        title=f"Synthetic {', '.join(facts['generate'])} of {facts['area']['name']}",
        description=f"{ATTRIBUTION} scene.json says how to make it again.",
        extent=pystac.Extent(
            pystac.SpatialExtent([[min(longitudes), min(latitudes), max(longitudes), max(latitudes)]]),
            pystac.TemporalExtent([[moments[0], moments[-1]]]),
        ),
        license="other",
        keywords=["synthetic", "generative", "Copernicus", "Sentinel"],
        providers=[pystac.Provider.from_dict(provider) for provider in _PROVIDERS],
    )
    collection.extra_fields["synthetic"] = True
    collection.add_link(pystac.Link("root", f"./{COLLECTION_FILE}", "application/json"))
    collection.add_link(pystac.Link("license", _LICENCE, "application/pdf"))
    for raster in rasters:
        collection.add_link(pystac.Link("item", f"./{item_path(raster)}", "application/geo+json"))
    return _as_json(collection.to_dict(include_self_link=False, transform_hrefs=False))


def _properties(raster: SceneRaster, grid: Grid, facts: Mapping[str, Any], created: datetime) -> dict[str, Any]:
    told = ("model", "seed", "steps", "solver", "guidance_scale", "condition", "inputs")
    conditions = ", ".join(facts["condition"]) or "nothing"
    code = grid.place.crs if grid.place.crs.startswith("EPSG:") else None
    return {
        "title": f"Synthetic {raster.modality} given {conditions}",
        "created": created.isoformat().replace("+00:00", "Z"),
        "synthetic": True,
        "license": "other",
        "providers": _PROVIDERS,
        "proj:code": code,
        **({} if code else {"proj:wkt2": _wkt(grid)}),
        "proj:shape": [grid.height, grid.width],
        "proj:transform": [*grid.place.transform, 0.0, 0.0, 1.0],
        "processing:level": "L4",
        "processing:software": {"copgen": __version__},
        "processing:lineage": f"Generated by the diffusion model {facts['model']['id']} given {conditions}.",
        "copgen:modality": str(raster.modality),
        "copgen:raster": raster.kind,
        "copgen:sample": raster.sample,
        **{f"copgen:{name}": facts[name] for name in told},
    }


def _wkt(grid: Grid) -> str:
    from rasterio.crs import CRS

    return str(CRS.from_user_input(grid.place.crs).to_wkt(version="WKT2_2018"))


def _times_of(facts: Mapping[str, Any]) -> list[datetime]:
    """Acquisition times of the conditions, as far as they are known."""
    cells = [cell for condition in facts["inputs"].values() for cell in condition.get("cells", {}).values()]
    times = (datetime.fromisoformat(cell["timestamp"]) for cell in cells if cell.get("timestamp"))
    return [time if time.tzinfo else time.replace(tzinfo=UTC) for time in times]


def _as_json(values: Mapping[str, Any]) -> bytes:
    return (json.dumps(values, indent=1) + "\n").encode()
