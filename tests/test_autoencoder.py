"""The autoencoder is the recorded one, loads from every format to the same weights, and converts pixels exactly."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny_models import compvis_names, tiny_autoencoder

from copgen_cli.errors import BrokenInputError, CopgenError, MismatchError
from copgen_cli.model import autoencoder as ae
from copgen_cli.model.autoencoder import ImageAutoencoder, draw_latents, load_autoencoder, to_signed, to_uint8, to_unit


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (2, 3, 64, 32), dtype=torch.uint8, generator=generator)


def recipe_tensor(name, shape):
    """One tensor of the recorded random weights: a function of its name and shape alone."""
    values = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    if len(shape) == 4:
        values /= np.sqrt(np.prod(shape[1:]))
    else:
        values = 1 + 0.1 * values if name.endswith(".weight") else 0.05 * values
    return torch.from_numpy(values.astype(np.float32))


@pytest.fixture(scope="module")
def compvis():
    """A small autoencoder that CompVis names can carry: its groups are the released ones', 32."""
    return tiny_autoencoder(
        3, channels=(32, 64), scaling_factor=ae.PUBLISHED_SCALE, norm_num_groups=32, mid_block_add_attention=True
    )


def test_a_file_under_compvis_names_gives_the_same_autoencoder_as_its_diffusers_folder(compvis, images, tmp_path):
    tensors = compvis_names(compvis, levels=2)
    compvis.save_pretrained(tmp_path / "folder")
    save_file(tensors, tmp_path / "vae.safetensors")
    torch.save(tensors, tmp_path / "vae.pth")
    whole = {f"first_stage_model.{name}": tensor for name, tensor in tensors.items()} | {"model.x": torch.zeros(1)}
    torch.save({"state_dict": whole}, tmp_path / "whole.ckpt")

    sources = ["folder", "vae.safetensors", "vae.pth", "whole.ckpt"]
    loaded = [load_autoencoder(tmp_path / source) for source in sources]

    assert len({autoencoder.fingerprint for autoencoder in loaded}) == 1
    expected = loaded[0].moments(images)
    assert all(torch.equal(autoencoder.moments(images), expected) for autoencoder in loaded[1:])
    assert {autoencoder.scale_factor for autoencoder in loaded} == {0.18215}


@pytest.fixture(scope="module")
def released():
    """An autoencoder as COP-GEN (2026) has them: 4 bands, 8 latent channels, f = 8, attention in the middle alone."""
    return tiny_autoencoder(
        4,
        channels=(32, 32, 32, 32),
        in_channels=4,
        out_channels=4,
        latent_channels=8,
        scaling_factor=0.853416,
        norm_num_groups=32,
        mid_block_add_attention=True,
    )


def write_as_released(model, place, form):
    """The forms in which such an autoencoder comes: plain, and as the training left it."""
    tensors = {**compvis_names(model, levels=4), "loss.logvar": torch.zeros(1)}
    if form.endswith("ema.pth"):
        torch.save(tensors, place / form)
        return place / form
    average = {f"ema_model.{name}": tensor for name, tensor in tensors.items()}
    online = {f"online_model.{name}": torch.zeros_like(tensor) for name, tensor in tensors.items()}
    average |= {**online, "initted": torch.tensor([True]), "step": torch.tensor([50])}
    optimiser = {"state": {0: {"step": 1.0}}, "param_groups": [{"lr": 1e-6, "betas": (0.5, 0.9), "params": [0]}]}
    nested = {"step": 50, "model": online, "opt_ae": optimiser, "ema": average, "scaler": None, "version": "1.0"}
    torch.save(nested, place / form)
    return place / form


@pytest.mark.parametrize("form", ["model-50-ema.pth", "model-50.pt"])
def test_an_autoencoder_of_native_bands_is_read_as_released_and_as_its_training_left_it(released, form, tmp_path):
    file = write_as_released(released, tmp_path, form)
    signed = torch.randn(2, 4, 32, 16, generator=torch.Generator().manual_seed(2))

    for source in (file, tmp_path):
        loaded = load_autoencoder(source, scale_factor=0.853416)

        assert (loaded.channels, loaded.latent_channels, loaded.reduction) == (4, 8, 8)
        assert loaded.fingerprint == ae.fingerprint(released)
        expected = ImageAutoencoder(released).encode(signed)
        assert expected.shape == (2, 16, 4, 2)
        torch.testing.assert_close(loaded.encode(signed), expected, rtol=0, atol=1e-6)


