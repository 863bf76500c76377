# %% [markdown]
# # A map of an area, from nothing
#
# An area of the simulated Earth becomes a map: Cloud-Optimized GeoTIFFs without seams, which say themselves that they are
# synthetic. It takes about two minutes of two cores, offline, with `copgen-sim`, the small model in the package, and
# `pip install 'copgen[scene,plot]'`. On the real Earth only the settings differ: a region, and its archive.
#
# ## Ground
#
# Each folder has its settings. This one names a box of highlands, and an archive that is about to be made.

# %%
from pathlib import Path

Path("copgen.toml").write_text(f"""
region = "highlands"

[regions.highlands]
bbox = [0.0, 44.0, 40.0, 50.0]
cloud_cover = [0, 1]

[download]
endpoint = "{Path("earth").absolute().as_uri()}"
""")
# !copgen --quiet simulate --cells 4 --seed 9003 --rugged 0.9 --start-date 2020-09-10 --end-date 2020-11-05 --no-gaps --output earth
# !copgen --quiet download
# !find data -name thumbnail.png | sort | head -n 3

# %% [markdown]
# ## An area
#
# Any shape that GIS programs write: here the catchment of a lake, as a sketch in GeoJSON.

# %%
import json

ring = [
    [15.112, 44.409], [15.117, 44.421], [15.129, 44.428], [15.146, 44.429], [15.161, 44.424], [15.166, 44.413],
    [15.157, 44.404], [15.139, 44.401], [15.122, 44.402], [15.112, 44.409],
]  # fmt: skip
shape = {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [ring]}}
Path("area.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [shape]}))
# !copgen scene --aoi area.geojson --condition s2_l1c --generate dem,s2_l2a --n-samples 2 --spread --output map --dry-run

# %% [markdown]
# `--dry-run` told what it takes. Now in earnest: from the top of the atmosphere, what are the slopes below, and what colour
# has the ground without the air above it? Two answers to each, and how far they lie apart.

# %%
# !copgen --quiet scene --aoi area.geojson --condition s2_l1c --generate dem,s2_l2a --n-samples 2 --spread --output map
# !ls map

# %% [markdown]
# ## At a glance
#
# `preview.png` has what was given, the answers, and the truth where the region knows it.

# %%
import io

from IPython.display import Image as Shown
from PIL import Image


def as_jpeg(picture, width=1000):
    """A picture for the notebook, reduced so that the file stays small."""
    height = round(picture.height * width / picture.width)
    stream = io.BytesIO()
    picture.convert("RGB").resize((width, height), Image.Resampling.LANCZOS).save(stream, "JPEG", quality=78)
    return Shown(stream.getvalue())


as_jpeg(Image.open("map/preview.png"))

# %% [markdown]
# ## The GeoTIFF
#
# Pixels of 10 m in the UTM zone of the area, and in the tags what made them.

# %%
import rasterio

with rasterio.open("map/s2_l2a_v1.tif") as raster:
    print(raster.crs, raster.shape, raster.res, raster.dtypes, "overviews:", raster.overviews(1))
    print(raster.tags()["TIFFTAG_IMAGEDESCRIPTION"])
    print("Synthetic:", raster.tags()["Synthetic"])

# %% [markdown]
# ## On the map
#
# Any GIS opens the file where it belongs; here it is warped to degrees and drawn with the area's outline, and beside it the
# deviation of the samples. The outlines of land are those of the studio (Natural Earth).

# %%
import matplotlib.pyplot as plt
import numpy as np
from rasterio.vrt import WarpedVRT

import copgen_cli


def in_degrees(file):
    """Pixels and their extent, west east south north."""
    with rasterio.open(file) as raster, WarpedVRT(raster, crs="EPSG:4326", add_alpha=True) as warped:
        west, south, east, north = warped.bounds
        return np.moveaxis(warped.read(), 0, -1), (west, east, south, north)


figure, (overview, colour, spread) = plt.subplots(1, 3, figsize=(13, 4.2), width_ratios=[1, 1.6, 1.6], layout="tight")
land = json.loads((Path(copgen_cli.__file__).parent / "studio/page/vendor/land.json").read_text())
for feature in land["features"]:
    for polygon in feature["geometry"]["coordinates"]:
        lon, lat = np.transpose(polygon[0])
        for turn in (0, 360):  # outlines run on across the date line
            overview.fill(lon + turn, lat, facecolor="#e8e6df", edgecolor="#8d8b82", linewidth=0.5)
overview.plot(*ring[0], "o", color="#00796b")
overview.set(xlim=(-12, 42), ylim=(34, 62), facecolor="#f7fafa", title="Where it lies")

pixels, extent = in_degrees("map/s2_l2a_v1.tif")
colour.imshow(pixels, extent=extent)
colour.set_title("s2_l2a, sample 1 (synthetic)")
pixels, _ = in_degrees("map/s2_l2a_std.tif")
deviation = np.where(pixels[..., -1] > 0, pixels[..., :-1].mean(axis=-1), np.nan)
shown = spread.imshow(deviation, extent=extent, cmap="viridis")
figure.colorbar(shown, ax=spread, shrink=0.8, label="grey levels")
spread.set_title("deviation of 2 samples")
for axes in (colour, spread):
    axes.plot(*zip(*ring, strict=True), color="#d1495b", linewidth=1.5)
    axes.set_aspect(1 / np.cos(np.radians(44.4)))
    axes.ticklabel_format(useOffset=False)
    axes.tick_params(labelsize=7)

stream = io.BytesIO()
figure.savefig(stream, dpi=110)
plt.close(figure)
as_jpeg(Image.open(stream), width=1300)

# %% [markdown]
# ## In a catalogue
#
# Beside the rasters lies their STAC catalogue, which says the same to programs.

# %%
item = json.loads(Path("map/items/s2_l2a_v1/item.json").read_text())
{key: value for key, value in item["properties"].items() if not isinstance(value, (dict, list))}

# %% [markdown]
# ## On
#
# [Maps of areas](../docs/scenes.md) has the rest: rasters of your own, gaps under clouds, blocks of large areas.
# `copgen studio` does it on a page with a map.
