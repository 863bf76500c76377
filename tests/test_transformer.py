"""The network is the published one: its tensors by name and shape, its outputs to rounding, and its conventions."""

from __future__ import annotations

import json

import numpy as np
import oracle
import pytest
import torch
from hypothesis import given, settings, strategies as st
from safetensors.torch import load_file
from small_networks import expected, latents, network, relative_error, timesteps
from torch.testing import assert_close

from copgen_cli.model.transformer import CopGenTransformer, timestep_embedding

RECORDED = ["m4", "m3", "m2", "m2opt"]
OWN = list(oracle.CASES)


def recorded(shared, variant):
    """A recorded network with its weights, and the arrays of its case."""
    config = json.loads((shared / f"golden/transformer_{variant}.config.json").read_text())
    names = ("img_size", "in_chans", "patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio", "qkv_bias")
    net = CopGenTransformer(
        *(config[name] for name in names),
        mlp_time_embed=config["mlp_time_embed"],
        num_modalities=config["num_modalities"],
    )
    net.load_state_dict(load_file(shared / f"golden/transformer_{variant}.weights.safetensors"), strict=True)
    arrays = np.load(shared / f"golden/transformer_{variant}.npz", allow_pickle=False)
    return net.eval(), lambda name: [torch.from_numpy(arrays[f"{name}{i}"]) for i in range(net.num_modalities)]


@torch.no_grad()
@pytest.mark.parametrize("variant", RECORDED)
def test_the_recorded_outputs_come_out_for_fractional_and_for_integer_timesteps(shared, variant):
    net, array = recorded(shared, variant)

    assert relative_error(net(array("x"), array("t")), array("y")) < 1e-5
    assert relative_error(net(array("x"), array("tint")), array("yint")) < 1e-5


@torch.no_grad()
@pytest.mark.parametrize("variant", RECORDED)
def test_float64_gives_the_recorded_float64_outputs_and_agrees_with_the_lower_precisions(shared, variant):
    net, array = recorded(shared, variant)
    single = net(array("x"), array("t"))
    half = net.bfloat16()(array("x"), array("t"))
    double = recorded(shared, variant)[0].double()(array("x"), array("t"))

    # timesteps are embedded in float32, where a processor's exp may differ by a rounding, times 1000
    assert relative_error(double, array("y64_")) < 1e-6
    assert relative_error(single, double) < 1e-5
    assert relative_error(half, double) < 2e-2


@torch.no_grad()
@pytest.mark.parametrize("case", OWN)
def test_the_network_computes_what_an_independent_float64_calculation_says(case):
    predicted = network(case)(latents("x", case), timesteps(case))

    assert relative_error(predicted, expected(f"{case}.predicted")) < 1e-5


@torch.no_grad()
@pytest.mark.parametrize("case", OWN)
def test_float32_agrees_with_float64_to_rounding_and_bfloat16_to_two_percent(case):
    inputs = latents("x", case), timesteps(case)
    single, half, double = (net(*inputs) for net in (network(case), network(case).bfloat16(), network(case).double()))

    assert relative_error(single, double) < 1e-5
    assert relative_error(half, double) < 2e-2
    assert half[0].dtype == torch.bfloat16


@torch.no_grad()
def test_whole_timesteps_may_be_integers_or_floats():
    net, z = network(), latents("x")
    n = torch.arange(8).reshape(4, 2) * 142

    assert_close(net(z, n), net(z, n.float()), rtol=0, atol=0)


@pytest.mark.parametrize("width", [64, 7])
def test_the_recorded_timestep_embeddings_come_out(shared, width):
    arrays = np.load(shared / "golden/timestep_embedding.npz", allow_pickle=False)

    embedding = timestep_embedding(torch.from_numpy(arrays[f"t_dim{width}"]), width)

    # one rounding of a frequency, in which processors differ, turns the angle of timestep 1000 by up to 6e-5
    assert_close(embedding, torch.from_numpy(arrays[f"emb_dim{width}"]), rtol=0, atol=1e-4)