def test_a_folder_with_several_files_of_weights_does_not_say_which_is_meant(released, tmp_path):
    write_as_released(released, tmp_path, "model-49-ema.pth")
    write_as_released(released, tmp_path, "model-50-ema.pth")

    with pytest.raises(BrokenInputError, match=r"several files of weights: model-49-ema.pth, model-50-ema.pth"):
        load_autoencoder(tmp_path)


def test_a_folder_of_a_hub_repository_is_an_autoencoder(released, monkeypatch, tmp_path):
    (tmp_path / "DEM_latent_8").mkdir()
    write_as_released(released, tmp_path / "DEM_latent_8", "model-50-ema.pth")
    asked = []

    def fetch(repo_id, patterns, hub):
        asked.append((repo_id, patterns[0]))
        return tmp_path

    monkeypatch.setattr(ae, "fetch_from_hub", fetch)

    assert load_autoencoder("someone/vaes/DEM_latent_8", scale_factor=0.853416).fingerprint == ae.fingerprint(released)
    assert asked == [("someone/vaes", "DEM_latent_8/model-50-ema.pth")]


def test_a_training_checkpoint_that_would_run_code_is_refused_and_does_not(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save(
        {"step": 50, "ema": {"ema_model.encoder.conv_in.weight": torch.zeros(1), "x": Trap()}}, tmp_path / "m.pt"
    )

    with pytest.raises(BrokenInputError, match="run code"):
        load_autoencoder(tmp_path / "m.pt")
    assert not (tmp_path / "ran").exists()


@torch.no_grad()
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 2e-5)])
def test_a_small_autoencoder_computes_the_numbers_kept_from_float64(compvis, tmp_path, dtype, tolerance):
    shapes = {name: tensor.shape for name, tensor in compvis_names(compvis, levels=2).items()}
    save_file({name: recipe_tensor(name, shape) for name, shape in shapes.items()}, tmp_path / "vae.safetensors")
    model = load_autoencoder(tmp_path / "vae.safetensors", dtype=dtype).model
    image = torch.from_numpy(np.random.default_rng(1).uniform(-1, 1, (1, 3, 16, 16))).to(dtype)

    moments = model.encode(image).latent_dist.parameters
    decoded = model.decode(moments[:, :4]).sample

    kept = json.loads((Path(__file__).parent / "data/autoencoder_float64.json").read_text())
    for values, name in ((moments, "moments"), (decoded, "decoded")):
        expected = torch.tensor(kept[name], dtype=torch.float64)
        torch.testing.assert_close(values.double().flatten()[::37], expected, rtol=0, atol=tolerance)


def test_a_pipeline_folder_stands_for_the_autoencoder_in_it(tmp_path):
    tiny_autoencoder(2).save_pretrained(tmp_path / "vae")

    assert load_autoencoder(tmp_path).fingerprint == ae.fingerprint(tiny_autoencoder(2))


def test_attention_tensors_under_their_names_before_diffusers_0_12_are_renamed():
    assert ae._new_name("encoder.mid_block.attentions.0.proj_attn.bias") == (
        "encoder.mid_block.attentions.0.to_out.0.bias"
    )
    assert ae._new_name("encoder.mid_block.attentions.0.query.weight") == "encoder.mid_block.attentions.0.to_q.weight"
    assert ae._new_name("decoder.conv_in.weight") == "decoder.conv_in.weight"


def test_the_fingerprint_tells_weights_and_scale_but_not_their_storage(tmp_path):
    original = ae.fingerprint(tiny_autoencoder(0))

    assert ae.fingerprint(tiny_autoencoder(0).to(memory_format=torch.channels_last)) == original
    assert ae.fingerprint(tiny_autoencoder(1)) != original
    assert ae.fingerprint(tiny_autoencoder(0, scaling_factor=0.71)) != original


