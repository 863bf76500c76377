"""Students: what a teacher sets them to tell, runs that train them, and what is sampled with them."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from tiny_models import tiny_transformer
from torch import Tensor, nn

from copgen_cli.model.diffusion import SCHEDULE_ENDING_IN_NOISE, TimestepLaw, add_noise, draw_timesteps
from copgen_cli.model.solvers import steps_from_noise
from copgen_cli.training.data_order import TrainBatch
from copgen_cli.training.distillation.loss import Distillation, Questions, clean_targets
from copgen_cli.training.distillation.walk import Walk, teachers_walk

T = SCHEDULE_ENDING_IN_NOISE.steps
VELOCITIES = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
GIVEN, GENERATED, LEFT_OUT = range(3)


class GaussianTeacher(nn.Module):
    """The exact network of data N(0, s^2), with s = 0.6 where the first modality is given clean, and 1.5 elsewhere.

    Its reverse process is known: x / sqrt(alpha^2 s^2 + sigma^2) stays what it is.
    """

    config = SimpleNamespace(prediction_type="v_prediction", rescale_betas_zero_snr=True)
    SPREADS = (0.6, 1.5)

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[list[Tensor], list[Tensor]]] = []

    def forward(self, latents, timesteps):
        self.calls.append((list(latents), list(timesteps)))
        variance = torch.where(timesteps[GIVEN] == 0, *(s**2 for s in self.SPREADS))
        return [self.velocity(x, n, variance) for x, n in zip(latents, timesteps, strict=True)]

    @staticmethod
    def velocity(x, n, variance):
        signal, spread = SCHEDULE_ENDING_IN_NOISE.amplitudes(n.double(), torch.float64)
        clean = signal * variance / (signal**2 * variance + spread**2)
        factor = (signal - clean) / spread.clamp(min=1e-9)
        return (factor[:, None, None, None] * x.double()).float()


def batch_of(start: int, *, given: bool = True, size: int = 2) -> TrainBatch:
    """Three modalities: given (or left out), generated from a step on, left out."""
    generator = torch.Generator().manual_seed(start)
    latents, noise = (tuple(torch.randn(size, 1, 4, 4, generator=generator) for _ in range(3)) for _ in range(2))
    timesteps = torch.tensor([0 if given else T, start, T])[:, None].expand(3, size)
    return TrainBatch(latents, noise, timesteps.contiguous())


def walk_of(calls: int, teacher_calls: int) -> Walk:
    return teachers_walk(calls, teacher_calls).to(torch.device("cpu"))


def levels(n: int | None) -> tuple[float, float]:
    """Amplitudes of signal and noise; None is clean."""
    left = 1.0 if n is None else float(SCHEDULE_ENDING_IN_NOISE.abar[n])
    return math.sqrt(left), math.sqrt(1 - left)


def one_step(x: Tensor, clean: Tensor, start: int, end: int | None) -> Tensor:
    """DDIM's step from one step to another, or to clean."""
    (a, s), (a_end, s_end) = levels(start), levels(end)
    return a_end * clean + s_end * (x - a * clean) / s


@pytest.mark.parametrize("calls", [1, 2, 4])
def test_a_student_that_tells_its_target_lands_where_the_exact_solution_does(calls):
    teacher, walk = GaussianTeacher(), walk_of(calls, 48)
    grid = steps_from_noise(SCHEDULE_ENDING_IN_NOISE, calls)

    for start, end in zip(grid, [*grid[1:], None], strict=True):
        asked = Questions.of(batch_of(start), walk)
        target = clean_targets(teacher, asked, walk)[GENERATED]

        x, variance = asked.states[GENERATED], teacher.SPREADS[0] ** 2
        (a, s), (a_end, s_end) = levels(start), levels(end)
        exact = x * math.sqrt((a_end**2 * variance + s_end**2) / (a**2 * variance + s**2))
        torch.testing.assert_close(one_step(x, target, start, end), exact, rtol=0, atol=4e-3)


def test_a_walk_of_more_calls_comes_closer_in_second_order():
    def error(teacher_calls: int) -> float:
        walk = walk_of(2, teacher_calls)
        start = int(walk.starts[1])
        asked = Questions.of(batch_of(start), walk)
        told = clean_targets(GaussianTeacher(), asked, walk)[GENERATED]
        (a, s), c = levels(start), GaussianTeacher.SPREADS[0]
        return float((told - asked.states[GENERATED] * c / math.sqrt(a**2 * c**2 + s**2)).abs().max())

    assert error(33) < error(17) / 3


