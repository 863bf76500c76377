"""A model judged on a region's test split: what is drawn, from what, and what the report says of it."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import tiny_autoencoder, tiny_pipeline

from copgen_cli.errors import CopgenError, MismatchError, MissingInputError, UsageError
from copgen_cli.evaluation import protocol
from copgen_cli.evaluation.examples import ExamplePictures
from copgen_cli.evaluation.page import as_html
from copgen_cli.evaluation.pairs import Pair
from copgen_cli.evaluation.pictures import PictureSet
from copgen_cli.evaluation.report import Report, as_json, as_text, tables
from copgen_cli.evaluation.run import assess_folders, assess_model
from copgen_cli.evaluation.scores import Score, Scorer, within
from copgen_cli.layout import Workspace, patch_file
from copgen_cli.metrics.catalogue import Metric
from copgen_cli.metrics.confidence import Estimate
from copgen_cli.metrics.features import AutoencoderFeatures, InceptionFeatures, features_of, in_units_of_truth
from copgen_cli.modalities import PUBLISHED, Split
from copgen_cli.model.autoencoder import ImageAutoencoder, to_signed
from copgen_cli.records import Ignored, Solver
from copgen_cli.sampling.generation import PictureGenerator, Task
from copgen_cli.sampling.models import load_model
from copgen_cli.settings.loading import load_settings

DEM, S1, L1C, L2A = PUBLISHED
CELLS = ("1U_1R", "1U_2R", "2U_1R")


def unwatched(items, *, total, label, unit=""):
    yield from items


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory) -> Path:
    return tiny_pipeline(
        tmp_path_factory.mktemp("model") / "tiny", modalities=("dem", "s1_rtc"), sample_size=8, patch_size=4
    )


@pytest.fixture(scope="module")
def model(model_folder):
    return load_model(str(model_folder), device=torch.device("cpu"), dtype=torch.float32)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Workspace:
    """Three test cells with two patches each, and a training cell, all of coarse noise at 64 px."""
    workspace = Workspace(tmp_path_factory.mktemp("data"), "toy")
    random = np.random.default_rng(0)
    for split, cells in ((Split.TEST, CELLS), (Split.TRAIN, ("9U_9R",))):
        for name in (f"{cell}_{k}" for cell in cells for k in range(2)):
            for modality in PUBLISHED:
                shape = (16, 16, 1 if modality.spec.grey else 3)
                pixels = random.integers(0, 256, shape, dtype=np.uint8).repeat(4, 0).repeat(4, 1)
                file = patch_file(workspace.patches, split, modality, name, ".png")
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.repeat(4 - shape[2] if shape[2] == 1 else 1, 2)).save(file)
    return workspace


@pytest.fixture
def ask(workspace, model_folder, tmp_path, monkeypatch):
    """Settings to judge the tiny model by, trained on a copy of the workspace that a test may change."""
    monkeypatch.chdir(tmp_path)
    Path("copgen.toml").write_text("[regions.toy]\nbbox = [0, 0, 1, 1]\n")
    shutil.copytree(workspace.data_dir, "data")
    trained = Path("runs/toy-tiny/model")
    shutil.copytree(model_folder, trained)

    def settings(model=trained, **evaluate):
        values = {"resamples": 20, "features": str(model_folder), "n_samples": 1, "pairs": ":dem"}
        return load_settings(
            data_dir="data",
            region="toy",
            evaluate=values | evaluate,
            sample={"model": str(model), "steps": 1, "solver": "ddim"},
        )

    return settings


def drawing_is_a_mistake(*_):
    raise AssertionError("drawn")


def make_plan(pairs, names, **changes) -> protocol.Plan:
    values = {
        "n_samples": 2,
        "steps": 2,
        "solver": Solver.DDIM,
        "guidance_scale": 0.0,
        "seed": 0,
        "ignored": Ignored.MARGINALISE,
        "batch_size": 3,
    }
    return protocol.Plan(pairs=tuple(pairs), names=tuple(names), **(values | changes))


def read_truth(workspace, model, names) -> protocol.Truth:
    found = list(protocol.read_truth(workspace, model, model.modalities, tuple(names)))
    return protocol.Truth(tuple(names), {m: p for m, p, _ in found}, {m: z for m, _, z in found})


@pytest.fixture(scope="module")
def truth(workspace, model) -> protocol.Truth:
    return read_truth(workspace, model, [f"{cell}_0" for cell in CELLS])


def sets_of(model, truth, plan) -> list[PictureSet]:
    return list(protocol.gather(protocol.paint_pairs(model, truth, plan), truth, plan))


def test_a_pair_gives_a_set_for_every_target_with_truth_and_conditions_beside(model, truth):
    plan = make_plan([Pair((S1,), (DEM,)), Pair((), (DEM, S1))], truth.names)

    found = sets_of(model, truth, plan)

    assert [(s.condition, s.target) for s in found] == [("s1_rtc", "dem"), ("nothing", "dem"), ("nothing", "s1_rtc")]
    assert all(s.samples.shape == (3, 2, 64, 64, 3) for s in found)
    assert all(s.matched for s in found)
    assert (found[0].inputs[S1] == truth.pictures[S1]).all()


def test_samples_do_not_depend_on_the_batch_size_nor_on_the_other_places(model, truth):
    pair = Pair((S1,), (DEM,))
    few = protocol.Truth(truth.names[1:], *({m: v[1:] for m, v in x.items()} for x in (truth.pictures, truth.moments)))

    (whole,) = sets_of(model, truth, make_plan([pair], truth.names, batch_size=4))
    (alone,) = sets_of(model, few, make_plan([pair], few.names, batch_size=1))

    assert np.abs(whole.samples[1:].astype(int) - alone.samples).max() <= 1


def test_each_sample_is_made_from_the_condition_of_its_own_place(model, truth):
    plan = make_plan([Pair((S1,), (DEM,))], truth.names)
    stronger = truth.moments[S1].clone()
    stronger[2] *= 30
    changed = protocol.Truth(truth.names, truth.pictures, {S1: stronger})

    (before,), (after,) = sets_of(model, truth, plan), sets_of(model, changed, plan)

    assert (before.samples[:2] == after.samples[:2]).all()
    assert (before.samples[2] != after.samples[2]).any()


def test_the_plan_knows_how_many_batches_there_are(model, truth):
    plan = make_plan([Pair((S1,), (DEM,)), Pair((), (DEM, S1))], truth.names, batch_size=4, translations=3)

    assert len(list(protocol.paint_pairs(model, truth, plan))) == plan.batches == 4
    assert len(list(protocol.paint_cycles(model, truth, plan))) == protocol.cycle_batches(plan) == 3


def test_a_cycle_comes_back_after_every_second_translation(model, truth):
    plan = make_plan([Pair((S1,), (DEM,)), Pair((), (DEM, S1))], truth.names, translations=5)

    returns = [s for s in protocol.paint_cycles(model, truth, plan) if s is not None]

    assert [(s.target, s.via, s.translations) for s in returns] == [("s1_rtc", "dem", 2), ("s1_rtc", "dem", 4)]
    assert returns[0].samples.shape == (3, 1, 64, 64, 3)
    assert (returns[0].samples != returns[1].samples).any()


def test_a_cycle_translates_the_picture_that_the_translation_before_made(model, truth):
    plan = make_plan([Pair((S1,), (DEM,))], truth.names, translations=2)

    def translate(given, made, moments, number):
        request = plan.request(Pair((given,), (made,)))
        generator = PictureGenerator(model.net, model.modalities, model.autoencoders, None, request)
        tasks = [Task(f"{n}_t{number}", n, {given: m}) for n, m in zip(truth.names, moments, strict=True)]
        return np.stack([generated[made] for generated in generator.generate(tasks)])

    there = translate(S1, DEM, truth.moments[S1], 1)
    back = translate(DEM, S1, protocol.encode(model.autoencoder, there), 2)
    (found,) = (s for s in protocol.paint_cycles(model, truth, plan) if s is not None)

    assert (found.samples[:, 0] == back).all()


def test_the_autoencoder_alone_is_seen_through_its_mean_and_two_draws(model, truth):
    decoded, draws = protocol.reconstruct(model.autoencoder, truth.moments[DEM], truth.names, 0)

    mean = truth.moments[DEM].chunk(2, dim=1)[0] * model.autoencoder.scale_factor
    assert (decoded == protocol.decode(model.autoencoder, mean)).all()
    assert draws.shape == (3, 2, 64, 64, 3)
    assert (draws[:, 0] != draws[:, 1]).any()


def test_only_patches_that_all_modalities_of_the_model_have_are_places(workspace):
    names = protocol.find_places(workspace, (DEM, S1))

    assert names == [f"{cell}_{k}" for cell in CELLS for k in range(2)]


def test_a_region_that_was_not_prepared_is_refused(tmp_path):
    with pytest.raises(MissingInputError) as refused:
        protocol.find_places(Workspace(tmp_path, "toy"), (DEM, S1))

    assert "copgen prepare" in refused.value.hint


def test_an_empty_test_split_is_refused_rather_than_training_cells_taken(tmp_path):
    workspace = Workspace(tmp_path, "toy")
    file = patch_file(workspace.patches, Split.TRAIN, DEM, "1U_1R_0", ".png")
    file.parent.mkdir(parents=True)
    Image.new("RGB", (64, 64)).save(file)

    with pytest.raises(CopgenError, match="test split") as refused:
        protocol.find_places(workspace, (DEM,))

    assert "--train-ratio" in refused.value.hint


def test_the_features_of_an_autoencoder_are_mean_and_deviation_of_its_encoders_last_hidden_layer():
    model = tiny_autoencoder()
    pictures = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    encoder = model.encoder
    with torch.no_grad():
        x = encoder.conv_in(to_signed(torch.from_numpy(pictures).permute(0, 3, 1, 2)))
        for block in encoder.down_blocks:
            x = block(x)
        hidden = torch.nn.functional.silu(encoder.conv_norm_out(encoder.mid_block(x)))
    network = AutoencoderFeatures(ImageAutoencoder(model, source="toy"))

    found = features_of(network, pictures)

    np.testing.assert_allclose(found[:, :8], hidden.mean((2, 3)).numpy(), atol=1e-5)
    np.testing.assert_allclose(found[:, 8:], hidden.std((2, 3)).numpy(), atol=1e-5)


def test_the_features_of_a_picture_are_those_of_its_middle_where_its_side_is_no_multiple_of_eight():
    network = AutoencoderFeatures(ImageAutoencoder(tiny_autoencoder()))
    factor = ImageAutoencoder(tiny_autoencoder()).reduction
    pictures = np.random.default_rng(0).integers(0, 256, (2, 6 * factor + 3, 4 * factor + 2, 3), dtype=np.uint8)

    found = features_of(network, pictures)

    assert (found == features_of(network, pictures[:, 1 : 6 * factor + 1, 1 : 4 * factor + 1])).all()


def test_features_of_large_pictures_are_computed_a_few_at_a_time():
    shapes = []

    def network(images):
        shapes.append(tuple(images.shape))
        return images.float().mean((2, 3))

    features_of(network, np.zeros((3, 1068, 1068, 3), np.uint8))
    features_of(network, np.zeros((20, 64, 64, 3), np.uint8))

    assert [shape[0] for shape in shapes] == [1, 1, 1, 16, 4]


def test_features_in_units_of_the_truth_count_alike_whatever_their_scale_and_dead_ones_hardly():
    truth = np.array([[0.0, 0, 5], [2, 2000, 5]])

    x, y = in_units_of_truth(truth, np.array([[3.0, 3000, 5.1]]))

    assert x[:, :2].tolist() == [[-1, -1], [1, 1]]
    assert y[0, :2].tolist() == [2, 2]
    assert y[0, 2] == pytest.approx(0.1)  # a thousandth of the largest deviation is 1


def test_a_distance_in_an_autoencoders_features_is_never_called_fid():
    network = AutoencoderFeatures(ImageAutoencoder(tiny_autoencoder(), source="toy"))

    assert "FID" not in (network.frechet_name, network.kernel_name)
    assert network.name.startswith("encoder of the autoencoder of toy")


def test_inception_without_its_library_is_refused_with_the_extra_that_brings_it():
    try:
        import torch_fidelity  # noqa: F401
    except ImportError:
        with pytest.raises(CopgenError) as refused:
            InceptionFeatures()
        assert "copgen[inception]" in refused.value.hint
    else:
        pytest.skip("torch-fidelity is installed")


def perfect_set(random, n: int = 2) -> PictureSet:
    names = tuple(f"{i}U_1R_0" for i in range(6))
    truth = random.integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    return PictureSet("s2_l2a", (S1,), names, truth, names, np.stack([truth] * n, axis=1))


def numbers(scores) -> dict[str, float]:
    return {score.key: score.estimate.value for score in scores}


def test_a_perfect_translation_has_the_best_of_every_number():
    pictures = perfect_set(np.random.default_rng(0))
    network = AutoencoderFeatures(ImageAutoencoder(tiny_autoencoder()))
    scorer = Scorer(frozenset(Metric), features=network, training={"s2_l2a": 255 - pictures.truth}, resamples=20)

    found = numbers(scorer.scores(pictures))

    assert found["psnr"] == 100
    assert found["ssim"] == pytest.approx(1)
    assert found["closer"] == found["closer_layout"] == found["top1"] == found["precision"] == found["recall"] == 1
    assert found["frechet"] == pytest.approx(0, abs=0.1)  # twice the pictures have a hair less variance
    assert found["kernel"] == pytest.approx(0, abs=1e-9)
    for key in ("wasserstein", "wasserstein_blue", "spectrum", "diversity"):
        assert found[key] == pytest.approx(0)
    assert found["coverage"] == pytest.approx(1 / 3)  # the nominal share of two samples
    assert found["copying"] == 1
    assert "correlation" not in found  # it is for hillshades


def test_samples_that_copy_training_pictures_are_told():
    pictures = perfect_set(np.random.default_rng(0), n=1)
    copied = PictureSet(
        "s2_l2a", (S1,), pictures.names, pictures.truth, pictures.names, np.roll(255 - pictures.samples, 1, axis=0)
    )
    scorer = Scorer(frozenset({Metric.COPYING}), training={"s2_l2a": 255 - pictures.truth}, resamples=20)

    assert numbers(scorer.scores(copied))["copying"] == 0
    assert scorer.closest_copy(copied).ratio == 0
    assert numbers(scorer.scores(pictures))["copying"] == 1


def test_sets_whose_names_do_not_match_have_no_numbers_of_pairs():
    pictures = perfect_set(np.random.default_rng(0))
    others = tuple(f"sample_{i}" for i in range(6))
    unmatched = PictureSet("s2_l2a", (), pictures.truth_names, pictures.truth, others, pictures.samples)
    scorer = Scorer(frozenset({Metric.PSNR, Metric.WASSERSTEIN, Metric.RETRIEVAL, Metric.COVERAGE}), resamples=20)

    assert set(numbers(scorer.scores(unmatched))) == {
        "wasserstein", "wasserstein_red", "wasserstein_green", "wasserstein_blue"
    }  # fmt: skip


def test_a_model_is_assessed_on_the_test_split_and_the_report_says_how(workspace, model_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("copgen.toml").write_text("[regions.toy]\nbbox = [0, 0, 1, 1]\n")
    settings = load_settings(
        data_dir=workspace.data_dir,
        region="toy",
        evaluate={"limit": 3, "resamples": 20, "features": str(model_folder), "translations": 2,
                  "metrics": "psnr,correlation,retrieval,frechet,diversity,coverage,copying,reconstruction,cycle"},
        sample={"model": str(model_folder), "steps": 2, "solver": "ddim"},
    )  # fmt: skip

    assessment = assess_model(settings, Ignored.MARGINALISE, settings.workspace.patches / "train", unwatched)
    written = assessment.write(tmp_path / "report")

    report = json.loads(written["numbers"].read_text())
    assert report["facts"]["split"] == "test"
    assert report["facts"]["patches"] == report["facts"]["cells"] == 3
    found = {(s["condition"], s["target"], s["metric"], s.get("translations", 0)): s for s in report["scores"]}
    assert ("s1_rtc", "dem", "correlation", 0) in found
    assert ("dem", "dem", "psnr", 2) in found
    assert ("", "dem", "reconstruction", 0) in found
    assert ("nothing", "s1_rtc", "closer", 0) in found
    assert found["s1_rtc", "dem", "psnr", 0]["low"] <= found["s1_rtc", "dem", "psnr", 0]["value"]
    assert found["dem", "s1_rtc", "frechet", 0]["title"] == "AE-FD"
    curves = {(c["condition"], c["target"], c["resolution"]): c for c in report["reliability"]}
    assert len(curves) == 2 * sum(metric == "coverage" for _, _, metric, _ in found)
    assert curves["s1_rtc", "dem", "pixels"]["intervals"][0]["nominal"] == report["facts"]["nominal_coverage"]
    page = written["report"].read_text()
    assert page.count("<svg") == len(curves)  # of each pair a curve and a histogram, both of either resolution
    assert page.count("data:image/jpeg;base64,") > 20
    assert "://" not in page.replace(str(tmp_path), "")
    assert "synthetic" in page


def test_a_metric_that_folders_can_not_give_is_refused_only_when_it_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("real", "made"):
        Path(folder).mkdir()
        for name in "ab":
            Image.new("RGB", (16, 16), (9, 9, 9)).save(f"{folder}/{name}.png")

    asked = load_settings(evaluate={"metrics": "psnr,reconstruction"})
    with pytest.raises(UsageError, match="reconstruction needs --model"):
        assess_folders(asked, Path("real"), Path("made"), None, unwatched)

    asked = load_settings(evaluate={"metrics": "psnr,correlation", "resamples": 20})
    found = assess_folders(asked, Path("real"), Path("made"), None, unwatched)
    assert numbers(found.scores) == {"psnr": 100}  # the correlation of flat pictures is unknown


def test_training_pictures_of_another_size_are_refused_before_anything_is_drawn(ask, monkeypatch):
    for file in ask().workspace.patches.glob("train/*/*.png"):
        Image.open(file).resize((48, 64)).save(file)
    monkeypatch.setattr(protocol, "paint_pairs", drawing_is_a_mistake)

    with pytest.raises(MismatchError, match=r"48 x 64 px.* 64 x 64"):
        assess_model(ask(), Ignored.MARGINALISE, None, unwatched)


@pytest.mark.parametrize("emptied", ["train", "train/*", "train/*/*"], ids=["no folder", "empty", "no pictures"])
def test_without_training_pictures_copies_are_not_looked_for_unless_asked_for_by_name(ask, emptied):
    for path in ask().workspace.patches.glob(emptied):
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    report = assess_model(ask(), Ignored.MARGINALISE, None, unwatched).report

    assert report.facts["training_pictures"] is None
    assert "Copies are not looked for" in report.notes[0]
    with pytest.raises(CopgenError, match="no training pictures"):
        assess_model(ask(metrics="copying"), Ignored.MARGINALISE, None, unwatched)


def test_what_a_model_from_elsewhere_was_trained_on_is_not_known(ask, model_folder):
    elsewhere = ask(model=model_folder, metrics="copying")

    with pytest.raises(CopgenError, match="not known") as refused:
        assess_model(elsewhere, Ignored.MARGINALISE, None, unwatched)
    assert "--training" in refused.value.hint
    told = assess_model(elsewhere, Ignored.MARGINALISE, elsewhere.workspace.patches / "train", unwatched)
    assert told.report.facts["training_pictures"].endswith("train")


def save_picture(file: Path, pixels: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file)


def test_all_places_of_two_folders_are_judged_unless_a_limit_is_named(tmp_path):
    for i in range(20):
        for folder in ("real", "made"):
            save_picture(tmp_path / folder / f"{i}.png", np.full((16, 16, 3), i, np.uint8))

    def places(**asked):
        settings = load_settings(evaluate={"metrics": "psnr", "resamples": 20, **asked})
        return assess_folders(settings, tmp_path / "real", tmp_path / "made", None, unwatched).facts["places"]

    assert places() == 20
    assert places(limit=3) == 3


def assess_two(tmp_path, truths, samples, **asked):
    """Scorer pictures by name, all on the tiny model's features."""
    for folder, pictures in (("real", truths), ("made", samples)):
        for name, pixels in pictures.items():
            save_picture(tmp_path / folder / f"{name}.png", pixels)
    return assess_folders(
        load_settings(evaluate={"resamples": 20, **asked}), tmp_path / "real", tmp_path / "made", None, unwatched
    )