def test_a_timestep_embedding_is_cosines_then_sines_and_a_zero_where_the_width_is_odd():
    embedding = timestep_embedding(torch.tensor([0.0, 2.5]), 5)
    slow = 2.5 / 100  # the second of two frequencies is exp(-ln(10000) / 2)

    assert_close(embedding[0], torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0]))
    assert_close(embedding[1], torch.tensor([np.cos(2.5), np.cos(slow), np.sin(2.5), np.sin(slow), 0]).float())


@torch.no_grad()
def test_a_timestep_is_not_rounded_to_the_precision_of_the_network():
    net = network().bfloat16()
    z, t = latents("x"), timesteps()
    t[:] = 999.0  # bfloat16 knows no number between 996 and 1000

    assert relative_error(net(z, t), network()(z, t)) < 2e-2
    assert relative_error(net(z, t), network()(z, torch.full_like(t, 1000.0))) > 2e-2


def test_the_full_size_network_has_exactly_the_published_tensors(shared):
    manifest = json.loads((shared / "golden/manifest_triffuser_full.json").read_text())
    with torch.device("meta"):
        net = CopGenTransformer()

    assert {name: list(tensor.shape) for name, tensor in net.state_dict().items()} == manifest["state_dict"]
    assert sum(parameter.numel() for parameter in net.parameters()) == manifest["total_parameters"]


@pytest.mark.parametrize("case", OWN)
def test_tensors_have_the_names_and_shapes_of_the_specification(case):
    net = network(case)

    assert {name: tuple(t.shape) for name, t in net.state_dict().items()} == oracle.shapes_of(oracle.CASES[case])


def test_every_norm_has_the_published_epsilon():
    norms = [module for module in network().modules() if isinstance(module, torch.nn.LayerNorm)]

    assert len(norms) == 13  # two in each of five blocks, one more in two of them, and the last
    assert {norm.eps for norm in norms} == {1e-5}


def test_linear_weights_begin_as_a_truncated_normal_and_biases_at_zero():
    torch.manual_seed(0)
    net = CopGenTransformer(sample_size=16, hidden_size=64, depth=2, num_heads=1)
    weight = net.mid_block.mlp.fc1.weight

    assert float(weight.detach().std()) == pytest.approx(0.02, rel=0.05)
    assert float(net.pos_embed.detach().std()) == pytest.approx(0.02, rel=0.05)
    assert not any(p.any() for name, p in net.named_parameters() if name.endswith("fc1.bias"))
    assert net.patch_embeds[0].proj.bias.any()  # convolutions stay as PyTorch makes them


