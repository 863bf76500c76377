"""What version 0.1.0 wrote is read by this one: `data/version_0_1_0.zip` holds a small one of each of its formats.

It was made by that version's `prepare --center-crop`, `encode`, `pack`, `train --steps 3`, `sample --save-as pngs` and
`evaluate` on three cells, with tiny networks.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from sample_commands import call_copgen, one_thread, pixels_of

from copgen_cli import CopGenPipeline
from copgen_cli.latents.store import LatentStore

ARCHIVE = Path(__file__).parent / "data" / "version_0_1_0.zip"


@pytest.fixture
def earlier(tmp_path, monkeypatch) -> Path:
    """The folder that the old version worked in, with its settings file."""
    with zipfile.ZipFile(ARCHIVE) as archive:
        archive.extractall(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def _small_networks():
    with one_thread():
        yield


def test_its_patches_are_encoded_and_its_moments_packed(earlier, capsys):
    encoded = call_copgen(capsys, "encode", "--vae", "vae", "--output-dir", "new_npy", "--json")
    packed = call_copgen(
        capsys, "pack", "--input-dir", "data/old/old_thumbnail_npy", "--output-dir", "new_lmdb", "--json"
    )

    assert (encoded.code, packed.code) == (0, 0), encoded.err + packed.err
    assert json.loads(encoded.out)["done"] == 3
    assert json.loads(packed.out)["train_records"] == 2
    for file in (earlier / "data/old/old_thumbnail_npy").rglob("*.npy"):
        again = earlier / "new_npy" / file.relative_to(earlier / "data/old/old_thumbnail_npy")
        np.testing.assert_allclose(np.load(again), np.load(file), rtol=1e-4, atol=1e-5)


def test_its_store_and_its_listing_are_read(earlier):
    store = LatentStore(earlier / "data/old/old_thumbnail_npy_lmdb/train")
    listing = json.loads((earlier / "pictures/samples.json").read_text())

    assert len(store) == 2
    assert listing["synthetic"]


def test_its_checkpoint_is_gone_on_from(earlier, capsys):
    call = call_copgen(capsys, "train", "--workdir", "run", "--steps", "4", "--json")

    assert call.code == 0, call.err
    assert json.loads(call.out)["step"] == 4
    steps = [json.loads(line).get("step") for line in (earlier / "run" / "metrics.jsonl").read_text().splitlines()]
    assert steps[-1] == 4


def test_its_picture_is_made_again(earlier, capsys):
    picture = next((earlier / "pictures" / "dem").glob("*.png"))

    call = call_copgen(capsys, "sample", "--like", picture, "--output", "again", "--json")

    assert Path("again", picture.name).is_file(), call.err
    difference = pixels_of(Path("again", picture.name)).astype(int) - pixels_of(picture)
    assert np.abs(difference).max() <= 1  # which processors differ by


def test_its_model_is_loaded_from_python(earlier):
    pipeline = CopGenPipeline.from_pretrained("run/model")

    out = pipeline(generate=["dem"], num_inference_steps=1, output_type="latent", seed=0)

    assert torch.isfinite(out.images["dem"]).all()
