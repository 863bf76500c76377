"""`copgen sample` as it is called: what it writes, what it refuses, and what it says."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sample_commands import SIDE, call_copgen, one_thread, pixels_of, save_folder, save_picture, small_model
from tiny_stores import tiny_store

from copgen_cli.modalities import PUBLISHED, Modality
from copgen_cli.model.bundled import bundled_folder
from copgen_cli.pipeline.sources import find_parts
from copgen_cli.stages.driver import StageRun

NAMES = ["a", "b", "c"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    with one_thread():
        yield small_model(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """A folder per modality with pictures of the same three places."""
    root = tmp_path_factory.mktemp("pictures")
    for modality in PUBLISHED:
        save_folder(root / modality, modality, NAMES)
    return root


@pytest.fixture
def sample(model, tmp_path, monkeypatch, capsys):
    """Call `copgen sample` with the small model and few steps, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object, steps: int = 2, named: Path | None = model):
        chosen = ("--model", named) if named else ()
        return call_copgen(capsys, "sample", *chosen, "--steps", steps, *arguments)

    return call


def disjoint_sets() -> list[tuple[tuple[Modality, ...], tuple[Modality, ...]]]:
    """All (condition, generate) with something to generate, over four modalities."""
    pairs = []
    for roles in itertools.product(("condition", "generate", "neither"), repeat=len(PUBLISHED)):
        chosen = {r: tuple(m for m, role in zip(PUBLISHED, roles, strict=True) if role == r) for r in set(roles)}
        if chosen.get("generate"):
            pairs.append((chosen.get("condition", ()), chosen["generate"]))
    return pairs


def test_there_are_sixty_five_pairs_to_try():
    assert len(set(disjoint_sets())) == 65


