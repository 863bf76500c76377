"""Solvers make the recorded steps, and reach the exact solution where the noise is known exactly."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    LMSDiscreteScheduler,
    PNDMScheduler,
)
from hypothesis import given, settings, strategies as st
from torch.testing import assert_close

from copgen_cli.errors import UnknownNameError
from copgen_cli.model.diffusion import SCHEDULE, SCHEDULE_ENDING_IN_NOISE
from copgen_cli.model.solvers import (
    SOLVERS,
    Update,
    find_solver,
    integrate_reference,
    make_scheduler,
    reference_step,
    reference_updates,
)
from copgen_cli.records import Solver

MULTISTEP = [Solver.DPM_2M, Solver.DPM_3M, Solver.UNIPC]


class Mixture:
    """Places in four dimensions, scattered by Gaussians about six centres: the noise in any state is known exactly."""

    spread = 0.15

    def __init__(self, schedule=SCHEDULE):
        self.schedule = schedule
        draw = torch.Generator().manual_seed(0)
        centres = torch.randn(6, 4, generator=draw, dtype=torch.float64)
        self.centres = (centres - centres.mean(0)) / centres.std(0)
        self.start = torch.randn(500, 4, generator=draw, dtype=torch.float64)
        self.timesteps = []

    def predict(self, x, timestep):
        self.timesteps.append(timestep)
        signal, noise = self.schedule.amplitudes(torch.tensor(timestep, dtype=torch.float64), torch.float64)
        variance = (signal * self.spread) ** 2 + noise**2
        offsets = x.double()[:, None] - signal * self.centres
        share = (-offsets.square().sum(-1) / (2 * variance)).softmax(1)
        return (noise * (share[..., None] * offsets).sum(1) / variance).to(x.dtype)

    def clean(self, x, timestep):
        """What the state at a timestep was before its noise."""
        signal, noise = self.schedule.amplitudes(torch.tensor(timestep, dtype=torch.float64), torch.float64)
        return (x - noise * self.predict(x, timestep)) / signal


@pytest.fixture(scope="module")
def exact():
    """A mixture, and where a thousand steps lead from its start."""
    mixture = Mixture()
    return mixture, mixture.clean(integrate_reference(mixture.start, 999, mixture.predict), 1.0)


def distance(a, b):
    return float((a - b).norm(dim=1).mean())


@pytest.mark.parametrize("steps", [50, 20, 10])
def test_the_recorded_updates_and_timesteps_come_out(shared, steps):
    record = json.loads((shared / "golden/solver_steps.json").read_text())[str(steps)]
    updates = reference_updates(steps)

    assert len(updates) == len(record["updates"])
    for update, wanted in zip(updates, record["updates"], strict=True):
        assert update.order == wanted["order"]
        assert update.times[0] == pytest.approx(wanted["s"], abs=1e-6)
        assert update.times[-1] == pytest.approx(wanted["t"], abs=1e-6)
        snr = [log_snr(t) for t in update.times]
        fractions = [(value - snr[0]) / (snr[-1] - snr[0]) for value in snr[1:-1]]
        assert fractions == pytest.approx([r for r in (wanted["r1"], wanted["r2"]) if r is not None], abs=1e-4)
    called = [1000 * t for update in updates for t in update.times[:-1]]
    assert called == pytest.approx(record["net_timesteps"], abs=1e-3)


def log_snr(t):
    signal, noise = SCHEDULE.amplitudes(torch.tensor(1000 * t, dtype=torch.float64), torch.float64)
    return float((signal / noise).log())


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 300))
def test_the_reference_spends_exactly_its_steps_on_a_uniform_grid_in_threes_and_a_rest(steps):
    updates = reference_updates(steps)
    orders = [update.order for update in updates]

    assert sum(orders) == steps
    assert len(orders) == steps // 3 + 1
    rest = {0: [2, 1], 1: [1], 2: [2]}[steps % 3]
    assert orders == [3] * (len(orders) - len(rest)) + rest
    grid = [t for update in updates for t in update.times[:-1]] + [updates[-1].times[-1]]
    assert_close(torch.tensor(grid).double(), torch.linspace(1, 1e-3, steps + 1, dtype=torch.float64))


def test_the_reference_gives_the_network_a_thousand_times_the_time():
    mixture = Mixture()

    integrate_reference(mixture.start, 7, mixture.predict)

    assert mixture.timesteps == pytest.approx([1000 - 999 * i / 7 for i in range(7)])


@pytest.mark.parametrize("solver", list(Solver))
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7, 20, 61, 250])
@pytest.mark.parametrize("schedule", [SCHEDULE, SCHEDULE_ENDING_IN_NOISE], ids=["ordinary", "ends in noise"])
def test_every_solver_calls_the_network_once_per_step_at_steps_it_was_trained_on(solver, steps, schedule):
    mixture = Mixture(schedule)

    final = find_solver(solver, schedule).integrate(mixture.start.float(), steps, mixture.predict)

    assert len(mixture.timesteps) == steps
    assert schedule is SCHEDULE or mixture.timesteps[0] == 1000
    assert final.isfinite().all()
    assert all(1 <= t <= 1000 for t in mixture.timesteps)
    assert mixture.timesteps == sorted(mixture.timesteps, reverse=True)


@pytest.mark.parametrize("solver", [solver for solver in Solver if solver is not Solver.REFERENCE])
def test_a_timestep_of_diffusers_goes_to_the_network_plus_one(solver):
    mixture, scheduler = Mixture(), make_scheduler(solver)
    scheduler.set_timesteps(10)

    find_solver(solver).integrate(mixture.start.float(), 10, mixture.predict)

    assert mixture.timesteps == [float(t) + 1 for t in scheduler.timesteps]


@pytest.mark.parametrize(
    "kind", [DDIMScheduler, EulerDiscreteScheduler, HeunDiscreteScheduler, LMSDiscreteScheduler, PNDMScheduler]
)
def test_another_scheduler_of_diffusers_with_the_same_settings_comes_near_the_exact_solution(exact, kind):
    mixture, solution = exact
    scheduler = kind.from_config(make_scheduler().config)

    final = find_solver(scheduler).integrate(mixture.start.float(), 50, mixture.predict)

    assert distance(final, solution) < 0.1


@pytest.mark.parametrize("solver", [solver for solver in Solver if solver is not Solver.REFERENCE])
def test_the_schedulers_count_the_published_schedule_from_zero(solver):
    assert_close(make_scheduler(solver).alphas_cumprod.double(), SCHEDULE.abar[1:], rtol=2e-5, atol=0)


@pytest.mark.parametrize(
    ("solver", "steps", "near"),
    [
        (Solver.REFERENCE, 50, 0.025),
        (Solver.DPM_2M, 20, 0.02),
        (Solver.DPM_3M, 20, 0.015),
        (Solver.UNIPC, 20, 0.015),
        (Solver.DDIM, 250, 0.01),
        (Solver.DDIM, 501, 0.01),
    ],
)
def test_every_solver_reaches_the_exact_solution(exact, solver, steps, near):
    mixture, solution = exact
    final = find_solver(solver).integrate(mixture.start.float(), steps, mixture.predict)
    if solver is Solver.REFERENCE:  # which stops a thousandth short of clean
        final = mixture.clean(final.double(), 1.0)

    assert distance(final, solution) < near


@pytest.mark.parametrize(
    ("solver", "steps", "near"),
    [
        (Solver.REFERENCE, 50, 0.04),
        (Solver.DPM_2M, 20, 0.02),
        (Solver.DPM_3M, 20, 0.015),
        (Solver.UNIPC, 60, 0.02),
        (Solver.DDIM, 250, 0.02),
    ],
)
def test_every_solver_reaches_the_exact_solution_of_a_schedule_that_ends_in_noise(solver, steps, near):
    mixture = Mixture(SCHEDULE_ENDING_IN_NOISE)
    solution = mixture.clean(integrate_reference(mixture.start, 3000, mixture.predict, SCHEDULE_ENDING_IN_NOISE), 1.0)
    final = find_solver(solver, mixture.schedule).integrate(mixture.start.float(), steps, mixture.predict)
    if solver is Solver.REFERENCE:
        final = mixture.clean(final.double(), 1.0)

    assert distance(final, solution) < near


@pytest.mark.parametrize("solver", [solver for solver in Solver if solver is not Solver.REFERENCE])
def test_a_scheduler_of_another_end_is_refused(solver):
    for own, other in ((SCHEDULE, SCHEDULE_ENDING_IN_NOISE), (SCHEDULE_ENDING_IN_NOISE, SCHEDULE)):
        find_solver(make_scheduler(solver, own), own)
        with pytest.raises(ValueError, match="is set up for another noise schedule"):
            find_solver(make_scheduler(solver, own), other)


@pytest.mark.parametrize("solver", MULTISTEP)
def test_twenty_multistep_calls_come_closer_than_fifty_of_the_reference(exact, solver):
    mixture, solution = exact
    fifty = integrate_reference(mixture.start.float(), 50, mixture.predict)
    twenty = find_solver(solver).integrate(mixture.start.float(), 20, mixture.predict)

    assert distance(twenty, solution) < distance(fifty, solution)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_an_update_of_order_k_is_wrong_by_the_power_k_plus_one_of_its_length(order):
    mixture = Mixture()

    def update(length, pieces=1):
        """From t = 0.5, in as many updates of third order as there are pieces, or one of the order in question."""
        x, points = mixture.start, order if pieces == 1 else 3
        for piece in range(pieces):
            times = [0.5 - length * (piece + i / points) / pieces for i in range(points + 1)]
            x = reference_step(x, Update(tuple(times)), mixture.predict)
        return x

    errors = [distance(update(length), update(length, pieces=8)) for length in (0.096, 0.048)]

    assert errors[0] / errors[1] == pytest.approx(2 ** (order + 1), rel=0.25)


@pytest.mark.parametrize("solver", list(Solver))
def test_no_steps_at_all_are_refused(solver):
    with pytest.raises(ValueError, match="0 steps"):
        find_solver(solver).integrate(torch.zeros(1, 4), 0, lambda x, t: x)


def test_more_steps_than_the_schedule_has_are_refused_where_they_must_be_whole():
    with pytest.raises(ValueError, match="1000 steps; expected 1 to 999"):
        find_solver("ddim").integrate(torch.zeros(1, 4), 1000, lambda x, t: x)


def test_an_unknown_solver_is_named_with_those_that_are_known():
    with pytest.raises(UnknownNameError, match="Unknown solver 'dpm2m'") as caught:
        find_solver("dpm2m")

    assert "Did you mean 'dpm++2m'?" in caught.value.hint
    assert all(solver in caught.value.hint for solver in Solver)


def test_every_solver_has_a_row_in_the_table_and_the_reference_is_none_of_diffusers():
    assert list(SOLVERS) == list(Solver)
    with pytest.raises(ValueError, match="not a scheduler of diffusers"):
        make_scheduler(Solver.REFERENCE)


def test_a_solver_keeps_the_precision_of_the_state():
    mixture = Mixture()
    for dtype in (torch.float32, torch.float64):
        for solver in Solver:
            final = find_solver(solver).integrate(mixture.start.to(dtype), 4, mixture.predict)
            assert final.dtype == dtype, solver
    assert np.isfinite(final.numpy()).all()
