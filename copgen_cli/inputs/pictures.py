"""Pictures that a user hands in, brought to the square that the model takes; and cut back afterwards.

Larger ones are centre-cropped, as the published script does. Smaller ones are refused unless a resolution is named:
then its central square is padded by reflection, and what is generated is cropped back to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from copgen_cli.errors import BrokenInputError, MeasurementsError, UsageError
from copgen_cli.modalities import Modality
from copgen_cli.rasters import read_colour, read_georeferencing
from copgen_cli.records import Georeferencing
from copgen_cli.storage import readable

Picture = np.ndarray
"""(S, S, 3) uint8."""

FORMATS = ("PNG", "WEBP", "JPEG", "TIFF")
SUFFIXES = frozenset({".png", ".webp", ".jpg", ".jpeg", ".tif", ".tiff"})


@dataclass(frozen=True, slots=True)
class Frame:
    """The square that the model takes, and the part of it that is picture."""

    side: int
    """Of the model's pictures, in pixels."""
    resolution: int
    """Of the part that is picture; the rest, if any, is its reflection."""

    def __post_init__(self) -> None:
        least = self.side // 3 + 1  # the reflection on either side is narrower than the picture
        if not least <= self.resolution <= self.side:
            raise UsageError(
                f"--resolution {self.resolution} can not be brought to {self.side} pixels.",
                hint=f"Choose {least} to {self.side}.",
            )

    def fit(self, pixels: np.ndarray) -> np.ndarray:
        """Centre-crop (H, W, 3) to the resolution, then pad by reflection to (side, side, 3)."""
        square = _central_square(pixels, self.resolution)
        before = (self.side - self.resolution) // 2
        after = self.side - self.resolution - before
        return np.pad(square, ((before, after), (before, after), (0, 0)), mode="reflect")

    def cut_back(self, pixels: np.ndarray) -> np.ndarray:
        """The part of (side, side, 3) that is picture: (resolution, resolution, 3)."""
        before = (self.side - self.resolution) // 2
        return pixels[before : before + self.resolution, before : before + self.resolution]

    def georeferencing_of_square(self, place: Georeferencing, size: tuple[int, int]) -> Georeferencing:
        """Where the whole square lies, given where a picture of that width and height does."""
        before = (self.side - self.resolution) // 2
        left, top = (round((length - self.resolution) / 2) for length in size)
        return _shifted(place, left - before, top - before)

    def georeferencing_of_cut(self, place: Georeferencing) -> Georeferencing:
        """Where the part that is picture lies, given where the whole square does."""
        before = (self.side - self.resolution) // 2
        return _shifted(place, before, before)


def read_picture(path: Path, modality: Modality, frame: Frame) -> np.ndarray:
    """Read an 8-bit picture and fit it to the frame.

    Grey becomes three equal channels. Of transparent pictures the colours are kept and the alpha is dropped, as the
    published encoder does. Of a file with several pages, the first counts.

    Returns:
        (side, side, 3) uint8.

    Raises:
        BrokenInputError: it can not be read, has more than eight bits, is very large, or smaller than
            the frame's resolution.
    """
    return read_picture_and_size(path, modality, frame)[0]


def read_picture_and_size(path: Path, modality: Modality, frame: Frame) -> tuple[np.ndarray, tuple[int, int]]:
    """As `read_picture`, with width and height of the whole picture, of which the square is the middle.

    Raises:
        BrokenInputError: see `read_picture`.
    """
    pixels = read_rgb(path)
    height, width = pixels.shape[:2]
    if min(height, width) < frame.resolution:
        raise BrokenInputError(
            f"{path} is {width} x {height} px; the model takes {frame.resolution} x {frame.resolution}.",
            hint=_advice_for_small(min(height, width), modality, frame),
        )
    return frame.fit(pixels), (width, height)


def read_place(path: Path, frame: Frame) -> Georeferencing | None:
    """Where the square that `read_picture` takes lies on the ground; None if the file does not say."""
    known = read_georeferencing(path)
    return None if known is None else frame.georeferencing_of_square(*known)


def advice_on_scale(path: Path, modality: Modality) -> str | None:
    """A word on a picture that looks like an elevation thumbnail as the archive holds it; None for any other.

    Its pixels are three times as large on the ground as those that the model knows.
    """
    if not modality.spec.grey or modality.spec.source is None:
        return None
    raw = modality.source.thumbnail_size
    try:
        with Image.open(readable(path), formats=FORMATS) as picture:
            shorter = min(picture.size)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None  # reading it will say what is wrong
    if abs(shorter - raw) > raw // 20:
        return None
    return (
        f"{path} is {shorter} px wide, as elevation thumbnails are in the archive, with pixels of "
        f"{modality.spec.pixel_size:g} m; the model knows them enlarged threefold, as `copgen prepare` does."
    )


def read_rgb(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 of a picture of any supported format.

    Raises:
        BrokenInputError: see `read_picture`.
    """
    try:
        return read_colour(path, FORMATS)
    except MeasurementsError:
        raise
    except BrokenInputError as error:
        raise BrokenInputError(
            str(error),
            hint="Give an 8-bit PNG, WebP, JPEG or TIFF of the place alone, rendered like the thumbnails that "
            "`copgen download` fetches: these are what the model knows.",
        ) from error


def _shifted(place: Georeferencing, columns: int, rows: int) -> Georeferencing:
    a, b, c, d, e, f = place.transform
    return Georeferencing(place.crs, (a, b, c + a * columns + b * rows, d, e, f + d * columns + e * rows))


def _central_square(pixels: np.ndarray, side: int) -> np.ndarray:
    """The middle of a picture; an odd margin is halved with rounding to even, as torchvision's centre crop does."""
    height, width = pixels.shape[:2]
    top, left = round((height - side) / 2), round((width - side) / 2)
    return pixels[top : top + side, left : left + side]


def _advice_for_small(shorter: int, modality: Modality, frame: Frame) -> str:
    if shorter <= frame.side // 3:
        return f"Give a picture of at least {frame.side} px."
    pad = f"--resolution {shorter} pads it by reflection and crops the result back."
    if modality.spec.grey:
        enlarged = "An elevation thumbnail has a third of the pixels of the others: `copgen prepare` enlarges it. "
        return enlarged + pad
    return pad