def test_moments_are_mean_and_log_variance_of_what_diffusers_encodes(images):
    model = tiny_autoencoder(0)

    moments = ImageAutoencoder(model).moments(images)

    with torch.no_grad():
        distribution = model.encode(to_signed(images)).latent_dist
    assert moments.dtype == torch.float32
    assert moments.shape == (2, 8, 8, 4)
    torch.testing.assert_close(moments[:, :4], distribution.mean, rtol=0, atol=1e-6)
    torch.testing.assert_close(moments[:, 4:].clamp(-30, 20), distribution.logvar, rtol=0, atol=1e-6)


def test_float32_agrees_with_float64_and_bfloat16_is_close(images):
    double = ImageAutoencoder(tiny_autoencoder(0), dtype=torch.float64)
    single = ImageAutoencoder(tiny_autoencoder(0))
    half = ImageAutoencoder(tiny_autoencoder(0), dtype=torch.bfloat16)

    def error(got, expected):
        return float((got - expected).norm() / expected.norm())

    moments = double.moments(images)
    assert error(single.moments(images), moments) < 1e-5
    assert error(half.moments(images), moments) < 2e-2
    pictures = double.decode(moments[:, :4])
    assert error(single.decode(moments[:, :4]), pictures) < 1e-5
    assert error(half.decode(moments[:, :4]), pictures) < 2e-2


def test_decoding_divides_by_the_scale_and_stays_in_range():
    model = tiny_autoencoder(0, scaling_factor=0.25)
    latents = 3 * torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(0))

    images = ImageAutoencoder(model).decode(latents)

    with torch.no_grad():
        expected = (model.decode(latents / 0.25).sample / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(images, expected, rtol=0, atol=1e-6)
    assert images.shape == (2, 3, 32, 32)


def test_a_draw_is_the_mean_plus_a_clipped_deviation_times_the_noise():
    mean, noise = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([0.3, 0.4, -1.0])
    log_variance = torch.tensor([60.0, -80.0, 0.2])
    moments = torch.stack([mean, log_variance]).view(1, 2, 1, 3)

    drawn = draw_latents(moments, noise.view(1, 1, 1, 3), 0.18215)

    deviation = torch.tensor([np.exp(10.0), np.exp(-15.0), np.exp(0.1)], dtype=torch.float32)
    torch.testing.assert_close(drawn.flatten(), 0.18215 * (mean + deviation * noise), rtol=1e-6, atol=0)
    with pytest.raises(ValueError, match="expected"):
        draw_latents(moments, noise, 1.0)


def test_every_byte_survives_the_way_to_network_input_and_back():
    bytes_ = torch.arange(256, dtype=torch.uint8)

    assert to_signed(torch.tensor([0, 51, 255], dtype=torch.uint8)).tolist() == pytest.approx([-1, -0.6, 1], abs=1e-7)
    assert torch.equal(to_uint8(to_unit(to_signed(bytes_))), bytes_)
    assert torch.equal(to_uint8(torch.tensor([0.0, 0.4999 / 255, 0.5 / 255, 1.0])), torch.tensor([0, 0, 1, 255]).byte())


def test_pixels_are_refused_in_another_form(images):
    autoencoder = ImageAutoencoder(tiny_autoencoder(0))
    for wrong in (images.float(), images[0], images[:, :2], images[..., :30]):
        with pytest.raises(ValueError, match="images"):
            autoencoder.moments(wrong)


def test_an_autoencoder_that_is_not_there_is_named_with_what_to_do(tmp_path):
    for source in (tmp_path / "nowhere", "no such thing"):
        with pytest.raises(CopgenError, match="no file or folder") as caught:
            load_autoencoder(source)
        assert "hub id" in caught.value.hint


def test_a_hub_id_that_cannot_be_fetched_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))

    with pytest.raises(CopgenError, match="stabilityai/sd-vae-ft-ema") as caught:
        load_autoencoder()

    assert "`hf download stabilityai/sd-vae-ft-ema`" in caught.value.hint


