"""The modalities and families that come with the package.

`beta`: four thumbnails, as COP-GEN-Beta has them (arXiv:2504.08548). `copgen-2026`: ten rasters of native bands and
classes, place and time (arXiv:2603.03239).
"""

from __future__ import annotations

from copgen_cli.modalities.spec import (
    PIXEL_METRES,
    ClassValue,
    Family,
    Kind,
    ModalitySpec,
    Normalisation,
    PictureRule,
    Rendering,
    Rule,
    Source,
    TypicalSizes,
)

TILE_METRES = (10_680.0, 10_560.0)
"""Sides of Major TOM tiles: of the Core datasets, and of the newer grid, whose products are called MT10_."""

_OPTICAL = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09")
DEM = Source(
    "Core-DEM", 356, ("compressed", "DEM"), TypicalSizes(60_000, row=540_000, footer=250_000), has_product=False
)
S1RTC = Source("Core-S1RTC", 1068, ("vv", "vh"), TypicalSizes(1_200_000, row=10_700_000, footer=500_000))
S2L1C = Source(
    "Core-S2L1C",
    1068,
    (*_OPTICAL, "B10", "B11", "B12", "cloud_mask"),
    TypicalSizes(180_000, row=10_500_000, footer=1_300_000),
    has_clouds=True,
)
S2L2A = Source(
    "Core-S2L2A",
    1068,
    (*_OPTICAL, "B11", "B12", "cloud_mask"),
    TypicalSizes(180_000, row=10_200_000, footer=1_200_000),
    has_clouds=True,
)
SOURCES = (DEM, S1RTC, S2L1C, S2L2A)
"""The datasets of Major TOM that can be downloaded, in the order of the thumbnails' indices."""

_SIDE = 256
_ELEVATION = PictureRule(Rendering.HILLSHADE, ("DEM",), {1: (1,)})
_RADAR = PictureRule(Rendering.FALSE_COLOUR, ("vv", "vh"), {2: (1, 2)})
_RED_GREEN_BLUE = ("B04", "B03", "B02")
_L1C = PictureRule(Rendering.TRUE_COLOUR, _RED_GREEN_BLUE, {3: (1, 2, 3), 13: (4, 3, 2)})
_L2A = PictureRule(Rendering.TRUE_COLOUR, _RED_GREEN_BLUE, {3: (1, 2, 3), 12: (4, 3, 2)})


def _thumbnail(
    name: str, title: str, source: Source, rule: PictureRule, *, pixel_size: float = PIXEL_METRES, grey: bool = False
) -> ModalitySpec:
    return ModalitySpec(
        name=name,
        title=title,
        kind=Kind.PICTURE,
        bands=("grey",) if grey else ("red", "green", "blue"),
        side=_SIDE,
        pixel_size=pixel_size,
        normalisation=Normalisation(Rule.PICTURE),
        picture=rule,
        folder=f"{source.name.removeprefix('Core-')}_thumbnail",
        source=source,
        grey=grey,
    )


_BETA = (
    _thumbnail("dem", "Elevation (hillshade)", DEM, _ELEVATION, pixel_size=30.0, grey=True),
    _thumbnail("s1_rtc", "Sentinel-1 RTC", S1RTC, _RADAR),
    _thumbnail("s2_l1c", "Sentinel-2 L1C", S2L1C, _L1C),
    _thumbnail("s2_l2a", "Sentinel-2 L2A", S2L2A, _L2A),
)

REFLECTANCE = Normalisation(Rule.LINEAR, 0.0, 10_000.0)
BACKSCATTER = Normalisation(Rule.DECIBEL, -55.787186, 40.225800, least=2.6380407689430285e-06)
HEIGHT = Normalisation(Rule.LOG_HEIGHT, 0.000006, 9.088, least=5.899129519093549e-06)
_PATCH_METRES = 1920.0
_LAND_COVER = (
    ClassValue(0, "none", "#000000"),
    ClassValue(1, "water", "#419bdf"),
    ClassValue(2, "trees", "#397d49"),
    ClassValue(4, "flooded vegetation", "#7a87c6"),
    ClassValue(5, "crops", "#e49635"),
    ClassValue(7, "built-up", "#c4281b"),
    ClassValue(8, "bare ground", "#a59b8f"),
    ClassValue(9, "snow or ice", "#a8ebff"),
    ClassValue(10, "clouds", "#616161"),
    ClassValue(11, "rangeland", "#e3e2c3"),
)
_CLOUD_MASK = (
    ClassValue(0, "clear", "#2b8a3e"),
    ClassValue(1, "thick cloud", "#ffffff"),
    ClassValue(2, "thin cloud", "#b0c4de"),
    ClassValue(3, "shadow", "#343a40"),
)


