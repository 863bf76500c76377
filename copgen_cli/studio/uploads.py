"""Files that a browser hands in: limited, read by the same readers as those on the command line, kept by hash."""

from __future__ import annotations

import hashlib
import re
import secrets
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from copgen_cli.errors import BrokenInputError, CopgenError
from copgen_cli.inputs import Frame, View, advice_on_scale
from copgen_cli.modalities import Modality
from copgen_cli.rasters import encode_png
from copgen_cli.studio.problems import NotThereError, TooLargeError
from copgen_cli.studio.results.pictures import corners_of, read_view
from copgen_cli.studio.schemas import UploadInfo

KINDS = {
    b"\x89PNG\r\n\x1a\n": ".png",
    b"\xff\xd8\xff": ".jpg",
    b"RIFF": ".webp",
    b"II*\0": ".tif",
    b"MM\0*": ".tif",
    b"II+\0": ".tif",
    b"MM\0+": ".tif",
}
"""How files begin that are taken, and the ending that they get: names of a browser are not used for anything."""


NAME = re.compile(r"[0-9a-f]{20}\.(png|jpg|webp|tif)")
"""Of files that are kept here; others are not ours to remove."""


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that was read once without complaint."""

    info: UploadInfo
    modality: Modality
    file: Path
    png: bytes
    """What the model sees of it."""


@dataclass(slots=True, eq=False)
class Uploads:
    """Those of one server; the oldest make room."""

    folder: Path
    frame: Frame
    most_bytes: int
    most_files: int
    _known: OrderedDict[str, Upload] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    async def receive(self, body: AsyncIterator[bytes]) -> Path:
        """Write a body beside the uploads, as far as it is not too large.

        Raises:
            TooLargeError: it is.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        part = self.folder / f".{secrets.token_hex(8)}.part"
        size = 0
        try:
            with part.open("wb") as stream:
                async for piece in body:
                    size += len(piece)
                    if size > self.most_bytes:
                        raise TooLargeError(
                            f"The file has more than {self.most_bytes:,} bytes.", hint="Give a smaller one."
                        )
                    stream.write(piece)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        return part

    def add(self, part: Path, modality: Modality) -> UploadInfo:
        """Read what was received, and keep it if it can be used.

        Raises:
            BrokenInputError, MismatchError: it can not.
        """
        try:
            suffix = _suffix_of(part)
            digest = hashlib.sha256(f"{modality}\n".encode() + part.read_bytes()).hexdigest()[:20]
            file = self.folder / f"{digest}{suffix}"
            upload = self._read(part, digest, modality, file)
            part.replace(file)
        except CopgenError as error:
            raise type(error)(_unnamed(str(error), part), hint=_unnamed(error.hint, part)) from error
        finally:
            part.unlink(missing_ok=True)
        with self._lock:
            self._known[digest] = upload
            self._known.move_to_end(digest)
            self._make_room()
        return upload.info

    def get(self, name: str) -> Upload:
        """Raises NotThereError where there is none of that id."""
        with self._lock:
            found = self._known.get(name)
        if found is None or not found.file.is_file():
            raise NotThereError.of("upload", name)
        return found

    def _make_room(self) -> None:
        """Remove the oldest files, those of an earlier studio in this folder among them."""
        files = {file.name: file.stat().st_mtime_ns for file in self.folder.iterdir() if NAME.fullmatch(file.name)}
        used = {upload.file.name for upload in self._known.values()}
        earlier = sorted(files.keys() - used, key=files.__getitem__)
        oldest = [*earlier, *(upload.file.name for upload in self._known.values())]
        for name in oldest[: max(0, len(oldest) - self.most_files)]:
            self._known.pop(Path(name).stem, None)
            (self.folder / name).unlink(missing_ok=True)

    def _read(self, part: Path, digest: str, modality: Modality, file: Path) -> Upload:
        view: View = read_view(part, modality, self.frame).conditions[modality]
        if view.pixels is None:
            raise BrokenInputError(f"{modality} is no picture.", hint="Type a place or a date instead.")
        side = len(view.pixels)
        corners = None if view.place is None else corners_of(view.place, side, side)
        advice = advice_on_scale(part, modality)
        notes = [_unnamed(advice, part)] if advice else []
        info = UploadInfo(id=digest, modality=str(modality), side=side, corners=corners, notes=notes)
        return Upload(info, modality, file, encode_png(view.pixels))


def _suffix_of(file: Path) -> str:
    with file.open("rb") as stream:
        head = stream.read(12)
    for begin, suffix in KINDS.items():
        if head.startswith(begin) and (suffix != ".webp" or head[8:] == b"WEBP"):
            return suffix
    raise BrokenInputError("The file is no PNG, JPEG, WebP or TIFF.", hint="Give a picture or a GeoTIFF.")


def _unnamed(text: str, part: Path) -> str:
    """Without the path, which says nothing to who handed it in."""
    return text.replace(str(part), "The file")
