"""A model judged on a region's test split: what is drawn, from what, and what the report says of it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import tiny_autoencoder, tiny_pipeline

from copgen_cli.errors import CopgenError, MissingInputError, UsageError
from copgen_cli.evaluation import protocol
from copgen_cli.evaluation.album import Album
from copgen_cli.evaluation.assessing import assess_folders, assess_model
from copgen_cli.evaluation.bootstrap import Estimate
from copgen_cli.evaluation.features import AutoencoderFeatures, InceptionFeatures, features_of, in_units_of_truth
from copgen_cli.evaluation.judge import Judge, Score, within
from copgen_cli.evaluation.metrics import Metric
from copgen_cli.evaluation.page import as_html
from copgen_cli.evaluation.pairs import Pair
from copgen_cli.evaluation.pictures import PictureSet
from copgen_cli.evaluation.report import Report, as_json, as_text
from copgen_cli.layout import Workspace, patch_file
from copgen_cli.modalities import Modality, Split
from copgen_cli.model.autoencoder import ImageAutoencoder, to_signed
from copgen_cli.records import Ignored, Solver
from copgen_cli.sampling.models import load_model
from copgen_cli.sampling.painter import Painter, Task
from copgen_cli.settings import load_settings

DEM, S1, L1C, L2A = Modality
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
            for modality in Modality:
                shape = (16, 16, 1 if modality.facts.grey else 3)
                pixels = random.integers(0, 256, shape, dtype=np.uint8).repeat(4, 0).repeat(4, 1)
                file = patch_file(workspace.patches, split, modality, name, ".png")
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.repeat(4 - shape[2] if shape[2] == 1 else 1, 2)).save(file)
    return workspace


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
    found = list(protocol.read_truth(workspace, model, tuple(names)))
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
        painter = Painter(model.net, model.modalities, model.autoencoder, model.autoencoder, request)
        tasks = [Task(f"{n}_t{number}", n, {given: m}) for n, m in zip(truth.names, moments, strict=True)]
        return np.stack([painted[made] for painted in painter.paint(tasks)])

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
    judge = Judge(frozenset(Metric), features=network, training={"s2_l2a": 255 - pictures.truth}, resamples=20)

    found = numbers(judge.scores(pictures))

    assert found["psnr"] == 100
    assert found["ssim"] == pytest.approx(1)
    assert found["closer"] == found["top1"] == found["precision"] == found["recall"] == 1
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
    judge = Judge(frozenset({Metric.COPYING}), training={"s2_l2a": 255 - pictures.truth}, resamples=20)

    assert numbers(judge.scores(copied))["copying"] == 0
    assert judge.closest_copy(copied).ratio == 0
    assert numbers(judge.scores(pictures))["copying"] == 1


def test_sets_whose_names_do_not_match_have_no_numbers_of_pairs():
    pictures = perfect_set(np.random.default_rng(0))
    others = tuple(f"sample_{i}" for i in range(6))
    unmatched = PictureSet("s2_l2a", (), pictures.truth_names, pictures.truth, others, pictures.samples)
    judge = Judge(frozenset({Metric.PSNR, Metric.WASSERSTEIN, Metric.RETRIEVAL, Metric.COVERAGE}), resamples=20)

    assert set(numbers(judge.scores(unmatched))) == {
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

    assessment = assess_model(settings, Ignored.MARGINALISE, None, unwatched)
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
    page = written["report"].read_text()
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
    )

    text = "\n".join(as_text(report))

    assert "21.23 ± 0.60" in text
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
    page = as_html(make_report(Score("?", "dem", "psnr", Estimate(1.0, 0.5, 1.5, 2))), Album())

    assert "&lt;toy&gt;" in page
    assert "<toy>" not in page
