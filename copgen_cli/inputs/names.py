"""Which pictures of several folders belong together: those of one name, once the modality is taken off it.

`rome_s1_rtc.png` and `rome_dem.webp` are two views of `rome`; `tile/s1_rtc.png` is a view of `tile`.
"""

from __future__ import annotations

import re
from pathlib import Path

from copgen_cli.modalities import Modality

_SPELLINGS = {
    spelling: modality
    for modality in Modality
    for spelling in (
        modality.value,
        modality.value.replace("_", ""),
        f"{modality}_thumbnail",
        modality.facts.folder.lower(),
        modality.facts.source.lower(),
        modality.facts.source.lower().replace("-", "_"),
    )
}
_EDGES = "_-. "
_SEPARATORS = rf"[{re.escape(_EDGES)}]"
_TOKEN = re.compile(
    rf"(?:^|(?<={_SEPARATORS}))(?P<token>{'|'.join(sorted(map(re.escape, _SPELLINGS), key=len, reverse=True))})"
    rf"(?=$|{_SEPARATORS})",
    re.IGNORECASE,
)


def modality_in(stem: str) -> Modality | None:
    """The modality that a file's name speaks of, if it speaks of one."""
    found = _TOKEN.search(stem)
    return _SPELLINGS[found["token"].lower()] if found else None


def place_of(path: Path) -> str:
    """The name of the place that a picture shows: its stem without the modality, or else its folder's name."""
    found = _TOKEN.search(path.stem)
    if not found:
        return path.stem
    parts = (path.stem[: found.start()].strip(_EDGES), path.stem[found.end() :].strip(_EDGES))
    return "_".join(part for part in parts if part) or path.absolute().parent.name or path.stem