@pytest.mark.parametrize(
    ("condition", "generate"), disjoint_sets(), ids=lambda names: "+".join(names) if names else "nothing"
)
def test_any_set_is_generated_from_any_other(sample, pictures, condition, generate):
    given = [part for modality in condition for part in ("--input", f"{modality}={pictures / modality}")]

    call = sample(*given, "--generate", ",".join(generate), "--save-as", "pngs", "--limit", 1, "--output", "o", steps=1)

    assert call.code == 0, call.err
    name = "a_v1" if condition else "sample_1"
    written = {path.as_posix() for path in Path("o").rglob("*.png")}
    assert written == {f"o/{modality}/{name}.png" for modality in generate}
    assert all(pixels_of(Path(path)).shape == (SIDE, SIDE, 3) for path in written)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--generate", ""], "Nothing stands behind --generate"),
        ([], "Nothing to generate"),
        (["--generate", "dem", "--condition", "dem"], "dem stands in --condition and in --generate"),
        (["--generate", "dem,s1_rtc", "--input", "s1_rtc={a}"], "s1_rtc stands in --input and in --generate"),
        (["--generate", "dem,dem"], "twice"),
        (["--generate", "dme"], "Unknown modality 'dme'"),
        (["--generate", "dem", "--solver", "euler"], "solver"),
        (["--generate", "dem", "--steps", "0"], "steps"),
        (["--generate", "dem", "--input", "s1_rtc={a}", "--condition", "s2_l2a"], "does not name"),
        (["--generate", "dem", "--input", "s1_rtc={a}", "--condition", "s1_rtc,s2_l2a"], "no --input for it"),
        (["--generate", "dem", "--input", "s1_rtc=nowhere.png"], "no picture or folder nowhere.png"),
        (["--generate", "dem", "--input", "s1_rtc"], "MODALITY=IMAGE_OR_FOLDER"),
        (["--generate", "dem", "--input", "s1_rtc={a}", "--data", "."], "--input and --data are both given"),
        (["--generate", "dem", "--condition", "s1_rtc", "--data", "nowhere"], "no folder nowhere"),
        (["--generate", "dem", "--data", "."], "--data without a --condition"),
        (["--generate", "dem", "--condition", "s1_rtc", "--data", "."], "holds no records"),
        (["--generate", "dem", "--input", "s1_rtc={a}", "--spread"], "--spread of one sample"),
        (["--generate", "dem", "--n-samples", "2", "--spread"], "--spread without a condition"),
        (["--generate", "dem", "--resolution", "300"], "--resolution 300"),
        (["--generate", "dem", "--device", "abacus"], "no device 'abacus'"),
        (["--generate", "dem", "--dtype", "int4"], "dtype"),
        (["--generate", "dem", "--save-as", "gif"], "save_as"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_wrong_usage_ends_with_code_2_a_sentence_and_nothing_written(sample, pictures, arguments, sentence):
    given = [argument.format(a=pictures / "s1_rtc" / "a.png") for argument in arguments]

    call = sample(*given, "--output", "o")

    assert call.code == 2
    assert sentence in call.err
    assert "Traceback" not in call.err
    assert not Path("o").exists()


def test_a_list_may_be_given_in_turns(sample, pictures):
    given = [part for name in ("dem", "s1_rtc") for part in ("--input", f"{name}={pictures / name / 'a.png'}")]
    named = ("--condition", "dem", "--condition", "s1_rtc", "--generate", "s2_l1c", "--generate", "s2_l2a")

    call = sample(*given, *named, "--save-as", "pngs", "--output", "o", steps=1)

    assert call.code == 0, call.err
    assert {path.parent.name for path in Path("o").rglob("*.png")} == {"s2_l1c", "s2_l2a"}


def test_a_modality_is_matched_to_the_model_by_name(sample, tmp_path, pictures):
    two = small_model(tmp_path / "two", modalities=["s1_rtc", "s2_l2a"])
    given = ("--input", f"s1_rtc={pictures / 's1_rtc'}")

    refused = sample(*given, "--generate", "dem", named=two)
    made = sample(*given, "--generate", "s2_l2a", "--output", "o", named=two)

    assert refused.code == 2
    assert "does not know dem" in refused.err
    assert "s1_rtc, s2_l2a" in refused.err
    assert made.code == 0


def test_the_grid_is_the_default_and_says_where_it_lies(sample, pictures):
    call = sample("--input", f"s1_rtc={pictures / 's1_rtc'}", "--generate", "dem,s2_l2a", "--n-samples", 2)

    page = Path("outputs/input/s1_rtc-to-dem+s2_l2a/grid_0001.png")
    assert call.code == 0
    assert str(page.parent) in call.out
    assert pixels_of(page).shape[0] > 3 * SIDE
    assert pixels_of(page).shape[1] > 5 * SIDE


def test_names_are_those_of_the_published_workflow_and_the_listing_has_them_all(sample, pictures):
    call = sample(
        "--input", f"s1_rtc={pictures / 's1_rtc'}", "--generate", "dem", "--save-as", "pngs", "--n-samples", 2,
        "--spread", "--seed", 5, "--output", "o", "--json",
    )  # fmt: skip

    listing = json.loads(Path("o/samples.json").read_text())
    expected = {f"dem/{name}_{end}.png" for name in NAMES for end in ("v1", "v2", "mean", "std")}
    assert json.loads(call.out)["samples"] == 6
    assert set(listing["files"]) == expected == {p.relative_to("o").as_posix() for p in Path("o").rglob("*.png")}
    assert listing["records"]["b"]["samples"] == [{"id": "b_v1", "seed": 5}, {"id": "b_v2", "seed": 5}]
    assert listing["records"]["b"]["inputs"]["s1_rtc"]["path"].endswith("s1_rtc/b.png")
    assert listing["settings"]["model"]["sha256"]
    assert listing["timing"]["seconds_per_sample"] > 0


def test_the_same_command_twice_writes_the_same_bytes_and_a_third_time_does_nothing(sample, pictures):
    arguments = ("--input", f"s1_rtc={pictures / 's1_rtc'}", "--generate", "dem", "--n-samples", 2)

    for save_as in ("grid", "pngs"):
        first = sample(*arguments, "--save-as", save_as, "--output", "one")
        second = sample(*arguments, "--save-as", save_as, "--output", "two")
        stamps = {path: path.stat().st_mtime_ns for path in Path("one").rglob("*.png")}
        third = sample(*arguments, "--save-as", save_as, "--output", "one")

        assert (first.code, second.code, third.code) == (0, 0, 0)
        assert "Nothing to do" in third.err
        assert stamps == {path: path.stat().st_mtime_ns for path in Path("one").rglob("*.png")}
    files = sorted(path.relative_to("one") for path in Path("one").rglob("*.png"))
    assert len(files) == 7
    assert all((Path("one") / file).read_bytes() == (Path("two") / file).read_bytes() for file in files)


def test_another_seed_makes_other_pictures_and_does_not_quietly_mix_with_the_first(sample, pictures):
    arguments = ("--input", f"s1_rtc={pictures / 's1_rtc'}", "--generate", "dem", "--save-as", "pngs", "--limit", 1)

    sample(*arguments, "--output", "o")
    before = pixels_of(Path("o/dem/a_v1.png"))
    mixed = sample(*arguments, "--output", "o", "--seed", 1)
    afresh = sample(*arguments, "--output", "o", "--seed", 1, "--overwrite")

    assert mixed.code == 1
    assert "seed was 0" in mixed.err
    assert "--overwrite" in mixed.err
    assert afresh.code == 0
    assert (pixels_of(Path("o/dem/a_v1.png")) != before).any()


def test_grids_and_pictures_of_two_seeds_do_not_mix(sample, pictures):
    arguments = ("--input", f"s1_rtc={pictures / 's1_rtc'}", "--generate", "dem", "--limit", 1, "--output", "o")
    sample(*arguments, "--save-as", "pngs")

    mixed = sample(*arguments, "--save-as", "grid", "--seed", 1)
    alike = sample(*arguments, "--save-as", "grid")

    assert (mixed.code, alike.code) == (1, 0)
    assert "holds pngs of other settings" in mixed.err


def test_fewer_records_leave_the_pictures_of_the_others_on_record(sample, pictures):
    arguments = ("--input", f"s1_rtc={pictures / 's1_rtc'}", "--generate", "dem", "--save-as", "pngs", "--output", "o")
    sample(*arguments)
    made = {file.name: file.stat().st_mtime_ns for file in Path("o/dem").iterdir()}
    assert len(made) > 1

    sample(*arguments, "--limit", 1)
    sample(*arguments)
    assert {file.name: file.stat().st_mtime_ns for file in Path("o/dem").iterdir()} == made

    sample(*arguments, "--limit", 1, "--seed", 1, "--overwrite")
    assert len(list(Path("o/dem").iterdir())) == 1
    assert len(json.loads(Path("o/samples.json").read_text())["files"]) == 1


def test_what_went_missing_is_made_again_and_nothing_else(sample, pictures):
    arguments = ("--input", f"s1_rtc={pictures / 's1_rtc'}", "--generate", "dem", "--save-as", "pngs", "--output", "o")
    sample(*arguments)
    files = {path: path.read_bytes() for path in Path("o").rglob("*.png")}
    stamps = {path: path.stat().st_mtime_ns for path in files}
    lost = Path("o/dem/b_v1.png")
    lost.unlink()

    call = sample(*arguments, "--json")

    assert json.loads(call.out)["done"] == 1
    assert {path: path.read_bytes() for path in Path("o").rglob("*.png")} == files
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items() if path != lost)


