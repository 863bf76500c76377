"""From an archive on a server to pictures: six commands, once and once more, both ends by the installed executable."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from copgen_processes import running
from PIL import Image
from tiny_archive import rome_kept, rome_rows, write_archive
from tiny_hub import TinyHub
from tiny_models import tiny_autoencoder
from way_of_commands import run_in

from copgen_cli.modalities import PUBLISHED

COPGEN = Path(sys.executable).with_name("copgen")

SETTINGS = """
[prepare]
train_ratio = 0.5
workers = 1

[encode]
vae = "vae"

[train]
preset = "tiny"
steps = 2
"""

STAGES = (
    ("download",),
    ("prepare",),
    ("encode",),
    ("pack",),
    ("train",),
    ("sample", "--condition", "s1_rtc", "--generate", "dem,s2_l2a", "--steps", "2", "--limit", "2"),
)
BY_EXECUTABLE = (STAGES[0], STAGES[-1])
"""In processes that import what they need themselves."""


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with settings and a random autoencoder, in which a server's archive has gone all the way."""
    folder = tmp_path_factory.mktemp("way")
    write_archive(folder / "archive", rome_rows(), size=1068)
    tiny_autoencoder().save_pretrained(folder / "vae")
    (folder / "copgen.toml").write_text(SETTINGS)
    with TinyHub(folder / "archive") as hub:
        environment = os.environ | {"HF_ENDPOINT": hub.endpoint, "OMP_NUM_THREADS": "1"}
        first = [(run if stage in BY_EXECUTABLE else run_forked)(folder, environment, *stage) for stage in STAGES]
        tree = snapshot(folder)
        second = [run_forked(folder, environment, *stage) for stage in STAGES]
    return folder, first, tree, second


def run(folder: Path, environment: dict[str, str], *arguments: str) -> tuple[int, str]:
    """The exit code, and all that was said."""
    process = subprocess.run(
        [COPGEN, *arguments], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return process.returncode, process.stdout


def run_forked(folder: Path, environment: dict[str, str], *arguments: str) -> tuple[int, str]:
    """The same, in a process that has torch imported already."""
    with running(run_in, folder, *arguments, environment=environment) as process:
        return process.end(), process.said


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of every picture, array, store and checkpoint."""
    kinds = {".png", ".npy", ".mdb", ".safetensors"}
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.suffix in kinds
    }


def test_every_stage_ends_well_and_says_where_its_result_is(workplace):
    _, first, _, _ = workplace

    for stage, (code, said) in zip(STAGES, first, strict=True):
        assert code == 0, f"copgen {' '.join(stage)}\n{said}"
        assert any(f": {word}" in said for word in ("data/", "runs/", "outputs/")), said


def test_the_way_begins_with_the_cells_that_the_region_asks_for(workplace):
    folder, *_ = workplace

    cells = {path.parent.parent.name for path in (folder / "data/majorTOM/rome/Core-DEM").rglob("thumbnail.png")}

    assert cells == {row.cell for row in rome_kept()}


def test_the_way_ends_with_a_labelled_grid_made_by_the_model_that_was_trained(workplace):
    folder, *_ = workplace
    listing = json.loads(next((folder / "outputs").rglob("samples.json")).read_text())
    grids = list((folder / "outputs").rglob("*.png"))

    assert "runs/rome-tiny/model" in json.dumps(listing)
    assert grids
    for grid in grids:
        with Image.open(grid) as picture:
            assert picture.width >= 4 * 256  # the condition, two generated, their truth
            assert picture.height >= 256


def test_every_stage_leaves_a_manifest_of_what_made_it(workplace):
    folder, *_ = workplace

    made_by = {path.name for path in (folder / "data").rglob("copgen_*.json")}

    assert {"copgen_download.json", "copgen_prepare.json", "copgen_encode.json", "copgen_pack.json"} <= made_by


def test_a_second_run_of_every_stage_does_no_work_and_says_so(workplace):
    folder, _, tree, second = workplace

    for stage, (code, said) in zip(STAGES, second, strict=True):
        assert code == 0, f"copgen {' '.join(stage)}\n{said}"
        assert "Nothing to do" in said, stage
    assert snapshot(folder) == tree


def test_the_finished_model_loads_from_python(workplace):
    from copgen_cli import CopGenPipeline

    folder, *_ = workplace
    pipeline = CopGenPipeline.from_pretrained(folder / "runs/rome-tiny/model")

    assert tuple(pipeline.modalities) == tuple(PUBLISHED)
