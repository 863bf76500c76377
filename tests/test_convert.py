"""`copgen convert`: a diffusers folder out of published weights, whole or absent."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file, save_file
from tiny_models import tiny_autoencoder, tiny_transformer
from typer.testing import CliRunner

from copgen_cli import CopGenPipeline
from copgen_cli.app import app
from copgen_cli.errors import BrokenInputError, BusyError, MismatchError
from copgen_cli.modalities import PUBLISHED
from copgen_cli.model import load_transformer
from copgen_cli.model.autoencoder import fingerprint
from copgen_cli.pipeline.conversion import convert, read_manifest


@pytest.fixture(scope="module")
def net():
    return tiny_transformer(5, sample_size=8, hidden_size=64, num_heads=1)


@pytest.fixture
def published(net, tmp_path):
    """A file as the released one: a plain state dict, which does not tell heads or modalities."""
    torch.save(net.state_dict(), tmp_path / "nnet.pth")
    return tmp_path / "nnet.pth"


@pytest.fixture
def vae(tmp_path):
    tiny_autoencoder(6).save_pretrained(tmp_path / "vae")
    return tmp_path / "vae"


def run(*arguments):
    return CliRunner().invoke(app, ["convert", *map(str, arguments)])


def test_published_weights_become_a_folder_that_diffusers_itself_loads(net, published, tmp_path):
    result = run(published, tmp_path / "made", "--json")

    assert json.loads(result.stdout)["written"] is True
    loaded = type(net).from_pretrained(tmp_path / "made")
    assert loaded.config.modalities == [str(modality) for modality in PUBLISHED]
    assert all(torch.equal(tensor, net.state_dict()[name]) for name, tensor in loaded.state_dict().items())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made", "nnet.pth"]


@pytest.mark.parametrize("form", ["nnet.safetensors", "folder", "pipeline"])
def test_every_form_of_the_weights_is_accepted(net, form, tmp_path):
    if form == "nnet.safetensors":
        save_file(net.state_dict(), tmp_path / form)
    else:
        net.save_pretrained(tmp_path / form / ("transformer" if form == "pipeline" else ""))

    convert(tmp_path / form, tmp_path / "made")

    assert load_transformer(tmp_path / "made").config == load_transformer(tmp_path / form).config
    assert_same_weights(load_transformer(tmp_path / "made"), net)


def assert_same_weights(one, other):
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in one.state_dict().items())


def test_with_an_autoencoder_it_is_a_whole_pipeline(net, published, vae, tmp_path):
    assert run(published, tmp_path / "made", "--vae", vae).exit_code == 0

    pipe = CopGenPipeline.from_pretrained(tmp_path / "made")
    assert_same_weights(pipe.transformer, net)
    assert_same_weights(pipe.vae, tiny_autoencoder(6))
    assert (tmp_path / "made/README.md").is_file()
    assert pipe("dem", num_inference_steps=1, output_type="latent").images["dem"].shape == (1, 4, 8, 8)


def test_the_transformer_is_written_in_the_dtype_asked_for_and_the_autoencoder_stays_the_one_that_encoded_the_data(
    published, vae, tmp_path
):
    run(published, tmp_path / "made", "--vae", vae, "--dtype", "float16")

    tensors = load_file(tmp_path / "made/transformer/diffusion_pytorch_model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
    pipe = CopGenPipeline.from_pretrained(tmp_path / "made")
    assert fingerprint(pipe.vae) == fingerprint(tiny_autoencoder(6)) == read_manifest(tmp_path / "made").vae


def test_a_whole_pipeline_stays_one(published, vae, tmp_path):
    run(published, tmp_path / "made", "--vae", vae)

    assert run(tmp_path / "made", tmp_path / "half", "--dtype", "bfloat16").exit_code == 0

    assert_same_weights(CopGenPipeline.from_pretrained(tmp_path / "half").vae, tiny_autoencoder(6))


def test_what_the_tensors_do_not_tell_can_be_said(tmp_path):
    net = tiny_transformer(0, modalities=["s1_rtc", "dem"], sample_size=8)
    torch.save(net.state_dict(), tmp_path / "two.pth")

    with pytest.raises(MismatchError, match="heads") as caught:
        convert(tmp_path / "two.pth", tmp_path / "made")
    assert "num_heads" in caught.value.hint
    assert run(tmp_path / "two.pth", tmp_path / "made", "--num-heads", 2, "--modalities", "s1_rtc,dem").exit_code == 0
    made = load_transformer(tmp_path / "made")
    assert (made.config.num_heads, made.config.modalities) == (2, ["s1_rtc", "dem"])


def test_running_again_does_nothing_and_says_so(published, tmp_path):
    run(published, tmp_path / "made")
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "made").rglob("*")}

    again = run(published, tmp_path / "made")

    assert again.exit_code == 0
    assert "Already converted" in again.stdout
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "made").rglob("*")} == stamps


def test_another_model_is_replaced_only_when_asked_and_foreign_files_never(published, vae, tmp_path):
    convert(published, tmp_path / "made")
    with pytest.raises(MismatchError, match="holds another model"):
        convert(published, tmp_path / "made", vae=vae)
    assert convert(published, tmp_path / "made", vae=vae, overwrite=True)
    assert not (tmp_path / "made/config.json").exists()

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    with pytest.raises(MismatchError, match="not written by this command"):
        convert(published, tmp_path / "mine", overwrite=True)
    assert (tmp_path / "mine/thesis.txt").read_text() == "years of work"


def test_a_conversion_that_fails_leaves_nothing_and_what_a_killed_one_left_is_cleared(published, tmp_path, monkeypatch):
    (tmp_path / ".copgen/made/new").mkdir(parents=True)
    (tmp_path / ".copgen/made/new/half.safetensors").write_text("")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("copgen_cli.model.transformer.CopGenTransformer.save_pretrained", full)
        with pytest.raises(OSError, match="No space"):
            convert(published, tmp_path / "made")
    assert [path.name for path in tmp_path.iterdir()] == ["nnet.pth"]

    convert(published, tmp_path / "made")
    assert not (tmp_path / "made/half.safetensors").exists()


def test_two_processes_do_not_write_the_same_folder(published, tmp_path):
    (tmp_path / ".copgen/made").mkdir(parents=True)
    with FileLock(tmp_path / ".copgen/made/lock"), pytest.raises(BusyError):
        convert(published, tmp_path / "made")


def test_a_file_that_does_not_fit_is_refused_with_what_is_wrong_and_nothing_is_written(net, tmp_path):
    tensors = dict(net.state_dict())
    tensors["norm.weight"] = torch.zeros(3)
    del tensors["mid_block.attn.proj.bias"]
    torch.save(tensors, tmp_path / "odd.pth")
    shutil.copy(tmp_path / "odd.pth", tmp_path / "cut.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "cut.pth").read_bytes()[:1000])

    with pytest.raises(MismatchError, match=r"missing \(mid_block.attn.proj.bias\).*mis-shaped \(norm.weight is 3"):
        convert(tmp_path / "odd.pth", tmp_path / "made")
    with pytest.raises(BrokenInputError, match="cut short"):
        convert(tmp_path / "cut.pth", tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"patch_embeds.0.proj.weight": Trap()}, tmp_path / "trap.pth")

    with pytest.raises(BrokenInputError, match="run code"):
        convert(tmp_path / "trap.pth", tmp_path / "made")
    assert not (tmp_path / "ran").exists()


def test_the_current_folder_can_be_converted_to_and_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert convert("copgen-sim", Path("."))
    assert not convert("copgen-sim", Path("."))
    assert convert("copgen-sim", Path("."), dtype=torch.bfloat16, overwrite=True)

    assert Path.cwd().samefile(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["README.md", "copgen_convert.json", "model_index.json", "scheduler", "transformer", "vae"]
    )


def test_a_conversion_replaces_files_of_its_own_alone(tmp_path):
    convert("copgen-sim", tmp_path / "made")
    (tmp_path / "made/notes.txt").write_text("mine")

    with pytest.raises(MismatchError, match=r"notes.txt was not written by copgen"):
        convert("copgen-sim", tmp_path / "made", dtype=torch.bfloat16, overwrite=True)

    assert (tmp_path / "made/notes.txt").read_text() == "mine"