@pytest.mark.parametrize("given", [True, False])
def test_a_student_that_is_its_teacher_has_no_loss_where_the_teacher_calls_once(given):
    teacher = tiny_transformer(
        sample_size=4, in_channels=1, patch_size=2, modalities=("dem", "s1_rtc", "s2_l2a"), **VELOCITIES
    )
    walk = walk_of(4, 1)
    for start in walk.starts.tolist():
        parts = Distillation(teacher, walk)(teacher, batch_of(start, given=given))
        torch.testing.assert_close(parts, torch.zeros_like(parts), rtol=0, atol=1e-9)
        other = Distillation(GaussianTeacher(), walk)(teacher, batch_of(start, given=given))
        generated = [start == T and not given, True, start == T]
        assert (other[torch.tensor(generated)] > 1e-2).all()
        assert (other[~torch.tensor(generated)] == 0).all()


def test_what_is_given_and_left_out_is_held_while_the_rest_walks():
    teacher, walk = GaussianTeacher(), walk_of(4, 3)
    start = int(walk.starts[1])
    batch = batch_of(start)

    clean_targets(teacher, Questions.of(batch, walk), walk, guidance_scale=0.7)

    assert len(teacher.calls) == 3
    for call, (latents, timesteps) in enumerate(teacher.calls):
        with_it, without = (slice(0, 2), slice(2, 4))
        assert torch.equal(latents[GIVEN][with_it], batch.latents[GIVEN])
        assert torch.equal(latents[GIVEN][without], batch.noise[GIVEN]), "noise stands for what is given"
        assert timesteps[GIVEN].tolist() == [0, 0, T, T]
        left_out = add_noise(
            batch.latents[LEFT_OUT], batch.noise[LEFT_OUT], batch.timesteps[LEFT_OUT], SCHEDULE_ENDING_IN_NOISE
        )
        assert torch.equal(latents[LEFT_OUT], left_out.repeat(2, 1, 1, 1))
        assert timesteps[LEFT_OUT].tolist() == [T] * 4
        assert timesteps[GENERATED].tolist() == pytest.approx([float(walk.n[1, call])] * 4)
    assert not torch.equal(teacher.calls[0][0][GENERATED], teacher.calls[1][0][GENERATED])


def test_in_noise_alone_all_that_is_not_given_walks_together():
    teacher, walk = GaussianTeacher(), walk_of(4, 2)

    clean_targets(teacher, Questions.of(batch_of(T), walk), walk)

    _, timesteps = teacher.calls[1]
    assert timesteps[GIVEN].tolist() == [0, 0]
    assert timesteps[GENERATED].tolist() == timesteps[LEFT_OUT].tolist() == pytest.approx([float(walk.n[0, 1])] * 2)


def test_the_teachers_guidance_goes_into_what_the_student_is_to_tell():
    walk = walk_of(4, 1)
    asked = Questions.of(batch_of(int(walk.starts[2])), walk)
    free = Questions.of(batch_of(int(walk.starts[2]), given=False), walk)

    guided = clean_targets(GaussianTeacher(), asked, walk, guidance_scale=0.7)[GENERATED]

    given = clean_targets(GaussianTeacher(), asked, walk)[GENERATED]
    without = clean_targets(GaussianTeacher(), free, walk)[GENERATED]
    torch.testing.assert_close(guided, 1.7 * given - 0.7 * without, rtol=0, atol=1e-5)
    assert (guided - given).abs().max() > 0.01


def test_a_batch_off_the_grid_is_refused():
    walk = walk_of(4, 2)
    with pytest.raises(ValueError, match="are not all among"):
        Questions.of(batch_of(500), walk)


def test_on_a_grid_what_is_generated_is_drawn_at_its_steps_alone_and_all_of_them():
    grid = tuple(steps_from_noise(SCHEDULE_ENDING_IN_NOISE, 4))
    law = TimestepLaw("roles", one_given=0.5, grid=grid)

    drawn = draw_timesteps(400, 3, law=law, generator=torch.Generator().manual_seed(0))

    assert set(drawn.unique().tolist()) == {0, *grid}
    start = torch.where(drawn == 0, T, drawn).amin(0)
    counts = [int((start == step).sum()) for step in grid]
    assert min(counts) > 60