def noise(names, side: int, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {name: random.integers(0, 256, (side, side, 3), dtype=np.uint8) for name in names}


@pytest.mark.filterwarnings("error")
def test_pictures_that_are_too_small_for_a_metric_are_judged_by_the_others(tmp_path, model_folder):
    small = noise("abcde", 8)

    found = assess_two(tmp_path, small, small, features=str(model_folder))

    assert {"psnr", "closer", "spectrum"} <= numbers(found.scores).keys()
    assert not {"ssim", "frechet"} & numbers(found.scores).keys()
    assert found.report.notes == (
        "Pictures of 8 px are too small for ssim (from 11 px), frechet (from 16 px), kernel (from 16 px), "
        "precision-recall (from 16 px).",
    )


@pytest.mark.parametrize(("metric", "side"), [("ssim", 10), ("frechet", 8), ("retrieval", 7)])
def test_a_metric_that_is_asked_for_is_refused_where_pictures_are_too_small_for_it(
    tmp_path, model_folder, metric, side
):
    small = noise("ab", side)

    with pytest.raises(UsageError, match=f"{side} px are too small for {metric}"):
        assess_two(tmp_path, small, small, features=str(model_folder), metrics=f"psnr,{metric}")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("places", ["a", "abcde"], ids=["a single place", "equal places"])
def test_distances_in_units_of_truths_that_do_not_differ_are_left_out_with_a_note(tmp_path, model_folder, places):
    black = {name: np.zeros((32, 32, 3), np.uint8) for name in places}

    found = assess_two(tmp_path, black, noise(places, 32), features=str(model_folder))

    assert not {"frechet", "kernel", "precision"} & numbers(found.scores).keys()
    assert "No frechet of pictures: it needs two samples, and two true pictures that differ." in found.report.notes


@pytest.mark.parametrize(
    ("metric", "need"),
    [("correlation", "hillshades"), ("kernel", "two cells"), ("diversity", "two samples"), ("retrieval", "two cells")],
)
def test_a_metric_that_is_asked_for_and_gives_no_number_is_told(tmp_path, model_folder, metric, need):
    pictures = noise(("1U_1R_0", "1U_1R_1"), 32)

    found = assess_two(tmp_path, pictures, pictures, features=str(model_folder), metrics=f"psnr,{metric}")

    (note,) = found.report.notes
    assert note.startswith(f"No {metric} of pictures: it needs ")
    assert need in note


@pytest.mark.filterwarnings("error")
def test_novelty_is_unknown_where_the_truths_are_training_pictures_themselves():
    pictures = perfect_set(np.random.default_rng(0))
    scorer = Scorer(frozenset({Metric.COPYING}), training={"s2_l2a": pictures.truth}, resamples=20)

    assert scorer.scores(pictures) == []
    assert scorer.closest_copy(pictures) is None


def test_cycles_without_a_pair_of_single_modalities_are_told(ask):
    report = assess_model(ask(metrics="psnr,cycle", pairs="unconditional"), Ignored.MARGINALISE, None, unwatched).report

    assert report.notes == ("No cycle: it needs a pair of one modality and one other, such as --pairs single gives.",)


def test_cycles_alone_give_their_distance_as_well_and_draw_no_pairs(ask, monkeypatch):
    monkeypatch.setattr(protocol, "paint_pairs", drawing_is_a_mistake)
    asked = ask(metrics="cycle,reconstruction", pairs="dem:s1_rtc", limit=3, translations=2)

    found = assess_model(asked, Ignored.MARGINALISE, None, unwatched).scores

    assert {score.key for score in found if score.translations} == {"psnr", "frechet"}
    assert {score.key for score in found if not score.translations} == {
        "reconstruction",
        "reconstruction_spectrum",
        "reconstruction_saturation",
        "autoencoder_noise",
    }


def test_a_modality_that_no_pair_names_need_not_be_there(ask):
    asked = ask(metrics="psnr,copying,reconstruction", pairs=":dem")
    for folder in asked.workspace.patches.glob("*/S1RTC_thumbnail"):
        shutil.rmtree(folder)

    found = assess_model(asked, Ignored.MARGINALISE, None, unwatched).scores

    assert {score.target for score in found} == {"dem"}
    with pytest.raises(CopgenError, match="s1_rtc: 0") as refused:
        assess_model(ask(pairs=":dem+s1_rtc"), Ignored.MARGINALISE, None, unwatched)
    assert refused.value.hint == "Download and prepare s1_rtc as well, or name --pairs without it."


def test_ssim_without_its_library_is_refused_before_the_folders_are_read(monkeypatch):
    monkeypatch.setattr("copgen_cli.metrics.extras.find_spec", lambda _: None)

    with pytest.raises(CopgenError, match="SSIM needs skimage"):
        assess_folders(load_settings(evaluate={"metrics": "ssim"}), Path("none"), Path("none"), None, unwatched)


def test_the_wasserstein_distance_of_every_channel_has_its_column():
    channels = ("red", "green", "blue")
    estimate = Estimate(1.0, 0.5, 1.5, 2)
    report = make_report(*(Score("?", "s2_l2a", f"wasserstein_{channel}", estimate) for channel in channels))

    (table,) = tables(report)

    assert table.columns == tuple(f"… {channel} [levels]" for channel in channels)


def make_report(*scores: Score) -> Report:
    return Report({"model": "<toy>"}, scores, {"frechet": "AE-FD"}, ("left out",))


def test_intervals_hold_no_values_that_a_quantity_can_not_take():
    assert within(Estimate(0.98, 0.9, 1.02, 9), "precision").high == 1
    assert within(Estimate(1.0, -0.5, 3.0, 9), "frechet").low == 0
    assert within(Estimate(0.1, -0.5, 0.3, 9), "kernel").low == -0.5


def test_what_is_unknown_is_null_in_json():
    report = make_report(Score("s1_rtc", "dem", "psnr", Estimate(20.0, math.nan, math.nan, 3)))

    (score,) = json.loads(json.dumps(as_json(report), allow_nan=False))["scores"]

    assert score["value"] == 20
    assert score["low"] is None


def test_a_table_gives_numbers_no_more_digits_than_their_intervals_allow():
    report = make_report(
        Score("s1_rtc", "dem", "psnr", Estimate(21.23456, 20.6, 21.8, 8)),
        Score("s1_rtc", "dem", "frechet", Estimate(0.012345, 0.010, 0.014, 8)),
        Score("s1_rtc", "s2_l2a", "frechet", Estimate(36.8, 0.0, 231.0, 8)),
    )

    text = "\n".join(as_text(report))

    assert "21.23 ± 0.60" in text
    assert "37 (0 to 231)" in text
    assert "0.0123 ± 0.0020" in text
    assert "AE-FD" in text


def test_rows_of_one_target_stand_together_in_the_order_of_modalities():
    scores = [
        Score(c, t, "psnr", Estimate(1.0, 0.5, 1.5, 2))
        for c, t in (("dem", "s1_rtc"), ("s1_rtc", "dem"), ("nothing", "s1_rtc"))
    ]

    lines = [line.split("  ")[0] for line in as_text(make_report(*scores))]

    assert lines[2:] == ["s1_rtc -> dem", "dem -> s1_rtc", "nothing -> s1_rtc"]


def test_the_page_escapes_what_it_is_given():
    page = as_html(make_report(Score("?", "dem", "psnr", Estimate(1.0, 0.5, 1.5, 2))), ExamplePictures())

    assert "&lt;toy&gt;" in page
    assert "<toy>" not in page
