"""What a picture says of how it was made, and what of it can be read back."""

from __future__ import annotations

import json

import pytest
from PIL import Image, PngImagePlugin

from copgen_cli import __version__
from copgen_cli.errors import BrokenInputError
from copgen_cli.modalities import Modality, Role
from copgen_cli.outputs.files import Drawing
from copgen_cli.outputs.provenance import KEY, InputFile, Provenance, Recipe, read_provenance, samples_together
from copgen_cli.records import Ignored, SampleRequest, Solver

REQUEST = SampleRequest(
    roles={Modality.S1RTC: Role.CONDITION, Modality.DEM: Role.GENERATE},
    n_samples=3,
    steps=7,
    solver=Solver.UNIPC,
    guidance_scale=0.5,
    seed=11,
)
RECIPE = Recipe(
    model="runs/rome-small/model",
    model_sha256="ab" * 32,
    request=REQUEST,
    source={"input": {"s1_rtc": "radar.png"}},
    resolution=192,
    ignored=Ignored.PUBLISHED,
    decoder="tiny",
    dtype="bfloat16",
    device="cuda",
    compiled=True,
    threads=1,
)
PROVENANCE = Provenance(
    recipe=RECIPE,
    kind="sample",
    records=("radar",),
    modality=Modality.DEM,
    sample="radar_v2",
    inputs={"radar": {Modality.S1RTC: InputFile("radar.png", "cd" * 32)}},
    batches=((None, "radar_v2"),),
)


@pytest.fixture
def picture(tmp_path):
    file = tmp_path / "radar_v2.png"
    file.write_bytes(Drawing("dem/radar_v2.png", Image.new("RGB", (8, 8), "red"), PROVENANCE).as_png())
    return file


def test_what_a_picture_says_is_read_back_whole(picture):
    assert read_provenance(picture) == PROVENANCE


def test_a_grid_and_an_unconditional_sample_are_read_back_too(tmp_path):
    request = SampleRequest(roles={Modality.DEM: Role.GENERATE})
    recipe = Recipe("copgen-sim", "00", request, {}, 256)
    grid = Provenance(recipe, "grid", ("sample_1", "sample_2"), None, batches=(("sample_1", "sample_2"),), spread=True)
    (tmp_path / "grid.png").write_bytes(Drawing("grid.png", Image.new("RGB", (8, 8)), grid).as_png())

    assert read_provenance(tmp_path / "grid.png") == grid


def test_the_picture_says_to_people_and_programs_that_it_is_synthetic(picture):
    with Image.open(picture) as image:
        text = dict(image.info)

    assert text["Synthetic"] == "true"
    assert text["Software"].startswith("copgen ")
    assert "trainedAlgorithmicMedia" in text["XML:com.adobe.xmp"]
    assert {"model", "seed", "condition", "software"} <= json.loads(text[KEY]).keys()
    for word in ("dem", "s1_rtc", "seed 11", "unipc", "guidance 0.5"):
        assert word in text["Description"]


def test_the_same_picture_has_the_same_bytes(picture):
    again = Drawing("elsewhere.png", Image.new("RGB", (8, 8), "red"), PROVENANCE).as_png()

    assert again == picture.read_bytes()


@pytest.mark.parametrize(
    "text",
    [
        None,
        "not JSON",
        "[]",
        "{}",
        '{"format": 99}',
        json.dumps(PROVENANCE.as_dict() | {"solver": "magic"}),
        json.dumps(PROVENANCE.as_dict() | {"generate": ["s3"]}),
        json.dumps(PROVENANCE.as_dict() | {"inputs": 3}),
    ],
)
def test_a_picture_that_says_nothing_of_use_is_an_error_that_names_it(tmp_path, text):
    chunks = PngImagePlugin.PngInfo()
    if text is not None:
        chunks.add_text(KEY, text)
    Image.new("RGB", (8, 8)).save(tmp_path / "other.png", pnginfo=chunks)

    with pytest.raises(BrokenInputError, match=r"other\.png"):
        read_provenance(tmp_path / "other.png")


def test_what_is_no_png_is_an_error_that_names_it(tmp_path):
    (tmp_path / "a.png").write_bytes(b"not a picture")

    for file in (tmp_path / "a.png", tmp_path / "absent.png"):
        with pytest.raises(BrokenInputError, match=file.name):
            read_provenance(file)


def test_of_the_batches_those_of_a_picture_are_kept_with_the_others_blanked():
    batches = [("a_v1", "a_v2"), ("a_v3", "b_v1"), ("b_v2",)]

    assert samples_together(batches, {"a_v2", "b_v1"}) == ((None, "a_v2"), (None, "b_v1"))


def test_the_footer_names_model_solver_and_seed():
    assert RECIPE.describe() == (
        f"Synthetic, by copgen {__version__} · model rome-small/model · unipc solver, 7 steps · seed 11 · "
        "guidance 0.5 · ignored modalities as published · preview decoder"
    )