def test_a_broken_picture_is_set_aside_and_made_good_later(sample, tmp_path):
    folder = save_folder(tmp_path / "radar", Modality.S1RTC, NAMES)
    whole = (folder / "b.png").read_bytes()
    (folder / "b.png").write_bytes(whole[:200])
    arguments = ("--input", f"s1_rtc={folder}", "--generate", "dem", "--output", "o")

    for save_as in ("grid", "pngs"):
        for _ in range(2):  # it is tried again, and does not count as done
            call = sample(*arguments, "--save-as", save_as)
            assert call.code == 3
            assert "b.png" in call.err
    height = pixels_of(Path("o/grid_0001.png")).shape[0]
    (folder / "b.png").write_bytes(whole)

    for save_as in ("grid", "pngs"):
        assert sample(*arguments, "--save-as", save_as).code == 0
    assert sorted(path.name for path in Path("o/dem").iterdir()) == ["a_v1.png", "b_v1.png", "c_v1.png"]
    assert pixels_of(Path("o/grid_0001.png")).shape[0] > height
    assert json.loads(Path("o/samples.json").read_text())["missing"] == {}


def test_records_without_a_partner_are_counted_and_listed(sample, tmp_path):
    save_folder(tmp_path / "radar", Modality.S1RTC, ["a", "b"])
    save_folder(tmp_path / "height", Modality.DEM, ["b", "c"])

    call = sample(
        "--input", f"s1_rtc={tmp_path / 'radar'}", "--input", f"dem={tmp_path / 'height'}", "--generate", "s2_l2a",
        "--save-as", "pngs", "--output", "o",
    )  # fmt: skip

    assert call.code == 3
    assert "no dem of that name" in call.err
    assert [path.name for path in Path("o/s2_l2a").iterdir()] == ["b_v1.png"]


