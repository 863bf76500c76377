"""`copgen render`: bands to the picture that a model of thumbnails knows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from copgen_cli import console
from copgen_cli.errors import UsageError
from copgen_cli.options import (
    DATA_PANEL,
    MADE_PANEL,
    PATH,
    WRITTEN_PANEL,
    JsonOption,
    complete_assignments,
    modality_names,
)
from copgen_cli.storage import as_path


def render(
    *,
    input: Annotated[
        str,
        typer.Option(
            metavar="MODALITY=RASTER",
            help="A GeoTIFF of bands, or a folder with one for each.",
            autocompletion=complete_assignments(modality_names),
            rich_help_panel=DATA_PANEL,
        ),
    ],
    bands: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Numbers of red, green and blue, or of VV and VH.",
            show_default="by their descriptions, or by how many there are",
            rich_help_panel=MADE_PANEL,
        ),
    ] = None,
    output: Annotated[
        Path,
        typer.Option(
            parser=as_path,
            metavar=PATH,
            help="The PNG to write; its place goes beside, as .aux.xml.",
            rich_help_panel=WRITTEN_PANEL,
        ),
    ],
    json: JsonOption = False,
) -> None:
    """Render a raster of measurements to the picture that `copgen sample --input` takes.

    Example:  copgen render --input s1_rtc=vv_vh.tif --output radar.png
    """
    from copgen_cli.inputs import parse_inputs
    from copgen_cli.modalities import require_archived
    from copgen_cli.rasters import (
        encode_png,
        encode_sidecar,
        find_bands,
        georeferencing_of_picture,
        read_measurements,
        render_picture,
    )
    from copgen_cli.stages import write_atomically

    ((modality, raster),) = parse_inputs([input]).items()
    require_archived([modality], "render")
    sidecar = output.with_name(f"{output.name}.aux.xml")
    for file in (output, sidecar):
        if file.exists():
            raise UsageError(f"{file} is there already.", hint="Choose another name, or move it away.")
    measured = read_measurements(find_bands([raster], modality, _numbers(bands)))
    picture = render_picture(measured, modality)
    place = georeferencing_of_picture(measured, picture)
    if place is not None:
        write_atomically(sidecar, encode_sidecar(place))
    write_atomically(output, encode_png(picture))
    facts = {
        "picture": output,
        "width": picture.shape[1],
        "height": picture.shape[0],
        "crs": place.crs if place else None,
        "missing_pixels": int(measured.missing.sum()),
    }
    console.result_json(facts) if json else console.result("Rendered", **facts)


def _numbers(text: str | None) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")] if text else []
    except ValueError:
        numbers = [0]
    if any(number < 1 for number in numbers):
        raise UsageError(f"--bands {text} is no list of numbers from 1.", hint="For instance: --bands 4,3,2")
    return numbers
