"""Options that callers of a diffusers pipeline know: followed, or refused in words."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import tiny_autoencoder, tiny_transformer

from copgen_cli import CopGenPipeline
from copgen_cli.errors import BrokenInputError, CopgenError, MismatchError, UsageError
from copgen_cli.model.autoencoder import fingerprint
from copgen_cli.model.checkpoint import load_transformer

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def pipe():
    return CopGenPipeline(tiny_transformer(1, sample_size=8, patch_size=4), tiny_autoencoder(2))


def draw(pipe, **settings):
    return pipe(**{"generate": ["dem"], "num_inference_steps": 2, "output_type": "latent"} | settings).latents["dem"]


def seeded(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def same_weights(one, other) -> bool:
    left, right = one.state_dict(), other.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_a_list_of_generators_gives_each_sample_as_its_generator_would_alone(pipe):
    together = draw(pipe, generator=seeded(1, 2, 3), num_samples=3)
    halved = draw(pipe, generator=seeded(1, 2, 3), num_samples=3, batch_size=2)
    alone = draw(pipe, generator=seeded(2)[0])

    torch.testing.assert_close(together[1], alone[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(halved, together, rtol=1e-4, atol=1e-4)
    assert (together[0] - together[1]).abs().mean() > 0.1


def test_as_many_generators_as_samples_are_asked_for(pipe):
    with pytest.raises(UsageError, match="2 generators for 3 samples"):
        draw(pipe, generator=seeded(1, 2), num_samples=3)


def test_a_number_in_the_place_of_a_generator_is_a_seed(pipe):
    assert torch.equal(draw(pipe, generator=7), draw(pipe, seed=7))


@pytest.mark.parametrize(
    "wrong",
    [
        {"generate": ["dem"], "condition": {"dem": torch.zeros(1, 3, 64, 64)}},
        {"generate": ["nothing of the kind"]},
        {"generate": ["dem"], "num_inference_steps": 0},
        {"generate": ["dem"], "output_type": "np"},
    ],
)
def test_wrong_arguments_are_value_errors_as_in_diffusers(pipe, wrong):
    with pytest.raises(ValueError, match=r".") as caught:
        pipe(**wrong)

    assert isinstance(caught.value, CopgenError)
    assert issubclass(MismatchError, ValueError)


def test_a_variant_is_written_and_read_under_its_name(pipe, tmp_path):
    pipe.save_pretrained(tmp_path / "p", variant="fp16")

    assert (tmp_path / "p/transformer/diffusion_pytorch_model.fp16.safetensors").is_file()
    loaded = CopGenPipeline.from_pretrained(tmp_path / "p", variant="fp16")
    assert same_weights(loaded.transformer, pipe.transformer)
    assert fingerprint(loaded.vae) == fingerprint(pipe.vae)
    with pytest.raises(BrokenInputError, match="holds no transformer") as caught:
        CopGenPipeline.from_pretrained(tmp_path / "p")
    assert "fp16" in caught.value.hint


def test_weights_in_several_files_are_written_and_read(pipe, tmp_path):
    pipe.save_pretrained(tmp_path / "p", max_shard_size="50KB")

    shards = list((tmp_path / "p/transformer").glob("diffusion_pytorch_model-*-of-*.safetensors"))
    assert len(shards) > 1
    loaded = CopGenPipeline.from_pretrained(tmp_path / "p")
    assert same_weights(loaded.transformer, pipe.transformer)
    assert fingerprint(loaded.vae) == fingerprint(pipe.vae)

    shards[0].unlink()
    with pytest.raises(BrokenInputError, match="which is not beside it"):
        CopGenPipeline.from_pretrained(tmp_path / "p")


def test_an_index_names_no_file_outside_its_folder(pipe, tmp_path):
    pipe.save_pretrained(tmp_path / "p", max_shard_size="50KB")
    shutil.copy(next((tmp_path / "p/transformer").glob("*-of-*.safetensors")), tmp_path / "secret.safetensors")
    index = tmp_path / f"p/transformer/{WEIGHTS}.index.json"
    values = json.loads(index.read_text())
    values["weight_map"] = dict.fromkeys(values["weight_map"], "../../secret.safetensors")
    index.write_text(json.dumps(values))

    with pytest.raises(BrokenInputError, match="which is not beside it"):
        CopGenPipeline.from_pretrained(tmp_path / "p")


@pytest.mark.parametrize("name", ["weights.bin", "weights.ckpt", "weights"])
def test_safetensors_are_known_by_what_they_hold(tmp_path, name):
    net = tiny_transformer()
    save_file(net.state_dict(), tmp_path / name)

    assert same_weights(load_transformer(tmp_path / name, num_heads=2), net)


def test_what_is_not_supported_is_said(pipe, tmp_path):
    with pytest.raises(UsageError, match="Pickled weights are not written"):
        pipe.save_pretrained(tmp_path / "p", safe_serialization=False)
    with pytest.raises(UsageError, match="save_pretrained does not support colour"):
        pipe.save_pretrained(tmp_path / "p", colour="red")
    with pytest.raises(UsageError, match="from_pretrained does not support device_map"):
        CopGenPipeline.from_pretrained(tmp_path / "p", device_map="auto")
    assert not (tmp_path / "p").exists()


def test_a_hub_id_is_looked_for_where_the_arguments_say(monkeypatch, tmp_path):
    asked = []

    def look(repo_id, **options):
        asked.append((repo_id, options))
        raise OSError("no connection")

    monkeypatch.setattr("huggingface_hub.snapshot_download", look)
    with pytest.raises(CopgenError, match="could not be fetched"):
        CopGenPipeline.from_pretrained(
            "someone/model", revision="v2", cache_dir=tmp_path, token="hf_x", local_files_only=True
        )

    (repo_id, options) = asked[0]
    assert repo_id == "someone/model"
    assert {"revision": "v2", "token": "hf_x", "local_files_only": True}.items() <= options.items()
    assert options["cache_dir"] == str(tmp_path)


@pytest.mark.parametrize("source", ["/no/such", "./no", "no/such/file", "../up"])
def test_a_path_that_is_not_there_is_not_taken_for_a_hub_id(source):
    with pytest.raises(CopgenError, match="There is no file or folder") as caught:
        CopGenPipeline.from_pretrained(source)

    assert "hf download" not in caught.value.hint


def test_saving_into_a_folder_replaces_files_of_the_same_names_alone(pipe, tmp_path):
    (tmp_path / "p/transformer").mkdir(parents=True)
    (tmp_path / "p/transformer/code.py").write_text("mine")
    (tmp_path / "p/README.md").write_text("mine")

    pipe.save_pretrained(tmp_path / "p")

    assert (tmp_path / "p/transformer/code.py").read_text() == "mine"
    assert (tmp_path / "p/README.md").read_text() == "mine"
    assert load_file(tmp_path / "p/transformer" / WEIGHTS)
