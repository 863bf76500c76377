"""COP-GEN (2026): what its public code computes, on networks whose modalities have latents of different shapes."""

from __future__ import annotations

import json
from datetime import date

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from copgen_cli.errors import MismatchError
from copgen_cli.modalities import (
    COPGEN_2026,
    Modality,
    decode_place,
    decode_time,
    encode_place,
    encode_time,
    modalities_in,
    normalise,
    to_values,
)
from copgen_cli.model.checkpoint import load_transformer
from copgen_cli.model.sampler import SampleNoise, sample_latents
from copgen_cli.model.transformer import CopGenTransformer

TAGS = ("c5", "c3opt")
SPECS = [modality.spec for modality in modalities_in(COPGEN_2026)]
NAMES = [spec.published for spec in SPECS]


@pytest.fixture(params=TAGS)
def published(request, shared):
    """A network, its modalities' names, the numbers of the public code, and the steps of its sampler."""
    folder = shared / "golden/copgen2026"
    config = json.loads((folder / f"transformer_{request.param}.config.json").read_text())
    facts = config["modalities"].values()
    shapes = [[m["latent_channels"], *m["latent_size"]] for m in facts]
    file = folder / f"transformer_{request.param}.weights.safetensors"
    net = load_transformer(file, config["num_heads"], modalities=list(config["modalities"]), latent_shapes=shapes)
    arrays = np.load(folder / f"transformer_{request.param}.npz", allow_pickle=False)
    return net, list(config["modalities"]), arrays, config["steps"]


def of(arrays, what, names):
    return [torch.from_numpy(arrays[f"{what}_{name}"]) for name in names]


def test_the_forward_pass_is_the_published_one(published):
    net, names, arrays, _ = published

    with torch.no_grad():
        predicted = net(of(arrays, "x", names), of(arrays, "t", names))

    for ours, theirs in zip(predicted, of(arrays, "y", names), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("case", ["joint", "conditional"])
def test_sampling_is_the_published_one(published, case):
    net, names, arrays, steps = published
    generated = [str(name) for name in arrays[f"{case}_generate"]]
    given = {i: torch.from_numpy(arrays[f"x_{name}"]) for i, name in enumerate(names) if name not in generated}

    drawn = sample_latents(
        net,
        [names.index(name) for name in generated],
        given,
        noise=of(arrays, f"{case}_noise", generated),
        steps=steps,
    )

    for name in generated:
        theirs = torch.from_numpy(arrays[f"{case}_z_{name}"])
        torch.testing.assert_close(drawn[names.index(name)], theirs, rtol=0, atol=5e-3)


def base(**sizes) -> CopGenTransformer:
    with torch.device("meta"):
        return CopGenTransformer(
            num_modalities=len(SPECS),
            modalities=NAMES,
            latent_shapes=[list(spec.latent) for spec in SPECS],
            patch_sizes=[spec.patch_size for spec in SPECS],
            **sizes,
        )


def test_the_base_size_has_the_published_tensors_by_name_and_shape(shared):
    manifest = json.loads((shared / "golden/copgen2026/manifest_base.json").read_text())
    ours = {name: list(tensor.shape) for name, tensor in base().state_dict().items()}

    theirs = manifest["tensors"]
    theirs = theirs if isinstance(theirs, dict) else dict(theirs)
    assert ours == {name: list(shape) for name, shape in theirs.items()}
    assert len(ours) == 322
    assert sum(p.numel() for p in base().parameters()) == manifest["parameters"] == 286_986_562
    assert base().pos_embed.shape[1] == 834


def test_a_checkpoint_of_the_family_is_recognised_by_its_tensors(tmp_path):
    sizes = {"hidden_size": 32, "depth": 2, "num_heads": 2}
    weights = {name: torch.randn(tensor.shape) * 0.02 for name, tensor in base(**sizes).state_dict().items()}
    torch.save(weights, tmp_path / "nnet_ema.pth")

    net = load_transformer(tmp_path / "nnet_ema.pth", num_heads=2)

    assert list(net.config.modalities) == sorted(NAMES) == NAMES
    net.save_pretrained(tmp_path / "saved")
    again = load_transformer(tmp_path / "saved")
    assert again.latent_shapes == net.latent_shapes
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), again.parameters(), strict=True))
    drawn = sample_latents(again, [0, 1, 11], {3: torch.randn(2, 8, 24, 24)}, steps=2, guidance_scale=1.0)
    assert [tuple(drawn[i].shape) for i in (0, 1, 11)] == [(2, 1, 1, 3), (2, 8, 8, 8), (2, 1, 1, 3)]


