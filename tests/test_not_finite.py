"""Numbers that are none: refused where they come in, never drawn, and null in JSON."""

from __future__ import annotations

import json
import math

import pytest
import torch
from copgen_processes import copgen
from safetensors.torch import load_file, save_file
from sample_commands import call_copgen, one_thread, small_model
from tiny_stores import tiny_store

from copgen_cli import console
from copgen_cli.errors import NotFiniteError
from copgen_cli.model.sampler import sample_latents

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def spoilt(tmp_path):
    """A function that makes a model with one weight that is no number, in one of its parts."""

    def spoil(part: str):
        model = small_model(tmp_path / part)
        file = model / part / WEIGHTS
        tensors = load_file(file)
        name = next(name for name, tensor in tensors.items() if tensor.ndim > 1)
        tensors[name].view(-1)[3] = math.nan
        save_file(tensors, file)
        return model

    return spoil


@pytest.mark.parametrize("part", ["transformer", "vae"])
@pytest.mark.parametrize("command", ["sample", "convert"])
def test_a_weight_that_is_no_number_is_refused(spoilt, tmp_path, capsys, part, command):
    model = spoilt(part)
    if command == "sample":
        call = call_copgen(capsys, "sample", "--model", model, "--generate", "dem", "--output", tmp_path / "o")
    else:
        call = call_copgen(capsys, "convert", model, tmp_path / "o")

    assert call.code == 1
    assert "holds values that are no finite numbers" in call.err
    assert not (tmp_path / "o").exists()


def test_a_network_that_makes_no_numbers_of_good_weights_draws_nothing(tmp_path, capsys):
    model = small_model(tmp_path / "model")
    file = model / "transformer" / WEIGHTS
    save_file({name: tensor * 1e30 for name, tensor in load_file(file).items()}, file)

    with one_thread():
        call = call_copgen(
            capsys, "sample", "--model", model, "--generate", "dem", "--device", "cpu", "--output", tmp_path / "o"
        )

    assert call.code == 1
    assert "no finite numbers" in call.err
    assert "Sampled" not in call.out
    assert not list((tmp_path / "o").rglob("*.png"))


def test_training_that_ends_without_a_finite_loss_fails_and_writes_no_model(tmp_path):
    store, run = tiny_store(tmp_path / "store", side=8), tmp_path / "run"
    with copgen(
        "train", "--data", store, "--preset", "tiny", "--device", "cpu", "--steps", 4, "--lr", "1e30",
        "--log-every", 1, "--workdir", run, "--preview-every", 0, "--json",
    ) as process:  # fmt: skip
        assert process.end() == 1, process.said

    assert "without a finite loss" in process.said
    assert not (run / "model").exists()
    lines = [json.loads(line, parse_constant=pytest.fail) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["loss"] is None


def test_json_on_standard_output_knows_no_nan(capsys):
    console.result_json({"psnr": math.nan, "all": [math.inf, 1.5], "name": "x"})

    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail) == {
        "psnr": None,
        "all": [None, 1.5],
        "name": "x",
    }


def test_latents_of_a_network_that_makes_no_numbers_are_an_error(tmp_path):
    from tiny_models import tiny_transformer

    net = tiny_transformer()
    with torch.no_grad():
        net.pos_embed.fill_(math.inf)
    with pytest.raises(NotFiniteError, match="no finite numbers"):
        sample_latents(net, [0], steps=1, batch_size=1)
