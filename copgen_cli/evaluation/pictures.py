"""The pictures that are judged: sets of truths and samples, and how they are found in folders.

N places, n samples of each, H and W pixels.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from copgen_cli.errors import BrokenInputError, CopgenError, MismatchError, UsageError
from copgen_cli.inputs import SUFFIXES, read_rgb
from copgen_cli.metrics import place_of
from copgen_cli.modalities import Modality, Split, archived
from copgen_cli.outputs import read_provenance

Pictures = NDArray[np.uint8]

UNNAMED = "pictures"
"""What the only group of a folder is called that has no folder per modality."""
MOST_TRAINING_PICTURES = 2000
"""Pictures of each modality that samples are compared with for copies."""
_SAMPLE = re.compile(r"(?P<name>.+)_v(?P<number>\d+)")
_SPREAD = ("_mean", "_std")
"""How names of pictures end that `copgen sample --spread` computes from samples."""


@dataclass(frozen=True, slots=True, eq=False)
class PictureSet:
    """Samples of one target, and the truth of the same places, or of others where no names match."""

    target: str
    """A modality, or `UNNAMED`."""
    conditions: tuple[Modality, ...] | None
    """What the samples were made from; empty for nothing, None where nobody said."""
    truth_names: tuple[str, ...]
    truth: Pictures
    """(N, H, W, 3)."""
    names: tuple[str, ...]
    """Places that samples show; equal to `truth_names` where the two are `matched`."""
    samples: Pictures
    """(K, n, H, W, 3)."""
    inputs: Mapping[Modality, Pictures] = field(default_factory=dict)
    """(K, H, W, 3) each: the conditions, where they are at hand."""
    via: str = ""
    """In a cycle: what was translated to and back from."""
    translations: int = 0
    """In a cycle: how many there were."""

    @property
    def matched(self) -> bool:
        """Whether the i-th samples and the i-th truth show one place."""
        return self.names == self.truth_names

    @property
    def condition(self) -> str:
        """As tables and JSON write it."""
        return "?" if self.conditions is None else name_of(self.conditions)


def name_of(modalities: Sequence[Modality]) -> str:
    """Several modalities in one word."""
    return "+".join(modalities) or "nothing"


def read_folders(
    real: Path, generated: Path, *, limit: int | None, seed: int, note: Callable[[str], None]
) -> list[PictureSet]:
    """Read two folders of pictures and match them by name, one set per modality.

    A folder holds pictures, or one folder of them per modality (`dem` or `DEM_thumbnail`); where the true ones are
    split, the test split counts. Samples are named as the
    place they show, or `<place>_v<k>`; `<place>_mean` and `<place>_std` are none. Where no name matches, the two are
    still compared as sets.

    Args:
        limit: places of each modality to use, spread over cells by `choose_places`; None is all.
        seed: of that choice.
        note: told what is left out, and that there are sets without a match.

    Raises:
        CopgenError: a folder has no pictures or no samples, or the two share no modality.
        MismatchError: pictures are of different sizes.
    """
    groups, groups_generated = _groups(_held_out(real)), _groups(generated)
    shared = [name for name in groups if name in groups_generated]
    if not shared:
        raise CopgenError(
            f"{real} has {', '.join(groups)} and {generated} has {', '.join(groups_generated)}: nothing to compare.",
            hint="Draw single pictures, with `copgen sample --save-as pngs`: pages of a grid can not be judged."
            if any(generated.glob("grid_*.png"))
            else "Give two folders of pictures, or two with folders named as modalities, such as dem.",
        )
    for folder, inside in ((real, groups), (generated, groups_generated)):
        alone = [name for name in inside if name not in shared]
        if alone:
            note(f"Left out, being in {folder} alone: {', '.join(alone)}.")
    return [_read_group(name, groups[name], groups_generated[name], limit, seed, note) for name in shared]


def choose_places(names: Sequence[str], limit: int | None, seed: int) -> tuple[str, ...]:
    """Some of the places, sorted; from as many cells as there are before a second patch of any.

    The choice depends on the names and the seed alone; without a limit it is all of them.
    """
    order = random.Random(seed)
    patches: dict[str, list[str]] = defaultdict(list)
    for name in sorted(names):
        patches[place_of(name)].append(name)
    cells = sorted(patches)
    order.shuffle(cells)
    for cell in cells:
        order.shuffle(patches[cell])
    rounds = max(map(len, patches.values()), default=0)
    in_turn = [patches[cell][turn] for turn in range(rounds) for cell in cells if turn < len(patches[cell])]
    return tuple(sorted(in_turn[:limit]))


def list_pictures(folder: Path) -> dict[str, Path]:
    """Stem to file of the pictures in a folder, sorted by name."""
    if not folder.is_dir():
        raise CopgenError(f"There is no folder {folder}.", hint="Check the path.")
    return {file.stem: file for file in sorted(folder.iterdir()) if file.suffix.lower() in SUFFIXES}


def read_pictures(files: Sequence[Path]) -> Pictures:
    """(n, H, W, 3) pictures of one size.

    Raises:
        MismatchError: their sizes differ.
        BrokenInputError: one can not be read.
    """
    first = read_rgb(files[0])
    pictures = np.empty((len(files), *first.shape), np.uint8)
    for i, file in enumerate(files):
        picture = first if i == 0 else read_rgb(file)
        if picture.shape != first.shape:
            raise MismatchError(
                f"{file} is {_size(picture)} px, {files[0]} is {_size(first)}.",
                hint="Pictures that are compared need one size.",
            )
        pictures[i] = picture
    return pictures


def read_training(folder: Path, sizes: Mapping[str, tuple[int, int]], seed: int) -> dict[str, Pictures]:
    """Pictures that a model was trained on, by target; up to `MOST_TRAINING_PICTURES`, drawn by the seed.

    Args:
        folder: of pictures, or of one folder of them per modality; where it has splits, its train split counts.
        sizes: height and width of the samples of each target.

    Returns:
        Those that there are; nothing where there is no such folder.

    Raises:
        MismatchError: they are of another size than the samples.
    """
    groups = _filled(folder / Split.TRAIN if (folder / Split.TRAIN).is_dir() else folder)
    found: dict[str, Pictures] = {}
    for target in (target for target in sizes if target in groups):
        files = list_pictures(groups[target])
        pictures = read_pictures([files[name] for name in choose_places(list(files), MOST_TRAINING_PICTURES, seed)])
        height, width = sizes[target]
        if pictures.shape[1:3] != (height, width):
            raise MismatchError(
                f"Training pictures of {target} in {groups[target]} are {_size(pictures[0])} px, "
                f"its samples {width} x {height}.",
                hint="Copies can be found in one size alone: name other pictures with --training.",
            )
        found[target] = pictures
    return found


def _held_out(folder: Path) -> Path:
    """The folder, or its test split where it has splits."""
    if not (folder / Split.TRAIN).is_dir() or (folder / Split.TEST).is_dir():
        return folder / Split.TEST if (folder / Split.TEST).is_dir() else folder
    raise UsageError(f"{folder} has no test split.", hint="Only pictures that training never saw tell anything.")


def _groups(folder: Path) -> dict[str, Path]:
    """What `_filled` finds, if anything.

    Raises:
        CopgenError: there is no folder, or there are no pictures in it.
    """
    if not folder.is_dir():
        raise CopgenError(f"There is no folder {folder}.", hint="Check the path.")
    filled = _filled(folder)
    if not filled:
        raise CopgenError(
            f"There are no pictures in {folder}.", hint="Give a folder of PNGs, or one with a folder per modality."
        )
    return filled


def _filled(folder: Path) -> dict[str, Path]:
    """The folders of modalities that hold pictures, or the folder itself; nothing where it is missing."""
    spellings: dict[Modality, tuple[str, ...]] = {m: (str(m), m.spec.folder) for m in Modality}
    spellings |= {m: (*spellings[m], m.source.name) for m in archived()}
    groups = {str(m): folder / name for m, names in spellings.items() for name in names if (folder / name).is_dir()}
    if not groups and folder.is_dir():
        groups = {UNNAMED: folder}
    return {name: inner for name, inner in groups.items() if list_pictures(inner)}


def _read_group(
    target: str, real: Path, generated: Path, limit: int | None, seed: int, note: Callable[[str], None]
) -> PictureSet:
    truths = list_pictures(real)
    samples = samples_by_place(list_pictures(generated), set(truths))
    if not samples:
        raise CopgenError(
            f"There are no samples in {generated}.", hint="Means and deviations are not judged: add the samples."
        )
    both = [name for name in samples if name in truths]
    alone = {"true": sorted(truths.keys() - samples.keys()), "generated": sorted(samples.keys() - truths.keys())}
    if not both:
        note(f"No names of {target} match: compared as sets.")
    elif any(alone.values()):
        counted = ", ".join(f"{len(names)} {side} ({_some(names)})" for side, names in alone.items() if names)
        note(f"Left out of {target}, having no partner: {counted}.")
    names = choose_places(both or list(samples), limit, seed)
    truth_names = names if both else choose_places(list(truths), limit, seed)
    fewest = min(names, key=lambda name: len(samples[name]))
    n = len(samples[fewest])
    left = sum(len(samples[name]) - n for name in names)
    if left:
        note(f"Only {n} per place of the samples of {target} are judged, as {fewest} has no more; left out: {left}.")
    truth = read_pictures([truths[name] for name in truth_names])
    drawn = read_pictures([file for name in names for file in samples[name][:n]])
    if drawn.shape[1:] != truth.shape[1:]:
        raise MismatchError(
            f"Pictures of {target} are {_size(truth[0])} px in {real} and {_size(drawn[0])} in {generated}.",
            hint="Give both in one size.",
        )
    return PictureSet(
        target=target,
        conditions=_conditions_of(samples[names[0]][0]),
        truth_names=truth_names,
        truth=truth,
        names=names,
        samples=drawn.reshape(len(names), n, *drawn.shape[1:]),
    )


def samples_by_place(files: Mapping[str, Path], truths: set[str]) -> dict[str, list[Path]]:
    """The samples of each place, in order of their numbers; mean and deviation of samples are left out."""
    numbered: dict[str, list[tuple[int, Path]]] = defaultdict(list)
    for stem, file in files.items():
        if stem.endswith(_SPREAD) and stem not in truths:
            continue
        found = None if stem in truths else _SAMPLE.fullmatch(stem)
        name, number = (found["name"], int(found["number"])) if found else (stem, 0)
        numbered[name].append((number, file))
    return {name: [file for _, file in sorted(samples)] for name, samples in numbered.items()}


def _conditions_of(sample: Path) -> tuple[Modality, ...] | None:
    """What a sample says that it was made from; None where it says nothing."""
    try:
        return read_provenance(sample).recipe.request.conditions
    except BrokenInputError:
        return None


def _some(names: Sequence[str]) -> str:
    return ", ".join([*names[:3], *("…" for _ in names[3:4])])


def _size(picture: Pictures) -> str:
    return f"{picture.shape[1]} x {picture.shape[0]}"