def _raster(
    name: str,
    published: str,
    title: str,
    source: Source | None,
    bands: str,
    pixel_size: float,
    autoencoder: str,
    scale_factor: float,
    **others: object,
) -> ModalitySpec:
    side = round(_PATCH_METRES / pixel_size)
    values: dict[str, object] = {
        "kind": Kind.RASTER,
        "dtype": "uint16",
        "nodata": 65_535.0,
        "unit": "reflectance x 10000",
        "normalisation": REFLECTANCE,
        **others,
    }
    return ModalitySpec(
        name=name,
        title=title,
        bands=tuple(bands.split()),
        side=side,
        pixel_size=pixel_size,
        folder=name,
        source=source,
        autoencoder=f"mespinosami/copgen-vaes/{autoencoder}_latent_8",
        latent=(8, side // 8, side // 8),
        scale_factor=scale_factor,
        patch_size=2,
        published=published,
        **values,  # type: ignore[arg-type]
    )


def _scalar(name: str, published: str, title: str, bands: str, rule: Rule, rendering: Rendering) -> ModalitySpec:
    names = tuple(bands.split())
    return ModalitySpec(
        name=name,
        title=title,
        kind=Kind.SCALAR,
        bands=names,
        side=1,
        pixel_size=0.0,
        normalisation=Normalisation(rule),
        picture=PictureRule(rendering, names),
        folder=name,
        dtype="float32",
        latent=(1, 1, 3),
        scale_factor=1.0,
        patch_size=1,
        published=published,
    )


def _colours(*bands: str) -> PictureRule:
    return PictureRule(Rendering.TRUE_COLOUR, bands)


def _stretch(*bands: str, high: float) -> PictureRule:
    return PictureRule(Rendering.STRETCH, bands, high=high)


_CLASSES = {"kind": Kind.CLASSES, "dtype": "uint8", "nodata": 255.0, "unit": "class"}
_ONE_HOT = Normalisation(Rule.ONE_HOT)
_RED_EDGE = ("B11", "B8A", "B05")
_COPGEN_2026 = (  # names of the published checkpoints sorted as ASCII text, which is the network's order
    _scalar("place", "3d_cartesian_lat_lon", "Place", "x y z", Rule.PLACE, Rendering.PLACE),
    _raster(
        "dem_m",
        "DEM_DEM",
        "Elevation",
        DEM,
        "DEM",
        30,
        "DEM_64x64_DEM",
        0.404247,
        dtype="float32",
        nodata=-9999.0,
        unit="m",
        normalisation=HEIGHT,
        picture=_ELEVATION,
    ),
    _raster(
        "land_cover",
        "LULC_LULC",
        "Land cover",
        None,
        "LULC",
        10,
        "LULC_192x192_LULC",
        0.464794,
        normalisation=_ONE_HOT,
        picture=PictureRule(Rendering.CLASSES, ("LULC",)),
        classes=_LAND_COVER,
        **_CLASSES,
    ),
    _raster(
        "s1_db",
        "S1RTC_vh_vv",
        "Sentinel-1 RTC",
        S1RTC,
        "vv vh",
        10,
        "S1RTC_192x192_VV_VH",
        0.633804,
        dtype="float32",
        nodata=-9999.0,
        unit="linear power",
        normalisation=BACKSCATTER,
        picture=_RADAR,
    ),
    _raster(
        "s2_l1c_60m",
        "S2L1C_B01_B09_B10",
        "Sentinel-2 L1C, 60 m",
        S2L1C,
        "B01 B09 B10",
        60,
        "S2L1C_32x32_B1_9_10",
        0.565812,
        picture=_stretch("B09", "B01", "B10", high=6_000),
    ),
    _raster(
        "s2_l1c_10m",
        "S2L1C_B02_B03_B04_B08",
        "Sentinel-2 L1C, 10 m",
        S2L1C,
        "B04 B03 B02 B08",
        10,
        "S2L1C_192x192_B4_3_2_8",
        0.772514,
        picture=_colours("B04", "B03", "B02"),
    ),
    _raster(
        "s2_l1c_20m",
        "S2L1C_B05_B06_B07_B11_B12_B8A",
        "Sentinel-2 L1C, 20 m",
        S2L1C,
        "B05 B06 B07 B8A B11 B12",
        20,
        "S2L1C_96x96_B5_6_7_8A_11_12",
        0.765817,
        picture=_stretch(*_RED_EDGE, high=6_000),
    ),
    _raster(
        "cloud_mask",
        "S2L1C_cloud_mask",
        "Cloud mask",
        S2L1C,
        "cloud_mask",
        10,
        "S2L1C_192x192_cloud_mask",
        0.557045,
        normalisation=_ONE_HOT,
        picture=PictureRule(Rendering.CLASSES, ("cloud_mask",)),
        classes=_CLOUD_MASK,
        **_CLASSES,
    ),
    _raster(
        "s2_l2a_60m",
        "S2L2A_B01_B09",
        "Sentinel-2 L2A, 60 m",
        S2L2A,
        "B01 B09",
        60,
        "S2L2A_32x32_B1_9",
        0.571367,
        picture=_stretch("B09", "B01", "B01", high=6_000),
    ),
    _raster(
        "s2_l2a_10m",
        "S2L2A_B02_B03_B04_B08",
        "Sentinel-2 L2A, 10 m",
        S2L2A,
        "B04 B03 B02 B08",
        10,
        "S2L2A_192x192_B4_3_2_8",
        0.853416,
        picture=_colours("B04", "B03", "B02"),
    ),
    _raster(
        "s2_l2a_20m",
        "S2L2A_B05_B06_B07_B11_B12_B8A",
        "Sentinel-2 L2A, 20 m",
        S2L2A,
        "B05 B06 B07 B8A B11 B12",
        20,
        "S2L2A_96x96_B5_6_7_8A_11_12",
        0.567267,
        picture=_stretch(*_RED_EDGE, high=6_000),
    ),
    _scalar("time", "mean_timestamps", "Time", "sin cos year", Rule.TIME, Rendering.DATE),
)

SPECS = (*_BETA, *_COPGEN_2026)
BETA = Family("beta", "COP-GEN-Beta: four thumbnails", tuple(s.name for s in _BETA), _SIDE * PIXEL_METRES)
COPGEN_2026 = Family(
    "copgen-2026",
    "COP-GEN (2026): native bands, classes, place and time",
    tuple(spec.name for spec in _COPGEN_2026),
    _PATCH_METRES,
    covers=True,
)
FAMILIES = (BETA, COPGEN_2026)
