"""Guidance: what it adds to a network's answer, and what it leaves of tone and contrast."""

import pytest
import torch

from copgen_cli.model import SCHEDULE, SCHEDULE_ENDING_IN_NOISE, guide

GIVEN, FREE, NOISY = torch.randn(3, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0)).unbind()


def at(n: float) -> torch.Tensor:
    return torch.tensor(n, dtype=torch.float64)


def clean_of(velocity: torch.Tensor, n: float) -> torch.Tensor:
    signal, spread = SCHEDULE_ENDING_IN_NOISE.amplitudes(at(n), torch.float32)
    return signal * NOISY - spread * velocity


def test_without_a_schedule_that_ends_in_noise_it_goes_as_far_beyond_as_the_scale_says():
    torch.testing.assert_close(guide(GIVEN, FREE, 2.0, NOISY, at(700), SCHEDULE), 3 * GIVEN - 2 * FREE)


@pytest.mark.parametrize("n", [1000, 400, 1])
def test_tone_and_contrast_of_each_channel_go_most_of_the_way_back(n):
    aim, plain = clean_of(GIVEN, n), clean_of(3 * GIVEN - 2 * FREE, n)

    guided = clean_of(guide(GIVEN, FREE, 2.0, NOISY, at(n), SCHEDULE_ENDING_IN_NOISE), n)

    for moment in (torch.mean, torch.std):
        wanted, far, got = (moment(x, dim=(2, 3)) for x in (aim, plain, guided))
        torch.testing.assert_close(got, 0.3 * far + 0.7 * wanted, rtol=1e-3, atol=1e-3)
    away, there = (x - x.mean(dim=(2, 3), keepdim=True) for x in (plain, guided))
    alike = torch.cosine_similarity(away.flatten(2), there.flatten(2), dim=2)
    assert alike.min() > 0.999  # the picture itself is that of guidance


def test_a_scale_of_nearly_nothing_changes_nearly_nothing():
    guided = guide(GIVEN, FREE, 1e-6, NOISY, at(1000), SCHEDULE_ENDING_IN_NOISE)
    torch.testing.assert_close(guided, GIVEN, rtol=0, atol=1e-4)


def test_each_sample_may_be_at_a_step_of_its_own():
    steps = torch.tensor([1000.0, 300.0])
    together = guide(GIVEN, FREE, 1.0, NOISY, steps[:, None, None, None], SCHEDULE_ENDING_IN_NOISE)
    for b, n in enumerate(steps):
        alone = guide(GIVEN[b : b + 1], FREE[b : b + 1], 1.0, NOISY[b : b + 1], n, SCHEDULE_ENDING_IN_NOISE)
        torch.testing.assert_close(together[b : b + 1], alone)


def test_what_is_flat_stays_finite():
    flat = torch.zeros_like(GIVEN)
    assert guide(flat, flat, 2.0, NOISY, at(1000), SCHEDULE_ENDING_IN_NOISE).isfinite().all()
