"""What `benchmarks/gpu.sh` runs, in which order and for how long; on a GPU, and in a rehearsal."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

REHEARSED = 200
"""Seconds of any part in a rehearsal."""
SETTINGS = """
region = "mountains"

[regions.mountains]
bbox = [0.0, 44.0, 40.0, 50.0]
start_date = 2020-09-10
end_date = 2020-11-06
cloud_cover = [0, 1]

[download]
endpoint = "file://FOLDER/earth"

[encode]
vae = "copgen-sim"

[train]
preset = "small"
device = "{device}"
batch_size = {batch}
lr = 8e-4
warmup = 100
clip = 1.0
ema_decay = 0.995
optimizer = "{optimizer}"
timesteps = "roles"
one_given = 0.8
min_snr_gamma = 5
timestep_shift = 3
mixed_precision = "{precision}"
preview_every = 0
save_every = 100000
steps = 100000

[train.model]
prediction_type = "v_prediction"
rescale_betas_zero_snr = true
"""
"""Of the recipe in the card of copgen-sim, in one run; batch and average are for a run of a minute."""


@dataclass(frozen=True)
class Part:
    """Commands that belong together. Words of theirs may hold {rows}, a file for rows, and {left}, seconds."""

    name: str
    title: str
    seconds: float
    """At most, of which a later part gets what is left."""
    commands: list[list[str]]
    settings: str | None = None
    """copgen.toml of the folder that they run in, which FOLDER stands for."""
    environment: dict[str, str] = field(default_factory=dict)
    also_fine: tuple[int, ...] = ()
    """Exit codes beside 0."""
    after_training: float = 0
    """Seconds of {left} that are kept for what follows."""


def parts(root: Path, *, rehearse: bool) -> list[Part]:
    """In order: what matters most comes first."""
    here = root / "benchmarks"
    device = "cpu" if rehearse else "cuda"

    def script(name: str, *words: object) -> list[str]:
        chosen = ["--device", device, *map(str, words)]
        return [sys.executable, str(here / f"{name}.py"), *chosen, "--json", "{rows}"]

    tests = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-v", str(root / "tests/test_gpu.py")]
    if rehearse:  # compiling takes minutes of a busy processor
        tests += ["-k", "not compiled"]
    of_gpu = {
        "transformer": script("transformer", "--size", "published", "--repeats", 5, "--halves", "fp16", "bf16"),
        "2026": script(
            "transformer", "--family", "copgen-2026", "--size", "published", "--batch", 16, "--repeats", 3,
            "--calls", 0, "--no-compile",
        ),
        "training": script("training", "--preset", "base", "--batch", 32, "--repeats", 8, "--fp16", "--no-compile"),
    }  # fmt: skip
    tiny = {
        "transformer": script(
            "transformer", "--size", "tiny", "--repeats", 1, "--calls", 2, "--halves", "bf16", "--utilisation",
        ),
        "2026": script(
            "transformer", "--family", "copgen-2026", "--size", "tiny", "--repeats", 1, "--calls", 0, "--utilisation"
        ),
        "training": script(
            "training", "--preset", "tiny", "--repeats", 2, "--records", 32, "--fp16", "--no-compile", "--utilisation"
        ),
    }  # fmt: skip
    autoencoders = [
        script("autoencoder", "--size", size, *(["--batch", 2, "--side", 32, "--repeats", 1] if rehearse else []))
        for size in ("package", "published")
    ]
    of_device = tiny if rehearse else of_gpu
    in_order = [
        Part("tests", "tests marked gpu", 70, [tests], environment={"COPGEN_TEST_DEVICE": device}),
        Part("transformer", "the published size, published and ours", 130, [of_device["transformer"]]),
        Part("family_2026", "the family of 2026", 50, [of_device["2026"]]),
        Part("autoencoder", "encoding and decoding", 40, autoencoders),
        Part("training", "from the store to the step", 60, [of_device["training"]]),
        _simulated(script, rehearse=rehearse),
    ]
    return [replace(part, seconds=REHEARSED) for part in in_order] if rehearse else in_order


def _simulated(script: Callable[..., list[str]], *, rehearse: bool) -> Part:
    """Cells simulated on the machine's cores, a model trained on them for the time that is left, and its evaluation."""
    copgen = [sys.executable, "-m", "copgen_cli"]
    batch, precision, optimizer = (4, "no", "adamw") if rehearse else (256, "bf16", "muon")
    device = "cpu" if rehearse else "cuda"
    settings = SETTINGS.format(device=device, batch=batch, precision=precision, optimizer=optimizer)
    days = ["--start-date", "2020-09-10", "--end-date", "2020-11-05"]
    cells = 3 if rehearse else 400
    test = "data/majorTOM/mountains/mountains_thumbnail_png/test"
    records, places = (1, 2) if rehearse else (24, 32)
    sampling = ["--data", test, "--condition", "s2_l1c", "--generate", "s2_l2a", "--records", records]
    world = ["--rugged", "0.9", *days, "--seed", "5", "--no-gaps", "--output", "earth"]
    commands = [
        [*copgen, "simulate", "--cells", str(cells), *world],
        [*copgen, "download"],
        [*copgen, "prepare", "--train-ratio", "0.5" if rehearse else "0.92"],
        [*copgen, "encode", "--to", "lmdb"],
        [*copgen, "train", "--workdir", "run", "--max-time", "{left}s", *(["--steps", "3"] if rehearse else [])],
        [*copgen, "train", "--workdir", "run", "--export"],
        [
            *copgen, "evaluate", "--model", "run/model", "--limit", str(places), "--output", "report",
            *(["--pairs", "s2_l1c:s2_l2a", "--metrics", "psnr"] if rehearse else ["--pairs", "single"]),
        ],
        script("sampling", *sampling),
    ]  # fmt: skip
    return Part(
        "simulated", "copgen-sim's recipe, trained and evaluated", 200, commands,
        settings=settings, also_fine=(3,), after_training=60,
    )  # fmt: skip
