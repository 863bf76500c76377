"""Weights load from anywhere they may be, nothing in them is run, and what does not fit is named."""

from __future__ import annotations

import http.server
import json
import pickle
import shutil
import threading

import huggingface_hub
import oracle
import pytest
import torch
from hypothesis import given, settings, strategies as st
from safetensors.torch import load_file, save_file
from small_networks import latents, network, timesteps
from tiny_models import tiny_transformer
from torch.testing import assert_close

from copgen_cli.errors import BrokenInputError, CopgenError, MismatchError
from copgen_cli.modalities import PUBLISHED, Modality
from copgen_cli.model.checkpoint import load_transformer, modalities_of
from copgen_cli.model.transformer import CopGenTransformer
from copgen_cli.model.weights import PUBLISHED_FILE, PUBLISHED_ID, WEIGHTS_NAME, read_tensors


@pytest.fixture(scope="module")
def weights():
    return network().state_dict()


def save_pth(path, tensors, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(tensors, path, **options)
    return path


def write_sparse(path, shapes):
    """A safetensors file of zeros that takes no room on disk."""
    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + 4 * torch.Size(shape).numel()
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    return path


def plain_config(net):
    """The constructor's settings."""
    return {name: value for name, value in net.config.items() if not name.startswith("_")}


def same(net, tensors):
    assert_close(net.state_dict(), dict(tensors), rtol=0, atol=0)
    return True


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".ckpt", ".safetensors"])
@pytest.mark.parametrize("case", list(oracle.CASES))
def test_every_size_is_read_off_the_tensors_of_a_file(tmp_path, suffix, case):
    tensors, wanted = network(case).state_dict(), oracle.CASES[case]
    path = tmp_path / f"weights{suffix}"
    save_file(tensors, path) if suffix == ".safetensors" else save_pth(path, tensors)

    net = load_transformer(path, num_heads=wanted.num_heads)

    assert {name: net.config[name] for name in wanted.settings()} == pytest.approx(wanted.settings())
    assert same(net, tensors)
    assert not net.training
    with torch.no_grad():
        inputs = latents("x", case), timesteps(case)
        assert_close(net(*inputs), network(case)(*inputs), rtol=0, atol=0)


def test_the_full_published_size_is_recognised_by_its_tensors(shared, tmp_path):
    manifest = json.loads((shared / "golden/manifest_triffuser_full.json").read_text())
    with torch.device("meta"):
        wanted = CopGenTransformer(modalities=[str(m) for m in PUBLISHED])
    path = write_sparse(tmp_path / "full.safetensors", manifest["state_dict"])

    net = load_transformer(path)

    assert plain_config(net) == plain_config(wanted)
    assert net.dtype == torch.float32
    assert sum(parameter.numel() for parameter in net.parameters()) == manifest["total_parameters"]


@pytest.mark.parametrize("variant", ["m4", "m3", "m2", "m2opt"])
def test_the_recorded_weights_load(shared, variant):
    config = json.loads((shared / f"golden/transformer_{variant}.config.json").read_text())
    path = shared / f"golden/transformer_{variant}.weights.safetensors"

    net = load_transformer(path, num_heads=config["num_heads"])

    assert same(net, load_file(path))
    assert (net.config.sample_size, net.config.hidden_size) == (config["img_size"], config["embed_dim"])
    assert (net.config.depth, net.config.mlp_ratio) == (config["depth"], config["mlp_ratio"])


def test_heads_are_64_wide_where_nothing_says_otherwise(tmp_path):
    net = CopGenTransformer(sample_size=4, hidden_size=128, depth=2, num_heads=2, num_modalities=1)
    path = save_pth(tmp_path / "w.pth", net.state_dict())

    assert load_transformer(path).config.num_heads == 2
    assert load_transformer(path, num_heads=8).config.num_heads == 8


def test_a_width_that_heads_of_64_do_not_divide_asks_for_the_number_of_heads(tmp_path, weights):
    with pytest.raises(MismatchError, match="16 wide, which heads of 64 do not divide") as caught:
        load_transformer(save_pth(tmp_path / "w.pth", weights))

    assert "num_heads" in caught.value.hint