@torch.no_grad()
@settings(max_examples=8, deadline=None)
@given(st.integers(0, 3), st.integers(0, 3), st.integers(0, 15))
def test_every_output_patch_depends_on_every_modality_and_on_its_timestep(source, target, patch):
    net, z, t = network(), latents("x"), timesteps()
    row, column = divmod(patch, 4)
    before = net(z, t)[target]
    changed, later = z.clone(), t.clone()
    changed[source] += 1
    later[source] = (later[source] + 500) % 1000

    for after in (net(changed, t)[target], net(z, later)[target]):
        difference = (after - before)[..., 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        assert difference.abs().amax(dim=(1, 2, 3)).min() > 1e-4


@torch.no_grad()
def test_heads_names_the_outputs_in_the_order_wanted_and_others_are_never_computed():
    net, z, t = network(), latents("x"), timesteps()
    everything = net(z, t)
    computed = []
    for i, head in enumerate(net.decoder_preds):
        head.register_forward_hook(lambda *_, i=i: computed.append(i))

    some = net(z, t, heads=[3, 1])

    assert computed == [3, 1]
    assert_close(some, [everything[3], everything[1]], rtol=0, atol=0)


def test_gradient_checkpointing_changes_neither_loss_nor_gradients_and_runs_blocks_twice():
    def gradients(net):
        runs = []
        net.mid_block.register_forward_pre_hook(lambda *_: runs.append(1))
        sum(y.square().mean() for y in net.train()(latents("x"), timesteps())).backward()
        return len(runs), {name: p.grad for name, p in net.named_parameters()}

    plain, saving = network(), network()
    saving.enable_gradient_checkpointing()
    once, wanted = gradients(plain)
    twice, got = gradients(saving)

    assert (once, twice) == (1, 2)
    assert_close(got, wanted, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_forward_pass_compiles_to_one_graph(checkpointing):
    net, z, t = network(), list(latents("x")), list(timesteps())
    if checkpointing:
        net.enable_gradient_checkpointing()
    compiled = torch.compile(net, backend="eager", fullgraph=True)  # fullgraph raises at a graph break

    assert_close(compiled(z, t), net(z, t), rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        assert_close(compiled(z, t, heads=(1,)), net(z, t, heads=(1,)), rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_a_larger_latent_is_refused_unless_positions_may_be_stretched():
    net, t = network(), timesteps()
    larger = torch.randn(4, 2, 4, 12, 8, generator=torch.Generator().manual_seed(0))

    with pytest.raises(ValueError, match=r"trained at 8 x 8.*interpolate_positions"):
        net(larger, t)
    predicted = net(larger, t, interpolate_positions=True)

    assert [y.shape for y in predicted] == [(2, 4, 12, 8)] * 4
    assert_close(net(latents("x"), t, interpolate_positions=True), net(latents("x"), t), rtol=0, atol=0)


@torch.no_grad()
def test_stretched_positions_keep_those_of_time_tokens_and_the_layout_of_each_modality():
    net = network()
    grid = torch.linspace(-1, 1, 4)
    of_patches = torch.stack([10.0 * m + grid[:, None] + 0 * grid[None] for m in range(4)])  # rises with the row
    net.pos_embed[0, 4:] = of_patches.reshape(-1, 1)
    stretched = net._positions([(8, 4)] * 4)

    assert_close(stretched[:, :4], net.pos_embed[:, :4])
    by_modality = stretched[0, 4:, 0].reshape(4, 8, 4)
    assert (by_modality[:, 1:] > by_modality[:, :-1]).all()
    assert_close(by_modality.mean(dim=(1, 2)), torch.tensor([0.0, 10.0, 20.0, 30.0]), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("z", "t", "message"),
    [
        (torch.zeros(3, 2, 4, 8, 8), torch.zeros(4, 2), "3 latents and 4 timesteps"),
        (torch.zeros(4, 2, 3, 8, 8), torch.zeros(4, 2), "expected .batch, 4"),
        (torch.zeros(4, 2, 4, 8, 8), torch.zeros(4, 3), "timesteps of shapes"),
        (torch.zeros(4, 2, 4, 9, 8), torch.zeros(4, 2), "not made of patches of 2"),
    ],
)
def test_inputs_that_do_not_fit_are_told_apart(z, t, message):
    with pytest.raises(ValueError, match=message):
        network()(z, t)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"sample_size": 9}, "multiple of patch_size"),
        ({"hidden_size": 20, "num_heads": 3}, "multiple of num_heads"),
        ({"depth": 3}, "not even"),
        ({"modalities": ["dem", "dem", "s1_rtc", "s2_l2a"]}, "do not name 4 different ones"),
    ],
)
def test_sizes_that_do_not_fit_one_another_are_refused(sizes, message):
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        CopGenTransformer(**sizes)


def test_a_saved_network_comes_back_with_its_configuration_and_every_bit(tmp_path):
    net = CopGenTransformer(8, hidden_size=16, depth=2, num_heads=2, num_modalities=2, modalities=["s1_rtc", "dem"])
    net.save_pretrained(tmp_path)

    again = CopGenTransformer.from_pretrained(tmp_path)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "diffusion_pytorch_model.safetensors"]
    assert again.config.modalities == ["s1_rtc", "dem"]
    assert_close(again.state_dict(), net.state_dict(), rtol=0, atol=0)