def test_weights_that_do_not_fit_are_refused_with_names(compvis, tmp_path):
    tensors = compvis_names(compvis, levels=2)
    save_file({n: t for n, t in tensors.items() if n != "decoder.conv_out.bias"}, tmp_path / "short.safetensors")
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    save_file(tensors, tmp_path / "cut.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "cut.safetensors").read_bytes()[:-10])
    (tmp_path / "empty").mkdir()

    with pytest.raises(MismatchError, match=r"1 missing \(decoder\.conv_out\.bias\)"):
        load_autoencoder(tmp_path / "short.safetensors")
    with pytest.raises(MismatchError, match="not an autoencoder under CompVis names"):
        load_autoencoder(tmp_path / "other.safetensors")
    with pytest.raises(BrokenInputError, match="not a whole safetensors file"):
        load_autoencoder(tmp_path / "cut.safetensors")
    with pytest.raises(BrokenInputError, match="holds no autoencoder"):
        load_autoencoder(tmp_path / "empty")


@pytest.mark.parametrize(
    "change",
    [{"scaling_factor": 0}, {"scaling_factor": None}, {"block_out_channels": []}, {"norm_num_groups": 0},
     {"layers_per_block": 10_000_000}],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_a_configuration_that_makes_no_autoencoder_is_refused(tmp_path, change):
    tiny_autoencoder(0).save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))

    with pytest.raises(MismatchError) as refused:
        load_autoencoder(tmp_path)
    assert "Restore the configuration" in refused.value.hint


def test_an_autoencoder_with_shifted_latents_is_refused():
    with pytest.raises(MismatchError, match="shifted"):
        ImageAutoencoder(tiny_autoencoder(0, shift_factor=0.1), source="other")


def test_a_tiny_decoder_takes_scaled_latents_as_they_are(tmp_path):
    from diffusers import AutoencoderTiny

    tiny = AutoencoderTiny(
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    )
    tiny.save_pretrained(tmp_path)
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))

    images = ae.load_preview_decoder(tmp_path).decode(latents)

    with torch.no_grad():
        expected = (tiny.decode(latents).sample / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(images, expected)


@torch.no_grad()
def test_the_recorded_full_size_autoencoder_comes_out_of_its_recipe(shared, tmp_path):
    manifest = json.loads((shared / "golden/manifest_vae.json").read_text())["state_dict"]
    recorded = {
        name: torch.from_numpy(array)
        for name, array in np.load(shared / "golden/vae_random.npz", allow_pickle=False).items()
    }
    save_file({name: recipe_tensor(name, shape) for name, shape in manifest.items()}, tmp_path / "vae.safetensors")
    autoencoder = load_autoencoder(tmp_path / "vae.safetensors")

    moments = autoencoder.model.encode(recorded["x"]).latent_dist.parameters
    decoded = autoencoder.model.decode(recorded["z_unscaled"]).sample

    assert sum(t.numel() for t in autoencoder.model.state_dict().values()) == 83_653_863
    torch.testing.assert_close(moments, recorded["moments"], rtol=0, atol=5e-5)
    torch.testing.assert_close(decoded, recorded["decoded_of_z_times_0p18215"], rtol=0, atol=5e-5)
    torch.testing.assert_close(
        autoencoder.decode(0.18215 * recorded["z_unscaled"]), to_unit(recorded["decoded64"].float()), rtol=0, atol=5e-5
    )
    for case, drawn in (("moments", "z_sampled"), ("moments_extreme", "z_sampled_extreme")):
        latents = draw_latents(recorded[case], recorded["sample_noise"], autoencoder.scale_factor)
        torch.testing.assert_close(latents, recorded[drawn], rtol=1e-5, atol=5e-5)


def test_pixel_conversions_are_the_recorded_ones(shared):
    recorded = np.load(shared / "golden/image_conversion.npz", allow_pickle=False)
    bytes_ = torch.arange(256, dtype=torch.uint8)

    for path in ("lut_encode_path", "lut_sample_path"):
        assert torch.equal(to_signed(bytes_), torch.from_numpy(recorded[path]))
    unit = to_unit(torch.from_numpy(recorded["decoded_values"]))
    assert torch.equal(unit, torch.from_numpy(recorded["unpreprocessed"]))
    assert torch.equal(to_uint8(unit), torch.from_numpy(recorded["saved_uint8"]))
