"""The whole way on a simulated region, as the commands that one would type: what `copgen quickstart` runs.

Each step is a real command line, so that what is shown is what can be repeated by hand. They share one process: most
would otherwise take longer to load torch than to do their work.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from copgen_cli.errors import UsageError
from copgen_cli.modalities import Split
from copgen_cli.model import BUNDLED_NAME
from copgen_cli.patches import SplitRule, split_of
from copgen_cli.quickstart_page import figure, scores, section, tour_page, what_next
from copgen_cli.settings import ENV_PREFIX, HUB_VARIABLES
from copgen_cli.simulation import cells_of_region
from copgen_cli.stages import foreign_file, foreign_files, write_atomically

REGION = "simulated"
BBOX = (0.0, 44.0, 40.0, 50.0)
RUGGED = 0.9
DAYS = ("2020-09-10", "2020-11-05")
"""The kind of country and season that the model in the package learned from."""
TRAIN_RATIO = 0.6
SETTINGS = "copgen.toml"
ARCHIVE = "archive"
DATA = "data"
RUNS = "runs"
PICTURES = "pictures"
REPORT = "report"
PAGE = "index.html"
_HEAD = "# Written by `copgen quickstart`, and read by every `copgen` command that runs in this folder.\n"


@dataclass(frozen=True, slots=True)
class Step:
    """One command line, and what it is for."""

    title: str
    arguments: tuple[str, ...]
    about: str = ""
    """What it does, in a sentence for someone who has not seen it."""

    @property
    def line(self) -> str:
        return shlex.join(("copgen", *self.arguments))


def steps(cells: int, train_steps: int, seed: int) -> tuple[Step, ...]:
    """The way from nothing to judged pictures, each step reading what the one before wrote."""
    model = ("--model", BUNDLED_NAME)
    guided = ("--guidance-scale", "1")
    season = ("--start-date", DAYS[0], "--end-date", DAYS[1])
    plain = ("--no-gaps", "--output", ARCHIVE)
    judged = ("--limit", "8", "--n-samples", "1")

    def sample(title: str, given: str, wanted: str) -> Step:
        condition = ("--condition", given, *guided) if given else ()
        output = f"{PICTURES}/{given.replace(',', '-') or 'nothing'}"
        amounts = ("--n-samples", "2", "--limit", "3")
        return Step(title, ("sample", *model, *condition, "--generate", wanted, *amounts, "--output", output))

    return (
        Step(
            "Make a small Earth whose truth is known",
            ("simulate", "--cells", str(cells), "--rugged", str(RUGGED), *season, "--seed", str(seed), *plain),
            f"An archive of {cells} cells of 10 km, laid out as Major TOM is: elevation, radar, and what Sentinel-2 "
            "sees above and below the air.",
        ),
        Step(
            "Fetch the thumbnails of the region from that archive",
            ("download",),
            "One picture of each cell and modality; with the region rome, it would be the real Earth.",
        ),
        Step(
            "Align, crop and cut them into patches",
            ("prepare",),
            "Sixteen squares of 2.6 km, 256 px wide, of each cell; whole cells go to training or to the test.",
        ),
        Step(
            "Send the patches through the frozen autoencoder",
            ("encode",),
            "The network works on latents, which are an eighth as wide as the pictures.",
        ),
        Step(
            "Pack the result into one store per split",
            ("pack",),
            "One file that training reads without waiting for a disk.",
        ),
        Step(
            "Train the model in the package a little further",
            ("train", "--steps", str(train_steps)),
            "So few steps teach nothing; they show that checkpoints, metrics and a finished model come of it. The "
            "pictures below are of copgen-sim as it comes with the package.",
        ),
        sample("Draw places that do not exist", "", "dem,s1_rtc,s2_l1c,s2_l2a"),
        sample("What could lie below this radar image?", "s1_rtc", "dem,s2_l1c,s2_l2a"),
        sample("From elevation and radar to colour", "dem,s1_rtc", "s2_l1c,s2_l2a"),
        sample("What colour has the ground without the air above it?", "s2_l1c", "s2_l2a"),
        Step(
            "Judge some translations against the truth",
            ("evaluate", *model, "--pairs", "s2_l1c:s2_l2a,s2_l2a:dem", *guided, *judged, "--output", REPORT),
        ),
    )


def claim_folder(folder: Path, *, overwrite: bool) -> None:
    """Make the folder, or take one that quickstart made.

    Args:
        overwrite: remove what quickstart wrote there, and nothing else.

    Raises:
        UsageError: something else lies there, which the settings file or the page might replace.
    """
    folder.mkdir(parents=True, exist_ok=True)
    settings = folder / SETTINGS
    try:
        ours = settings.read_text(encoding="utf-8", errors="replace").startswith(_HEAD)
    except FileNotFoundError:
        ours = not any(folder.iterdir())
    if not ours:
        raise UsageError(f"{folder} holds what quickstart did not write.", hint="Choose another folder with --output.")
    if overwrite:
        written = ARCHIVE, DATA, RUNS, PICTURES, REPORT
        for strange in itertools.chain.from_iterable(foreign_files(folder / name) for name in written):
            raise foreign_file(strange)
        for name in written:
            shutil.rmtree(folder / name, ignore_errors=True)
        (folder / PAGE).unlink(missing_ok=True)


def write_settings(folder: Path, cells: int, seed: int, *, overwrite: bool) -> Path:
    """The settings file that makes the command lines short.

    Args:
        folder: of the tour.
        cells: how many will be simulated, at least two.
        seed: of the simulated region.
        overwrite: replace one that says something else.

    Returns:
        `folder/copgen.toml`.

    Raises:
        UsageError: there is one of other options, or that the user changed.
    """
    file = folder / SETTINGS
    settings = _settings(folder, cells, seed)
    if not overwrite and file.exists() and file.read_text(encoding="utf-8", errors="replace") != settings:
        raise UsageError(
            f"{file} is of another --cells or --seed, or has been changed or moved since.",
            hint="Give the same options again, --overwrite to begin anew, or another --output.",
        )
    write_atomically(file, settings.encode())
    return file


def _settings(folder: Path, cells: int, seed: int) -> str:
    drawn = cells_of_region(BBOX, cells, seed, least_rugged=RUGGED)
    return f"""{_HEAD}