def test_one_picture_that_can_not_be_used_is_a_failure_with_advice(sample, tmp_path):
    small = save_picture(tmp_path / "radar.png", size=(40, 40))

    refused = sample("--input", f"s1_rtc={small}", "--generate", "dem", "--output", "o")
    assert not Path("o").exists()  # so that the next command, with other settings, has a clean slate
    padded = sample("--input", f"s1_rtc={small}", "--generate", "dem", "--output", "p", "--resolution", 40,
                    "--save-as", "pngs")  # fmt: skip

    assert refused.code == 1
    assert "40 x 40 px" in refused.err
    assert "--resolution 40" in refused.err
    assert padded.code == 0
    assert pixels_of(Path("p/dem/radar_v1.png")).shape == (40, 40, 3)


@pytest.mark.parametrize("suffix", ["png", "webp", "jpg", "tif"])
def test_a_picture_of_any_format_is_a_condition(sample, tmp_path, suffix):
    picture = save_picture(tmp_path / f"radar.{suffix}")

    call = sample("--input", f"s1_rtc={picture}", "--generate", "dem", "--save-as", "pngs", "--output", "o")

    assert call.code == 0
    assert Path("o/dem/radar_v1.png").is_file()


def test_the_condition_matters_and_so_does_which_modality_it_is(sample, tmp_path):
    first, second = save_picture(tmp_path / "1.png", seed=1), save_picture(tmp_path / "2.png", seed=2)

    def made(*arguments: object) -> np.ndarray:
        folder = f"o{len(list(Path().glob('o*')))}"
        sample(*arguments, "--generate", "dem", "--save-as", "pngs", "--output", folder)
        return pixels_of(next(Path(folder).rglob("*.png")))

    (tmp_path / "x").mkdir()
    os.link(second, tmp_path / "x" / "1.png")  # other pixels under the same name, so the same noise
    one = made("--input", f"s1_rtc={first}")
    other = made("--input", f"s1_rtc={tmp_path / 'x' / '1.png'}")
    as_optical = made("--input", f"s2_l2a={first}")

    assert (one != other).any()
    assert (one != as_optical).any()


def test_a_dry_run_tells_the_totals_and_writes_nothing(sample, pictures):
    call = sample("--input", f"s1_rtc={pictures / 's1_rtc'}", "--generate", "dem", "--n-samples", 4, "--dry-run",
                  "--json")  # fmt: skip

    told = json.loads(call.out)
    assert call.code == 0
    assert (told["records"], told["samples"]) == (3, 12)
    assert list(Path().iterdir()) == []


def test_the_store_of_the_region_is_the_default_and_its_truth_stands_in_the_grid(sample, tmp_path):
    store = tmp_path / "data" / "majorTOM" / "rome" / "rome_thumbnail_npy_lmdb"
    tiny_store(store, train=2, test=2, side=8, autoencoder=facts_without_fingerprint())

    call = sample("--condition", "s1_rtc", "--generate", "dem,s2_l2a")
    bare = sample("--condition", "s1_rtc", "--generate", "dem,s2_l2a", "--save-as", "pngs", "--output", "o")

    assert call.code == bare.code == 0, call.err
    page = pixels_of(Path("outputs/rome/s1_rtc-to-dem+s2_l2a/grid_0001.png"))
    assert page.shape[1] > 5 * SIDE  # the condition, and a sample and the truth of both
    assert sorted(path.name for path in Path("o/dem").iterdir()) == ["test_0000_v1.png", "test_0001_v1.png"]


