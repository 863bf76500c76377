"""What a picture holds at one point, in the unit of its modality."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from copgen_cli.inputs import Frame, read_middle
from copgen_cli.modalities import Modality, ModalitySpec
from copgen_cli.outputs import STD_GAIN
from copgen_cli.studio.generation import Kept
from copgen_cli.studio.problems import NotThereError
from copgen_cli.studio.results.pictures import read_view
from copgen_cli.studio.schemas import PixelValues

LEVELS = "grey levels"
COLOURS = ("red", "green", "blue")


def values_at(kept: Kept, of: str, at: tuple[float, float], frame: Frame) -> PixelValues:
    """Values of `pictures/NUMBER`, `truth/MODALITY` or `given/MODALITY`.

    Args:
        at: shares of width and height, from 0 to below 1.

    Raises:
        NotThereError: there is no such picture.
    """
    kind, _, name = of.partition("/")
    if kind == "pictures":
        return _of_picture(kept, of, int(name) if name.isdecimal() else -1, at)
    files = kept.truths if kind == "truth" else kept.inputs
    modality = next((known for known in files if str(known) == name), None)
    if modality is None:
        raise NotThereError.of("picture of", name)
    file = files[modality]
    if modality.spec.is_picture:
        pixels = read_view(file, modality, frame).conditions[modality].pixels
        assert pixels is not None, "a picture has pixels"
        return _told(of, pixels.transpose(2, 0, 1), at, modality.spec, "sample")
    values, missing, _ = read_middle(file, modality)
    return _told(of, np.where(missing, np.nan, values), at, modality.spec, "sample")


def _of_picture(kept: Kept, of: str, number: int, at: tuple[float, float]) -> PixelValues:
    if not 0 <= number < len(kept.files):
        raise NotThereError.of("picture", str(number))
    picture = kept.result.pictures[number]
    spec = Modality(picture.modality).spec
    column, row = int(at[0] * picture.width), int(at[1] * picture.height)
    values = _read_pixel(kept.files[number], column, row)
    if picture.kind == "std" and spec.is_picture and not kept.is_map:
        values = values / STD_GAIN
    told = _told(of, values[:, None, None], (0.0, 0.0), spec, picture.kind)
    return told.model_copy(update={"column": column, "row": row})


def _read_pixel(file: Path, column: int, row: int) -> np.ndarray:
    """(B,) values, not a number where there is none."""
    import rasterio
    from rasterio.windows import Window

    with rasterio.open(file, driver="GTiff") as dataset:
        pixel = dataset.read(window=Window(column, row, 1, 1), out_dtype="float64", masked=True)
    return np.asarray(pixel.filled(np.nan)[:, 0, 0])


def _told(of: str, values: np.ndarray, at: tuple[float, float], spec: ModalitySpec, kind: str) -> PixelValues:
    """Of (B, H, W) values."""
    height, width = values.shape[1:]
    column, row = int(at[0] * width), int(at[1] * height)
    found = [float(value) for value in values[:, row, column]]
    if spec.is_picture and (spec.grey or kind == "std"):
        found = found[:1]
    bands = list(spec.bands) if not spec.is_picture else ["grey"] if len(found) == 1 else list(COLOURS)
    unit = LEVELS if kind == "std" and spec.is_picture else "" if spec.is_picture or spec.classes else spec.unit
    meaning = next((one.name for one in spec.classes if kind != "std" and one.value == found[0]), None)
    numbers = [value if math.isfinite(value) else None for value in found]
    return PixelValues(of=of, column=column, row=row, bands=bands, values=numbers, unit=unit, meaning=meaning)