def test_other_mixed_shapes_have_to_be_told(tmp_path, shared):
    tensors = load_file(shared / "golden/copgen2026/transformer_c5.weights.safetensors")
    save_file(tensors, tmp_path / "mixed.safetensors")

    with pytest.raises(MismatchError, match="do not tell how large these are"):
        load_transformer(tmp_path / "mixed.safetensors", num_heads=4)


def test_a_sample_of_mixed_shapes_does_not_depend_on_its_company():
    shapes = [[1, 1, 3], [4, 4, 4], [2, 8, 8]]
    net = CopGenTransformer(
        hidden_size=32, depth=2, num_heads=2, num_modalities=3, latent_shapes=shapes, patch_sizes=[1, 2, 4]
    ).eval()

    together = sample_latents(net, [2, 0], steps=3, noise_source=SampleNoise(1, ("a", "b"), ("p", "q", "r")))
    alone = sample_latents(net, [0, 2], steps=3, noise_source=SampleNoise(1, ("b",), ("p", "q", "r")))

    for modality in (0, 2):
        torch.testing.assert_close(together[modality][1], alone[modality][0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("what", "name"),
    [
        ("s2", "S2L2A_B02_B03_B04_B08"),
        ("s1", "S1RTC_vh_vv"),
        ("dem", "DEM_DEM"),
        ("lulc", "LULC_LULC"),
        ("cloud", "S2L1C_cloud_mask"),
    ],
)
def test_values_are_normalised_there_and_back_as_published(shared, what, name):
    arrays = np.load(shared / "golden/copgen2026/normalisation.npz", allow_pickle=False)

    np.testing.assert_allclose(normalise(arrays[f"{what}_in"], Modality(name).spec), arrays[f"{what}_out"], atol=3e-7)
    back = to_values(arrays[f"{what}_post_in"], Modality(name).spec)
    np.testing.assert_allclose(back, arrays[f"{what}_back"], rtol=3e-6)
    assert back.shape == arrays[f"{what}_back"].shape


def test_places_and_dates_are_encoded_as_published_and_come_back(shared):
    arrays = np.load(shared / "golden/copgen2026/normalisation.npz", allow_pickle=False)

    for (latitude, longitude), expected in zip(arrays["latlon_in"], arrays["latlon_out"], strict=True):
        np.testing.assert_allclose(encode_place(latitude, longitude), expected, atol=1e-6)
        assert decode_place(expected) == pytest.approx((latitude, longitude), abs=1e-4)
    for text, expected in zip(arrays["date_in"], arrays["date_out"], strict=True):
        np.testing.assert_allclose(encode_time(date.fromisoformat(str(text))), expected, atol=1e-6)
        assert decode_time(expected) == date.fromisoformat(str(text))


@pytest.mark.parametrize("day", ["2020-12-31", "2021-01-01", "2020-02-29", "2019-12-31"])
def test_the_turn_of_the_year_comes_back(day):
    assert decode_time(encode_time(date.fromisoformat(day))).isoformat() == day


def test_what_is_no_class_or_no_place_is_refused():
    with pytest.raises(ValueError, match=r"\[3\] are no classes"):
        normalise(np.full((1, 2, 2), 3, np.uint8), Modality("land_cover").spec)
    with pytest.raises(ValueError, match="latitude 95"):
        encode_place(95, 0)