def test_a_diffusers_folder_and_a_pipelines_folder_know_their_heads_and_modalities(tmp_path):
    names = ["s2_l2a", "s1_rtc"]
    net = CopGenTransformer(sample_size=4, hidden_size=12, depth=2, num_heads=3, num_modalities=2, modalities=names)
    net.save_pretrained(tmp_path / "pipeline" / "transformer")

    for folder in (tmp_path / "pipeline", tmp_path / "pipeline/transformer"):
        loaded = load_transformer(str(folder))
        assert same(loaded, net.state_dict())
        assert plain_config(loaded) == plain_config(net)
        assert modalities_of(loaded) == (Modality.S2L2A, Modality.S1RTC)
    with pytest.raises(MismatchError, match="configured with 3 heads, not 4"):
        load_transformer(tmp_path / "pipeline", num_heads=4)


def test_what_tensors_predict_can_be_said_where_nothing_else_says_it(tmp_path, weights):
    bare = save_pth(tmp_path / "w.pth", weights)
    sizes = {"sample_size": 4, "hidden_size": 128, "depth": 2, "num_heads": 2, "num_modalities": 1}
    CopGenTransformer(**sizes, prediction_type="v_prediction").save_pretrained(tmp_path / "told")

    assert load_transformer(bare, 2).config.prediction_type == "epsilon"
    assert load_transformer(bare, 2, prediction_type="v_prediction").config.prediction_type == "v_prediction"
    assert load_transformer(tmp_path / "told").config.prediction_type == "v_prediction"
    with pytest.raises(MismatchError, match="configured with prediction_type v_prediction, not epsilon"):
        load_transformer(tmp_path / "told", prediction_type="epsilon")


def test_a_training_checkpoint_gives_its_averaged_weights(tmp_path, weights):
    averaged = {name: tensor + 1 for name, tensor in weights.items()}
    ours, published = tmp_path / "step-7", tmp_path / "7.ckpt"
    for folder, tensors in (("transformer", weights), ("ema", averaged)):
        (ours / folder).mkdir(parents=True)
        network().save_config(ours / folder)
        save_file(tensors, ours / folder / WEIGHTS_NAME)
    save_pth(published / "nnet.pth", weights)
    save_pth(published / "nnet_ema.pth", averaged)

    assert same(load_transformer(ours), averaged)
    assert same(load_transformer(published, num_heads=2), averaged)


def test_of_several_numbered_files_the_latest_is_taken(tmp_path, weights):
    for step in (9000, 114000, 20000):
        save_pth(tmp_path / f"nnet_ema_{step}.pth", {name: tensor + step for name, tensor in weights.items()})

    assert same(load_transformer(tmp_path, num_heads=2), {name: t + 114000 for name, t in weights.items()})


@pytest.mark.parametrize("wrap", [{"state_dict": 1}, {"model": 1, "step": 3}, {"ema": 1, "optimizer": {"lr": 0.1}}])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "_orig_mod.module."])
def test_a_dictionary_around_the_tensors_and_a_common_prefix_are_taken_off(tmp_path, weights, wrap, prefix):
    named = {prefix + name: tensor for name, tensor in weights.items()}
    path = save_pth(tmp_path / "w.pth", {key: named if value == 1 else value for key, value in wrap.items()})

    assert same(load_transformer(path, num_heads=2), weights)


def test_a_prefix_that_only_some_names_have_is_no_prefix(tmp_path, weights):
    named = {("module." if i else "") + name: tensor for i, (name, tensor) in enumerate(weights.items())}

    assert set(read_tensors(save_pth(tmp_path / "w.pth", named))) == set(named)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(tmp_path, weights, dtype):
    rounded = {name: tensor.to(dtype) for name, tensor in weights.items()}
    save_file(rounded, tmp_path / "w.safetensors")

    net = load_transformer(tmp_path / "w.safetensors", num_heads=2)

    assert same(net, {name: tensor.float() for name, tensor in rounded.items()})


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_training_what_was_loaded_leaves_the_file_as_it_is(tmp_path, weights, name):
    path = tmp_path / name
    save_file(weights, path) if name.endswith("safetensors") else save_pth(path, weights)
    before = path.read_bytes()
    net = load_transformer(path, num_heads=2)

    assert all(parameter.requires_grad for parameter in net.parameters())
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(1)

    assert path.read_bytes() == before
    assert same(load_transformer(path, num_heads=2), weights)


