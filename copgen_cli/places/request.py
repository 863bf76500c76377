"""What a scene is asked for, and whether it goes together: area, grid, layers, roles; before anything is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from copgen_cli.errors import UsageError
from copgen_cli.modalities import PUBLISHED, Modality, Role, as_modality, parse_modalities, require_archived
from copgen_cli.places.area import Area, area_of_box, area_of_cell, read_area
from copgen_cli.places.grid import (
    PIXEL,
    Grid,
    crop_to_area,
    extent_of_raster,
    grid_of_area,
    grid_of_raster,
)
from copgen_cli.places.layers import (
    PIECE,
    ArchiveLayer,
    Layer,
    Mask,
    RasterLayer,
    area_of_first_cell,
    cloud_masks,
    open_archive,
    open_mask,
    open_raster,
)
from copgen_cli.rasters import RasterBands, share_pixels
from copgen_cli.records import SampleRequest
from copgen_cli.settings import Settings
from copgen_cli.storage import require_local

CLOUDS = "clouds"
"""The mask that the archive has of its own pictures."""


class Missing(StrEnum):
    """What becomes of pixels in which a condition has no value."""

    GENERATE = "generate"
    """Drawn without it, as if it had been left out there."""
    LEAVE_OUT = "leave-out"
    """Left out of what is written."""


@dataclass(frozen=True, slots=True)
class SceneOptions:
    """What one call asks for besides the settings."""

    generate: str | None
    condition: str | None = None
    inputs: tuple[str, ...] = ()
    aoi: Path | None = None
    bbox: tuple[float, float, float, float] | None = None
    cell: str | None = None
    crs: str | None = None
    mask: str | None = None
    """A raster, or CLOUDS for the masks of the archive."""
    missing: Missing = Missing.GENERATE
    spread: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class SceneRequest:
    """What is to be drawn, where, and from what."""

    area: Area
    grid: Grid
    sample: SampleRequest
    layers: Mapping[Modality, Layer]
    """Of conditions, and of generated modalities that are known in part."""
    gaps: Mask | None
    truth: Mapping[Modality, Layer]
    """Of other generated modalities, where the region has them."""
    missing: Missing
    spread: bool
    notes: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def filled(self) -> tuple[Modality, ...]:
        return tuple(modality for modality in self.sample.generated if modality in self.layers)

    @property
    def name(self) -> str:
        """Of the scene: area, conditions and what is generated."""
        given = "+".join(self.sample.conditions) or "nothing"
        return f"{self.area.name}-{given}-to-{'+'.join(self.sample.generated)}"

    def inputs(self) -> dict[str, Any]:
        """What it is made from, with hashes, as JSON."""
        return {str(modality): layer.describe() for modality, layer in self.layers.items()}


def check_scene(settings: Settings, options: SceneOptions) -> SceneRequest:
    """What settings and options amount to, as far as it goes together.

    Raises:
        UsageError: the options contradict one another, or name ground, rasters or modalities that there are not.
        MismatchError: a raster has no CRS.
        BrokenInputError: a file can not be read.
    """
    generated = parse_modalities(options.generate or "", option="--generate")
    if not generated:
        raise UsageError(
            "Nothing to generate.", hint=f"Give --generate with one or more of {', '.join(PUBLISHED)}: --generate dem"
        )
    inputs = parse_rasters(options.inputs)
    require_archived([*generated, *inputs], "scene")
    rasters = {modality: open_raster(paths, modality) for modality, paths in inputs.items()}
    conditions = _conditions(options, generated, rasters)
    require_archived(conditions, "scene")
    area = _area_of(settings, options, conditions, rasters)
    grid = _grid_of(settings, options, area, conditions, rasters)
    layers: dict[Modality, Layer] = {m: RasterLayer(m, raster, grid) for m, raster in rasters.items()}
    from_region = [modality for modality in conditions if modality not in rasters]
    from_region += _filled_from_region(options, generated, rasters, conditions)
    if from_region:
        layers |= open_archive(settings.workspace.subset, from_region, area)
    _check_reach(layers, grid, area)
    _check_gaps(options, generated, layers, grid)
    gaps = _mask(options.mask, [layers[modality] for modality in generated if modality in layers])
    steps, solver = settings.sample.calls()  # until the model is known, which may be made for others
    sample = SampleRequest(
        roles=dict.fromkeys(generated, Role.GENERATE) | dict.fromkeys(conditions, Role.CONDITION),
        n_samples=settings.sample.n_samples,
        steps=steps,
        solver=solver,
        guidance_scale=settings.sample.guidance_scale,
        seed=settings.sample.seed,
    )
    if options.spread and sample.n_samples < 2:
        raise UsageError("--spread of one sample.", hint="Add --n-samples 4, or more.")
    if options.missing is Missing.LEAVE_OUT and not conditions:
        raise UsageError(
            "--missing leave-out without a condition leaves nothing out.", hint="Add one, or drop --missing."
        )
    truth = _truth(settings, area, [m for m in generated if m not in layers], from_region)
    notes, warnings = _notes(area, layers, gaps, grid), _warnings(layers, gaps, sample, grid)
    return SceneRequest(area, grid, sample, layers, gaps, truth, options.missing, options.spread, notes, warnings)


def parse_rasters(texts: Sequence[str]) -> dict[Modality, list[Path]]:
    """Read `s1_rtc=vv_vh.tif`, `s1_rtc=vv.tif,vh.tif` and the like, in the order given.

    Raises:
        UsageError: one is not MODALITY=RASTER, names a modality again, or a path that is not there.
    """
    rasters: dict[Modality, list[Path]] = {}
    for text in texts:
        name, equals, paths = text.partition("=")
        if not equals or not paths:
            raise UsageError(
                f"--input {text} is not MODALITY=RASTER.", hint="For instance: --input s2_l2a=reflectance.tif"
            )
        modality = as_modality(name)
        if modality in rasters:
            raise UsageError(f"--input names {modality} twice.", hint="Several files of one: s1_rtc=vv.tif,vh.tif")
        require_local(paths, f"--input {name}")
        whole = Path(paths).expanduser()
        rasters[modality] = [whole] if whole.exists() else [Path(path).expanduser() for path in paths.split(",")]
        for path in rasters[modality]:
            if not path.exists():
                raise UsageError(f"There is no raster or folder {path}.", hint=f"Check the path after --input {name}=")
    return rasters


def _conditions(
    options: SceneOptions, generated: Sequence[Modality], rasters: Mapping[Modality, RasterBands]
) -> tuple[Modality, ...]:
    if options.condition is None:
        return tuple(modality for modality in rasters if modality not in generated)
    conditions = parse_modalities(options.condition, option="--condition")
    both = [str(modality) for modality in conditions if modality in generated]
    if both:
        raise UsageError(
            f"{', '.join(both)} stands in --condition and in --generate.",
            hint="What is given is not generated; to fill its gaps, give it by --input and --generate alone.",
        )
    idle = [str(modality) for modality in rasters if modality not in (*conditions, *generated)]
    if idle:
        raise UsageError(
            f"--input gives {', '.join(idle)}, which --condition does not name.",
            hint="Add it to --condition, or leave --condition out: then the inputs are the condition.",
        )
    return conditions


def _area_of(
    settings: Settings,
    options: SceneOptions,
    conditions: Sequence[Modality],
    rasters: Mapping[Modality, RasterBands],
) -> Area:
    named = [name for name in ("aoi", "bbox", "cell") if getattr(options, name) is not None]
    if len(named) > 1:
        raise UsageError(f"{' and '.join('--' + name for name in named)} each name an area.", hint="Keep one of them.")
    if options.aoi is not None:
        return read_area(options.aoi)
    if options.bbox is not None:
        return area_of_box(*options.bbox)
    if options.cell is not None:
        return area_of_cell(options.cell)
    if rasters:
        return extent_of_raster(
            next((raster for raster in rasters.values() if grid_of_raster(raster)), next(iter(rasters.values())))
        )
    if conditions:
        return area_of_first_cell(settings.workspace.subset, conditions)
    raise UsageError(
        "No area is named.",
        hint="Give --bbox WEST SOUTH EAST NORTH, --aoi FILE, --cell CELL, or a raster with --input.",
    )


def _grid_of(
    settings: Settings,
    options: SceneOptions,
    area: Area,
    conditions: Sequence[Modality],
    rasters: Mapping[Modality, RasterBands],
) -> Grid:
    """Pixels of a raster, or of a cell, where these will do: what is not resampled stays as sharp as it is."""
    if options.crs is not None:
        return grid_of_area(area, options.crs)
    named = any(option is not None for option in (options.aoi, options.bbox, options.cell))
    for raster in rasters.values():
        grid = grid_of_raster(raster)
        if grid is not None:
            return crop_to_area(grid, area) if named else grid
    if area.cell is not None and any(modality not in rasters for modality in conditions):
        of_region = [modality for modality in conditions if modality not in rasters]
        (layer, *_) = open_archive(settings.workspace.subset, of_region[:1], area).values()
        return layer.tile(area.cell)
    return grid_of_area(area)


def _check_gaps(
    options: SceneOptions, generated: Sequence[Modality], layers: Mapping[Modality, Layer], grid: Grid
) -> None:
    if options.mask is not None and not any(modality in layers for modality in generated):
        raise UsageError(
            "--mask says which pixels to draw anew, and of nothing that is generated are any pixels known.",
            hint=f"Give them: --input {generated[0]}=RASTER",
        )
    for modality in (modality for modality in generated if modality in layers and options.mask is None):
        if all(layers[modality].read(part)[1].all() for part in grid.parts(PIECE)):
            raise UsageError(
                f"{modality} is given and generated, and it has a value everywhere: nothing of it is to be drawn.",
                hint="Say what is to be drawn anew with --mask, or take it from one of the two.",
            )


def _check_reach(layers: Mapping[Modality, Layer], grid: Grid, area: Area) -> None:
    for modality, layer in layers.items():
        if not layer.reaches(grid):
            raise UsageError(
                f"What is given of {modality} has no value in the area {area.name}.",
                hint="Leave it out, or choose ground that it covers: rio bounds shows where a raster lies.",
            )


def _filled_from_region(
    options: SceneOptions,
    generated: Sequence[Modality],
    rasters: Mapping[Modality, RasterBands],
    conditions: Sequence[Modality],
) -> list[Modality]:
    """Generated modalities of which the region gives the pixels outside of the mask: under its own cloud masks those
    that clouds show in, under another all, where anything comes from the region.
    """
    lacking = [modality for modality in generated if modality not in rasters]
    if options.mask == CLOUDS:
        return [modality for modality in lacking if modality.source.has_clouds]
    from_region = not rasters or any(modality not in rasters for modality in conditions)
    return lacking if options.mask is not None and from_region else []


def _mask(named: str | None, filled: Sequence[Layer]) -> Mask | None:
    if named is None:
        return None
    if named != CLOUDS:
        require_local(named, "--mask")
        return open_mask(Path(named).expanduser())
    of_archive = [layer for layer in filled if isinstance(layer, ArchiveLayer) and layer.modality.source.has_clouds]
    if not of_archive:
        raise UsageError(
            f"--mask {CLOUDS} is of the archive's cells, and nothing that is generated comes from there.",
            hint="Name a raster that says where clouds are: --mask clouds.tif",
        )
    return cloud_masks(of_archive[0])


def _truth(
    settings: Settings, area: Area, generated: Sequence[Modality], from_region: Sequence[Modality]
) -> dict[Modality, Layer]:
    """What the region has of the generated modalities, where conditions come from it."""
    if not from_region:
        return {}
    known = open_archive(settings.workspace.subset, from_region[:1], area)
    scenes = next(iter(known.values())).scenes
    return {m: ArchiveLayer(m, scenes) for m in generated if all(m in scene.products for scene in scenes)}


def _notes(area: Area, layers: Mapping[Modality, Layer], gaps: Mask | None, grid: Grid) -> tuple[str, ...]:
    notes = [*area.notes]
    for layer in layers.values():
        notes += layer.notes
    for raster in gaps.rasters if gaps is not None else ():
        if raster.place is not None and not share_pixels(raster.place, grid.place):
            notes.append(f"{raster.files[0].name} has another grid: it is brought to that of the scene.")
    corners = [grid.place.to_pixels(*point) for point in area.points_in(grid.place.crs)]
    beyond = max(max(-x, x - grid.width, -y, y - grid.height) for x, y in corners)
    if beyond > 1 and area.cell is None:
        far = f"{beyond * PIXEL / 1000:.1f} km"
        notes.append(f"The area reaches {far} beyond the raster that gives the pixels: it is cut to that.")
    return tuple(notes)


def _warnings(
    layers: Mapping[Modality, Layer], gaps: Mask | None, sample: SampleRequest, grid: Grid
) -> tuple[str, ...]:
    warnings = []
    if gaps is not None and not any(gaps.read(part).any() for part in grid.parts(PIECE)):
        warnings.append("the mask marks nothing in the area.")
    if any(modality in layers for modality in sample.generated) and not sample.conditions:
        warnings.append(
            "nothing else is given, so gaps are filled with ground that does not exist; give another modality with "
            "--input."
        )
    return tuple(warnings)
