"""`copgen train` from outside: exit codes, signals, several processes, and what bad input gets."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from copgen_processes import copgen, ranks
from tiny_models import tiny_autoencoder, tiny_transformer
from tiny_stores import tiny_store

from copgen_cli.latents.autoencoder_record import AutoencoderFacts
from copgen_cli.latents.store import LatentStore
from copgen_cli.modalities import Split
from copgen_cli.model.autoencoder import fingerprint

TINY = ("--preset", "tiny", "--device", "cpu", "--log-every", "1")


@pytest.fixture(scope="module")
def vae(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("vae")
    tiny_autoencoder().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def store(tmp_path_factory, vae) -> Path:
    facts = AutoencoderFacts(str(vae), fingerprint(tiny_autoencoder()), 0.7)
    return tiny_store(tmp_path_factory.mktemp("data") / "store", side=8, autoencoder=facts)


def lines(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_run_ends_with_code_0_a_model_that_samples_and_nothing_left_to_do(store, tmp_path):
    from copgen_cli import CopGenPipeline

    run = tmp_path / "run"
    with copgen("train", "--data", store, *TINY, "--steps", 6, "--workdir", run, "--preview-every", 3) as process:
        assert process.end() == 0, process.said

    assert [line["step"] for line in lines(run)] == [1, 2, 3, 4, 5, 6]
    assert "validation/loss" in lines(run)[-1]
    assert lines(run)[-1]["stopped"] == "finished"
    assert sorted(path.name for path in (run / "previews").iterdir()) == ["step-00000003.png", "step-00000006.png"]
    pipeline = CopGenPipeline.from_pretrained(run / "model")
    assert pipeline("dem", num_inference_steps=1, output_type="latent").images["dem"].shape == (1, 4, 8, 8)
    with copgen("train", "--data", store, *TINY, "--steps", 6, "--workdir", run) as again:
        assert again.end() == 0
    assert len(lines(run)) == 6


def test_sigterm_finishes_the_step_saves_and_exits_with_143_and_the_same_command_goes_on(store, tmp_path):
    run = tmp_path / "run"
    command = ("--verbose", "train", "--data", store, *TINY, "--steps", 12, "--save-every", 1, "--workdir", run)
    with copgen(*command, "--preview-every", 0) as process:
        process.wait_for("Step 3: wrote")
        os.kill(process.process.pid, signal.SIGTERM)
        assert process.end() == 143
    stopped = lines(run)[-1]
    assert stopped["stopped"] == "SIGTERM"
    assert (run / "checkpoints" / f"step-{stopped['step']:08}" / "manifest.json").is_file()

    with copgen(*command, "--preview-every", 0) as process:
        assert f"step {stopped['step']} of 12" in process.wait_for("Going on from")
        assert process.end() == 0
    assert [line["step"] for line in lines(run)] == list(range(1, 13))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGUSR1, 143)])
def test_other_signals_stop_a_run_as_well(store, tmp_path, number, code):
    command = ("--verbose", "train", "--data", store, *TINY, "--steps", 500, "--save-every", 1)
    with copgen(*command, "--preview-every", 0, "--workdir", tmp_path / "run") as process:
        process.wait_for("Step 1: wrote")
        os.kill(process.process.pid, number)
        assert process.end() == code


def test_max_time_saves_and_exits_with_code_3(store, tmp_path):
    run = tmp_path / "run"
    with copgen("train", "--data", store, *TINY, "--workdir", run, "--max-time", "0.001s") as process:
        assert process.end() == 3, process.said

    assert lines(run)[-1]["stopped"] == "time"
    assert (run / "checkpoints" / "step-00000001").is_dir()


def test_a_signal_to_one_of_two_processes_stops_both_at_the_same_step(store, tmp_path):
    run = tmp_path / "run"
    command = ("--verbose", "train", "--data", store, *TINY, "--steps", 500, "--save-every", 1, "--preview-every", 0)
    with ranks(2, *command, "--workdir", run) as (first, second):
        first.wait_for("Step 2: wrote")
        os.kill(second.process.pid, signal.SIGTERM)

        assert (first.end(), second.end()) == (143, 143), first.said + second.said

    assert lines(run)[-1]["stopped"] == "SIGTERM"
    assert (run / "checkpoints" / f"step-{lines(run)[-1]['step']:08}").is_dir()


@pytest.mark.parametrize("victim", [0, 1])
def test_when_one_of_two_processes_is_killed_the_other_ends_and_says_why(store, tmp_path, victim):
    command = ("--verbose", "train", "--data", store, *TINY, "--steps", 500, "--save-every", 1, "--preview-every", 0)
    with ranks(2, *command, "--workdir", tmp_path / "run") as processes:
        processes[0].wait_for("Step 2: wrote")
        processes[victim].process.kill()
        other = processes[1 - victim]

        assert other.end() == 1, other.said
        assert "Another process of this run is gone" in other.said
        assert "continues from the last checkpoint" in other.said


def test_a_folder_in_which_a_run_is_at_work_is_refused(store, tmp_path):
    run = tmp_path / "run"
    command = ("--verbose", "train", "--data", store, *TINY, "--steps", 500, "--save-every", 1, "--workdir", run)
    with copgen(*command, "--preview-every", 0) as process:
        process.wait_for("Step 1: wrote")
        with copgen("train", "--data", store, *TINY, "--workdir", run) as second:
            assert second.end() == 1
            assert f"Another process is writing to {run}: train, process {process.process.pid}" in second.said


@pytest.mark.parametrize(
    ("options", "code", "told"),
    [
        (("--gpus", 4096), 2, "4096 were asked for"),
        (("--gpus", 2, "--num-processes", 3), 2, "2 GPUs and 3 processes"),
        (("--num-processes", 3), 2, "4 can not be shared by 3 processes"),
        (("--preset", "tinny"), 2, "Unknown preset 'tinny'"),
        (("--mixed-precision", "bf61"), 2, "train.mixed_precision"),
        (("--resume", "nowhere"), 2, "There is no checkpoint nowhere"),
        (("--modalities", "dem,sentinel"), 2, "Unknown modality 'sentinel'"),
        (("--init-from", "nowhere.pth"), 1, "nowhere.pth"),
    ],
)
def test_what_can_not_be_done_is_refused_in_one_line(store, tmp_path, options, code, told):
    with copgen("train", "--data", store, *TINY, "--workdir", tmp_path / "run", *options) as process:
        assert process.end() == code
        assert told in process.said
        assert "Traceback" not in process.said


def test_the_model_is_that_of_the_last_checkpoint_though_an_earlier_one_lies_there(store, tmp_path):
    run, command = tmp_path / "run", ("train", "--data", store, *TINY, "--preview-every", 0)
    weights = run / "model/transformer/diffusion_pytorch_model.safetensors"
    made = []
    for steps in (2, 4):
        with copgen(*command, "--workdir", run, "--steps", steps) as process:
            assert process.end() == 0, process.said
        made.append(weights.read_bytes())
        shutil.copytree(run / "model", tmp_path / f"model-{steps}")
    shutil.rmtree(run / "model")
    shutil.copytree(tmp_path / "model-2", run / "model")  # as a kill before the export leaves it

    with copgen(*command, "--workdir", run, "--steps", 4) as process:
        assert process.end() == 0, process.said

    assert made[0] != made[1]
    assert weights.read_bytes() == made[1]


def test_overwriting_forgets_the_old_run_only_where_the_new_one_can_begin(store, tmp_path):
    run, command = tmp_path / "run", ("train", "--data", store, *TINY, "--steps", 2, "--preview-every", 0)
    with copgen(*command, "--workdir", run) as process:
        assert process.end() == 0, process.said
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}

    for wrong, code in (("nowhere.pth", 1), (run / "model", 2)):
        with copgen(*command, "--workdir", run, "--overwrite", "--init-from", wrong) as process:
            assert process.end() == code, process.said

    after = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    assert {path: time for path, time in after.items() if path in before} == before


def test_an_earlier_checkpoint_can_be_exported_by_name(store, tmp_path):
    run = tmp_path / "run"
    with copgen("train", "--data", store, *TINY, "--steps", 4, "--save-every", 2, "--workdir", run) as process:
        assert process.end() == 0, process.said
    last = (run / "model/transformer/diffusion_pytorch_model.safetensors").read_bytes()
    export = ("train", "--data", store, *TINY, "--workdir", run, "--export")

    with copgen(*export, "--resume", run / "checkpoints/step-00000002", "--dry-run") as process:
        assert process.end() == 0, process.said
    assert (run / "model/transformer/diffusion_pytorch_model.safetensors").read_bytes() == last
    with copgen(*export, "--resume", run / "checkpoints/step-00000002") as process:
        assert process.end() == 0, process.said
    assert (run / "model/transformer/diffusion_pytorch_model.safetensors").read_bytes() != last


@pytest.mark.parametrize(("train", "told"), [(0, "no sample"), (1, "one sample")])
def test_a_split_with_nothing_to_learn_from_is_refused(tmp_path, train, told):
    store = tiny_store(tmp_path / "store", train=train, test=0)
    with copgen("train", "--data", store, *TINY, "--workdir", tmp_path / "run") as process:
        assert process.end() == 1
        assert f"The train split has {told}" in process.said


def test_a_dry_run_tells_size_memory_epochs_and_places_and_writes_nothing(store, tmp_path):
    run = tmp_path / "run"
    with copgen("train", "--data", store, *TINY, "--workdir", run, "--dry-run", "--json") as process:
        assert process.end() == 0, process.said

    facts = json.loads(process.said[process.said.index("{") :])
    net = tiny_transformer(sample_size=8)
    assert facts["parameters"] == sum(parameter.numel() for parameter in net.parameters())
    assert facts["steps_per_epoch"] == len(LatentStore(store / Split.TRAIN)) / 4
    assert facts["model"] == str(run / "model")
    assert facts["dry_run"]
    assert not run.exists()


def test_a_dry_run_refuses_what_the_run_would_refuse(store, tmp_path):
    options = ("--num-processes", 2, "--batch-size", 5, "--workdir", tmp_path / "run")
    with copgen("train", "--data", store, *TINY, *options, "--dry-run") as process:
        assert process.end() == 2
        assert "5 can not be shared by 2 processes" in process.said


@pytest.mark.parametrize("options", [(), ("--overwrite",)], ids=["goes on", "overwritten"])
def test_a_run_of_a_version_that_kept_no_names_of_its_files_is_known_for_ours(store, tmp_path, options):
    run = tmp_path / "run"
    command = ("train", "--data", store, *TINY, "--workdir", run, "--save-every", 2, "--preview-every", 2)
    with copgen(*command, "--steps", 2) as process:
        assert process.end() == 0, process.said
    shutil.rmtree(run / ".copgen")

    with copgen(*command, "--steps", 4, *options) as again:
        assert again.end() == 0, again.said

    assert [line["step"] for line in lines(run)] == [1, 2, 3, 4]
    assert json.loads((run / "model/copgen_export.json").read_text())["checkpoint"] == "step-00000004"


def test_a_model_that_someone_added_to_is_not_replaced(store, tmp_path):
    run = tmp_path / "run"
    command = ("train", "--data", store, *TINY, "--workdir", run, "--preview-every", 0)
    with copgen(*command, "--steps", 2) as process:
        assert process.end() == 0, process.said
    (run / "model/notes.txt").write_text("mine")

    for options in (("--steps", 4), ("--steps", 4, "--overwrite"), ("--export",)):
        with copgen(*command, *options) as refused:
            assert refused.end() == 1
        assert "model/notes.txt was not written by copgen" in refused.said
        assert (run / "model/notes.txt").read_text() == "mine"
    assert len(lines(run)) == 2


def test_overwriting_begins_anew_with_all_that_a_run_writes(store, tmp_path):
    run = tmp_path / "run"
    command = ("train", "--data", store, *TINY, "--workdir", run, "--save-every", 1, "--preview-every", 1)
    for options in ((), ("--overwrite",)):
        with copgen(*command, "--steps", 2, *options) as process:
            assert process.end() == 0, process.said
        assert len(list((run / "tensorboard").rglob("hparams.yml"))) == 1
        assert len(list((run / "checkpoints").iterdir())) == 2