region = "{REGION}"
data_dir = "{DATA}"
runs_dir = "{RUNS}"

[regions.{REGION}]
bbox = {list(BBOX)}
cloud_cover = [0, 10]
seed = {seed}

[download]
endpoint = "{(folder / ARCHIVE).resolve().as_uri()}"

[prepare]
train_ratio = {TRAIN_RATIO}
seed = {_even_split_seed(drawn)}

[encode]
vae = "{BUNDLED_NAME}"

[train]
preset = "small"
init_from = "{BUNDLED_NAME}"
batch_size = 4
lr = 5e-5
preview_every = 0
"""


def _even_split_seed(cells: list[str]) -> int:
    """The first seed that deals out so few cells by the ratio: with any other, a split might stay empty."""
    wanted = min(max(round(TRAIN_RATIO * len(cells)), 1), len(cells) - 1)
    rules = (SplitRule(TRAIN_RATIO, seed) for seed in itertools.count())
    even = (rule for rule in rules if sum(split_of(cell, rule) is Split.TRAIN for cell in cells) == wanted)
    return next(even).seed


def run_step(folder: Path, step: Step, run: Callable[[Sequence[str]], None], options: Sequence[str] = ()) -> int:
    """Run one step in the folder, under the settings of the folder alone.

    Args:
        folder: of the tour.
        step: which one.
        run: runs a command line, and leaves with its exit code.
        options: of `copgen` itself, that stand before the command.

    Returns:
        Its exit code.
    """
    with contextlib.chdir(folder), _without_variables_of_the_user():
        try:
            run([*options, *step.arguments])
        except SystemExit as leaving:
            return leaving.code if isinstance(leaving.code, int) else 0
    return 0


@contextlib.contextmanager
def _without_variables_of_the_user() -> Iterator[None]:
    """COPGEN_DATA_DIR, HF_ENDPOINT and their like outweigh a settings file, and would mix simulated and real cells."""
    theirs = {name for name in os.environ if name.upper().startswith(ENV_PREFIX) or name in HUB_VARIABLES}
    kept = {name: os.environ.pop(name) for name in theirs}
    try:
        yield
    finally:
        os.environ.update(kept)


def write_page(folder: Path, todo: tuple[Step, ...]) -> Path:
    """One self-contained page: the commands, the pictures and numbers that they made, and where to go next.

    Returns:
        `folder/index.html`.
    """
    sections = [
        section(number, step.title, step.line, *_made(folder, step), about=step.about)
        for number, step in enumerate(todo, start=1)
    ]
    page = folder / PAGE
    write_atomically(page, tour_page([*sections, what_next()]).encode())
    return page


def _made(folder: Path, step: Step) -> Iterator[str]:
    """What the page shows below a step's command line."""
    command, *_ = step.arguments
    if command == "sample":
        given, wanted, amount, output = (
            _value(step, f"--{name}") for name in ("condition", "generate", "n-samples", "output")
        )
        for file in sorted((folder / output).glob("*.png")):
            link = file.relative_to(folder).as_posix()
            yield figure(file, link, given.split(",") if given else [], wanted.split(","), int(amount or 1))
    if command == "evaluate":
        from copgen_cli.evaluation import NUMBERS_FILE, REPORT_FILE  # brings torch

        yield scores(folder / REPORT / NUMBERS_FILE, f"{REPORT}/{REPORT_FILE}")


def _value(step: Step, option: str) -> str:
    """What stands behind an option of a step; nothing where it has none."""
    names = step.arguments
    return names[names.index(option) + 1] if option in names else ""
