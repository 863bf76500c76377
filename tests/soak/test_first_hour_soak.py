"""The first hour as the documents have it: its lines, the tour of quickstart, the notebooks, the snippets of Python.

The sampling itself is done in one step, and quickstart with the fewest cells.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import rasterio
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from documented_lines import ROOT, blocks

BIN = Path(sys.executable).parent
ENVIRONMENT = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "COPGEN_SAMPLE__STEPS": "1"}


def run_shell(text: str, folder: Path) -> None:
    line = ["bash", "-euo", "pipefail", "-c", text]
    done = subprocess.run(line, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def hour(tmp_path_factory):
    """A folder in which all lines of the first hour were run."""
    folder = tmp_path_factory.mktemp("hour")
    (folder / ".venv/bin").mkdir(parents=True)
    (folder / ".venv/bin/activate").touch()  # of the tests, the environment is active already
    (text,) = ["\n".join(text for _, text in blocks("docs/first-hour.md", "bash"))]
    text = text.replace("pip install 'copgen[scene]'\n", "")  # of the tests, everything is installed
    run_shell(text.replace("copgen quickstart", "copgen quickstart --cells 3 --train-steps 2"), folder)
    return folder / "copgen-quickstart"


def test_the_page_of_quickstart_has_pictures_and_numbers(hour):
    page = (hour / "index.html").read_text(encoding="utf-8")

    assert page.count("<figure>") >= 4
    assert page.count("<caption>") == 2
    assert "PSNR" in page


def test_the_first_hour_ends_with_a_map(hour):
    assert (hour / "mine/grid_0001.png").is_file()
    (georeferenced, *_) = (hour / "mine-tif").rglob("*.tif")
    for file in (georeferenced, hour / "map/s2_l2a.tif"):
        with rasterio.open(file) as raster:
            assert raster.crs.is_projected
            assert raster.tags()["Synthetic"]
    assert (hour / "map/preview.png").is_file()


@pytest.mark.parametrize("document", ["README.md", "docs/data.md"])
def test_snippets_of_python_run_as_they_stand(hour, document, tmp_path, monkeypatch):
    data, runs = tmp_path / "data/majorTOM", tmp_path / "runs"
    for kind in ("png", "npy", "npy_lmdb"):
        shutil.copytree(hour / f"data/simulated/simulated_thumbnail_{kind}", data / f"rome/rome_thumbnail_{kind}")
    shutil.copytree(hour / "runs/simulated-small/model", runs / "rome-small/model")
    (tmp_path / "rome_thumbnail_npy_lmdb").symlink_to(data / "rome/rome_thumbnail_npy_lmdb")
    patch = next((data / "rome/rome_thumbnail_png/train/S1RTC_thumbnail").glob("*.png"))
    Image.open(patch).save(tmp_path / "radar.png")
    monkeypatch.chdir(tmp_path)

    for _, text in blocks(document, "python"):
        if "torchgeo" in text or "open_geo_dataset" in text:
            pytest.importorskip("torchgeo")
        names = {"folder": tmp_path / "rome_thumbnail_npy_lmdb/train"}
        exec(compile(text.replace("467U_102R_0", patch.stem), document, "exec"), names)

    if document == "README.md":
        with Image.open("elevation.png") as elevation:
            assert elevation.size == (256, 256)


@pytest.mark.parametrize("name", ["quicktour", "scene_tour"])
def test_a_notebook_of_the_examples_runs(tmp_path, name, monkeypatch):
    nbclient = pytest.importorskip("nbclient", reason="pip install 'copgen[notebooks]'")
    nbformat = pytest.importorskip("nbformat")
    monkeypatch.setenv("PATH", ENVIRONMENT["PATH"])
    notebook = nbformat.read(ROOT / f"examples/{name}.ipynb", as_version=4)
    for cell in notebook.cells:
        cell.source = re.sub(r"num_inference_steps=\d+", "num_inference_steps=2", cell.source)
    if name == "scene_tour":
        monkeypatch.setenv("COPGEN_SAMPLE__STEPS", "2")

    place = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=1200, kernel_name="python3", resources=place).execute()

    told = json.dumps(notebook)
    assert "image/jpeg" in told
    assert "error" not in {output.output_type for cell in notebook.cells for output in cell.get("outputs", [])}
