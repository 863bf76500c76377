"""The network is the published one: its tensors by name and shape, its outputs to rounding, and its conventions."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from copgen_cli.model.transformer import CopGenTransformer, timestep_embedding

VARIANTS = ["m4", "m3", "m2", "m2opt"]


def recorded(shared, variant):
    """A recorded network with its weights, and the arrays of its case."""
    settings = json.loads((shared / f"golden/transformer_{variant}.config.json").read_text())
    names = ("img_size", "in_chans", "patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio", "qkv_bias")
    net = CopGenTransformer(
        *(settings[name] for name in names),
        mlp_time_embed=settings["mlp_time_embed"],
        num_modalities=settings["num_modalities"],
    )
    net.load_state_dict(load_file(shared / f"golden/transformer_{variant}.weights.safetensors"), strict=True)
    arrays = np.load(shared / f"golden/transformer_{variant}.npz", allow_pickle=False)
    return net.eval(), lambda name: [torch.from_numpy(arrays[f"{name}{i}"]) for i in range(net.num_modalities)]


def relative_error(got, expected):
    """The largest, over modalities, of |got - expected| / |expected|."""
    errors = ((a.double() - b.double()).norm() / b.double().norm() for a, b in zip(got, expected, strict=True))
    return max(float(error) for error in errors)


@torch.no_grad()
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_recorded_outputs_come_out_for_fractional_and_for_integer_timesteps(shared, variant):
    net, array = recorded(shared, variant)

    assert relative_error(net(array("x"), array("t")), array("y")) < 1e-5
    assert relative_error(net(array("x"), array("tint")), array("yint")) < 1e-5


@torch.no_grad()
@pytest.mark.parametrize("variant", VARIANTS)
def test_float64_gives_the_recorded_float64_outputs_and_agrees_with_the_lower_precisions(shared, variant):
    net, array = recorded(shared, variant)
    single = net(array("x"), array("t"))
    half = net.to(torch.bfloat16)(array("x"), array("t"))
    double = recorded(shared, variant)[0].double()(array("x"), array("t"))

    assert relative_error(double, array("y64_")) < 1e-12
    assert relative_error(single, double) < 1e-5
    assert relative_error(half, double) < 2e-2


@pytest.mark.parametrize("width", [64, 7])
def test_the_recorded_timestep_embeddings_come_out_with_a_zero_at_the_end_of_an_odd_width(shared, width):
    arrays = np.load(shared / "golden/timestep_embedding.npz", allow_pickle=False)

    embedding = timestep_embedding(torch.from_numpy(arrays[f"t_dim{width}"]), width)

    torch.testing.assert_close(embedding, torch.from_numpy(arrays[f"emb_dim{width}"]), rtol=0, atol=1e-6)


def test_the_full_size_network_has_exactly_the_published_tensors(shared):
    manifest = json.loads((shared / "golden/manifest_triffuser_full.json").read_text())
    with torch.device("meta"):
        net = CopGenTransformer()

    assert {name: list(tensor.shape) for name, tensor in net.state_dict().items()} == manifest["state_dict"]
    assert sum(parameter.numel() for parameter in net.parameters()) == manifest["total_parameters"]