def test_an_empty_test_split_makes_way_for_train_and_it_says_so(sample, tmp_path):
    store = tmp_path / "data" / "majorTOM" / "rome" / "rome_thumbnail_npy_lmdb"
    tiny_store(store, train=2, test=0, side=8, autoencoder=facts_without_fingerprint())

    call = sample("--condition", "s1_rtc", "--generate", "dem", "--save-as", "pngs", "--output", "o")

    assert call.code == 0, call.err
    assert "the train split is used" in call.err
    assert Path("o/dem/train_0000_v1.png").is_file()


def test_without_data_the_command_to_run_is_named(sample):
    call = sample("--condition", "s1_rtc", "--generate", "dem")

    assert call.code == 1
    assert "copgen pack" in call.err


def test_a_store_of_another_autoencoder_or_without_the_condition_is_refused(sample, tmp_path):
    other = tiny_store(tmp_path / "other", side=8)
    two = tiny_store(
        tmp_path / "two", side=8, modalities=[Modality.DEM, Modality.S2L2A], autoencoder=facts_without_fingerprint()
    )

    encoded = sample("--data", other, "--condition", "s1_rtc", "--generate", "dem")
    lacking = sample("--data", two, "--condition", "s1_rtc", "--generate", "dem")

    assert encoded.code == 1
    assert "autoencoder" in encoded.err
    assert lacking.code == 2
    assert "has no s1_rtc" in lacking.err


def test_moments_of_another_autoencoder_are_refused(sample, tmp_path):
    folder = tmp_path / "x_npy" / "test" / Modality.S1RTC.spec.folder
    folder.mkdir(parents=True)
    np.save(folder / "a.npy", np.zeros((8, 8, 8), np.float32))
    facts = {"id": "elsewhere", "fingerprint": "e" * 64, "scale_factor": 0.7}
    with StageRun("encode", tmp_path / "x_npy", settings={"autoencoder": facts}) as run:
        run.finish()

    call = sample("--data", "x_npy", "--condition", "s1_rtc", "--generate", "dem")

    assert call.code == 1
    assert "encoded by the autoencoder elsewhere" in call.err


def test_latents_of_another_size_than_the_model_takes_are_refused(sample, tmp_path):
    store = tiny_store(tmp_path / "store", side=16, autoencoder=facts_without_fingerprint())

    call = sample("--data", store, "--condition", "s1_rtc", "--generate", "dem")

    assert call.code == 1
    assert "(8, 16, 16)" in call.err


def test_png_and_npy_trees_are_data_too(sample, tmp_path):
    rng = np.random.default_rng(0)
    for modality in (Modality.S1RTC, Modality.DEM):
        folder = modality.spec.folder
        save_folder(tmp_path / "x_thumbnail_png" / "test" / folder, modality, ["a", "b"])
        moments = tmp_path / "x_thumbnail_npy" / "test" / folder
        moments.mkdir(parents=True)
        for name in ("a", "b"):
            np.save(moments / f"{name}.npy", rng.standard_normal((8, 8, 8), dtype=np.float32))
    np.save(tmp_path / "x_thumbnail_npy" / "test" / Modality.S1RTC.spec.folder / "c.npy", np.array([{}]))
    np.save(tmp_path / "x_thumbnail_npy" / "test" / Modality.DEM.spec.folder / "c.npy", np.zeros((8, 8, 8)))

    png = sample("--data", tmp_path / "x_thumbnail_png", "--condition", "s1_rtc", "--generate", "dem", "--output", "p")
    npy = sample("--data", tmp_path / "x_thumbnail_npy", "--condition", "s1_rtc", "--generate", "dem", "--output", "n")

    assert png.code == 0, png.err
    assert npy.code == 3, npy.err  # a pickled npy is set aside, and not executed
    assert "c.npy" in npy.err
    assert pixels_of(Path("p/grid_0001.png")).shape == pixels_of(Path("n/grid_0001.png")).shape