def test_old_files_that_are_not_zip_archives_load_too(tmp_path, weights):
    path = save_pth(tmp_path / "w.pth", weights, _use_new_zipfile_serialization=False)

    assert same(load_transformer(path, num_heads=2), weights)


class Burglar:
    """Runs when it is unpickled."""

    def __init__(self, loot):
        self.loot = loot

    def __reduce__(self):
        return open, (self.loot, "w")


@pytest.mark.parametrize("how", ["zip", "old", "pickle"])
def test_a_file_that_would_run_code_is_refused_and_runs_none(tmp_path, weights, how):
    loot, path = tmp_path / "loot", tmp_path / "w.pth"
    content = {**weights, "extra": Burglar(str(loot))}
    if how == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        save_pth(path, content, _use_new_zipfile_serialization=how == "zip")

    with pytest.raises(BrokenInputError, match="need to run code"):
        load_transformer(path)

    assert not loot.exists()
    pickle.loads(pickle.dumps(Burglar(str(loot)))).close()  # noqa: S301 - the burglar does break in where it is let
    assert loot.exists()


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("damage", ["cut", "empty", "text"])
def test_a_damaged_file_is_named(tmp_path, weights, name, damage):
    path = tmp_path / name
    save_file(weights, path) if name.endswith("safetensors") else save_pth(path, weights)
    whole = path.read_bytes()
    path.write_bytes({"cut": whole[: len(whole) // 2], "empty": b"", "text": b"see the README"}[damage])

    with pytest.raises(BrokenInputError, match=name):
        load_transformer(path)


def test_a_small_file_can_not_claim_a_huge_tensor(tmp_path, weights):
    path = save_pth(tmp_path / "w.pth", {**weights, "pos_embed": torch.zeros(1).expand(1, 10**6, 10**6)})

    with pytest.raises(BrokenInputError, match="pos_embed claims more values than the file holds"):
        load_transformer(path)


@pytest.mark.parametrize("content", [[1, 2], {}, {"a": 1}, {3: torch.zeros(1)}])
def test_a_file_without_named_tensors_is_refused(tmp_path, content):
    with pytest.raises(BrokenInputError, match=r"named tensor|tensors by name"):
        load_transformer(save_pth(tmp_path / "w.pth", content))


def test_what_is_missing_unexpected_and_misshapen_is_named_and_counted(tmp_path, weights):
    tensors = dict(weights)
    for i in range(4):
        del tensors[f"decoder_preds.{i}.bias"]
    tensors["mid_block.extra"] = torch.zeros(3)
    tensors["norm.weight"] = torch.zeros(7)
    tensors["norm.bias"] = torch.zeros(16, dtype=torch.long)

    with pytest.raises(MismatchError) as caught:
        load_transformer(save_pth(tmp_path / "w.pth", tensors), num_heads=2)

    message = str(caught.value)
    assert "4 missing (decoder_preds.0.bias, decoder_preds.1.bias, decoder_preds.2.bias, …)" in message
    assert "1 unexpected (mid_block.extra)" in message
    assert "1 mis-shaped (norm.weight is 7, expected 16)" in message
    assert "1 not floating point (norm.bias)" in message


def test_another_kind_of_network_is_told_from_a_transformer(tmp_path):
    path = save_pth(tmp_path / "w.pth", {"encoder.conv_in.weight": torch.zeros(3)})

    with pytest.raises(MismatchError, match="not a transformer of this kind") as caught:
        load_transformer(path)

    assert "encoder.conv_in.weight" in caught.value.hint


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_no_change_to_one_tensor_goes_unnoticed(tmp_path_factory, data):
    tensors = dict(network().state_dict())
    name = data.draw(st.sampled_from(sorted(tensors)))
    change = data.draw(st.sampled_from(["drop", "rename", "widen", "empty", "flatten"]))
    tensor = tensors.pop(name)
    if change == "rename":
        tensors[f"{name}.old"] = tensor
    elif change != "drop":
        changed = {
            "widen": torch.cat([tensor, tensor]),
            "empty": tensor[:0],
            "flatten": tensor.flatten()[None, :, None],
        }
        tensors[name] = changed[change].clone()
    path = tmp_path_factory.mktemp("fuzz") / "w.pth"

    with pytest.raises(MismatchError):
        load_transformer(save_pth(path, tensors), num_heads=2)


def test_a_configuration_that_its_tensors_contradict_is_refused(tmp_path):
    network().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())

    for change, message in (
        ({"depth": 1_000_000}, "the configuration says depth 1000000, the tensors say 4"),
        ({"mlp_ratio": 3.0}, "the configuration says mlp_ratio 3.0, the tensors say 4.0"),
        ({"num_heads": 3}, "not a multiple of num_heads"),
        ({"num_heads": 0}, "not a multiple of num_heads"),
        ({"modalities": ["dem"]}, "do not name 4 different ones"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(MismatchError, match=message):
            load_transformer(tmp_path)


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "[" * 100_000, '{"num_heads": "many"}', '{"modalities": 4}', '{"mlp_ratio": null}',
     '{"mlp_ratio": NaN}', '{"mlp_ratio": Infinity}'],
    ids=lambda text: text[:24],
)  # fmt: skip
def test_a_configuration_that_is_none_is_refused(tmp_path, text):
    network().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(text)

    with pytest.raises(BrokenInputError, match=r"config\.json"):
        load_transformer(tmp_path)


def test_what_a_network_predicts_stands_in_its_configuration_and_is_noise_where_nothing_is_said(tmp_path):
    velocities = tiny_transformer(prediction_type="v_prediction")
    velocities.save_pretrained(tmp_path / "model")

    assert load_transformer(tmp_path / "model").config.prediction_type == "v_prediction"
    config = tmp_path / "model" / "config.json"
    told = json.loads(config.read_text())
    config.write_text(json.dumps(told | {"prediction_type": "clean"}))
    with pytest.raises(MismatchError, match="'clean' is none of epsilon, v_prediction"):
        load_transformer(tmp_path / "model")
    del told["prediction_type"]
    config.write_text(json.dumps(told))
    assert load_transformer(tmp_path / "model").config.prediction_type == "epsilon"


def test_a_ratio_that_does_not_divide_evenly_survives_its_rounding(tmp_path):
    net = CopGenTransformer(sample_size=4, hidden_size=12, depth=2, num_heads=3, mlp_ratio=2.7, num_modalities=2)
    net.save_pretrained(tmp_path)

    assert load_transformer(tmp_path).config.mlp_ratio == 2.7
    loaded = load_transformer(save_pth(tmp_path / "w.pth", net.state_dict()), num_heads=3)
    assert same(loaded, net.state_dict())


def test_four_modalities_are_those_of_the_registry_and_others_must_be_named(tmp_path, weights):
    four = save_pth(tmp_path / "four.pth", weights)
    two = save_pth(tmp_path / "two.pth", network("odd").state_dict())

    assert modalities_of(load_transformer(four, num_heads=2)) == tuple(PUBLISHED)
    assert modalities_of(network()) == tuple(PUBLISHED)  # a network that was built without names
    assert modalities_of(load_transformer(two, num_heads=3, modalities=["s1_rtc", "dem"])) == ("s1_rtc", "dem")
    with pytest.raises(MismatchError, match="does not name its 2 modalities"):
        modalities_of(load_transformer(two, num_heads=3))
    with pytest.raises(MismatchError, match="names s9"):
        modalities_of(load_transformer(two, num_heads=3, modalities=["s1_rtc", "s9"]))
    with pytest.raises(MismatchError, match="do not name 2 different ones"):
        load_transformer(two, num_heads=3, modalities=["dem"])


@pytest.mark.parametrize("source", ["no such thing", "no/such/file.pth", "./none"])
def test_a_source_that_is_neither_path_nor_hub_id_is_named(source):
    with pytest.raises(CopgenError, match=f"no file or folder {source}"):
        load_transformer(source)


def test_a_folder_without_weights_says_what_was_looked_for(tmp_path):
    with pytest.raises(BrokenInputError, match="holds no transformer") as caught:
        load_transformer(tmp_path)

    assert WEIGHTS_NAME in caught.value.hint


def use_hub(monkeypatch, endpoint):
    """The client reads its environment when it is imported, so the hub is set where it keeps it."""
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", endpoint)
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub on the loopback with repositories in tmp_path/hub, an empty cache, and the paths that were asked for."""
    root, asked = tmp_path / "hub", []
    sha = "0123456789abcdef0123456789abcdef01234567"

    class Hub(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            path = self.path.split("?")[0].removeprefix("/")
            if path.startswith("api/models/"):
                repo = root / "/".join(path.split("/")[2:4])
                files = [p.relative_to(repo).as_posix() for p in sorted(repo.rglob("*")) if p.is_file()]
                tree = [
                    {"type": "file", "path": name, "size": (repo / name).stat().st_size, "oid": "0" * 40}
                    for name in files
                ]
                info = {"id": "/".join(path.split("/")[2:4]), "sha": sha, "siblings": [{"rfilename": f} for f in files]}
                found = repo.is_dir()
                body = json.dumps(tree if "/tree/" in path else info).encode()
            else:
                file = root / path.replace(f"/resolve/{sha}/", "/")
                found = file.is_file()
                body = file.read_bytes() if found else b""
            self.send_response(200 if found else 404)
            self.send_header("Content-Length", str(len(body) if found else 0))
            self.send_header("ETag", f'"{len(body)}"')
            self.send_header("X-Repo-Commit", sha)
            if not found:
                self.send_header("X-Error-Code", "RepoNotFound")
            self.end_headers()
            if found and self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    use_hub(monkeypatch, f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    yield root, asked
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_published_weights_come_from_the_hub_once_and_from_its_cache_ever_after(hub, weights, monkeypatch):
    root, asked = hub
    save_pth(root / PUBLISHED_ID / PUBLISHED_FILE, weights)
    save_pth(root / PUBLISHED_ID / "autoencoder_kl.pth", weights)

    assert same(load_transformer(num_heads=2), weights)
    assert any(PUBLISHED_FILE in path for path in asked)
    assert not any("autoencoder" in path for path in asked)

    shutil.rmtree(root)
    asked.clear()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert same(load_transformer(PUBLISHED_ID, num_heads=2), weights)
    assert asked == []


@pytest.mark.parametrize("offline", [True, False])
def test_without_the_hub_one_line_says_how_to_get_the_weights(tmp_path, monkeypatch, offline):
    use_hub(monkeypatch, "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)

    with pytest.raises(CopgenError, match="could not be fetched from the hub") as caught:
        load_transformer()

    assert f"hf download {PUBLISHED_ID} {PUBLISHED_FILE}" in caught.value.hint
    assert "\n" not in str(caught.value) + caught.value.hint


def test_another_hub_id_is_read_as_a_folder_is(hub):
    root, _ = hub
    net = network()
    net.save_pretrained(root / "someone/their-model/transformer")

    assert same(load_transformer("someone/their-model"), net.state_dict())


def test_a_hub_id_that_nobody_has_is_named(hub):
    with pytest.raises(CopgenError, match="no file or folder someone/nothing here"):
        load_transformer("someone/nothing")


def test_a_hub_whose_file_has_gone_says_so(hub, weights):
    root, _ = hub
    save_pth(root / PUBLISHED_ID / "nnet_ema_7.pth", weights)

    with pytest.raises(CopgenError, match=f"has no {PUBLISHED_FILE}|could not be fetched"):
        load_transformer()
