"""Every form of input, on real thumbnails."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image
from sample_commands import call_copgen, one_thread, pixels_of
from tiny_models import tiny_pipeline

from copgen_cli.modalities import Modality

TILES = ["282D_485L_3_3", "433D_629L_3_1", "637U_59R_1_3"]
EXAMPLES = {"dem": "dem.webp", "s1_rtc": "s1rtc.webp", "s2_l1c": "s2l1c.webp", "s2_l2a": "s2l2a.webp"}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    with one_thread():
        yield tiny_pipeline(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def thumbnails(shared) -> Path:
    return shared / "sample_data" / "thumbnails"


@pytest.fixture
def sample(model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object):
        return call_copgen(capsys, "sample", "--model", model, "--steps", 1, "--output", "o", *arguments)

    return call


def test_each_published_example_is_a_condition_for_the_others(sample, thumbnails):
    for given, file in EXAMPLES.items():
        others = ",".join(name for name in EXAMPLES if name != given)
        call = sample(
            "--input", f"{given}={thumbnails / 'cop-gen-beta' / file}", "--generate", others, "--save-as", "pngs",
            "--output", given,
        )  # fmt: skip
        assert call.code == 0, call.err
        assert len(list(Path(given).rglob("cop-gen-beta_v1.png"))) == 3


def test_one_mixed_folder_is_several_conditions(sample, thumbnails):
    folder = thumbnails / "cop-gen-beta"

    call = sample("--input", f"dem={folder}", "--input", f"s1_rtc={folder}", "--generate", "s2_l2a")

    assert call.code == 0, call.err
    page = pixels_of(Path("o/grid_0001.png"))
    assert (window_of(page, pixels_of(folder / "dem.webp"))) is not None
    assert (window_of(page, pixels_of(folder / "s1rtc.webp"))) is not None


def test_tiles_of_224_px_need_a_resolution_and_show_whole(sample, thumbnails):
    tile = thumbnails / TILES[0] / "s1_rtc.png"

    refused = sample("--input", f"s1_rtc={tile}", "--generate", "dem")
    padded = sample("--input", f"s1_rtc={tile}", "--generate", "dem", "--resolution", 224)

    assert refused.code == 1
    assert "--resolution 224" in refused.err
    assert padded.code == 0, padded.err
    assert window_of(pixels_of(Path("o/grid_0001.png")), pixels_of(tile)) is not None


def test_folders_of_several_modalities_are_matched_by_name(sample, thumbnails, tmp_path):
    for modality, suffix in ((Modality.S1RTC, "png"), (Modality.DEM, "tif")):
        (tmp_path / modality).mkdir()
        for tile in TILES[: 2 if modality is Modality.DEM else 3]:
            with Image.open(thumbnails / tile / f"{modality}.png") as picture:
                picture.save(tmp_path / modality / f"{tile}_{modality}.{suffix}")

    call = sample(
        "--input", f"s1_rtc={tmp_path / 's1_rtc'}", "--input", f"dem={tmp_path / 'dem'}", "--generate", "s2_l2a",
        "--resolution", 224, "--save-as", "pngs",
    )  # fmt: skip

    assert call.code == 3
    assert TILES[2] in call.err
    made = {path.name for path in Path("o/s2_l2a").iterdir()}
    assert made == {f"{tile}_v1.png" for tile in TILES[:2]}
    assert all(pixels_of(path).shape == (224, 224, 3) for path in Path("o/s2_l2a").iterdir())


def test_a_tree_of_patches_is_data(sample, thumbnails, tmp_path):
    for modality, file in EXAMPLES.items():
        folder = tmp_path / "tree" / "test" / Modality(modality).spec.folder
        folder.mkdir(parents=True)
        with Image.open(thumbnails / "cop-gen-beta" / file) as picture:
            picture.convert("RGB").save(folder / "1U_1R_0.png")
    shutil.copytree(tmp_path / "tree" / "test", tmp_path / "bare")

    for data in ("tree", "tree/test", "bare"):
        call = sample("--data", data, "--condition", "s2_l1c", "--generate", "dem", "--output", f"o-{data}")
        assert call.code == 0, call.err
    page = pixels_of(Path("o-tree/test/grid_0001.png"))
    assert window_of(page, pixels_of(tmp_path / "bare" / "DEM_thumbnail" / "1U_1R_0.png")) is not None


def window_of(page, picture) -> tuple[int, int] | None:
    """Where a picture stands on a page, pixel for pixel."""
    side = len(picture)
    for y in range(page.shape[0] - side + 1):
        starts = (page[y, : page.shape[1] - side + 1] == picture[0, 0]).all(axis=-1).nonzero()[0]
        for x in starts:
            if (page[y : y + side, x : x + side] == picture).all():
                return int(x), y
    return None