def test_the_newest_model_trained_on_the_region_is_the_default_and_it_says_so(sample, tmp_path, pictures):
    for number, preset in enumerate(("small", "tiny")):
        folder = small_model(tmp_path / "runs" / f"rome-{preset}" / "model", number)
        os.utime(folder / "model_index.json", (number, number))
    small_model(tmp_path / "runs" / "alps-tiny" / "model")
    small_model(tmp_path / "runs" / "rome-north-tiny" / "model")  # of the region rome-north

    call = sample("--input", f"s1_rtc={pictures / 's1_rtc'}", "--generate", "dem", "--output", "o", named=None)

    assert call.code == 0
    assert "runs/rome-tiny/model" in call.err
    listing = json.loads(Path("o/samples.json").read_text())
    assert listing["settings"]["model"]["id"] == "runs/rome-tiny/model"


def test_the_folder_of_a_run_stands_for_the_model_in_it(sample, tmp_path):
    small_model(tmp_path / "mine" / "model")

    call = sample("--generate", "dem", "--output", "o", named="mine")

    assert call.code == 0, call.err
    assert json.loads(Path("o/samples.json").read_text())["settings"]["model"]["id"] == "mine"


def test_the_built_in_name_is_never_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small_model(tmp_path / "copgen-sim" / "model")

    assert find_parts("copgen-sim").transformer == bundled_folder()
    assert find_parts("./copgen-sim").transformer == Path("copgen-sim/model")


def test_guidance_solvers_and_the_published_labels_change_the_result(sample, pictures):
    arguments = ("--input", f"s1_rtc={pictures / 's1_rtc'}", "--generate", "dem", "--save-as", "pngs", "--limit", 1)
    choices = {
        "plain": (),
        "guided": ("--guidance-scale", 1.5),
        "ddim": ("--solver", "ddim"),
        "published": ("--ignored", "published"),
    }

    for name, options in choices.items():
        assert sample(*arguments, *options, "--output", name, steps=4).code == 0

    made = {name: pixels_of(Path(name) / "dem" / "a_v1.png") for name in choices}
    for first, second in itertools.combinations(choices, 2):
        assert (made[first] != made[second]).any(), (first, second)


def test_a_tiny_decoder_draws_previews_and_the_picture_says_so(sample, pictures, tmp_path):
    from diffusers import AutoencoderTiny

    decoder = AutoencoderTiny(
        encoder_block_out_channels=(4, 4, 4, 4), decoder_block_out_channels=(4, 4, 4, 4),
        num_encoder_blocks=(1, 1, 1, 1), num_decoder_blocks=(1, 1, 1, 1),
    )  # fmt: skip
    decoder.save_pretrained(tmp_path / "decoder")
    arguments = ("--input", f"s1_rtc={pictures / 's1_rtc'}", "--generate", "dem", "--save-as", "pngs", "--limit", 1)

    plain = sample(*arguments, "--output", "plain")
    rough = sample(*arguments, "--output", "rough", "--preview", tmp_path / "decoder")
    foreign = sample(*arguments, "--output", "foreign", "--preview", "tiny")

    assert (plain.code, rough.code, foreign.code) == (0, 0, 2), rough.err
    assert (pixels_of(Path("plain/dem/a_v1.png")) != pixels_of(Path("rough/dem/a_v1.png"))).any()
    with Image.open("rough/dem/a_v1.png") as picture:
        assert "preview decoder" in picture.info["Description"]
    assert "autoencoder of its own" in foreign.err


def test_a_folder_in_use_by_another_process_is_left_alone(sample, pictures):
    from filelock import FileLock

    Path("o/.copgen").mkdir(parents=True)
    with FileLock("o/.copgen/lock"):
        call = sample("--input", f"s1_rtc={pictures / 's1_rtc'}", "--generate", "dem", "--output", "o")

    assert call.code == 1
    assert "Another process is writing" in call.err


def test_a_picture_bears_its_origin_and_is_plain_rgb(sample, pictures):
    sample("--input", f"s1_rtc={pictures / 's1_rtc'}", "--generate", "dem", "--save-as", "pngs", "--output", "o")

    with Image.open("o/dem/a_v1.png") as picture:
        assert picture.mode == "RGB"
        assert picture.info["Synthetic"] == "true"


def facts_without_fingerprint():
    from copgen_cli.latents.store_format import AutoencoderFacts

    return AutoencoderFacts("somewhere", None, 0.7)
