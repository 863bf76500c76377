"""A sample is a function of model, inputs, seed and its own name: not of batches, order, processes or interruptions."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from copgen_processes import ranks
from PIL import Image, PngImagePlugin
from sample_commands import call_copgen, one_thread, pixels_of, save_folder, save_picture, small_model
from tiny_stores import tiny_store

from copgen_cli.latents.store_format import AutoencoderFacts
from copgen_cli.modalities import Modality
from copgen_cli.sampling.generation import Task
from copgen_cli.sampling.plan import plan_job
from copgen_cli.sampling.request import RequestOptions
from copgen_cli.sampling.run import Job, Step, draw, start_run, work_items_of
from copgen_cli.settings.loading import load_settings
from copgen_cli.stages.manifest import Outcome
from copgen_cli.stages.process_group import World

NAMES = list("abcdefg")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    with one_thread():
        yield small_model(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture(scope="module")
def radar(tmp_path_factory) -> Path:
    return save_folder(tmp_path_factory.mktemp("pictures") / "radar", Modality.S1RTC, NAMES)


@pytest.fixture
def plan(model, radar, tmp_path, monkeypatch):
    """Plan a job of three samples of two modalities for each picture."""
    monkeypatch.chdir(tmp_path)

    def make(folder: Path = radar, **sample) -> Job:
        chosen = {"model": str(model), "steps": 3, "n_samples": 3, "save_as": "pngs", "seed": 3} | sample
        options = RequestOptions(generate="dem,s2_l2a", inputs=(f"s1_rtc={folder}",))
        return plan_job(load_settings(sample=chosen), options, CPU).job

    return make


@pytest.fixture
def sample(model, radar, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object, folder: Path = radar):
        chosen = ("--model", model, "--input", f"s1_rtc={folder}", "--generate", "dem,s2_l2a", "--steps", 3)
        return call_copgen(capsys, "sample", *chosen, *arguments)

    return call


def tasks_of(job: Job) -> list[Task]:
    records = [job.source.read(name) for name in job.names]
    moments_of = job.generator.moments_of
    return [
        Task(
            f"{record.name}_v{k}",
            record.name,
            {m: moments_of(v, m) for m, v in record.conditions.items()},
        )
        for record in records
        for k in (1, 2, 3)
    ]


def drawn(job: Job, tasks: list[Task], size: int) -> dict[str, dict[Modality, torch.Tensor]]:
    """Latents of every sample, drawn `size` at a time."""
    latents = {}
    for first in range(0, len(tasks), size):
        batch = tasks[first : first + size]
        for modality, values in job.generator.draw(batch).items():
            for task, value in zip(batch, values, strict=True):
                latents.setdefault(task.sample, {})[modality] = value
    return latents


def largest_difference(one, other) -> float:
    assert one.keys() == other.keys()
    return max(float((one[s][m] - other[s][m]).abs().max()) for s in one for m in one[s])


def test_latents_do_not_depend_on_batch_size_or_order(plan):
    job = plan()
    tasks = tasks_of(job)
    alone = drawn(job, tasks, 1)

    assert largest_difference(alone, drawn(job, tasks, 3)) < 1e-4
    assert largest_difference(alone, drawn(job, tasks, 16)) < 1e-4
    assert largest_difference(alone, drawn(job, tasks[::-1], 16)) < 1e-4
    assert max(float(value.abs().max()) for sample in alone.values() for value in sample.values()) > 1


@pytest.mark.parametrize("batch_size", [3, 16])
def test_pictures_of_another_batch_size_differ_by_one_level_at_most(sample, batch_size):
    sample("--n-samples", 3, "--save-as", "pngs", "--batch-size", 1, "--output", "one")
    sample("--n-samples", 3, "--save-as", "pngs", "--batch-size", batch_size, "--output", "other")

    files = sorted(path.relative_to("one") for path in Path("one").rglob("*.png"))
    assert len(files) == 3 * 2 * len(NAMES)
    for file in files:
        one, other = (pixels_of(Path(folder) / file).astype(int) for folder in ("one", "other"))
        assert np.abs(one - other).max() <= 1


def test_records_that_come_and_go_do_not_change_the_others(sample, radar, tmp_path):
    sample("--save-as", "pngs", "--batch-size", 2, "--output", "all")
    some = tmp_path / "some"
    some.mkdir()
    for name in ("f", "b", "c"):
        shutil.copy(radar / f"{name}.png", some)
    sample("--save-as", "pngs", "--batch-size", 2, "--output", "some-pictures", folder=some)

    for name in ("f", "b", "c"):
        one, other = (pixels_of(Path(f) / "dem" / f"{name}_v1.png").astype(int) for f in ("all", "some-pictures"))
        assert np.abs(one - other).max() <= 1


def test_the_samples_of_a_record_and_those_of_equal_pictures_differ(sample, tmp_path):
    for name in ("a", "b"):
        save_picture(tmp_path / "twins" / f"{name}.png", seed=1)
    sample("--n-samples", 2, "--save-as", "pngs", "--output", "o", folder=tmp_path / "twins")

    pictures = [pixels_of(Path("o/dem") / f"{name}.png") for name in ("a_v1", "a_v2", "b_v1", "b_v2")]
    assert all((one != other).any() for i, one in enumerate(pictures) for other in pictures[:i])


def test_the_command_draws_what_the_pipeline_draws(plan, model, radar):
    from copgen_cli import CopGenPipeline

    job = plan(n_samples=2)
    tasks = [task for task in tasks_of(job) if task.record == "a" and not task.sample.endswith("_v3")]

    out = CopGenPipeline.from_pretrained(model)(
        generate=["dem", "s2_l2a"], condition={"s1_rtc": pixels_of(radar / "a.png").copy()}, num_samples=2,
        num_inference_steps=3, solver=job.generator.request.solver, seed=3, sample_ids=["a_v1", "a_v2"],
        output_type="latent",
    )  # fmt: skip

    mine = job.generator.draw(tasks)
    for modality in (Modality.DEM, Modality.S2L2A):
        torch.testing.assert_close(mine[modality], out.latents[modality], atol=1e-5, rtol=0)


def test_two_processes_make_the_pictures_of_one_and_count_what_either_sets_aside(sample, model, tmp_path):
    folder = save_folder(tmp_path / "radar", Modality.S1RTC, NAMES)
    for name in ("b", "f"):
        (folder / f"{name}.png").write_bytes(b"broken")
    arguments = ("--n-samples", 2, "--save-as", "pngs", "--batch-size", 3)
    sample(*arguments, "--output", "one", folder=folder)
    chosen = ("--model", model, "--input", f"s1_rtc={folder}", "--generate", "dem,s2_l2a", "--steps", 3)

    with ranks(2, "sample", *chosen, *arguments, "--device", "cpu", "--output", "two", "--json") as processes:
        codes = [process.end() for process in processes]

    assert codes == [3, 0], [process.said for process in processes]
    told = json.loads(processes[0].said[processes[0].said.index("{") :])
    assert told["samples"] == 2 * 5
    files = sorted(path.relative_to("one") for path in Path("one").rglob("*.png"))
    assert files == sorted(path.relative_to("two") for path in Path("two").rglob("*.png"))
    for file in files:
        one, two = (pixels_of(Path(folder) / file).astype(int) for folder in ("one", "two"))
        assert np.abs(one - two).max() <= 1
    listings = [json.loads((Path(folder) / "samples.json").read_text()) for folder in ("one", "two")]
    assert listings[0]["missing"].keys() == listings[1]["missing"].keys() == {"b", "f"}
    assert listings[0]["records"] == listings[1]["records"]


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("save_as", ["pngs", "grid"])
@pytest.mark.parametrize("after", [1, 20, 60])
def test_an_interrupted_run_goes_on_and_ends_like_one_that_was_not(plan, tmp_path, save_as, after):
    job = replace(plan(save_as=save_as, batch_size=4))

    def run(folder: Path, steps: int | None) -> None:
        with start_run(job, folder) as started:
            units = work_items_of(job)
            for count, told in enumerate(draw(job, started, units, started.pending(units), World(CPU))):
                assert isinstance(told, Step | Outcome)
                if steps is not None and count >= steps:
                    raise Interrupted
            started.finish()

    with pytest.raises(Interrupted):
        run(tmp_path / "broken-off", after)
    run(tmp_path / "broken-off", None)
    run(tmp_path / "whole", None)

    def tree(folder: Path) -> dict[str, bytes]:
        return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    assert tree(tmp_path / "broken-off") == tree(tmp_path / "whole")


@pytest.mark.parametrize("batch_size", [1, 4])
def test_like_repeats_a_picture_bit_for_bit(sample, capsys, batch_size):
    sample("--n-samples", 3, "--spread", "--save-as", "pngs", "--batch-size", batch_size, "--output", "o")
    sample("--n-samples", 3, "--spread", "--save-as", "grid", "--batch-size", batch_size, "--output", "o")
    pictures = ["dem/a_v1.png", "s2_l2a/c_v2.png", "dem/g_v3.png", "dem/b_mean.png", "s2_l2a/b_std.png"]

    for picture in [*pictures, "grid_0001.png"]:
        call = call_copgen(capsys, "sample", "--like", Path("o") / picture, "--json")
        told = json.loads(call.out)
        assert call.code == 0, call.err
        assert told["identical"] is True
        assert Path(told["file"]).read_bytes() == (Path("o") / picture).read_bytes()


def test_like_repeats_what_auto_drew_on_a_cpu_with_bfloat16_also_on_one_without(sample, capsys, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    sample("--save-as", "pngs", "--output", "o")
    sample("--save-as", "pngs", "--dtype", "bfloat16", "--output", "both")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)

    call = call_copgen(capsys, "sample", "--like", "o/dem/a_v1.png", "--json")

    with Image.open("o/dem/a_v1.png") as picture:
        told = json.loads(picture.info["copgen"])
    assert (told["dtype"], told["autoencoder_dtype"]) == ("bfloat16", "float32")
    assert json.loads(call.out)["identical"] is True
    assert (pixels_of(Path("o/dem/a_v1.png")) != pixels_of(Path("both/dem/a_v1.png"))).any()


def test_like_repeats_a_page_from_a_store_with_its_truth(model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tiny_store(tmp_path / "store", test=3, side=8, autoencoder=AutoencoderFacts("somewhere", None, 0.7))
    call_copgen(
        capsys, "sample", "--model", model, "--data", "store", "--condition", "dem", "--generate", "s1_rtc",
        "--steps", 2, "--guidance-scale", 1, "--output", "o",
    )  # fmt: skip

    call = call_copgen(capsys, "sample", "--like", "o/grid_0001.png")

    assert call.code == 0, call.err
    assert Path("outputs/like/grid_0001.png").read_bytes() == Path("o/grid_0001.png").read_bytes()


def test_like_repeats_an_unconditional_sample_among_others(model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    call_copgen(
        capsys, "sample", "--model", model, "--generate", "dem", "--n-samples", 5, "--steps", 2,
        "--save-as", "pngs", "--batch-size", 2, "--output", "o",
    )  # fmt: skip

    call = call_copgen(capsys, "sample", "--like", "o/dem/sample_4.png")

    assert call.code == 0, call.err
    assert Path("outputs/like/sample_4.png").read_bytes() == Path("o/dem/sample_4.png").read_bytes()


def test_like_names_what_is_no_longer_the_same(sample, tmp_path, capsys):
    folder = save_folder(tmp_path / "mine", Modality.S1RTC, ["a", "b"])
    sample("--save-as", "pngs", "--output", "o", folder=folder)
    other = small_model(tmp_path / "other-model", seed=7)
    picture = Path("o/dem/a_v1.png")

    model_changed = call_copgen(capsys, "sample", "--like", picture, "--model", other)
    save_picture(folder / "a.png", seed=99)
    input_changed = call_copgen(capsys, "sample", "--like", picture)
    (folder / "a.png").unlink()
    (folder / "b.png").unlink()
    folder.rmdir()
    input_gone = call_copgen(capsys, "sample", "--like", picture)
    original = save_folder(tmp_path / "again", Modality.S1RTC, ["a"])
    input_other = call_copgen(capsys, "sample", "--like", picture, "--input", f"dem={original / 'a.png'}")
    moved = call_copgen(capsys, "sample", "--like", picture, "--input", f"s1_rtc={original / 'a.png'}")

    assert (model_changed.code, input_changed.code, input_gone.code, moved.code) == (1, 1, 2, 0)
    assert "not the one that made the picture" in model_changed.err
    assert "it has changed" in input_changed.err
    assert "from s1_rtc of a" in input_other.err
    assert "no picture or folder" in input_gone.err


def test_like_takes_no_option_that_the_picture_decides_and_never_replaces_it(sample, capsys):
    sample("--save-as", "pngs", "--output", "o")

    decided = call_copgen(capsys, "sample", "--like", "o/dem/a_v1.png", "--seed", 4, "--steps", 9, "--gpus", 2)
    replaced = call_copgen(capsys, "sample", "--like", "o/dem/a_v1.png", "--output", "o/dem")

    assert (decided.code, replaced.code) == (2, 2)
    assert "--steps, --seed, --gpus" in decided.err
    assert "would be replaced" in replaced.err


@pytest.mark.parametrize(
    "change",
    [{"threads": 1_000_000}, {"threads": 0}, {"steps": 0}, {"batches": [[None]]}, {"records": []}, {"inputs": {}}],
    ids=lambda change: next(iter(change)),
)
def test_a_picture_that_asks_for_nonsense_is_refused(sample, capsys, change):
    sample("--save-as", "pngs", "--output", "o")
    with Image.open("o/dem/a_v1.png") as picture:
        text = PngImagePlugin.PngInfo()
        text.add_text("copgen", json.dumps(json.loads(picture.info["copgen"]) | change))
        picture.save("strange.png", pnginfo=text)

    call = call_copgen(capsys, "sample", "--like", "strange.png")

    assert call.code == 1
    assert "does not understand it" in call.err
    assert not Path("outputs").exists()
