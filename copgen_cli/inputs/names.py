"""Which pictures of several folders belong together: those of one name, once the modality is taken off it.

`rome_s1_rtc.png` and `rome_dem.webp` are two views of `rome`; `tile/s1_rtc.png` is a view of `tile`.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

from copgen_cli.modalities import Modality

_EDGES = "_-. "
_SEPARATORS = rf"[{re.escape(_EDGES)}]"


def modality_in(stem: str) -> Modality | None:
    """The modality that a file's name speaks of, if it speaks of one."""
    pattern, spellings = _spelled(tuple(Modality))
    found = pattern.search(stem)
    return spellings[found["token"].lower()] if found else None


def place_of(path: Path) -> str:
    """The name of the place that a picture shows: its stem without the modality, or else its folder's name."""
    found = _spelled(tuple(Modality))[0].search(path.stem)
    if not found:
        return path.stem
    parts = (path.stem[: found.start()].strip(_EDGES), path.stem[found.end() :].strip(_EDGES))
    return "_".join(part for part in parts if part) or path.absolute().parent.name or path.stem


@lru_cache(maxsize=2)
def _spelled(known: tuple[Modality, ...]) -> tuple[re.Pattern[str], dict[str, Modality]]:
    """What finds a modality in a name, and what each spelling stands for; scalars have no files of their own."""
    spellings: dict[str, Modality] = {}
    for modality in known:
        if modality.spec.is_scalar:
            continue
        names = [modality, modality.replace("_", ""), f"{modality}_thumbnail", modality.spec.folder.lower()]
        if modality.spec.is_picture and modality.spec.source is not None:
            source = modality.source.name.lower()
            names += [source, source.replace("-", "_")]
        spellings |= {str(name): modality for name in names}
    tokens = "|".join(sorted(map(re.escape, spellings), key=len, reverse=True))
    pattern = rf"(?:^|(?<={_SEPARATORS}))(?P<token>{tokens})(?=$|{_SEPARATORS})"
    return re.compile(pattern, re.IGNORECASE), spellings
