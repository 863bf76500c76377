"""What makes an autoencoder of pictures sharp: the loss on power spectra, and the adversary with what it carries."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import avg_pool2d

from copgen_cli.autoencoding import export, recipe as training
from copgen_cli.autoencoding.discriminator import hinge_loss, judge, new_adversary, with_adversary
from copgen_cli.autoencoding.power_spectrum import spectral_loss
from copgen_cli.autoencoding.state import METRICS_NAME, STATE_NAME
from copgen_cli.errors import BrokenInputError, MismatchError
from copgen_cli.modalities import Modality
from copgen_cli.settings.sections import AutoencoderSettings

CPU = torch.device("cpu")


def small(**changed):
    settings = {"steps": 4, "batch_size": 1, "channels": (8, 8), "save_every": 2, "seed": 3}
    return AutoencoderSettings(**settings | changed)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("patches")
    corners = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8))
    corners.resize((256, 256), Image.Resampling.BICUBIC).save(folder / "1U_1R_0.png")
    return {Modality.S2L2A: sorted(folder.glob("*.png"))}


def train(images, settings, output):
    return list(training.train_autoencoder(images, settings, output, device=CPU, dtype=torch.float32))


def saved(output):
    return torch.load(output / STATE_NAME, weights_only=True)


def numbers(value):
    """All tensors of a state, in the order in which they lie there."""
    if isinstance(value, torch.Tensor):
        return [value]
    return [t for part in value.values() for t in numbers(part)] if isinstance(value, dict) else []


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_equal_spectra_cost_nothing_wherever_things_lie_and_blur_costs_the_more_the_wider_it_is():
    picture = noise(2, 3, 64, 64)

    def blurred(width):
        return avg_pool2d(torch.nn.functional.pad(picture, [width // 2] * 4, mode="reflect"), width, stride=1)

    losses = [spectral_loss(other, picture).item() for other in (picture, blurred(3), blurred(5), blurred(9))]

    assert losses[0] == 0
    assert spectral_loss(picture.flip(3), picture).item() < 1e-4
    assert 0.2 < losses[1] < losses[2] < losses[3]


def test_ten_times_the_power_costs_one_and_colour_that_is_lost_costs_although_brightness_stays():
    picture = noise(1, 3, 48, 64) / 4
    grey = picture.mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)

    assert spectral_loss(picture * 10**0.5, picture).item() == pytest.approx(1, abs=0.01)
    assert spectral_loss(grey, picture).item() > 1.5


def test_flat_crops_have_finite_gradients_and_what_no_byte_can_hold_costs_little():
    flat = torch.full((1, 3, 32, 32), 0.25)
    image = flat.clone().requires_grad_()
    spectral_loss(image, flat).backward()
    assert image.grad.isfinite().all()

    textured = image.detach().requires_grad_()
    spectral_loss(textured, noise(1, 3, 32, 32)).backward()
    assert textured.grad.isfinite().all()
    assert spectral_loss(flat + noise(1, 3, 32, 32) / 255, flat).item() < 0.7  # half a grey level up or down


def test_the_hinge_is_one_where_nothing_is_told_apart_and_nothing_where_all_is():
    undecided, sure = torch.zeros(4), torch.full((4,), 3.0)

    assert hinge_loss(undecided, undecided).item() == 1
    assert hinge_loss(sure, -sure).item() == 0
    assert hinge_loss(-sure, sure).item() == 4


def test_neither_side_moves_the_other_and_the_adversary_weighs_what_it_is_given():
    network = new_adversary(0, CPU).network
    last_layer = noise(3, 3, 1, 1, seed=1).requires_grad_()
    decoded, target = torch.nn.functional.conv2d(noise(2, 3, 64, 64), last_layer), noise(2, 3, 64, 64, seed=2)

    verdict = judge(network, decoded, target)
    verdict.hinge.backward(retain_graph=True)
    assert last_layer.grad is None
    network.zero_grad()
    loss = (decoded - target).abs().mean()
    with_adversary(loss, decoded, verdict, last_layer, 0.5).backward()

    assert all(weight.grad is None for weight in network.parameters())
    (alone,) = torch.autograd.grad(
        (torch.nn.functional.conv2d(noise(2, 3, 64, 64), last_layer) - target).abs().mean(), last_layer
    )
    assert (last_layer.grad - alone).norm().item() == pytest.approx(0.5 * alone.norm().item(), rel=1e-2)
    nearer = decoded.detach() - verdict.gradient / verdict.gradient.norm()
    assert network(nearer).mean() > network(decoded).mean()  # taken for truer


@pytest.fixture(scope="module")
def start(images, tmp_path_factory):
    """The folder of an autoencoder to start from."""
    folder = tmp_path_factory.mktemp("start")
    train(images, small(steps=1), folder)
    export.export_autoencoder(images, small(steps=1), folder, CPU)
    return folder


def test_a_run_with_an_adversary_ends_bitwise_as_one_that_was_not_stopped(images, tmp_path):
    settings = small(adversarial_weight=0.5, adversarial_after=1, spectrum_weight=0.1)
    whole = train(images, settings, tmp_path / "whole")

    iterator = training.train_autoencoder(images, settings, tmp_path / "stopped", device=CPU, dtype=torch.float32)
    for _ in range(3):
        next(iterator)
    iterator.close()
    rest = train(images, settings, tmp_path / "stopped")

    assert rest == whole[2:]
    one, other = (numbers(saved(tmp_path / name)) for name in ("whole", "stopped"))
    assert len(one) > 100
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    lines = [json.loads(line) for line in (tmp_path / "stopped" / METRICS_NAME).read_text().splitlines()]
    assert all({"spectrum", "adversarial", "discriminator"} <= line.keys() for line in lines)


def test_at_first_the_adversary_learns_alone_and_then_a_frozen_encoder_still_stays(images, start, tmp_path):
    settings = small(
        init_from=str(start), frozen_encoder=True, adversarial_weight=1.0, adversarial_after=2, steps=3, save_every=1
    )
    updates = training.train_autoencoder(images, settings, tmp_path, device=CPU, dtype=torch.float32)
    states = [saved(tmp_path) for _ in updates]

    def moved(part, before, after, under=""):
        return [n for n in before[part] if n.startswith(under) and not torch.equal(before[part][n], after[part][n])]

    assert moved("discriminator", states[0], states[1])
    assert not moved("model", states[0], states[1])
    assert not moved("ema", states[0], states[1])
    assert moved("model", states[1], states[2], "decoder")
    assert not moved("model", states[1], states[2], "encoder")
    last = json.loads((tmp_path / METRICS_NAME).read_text().splitlines()[-1])
    assert last["lr"] == pytest.approx(1e-5)  # the first of its warm-up


def test_without_an_adversary_nothing_of_it_is_made_and_states_of_earlier_versions_go_on(images, tmp_path):
    train(images, small(steps=1), tmp_path)
    state = saved(tmp_path)
    assert set(state) == {"step", "recipe", "model", "ema", "optimizer"}
    lines = (tmp_path / METRICS_NAME).read_text()
    assert "spectrum" not in lines
    assert "adversarial" not in lines

    for name in ("spectrum_weight", "adversarial_weight", "adversarial_after"):
        del state["recipe"][name]
    torch.save(state, tmp_path / STATE_NAME)

    with pytest.raises(MismatchError, match=r"adversarial_weight 0\.0, now 0\.5"):
        train(images, small(adversarial_weight=0.5), tmp_path)
    assert [update.step for update in train(images, small(steps=2), tmp_path)] == [2]


def test_a_state_that_lost_its_discriminator_is_refused(images, tmp_path):
    settings = small(steps=1, adversarial_weight=0.5)
    train(images, settings, tmp_path)
    state = saved(tmp_path)
    del state["discriminator"]
    torch.save(state, tmp_path / STATE_NAME)

    with pytest.raises(BrokenInputError, match="holds no discriminator"):
        train(images, small(steps=2, adversarial_weight=0.5), tmp_path)
