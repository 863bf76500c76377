"""How the reverse process is integrated: the reference solver, and diffusers' schedulers under plain names.

A solver takes the latents being generated from pure noise (t = 1) to clean, asking for the noise in them once per step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from inspect import signature
from typing import Any, Protocol

import torch
from diffusers import DPMSolverMultistepScheduler, SchedulerMixin, UniPCMultistepScheduler
from torch import Tensor

from copgen_cli.errors import UnknownNameError
from copgen_cli.model.diffusion import (
    SCHEDULE,
    SCHEDULE_ENDING_IN_NOISE,
    Denoiser,
    NoiseSchedule,
    config_of,
    schedule_of,
)
from copgen_cli.records import USUAL_CALLS, Solver

PredictNoise = Callable[[Tensor, float], Tensor]
"""The noise in a state, at a timestep in [0, 1000] as the network is given it."""

END = 1e-3
"""Continuous time at which the reference solver stops; it starts at 1."""
SECOND_LOG_SNR = -2.3
"""Half the log-SNR of the second step where the schedule ends in noise alone, which has a step of its own: 10 % signal.
On the mixtures that `make_scheduler` tells of, 15 steps come closest to the exact solution with it."""


class Integrate(Protocol):
    """Take a state from pure noise to clean in `steps` calls of `predict`."""

    def __call__(self, x: Tensor, steps: int, predict: PredictNoise, schedule: NoiseSchedule = SCHEDULE) -> Tensor: ...


@dataclass(frozen=True, slots=True)
class Update:
    """One update of the reference solver, over the points of the time grid that it calls the network at."""

    times: tuple[float, ...]
    """The time it starts from, the one or two points inside the interval, and the time it ends at."""

    @property
    def order(self) -> int:
        return len(self.times) - 1


@dataclass(frozen=True, slots=True)
class _Level:
    """Signal and noise at one time, in float64."""

    alpha: float
    sigma: float

    @property
    def log_snr(self) -> float:
        """lambda = log(alpha / sigma), half the logarithm of the signal-to-noise ratio."""
        return math.log(self.alpha / self.sigma)


def reference_updates(steps: int) -> list[Update]:
    """The updates of `steps` network calls: threes, then what is left over, on a uniform grid from 1 to 1/1000.

    The "fast" choice of orders of DPM-Solver (arXiv:2206.00927, section 3.4); the intermediate times of an update are
    points of the grid as well.

    Raises:
        ValueError: `steps` is not positive.
    """
    if steps < 1:
        raise ValueError(f"{steps} steps; at least one is needed")
    threes, left = divmod(steps, 3)
    orders = [3] * threes + [left] if left else [3] * (threes - 1) + [2, 1]
    grid = [1 + (END - 1) * i / steps for i in range(steps + 1)]
    updates, start = [], 0
    for order in orders:
        updates.append(Update(tuple(grid[start : start + order + 1])))
        start += order
    return updates


def reference_step(x: Tensor, update: Update, predict: PredictNoise, schedule: NoiseSchedule = SCHEDULE) -> Tensor:
    """One single-step DPM-Solver++ update of order 1, 2 or 3 (arXiv:2211.01095, algorithm 1 and its third order).

    With lambda = log(alpha / sigma), h its change over the update, r1 and r2 the fractions of h at the points inside,
    phi(r) = expm1(-r h), and D the clean latents that a prediction of noise amounts to.
    """
    start, *inner, end = (_level(schedule, t) for t in update.times)
    h = end.log_snr - start.log_snr
    fractions = [(level.log_snr - start.log_snr) / h for level in inner]

    def clean(state: Tensor, which: int) -> Tensor:
        level = _level(schedule, update.times[which])
        return (state - level.sigma * predict(state, schedule.steps * update.times[which])) / level.alpha

    def phi(r: float) -> float:
        return math.expm1(-r * h)

    def first_order(level: _Level, r: float) -> Tensor:
        return (level.sigma / start.sigma) * x - (level.alpha * phi(r)) * d_start

    d_start = clean(x, 0)
    if update.order == 1:
        return first_order(end, 1)
    r1 = fractions[0]
    d_1 = clean(first_order(inner[0], r1), 1)
    if update.order == 2:
        return first_order(end, 1) - (end.alpha * phi(1) / (2 * r1)) * (d_1 - d_start)
    r2 = fractions[1]
    x_2 = first_order(inner[1], r2) + (r2 / r1 * inner[1].alpha * (phi(r2) / (r2 * h) + 1)) * (d_1 - d_start)
    d_2 = clean(x_2, 2)
    return first_order(end, 1) + (end.alpha * (phi(1) / h + 1) / r2) * (d_2 - d_start)


def integrate_reference(x: Tensor, steps: int, predict: PredictNoise, schedule: NoiseSchedule = SCHEDULE) -> Tensor:
    """The published sampler: returns the state at t = 1/1000, without a last denoising step."""
    for update in reference_updates(steps):
        x = reference_step(x, update, predict, schedule)
    return x


def _level(schedule: NoiseSchedule, t: float) -> _Level:
    log_alpha = float(schedule.log_alpha(torch.tensor(t, dtype=torch.float64)))
    return _Level(math.exp(log_alpha), math.sqrt(-math.expm1(2 * log_alpha)))


def _integrate_with(scheduler_for: Callable[[NoiseSchedule, int], Any]) -> Integrate:
    """A solver out of a scheduler of diffusers, which counts steps from 0: its timestep t is the network's t + 1."""

    def integrate(x: Tensor, steps: int, predict: PredictNoise, schedule: NoiseSchedule = SCHEDULE) -> Tensor:
        """As described by `Integrate`; raises ValueError for more steps than the schedule has."""
        if not 1 <= steps < schedule.steps:
            raise ValueError(f"{steps} steps; expected 1 to {schedule.steps - 1}")
        scheduler = scheduler_for(schedule, steps)
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(0)  # two equal timesteps, which many steps lead to, would make it skip the first
        x = x * scheduler.init_noise_sigma
        for t in scheduler.timesteps:
            noise = predict(scheduler.scale_model_input(x, t), float(t) + 1)  # those that count in sigmas scale it
            x = scheduler.step(noise, t, x, return_dict=False)[0]
        return x

    return integrate


_TRAINED_WITH = {
    "num_train_timesteps": 1000,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.0120,
    "prediction_type": "epsilon",
}


def made_for(net: Denoiser, otherwise: tuple[int, Solver] = USUAL_CALLS) -> tuple[int, Solver]:
    """In how many calls of which solver a network is sampled where nobody says: a student in its own."""
    calls = getattr(config_of(net), "distilled_steps", None)
    return otherwise if calls is None else (int(calls), Solver.DDIM)


def advice_on_calls(net: Denoiser, steps: int, solver: str | SchedulerMixin) -> str | None:
    """What to tell whoever samples a student otherwise than it is made for."""
    calls = getattr(config_of(net), "distilled_steps", None)
    if calls is None or isinstance(solver, SchedulerMixin) or (steps, solver) == (calls, Solver.DDIM):
        return None
    return f"This model was distilled to sample in {calls} calls of {Solver.DDIM}; {steps} of {solver} may do worse."


def make_scheduler(solver: Solver = Solver.DPM_2M, schedule: NoiseSchedule = SCHEDULE) -> Any:
    """The scheduler of diffusers behind a solver, set up for this schedule; also what a saved pipeline carries.

    The settings were chosen on mixtures of Gaussians, whose noise is known exactly, by the distance to the exact
    solution. At 20 steps even steps of log-SNR (Lu) or Karras' sigmas come ten times closer than even steps of time,
    which are too few near clean. All end with the clean latents. DDIM is DPM-Solver++ of order 1 (arXiv:2211.01095,
    section 4): diffusers' scheduler of that name has steps of time alone, of which "leading" ones begin far from noise
    for many numbers of steps, and "trailing" ones are sometimes one too many.

    Of a schedule that ends in noise, where even steps of log-SNR would mostly lie in noise, steps of time are kept
    ("trailing", as in arXiv:2305.08891); `scheduler_at` knows better ones. UniPC takes no timesteps, and wants more.

    Raises:
        ValueError: the reference solver is none of diffusers'.
    """
    order = {Solver.DDIM: 1, Solver.DPM_2M: 2, Solver.DPM_3M: 3}.get(solver)
    ends_in_noise = schedule is SCHEDULE_ENDING_IN_NOISE
    common = _TRAINED_WITH | ({"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"} if ends_in_noise else {})
    scheduler: Any
    if order is not None:
        scheduler = DPMSolverMultistepScheduler(
            **common, algorithm_type="dpmsolver++", solver_order=order, use_lu_lambdas=not ends_in_noise
        )
    elif solver == Solver.UNIPC:
        scheduler = UniPCMultistepScheduler(**common, solver_order=2, use_karras_sigmas=True)
    else:
        raise ValueError(f"{solver} is not a scheduler of diffusers")
    scheduler.register_to_config(clip_sample=False)  # latents leave [-1, 1]; those made from its settings would clip
    return scheduler


def scheduler_for(net: Denoiser) -> Any:
    """The scheduler of diffusers that goes with a network: of order 1 for a student, else of order 2."""
    return make_scheduler(made_for(net)[1], schedule_of(net))


def scheduler_at(solver: Solver, schedule: NoiseSchedule, steps: int) -> Any:
    """The scheduler of diffusers behind a solver, set to so many steps."""
    scheduler = make_scheduler(solver, schedule)
    if schedule is SCHEDULE_ENDING_IN_NOISE and solver != Solver.UNIPC:
        scheduler.set_timesteps(timesteps=[n - 1 for n in steps_from_noise(schedule, steps)])
    else:
        scheduler.set_timesteps(steps)
    return scheduler


def steps_from_noise(schedule: NoiseSchedule, steps: int) -> list[int]:
    """The steps at which a network is called, of a schedule that ends in noise: different ones, T first, then even ones
    of log-SNR from `SECOND_LOG_SNR` on, as far as whole ones allow; what follows the last is clean."""
    n = torch.arange(1, schedule.steps + 1)
    signal, spread = schedule.amplitudes(n, torch.float64)
    log_snr = (signal / spread).log()  # falling
    wanted = torch.linspace(SECOND_LOG_SNR, float(log_snr[0]), steps)[: steps - 1]
    chosen = [schedule.steps]
    for place, nearest in enumerate((log_snr[None] - wanted[:, None]).abs().argmin(1).tolist()):
        after = steps - 2 - place  # steps that are still to fit below it
        chosen.append(max(min(nearest + 1, chosen[-1] - 1), after + 1))
    return chosen


def _named(solver: Solver) -> Integrate:
    return _integrate_with(partial(scheduler_at, solver))


@dataclass(frozen=True, slots=True)
class SolverFacts:
    """One row of the table of solvers."""

    description: str
    integrate: Integrate


SOLVERS: dict[Solver, SolverFacts] = {
    Solver.REFERENCE: SolverFacts("single-step DPM-Solver++ of order 3, as published", integrate_reference),
    Solver.DPM_2M: SolverFacts(
        "multistep DPM-Solver++ of order 2, steady at few steps",
        _named(Solver.DPM_2M),
    ),
    Solver.DPM_3M: SolverFacts(
        "multistep DPM-Solver++ of order 3, closest from 10 steps on",
        _named(Solver.DPM_3M),
    ),
    Solver.UNIPC: SolverFacts(
        "UniPC of order 2: predicts, then corrects, at no further call",
        _named(Solver.UNIPC),
    ),
    Solver.DDIM: SolverFacts("first order; wants many steps", _named(Solver.DDIM)),
}


def find_solver(solver: str | SchedulerMixin, schedule: NoiseSchedule = SCHEDULE) -> SolverFacts:
    """The solver of that name, or the one that a scheduler of diffusers amounts to.

    Args:
        solver: the name, or the scheduler, which is left as it is.
        schedule: of the network that it is to call; `integrate` of the result keeps to it.

    Raises:
        UnknownNameError: there is none of that name; the hint lists them.
        ValueError: the scheduler is set up for another noise schedule, does not take predicted noise, or clips latents.
    """
    if isinstance(solver, SchedulerMixin):
        _check_schedule(solver, schedule)
        found = SolverFacts(type(solver).__name__, _integrate_with(partial(_set_copy, solver)))
    else:
        try:
            found = SOLVERS[Solver(solver)]
        except ValueError:
            raise UnknownNameError("solver", solver, known=list(Solver)) from None
    return replace(found, integrate=partial(found.integrate, schedule=schedule))


def _set_copy(scheduler: SchedulerMixin, _: NoiseSchedule, steps: int) -> Any:
    copied: Any = deepcopy(scheduler)
    copied.set_timesteps(steps)
    return copied


def _check_schedule(scheduler: SchedulerMixin, schedule: NoiseSchedule) -> None:
    kept = getattr(scheduler, "alphas_cumprod", torch.empty(0)).double().cpu()
    if kept.shape != (schedule.steps,) or not torch.allclose(kept, schedule.abar[1:], rtol=1e-3, atol=1e-6):
        expected = _TRAINED_WITH | {"rescale_betas_zero_snr": schedule is SCHEDULE_ENDING_IN_NOISE}
        raise ValueError(f"{type(scheduler).__name__} is set up for another noise schedule; expected {expected}")
    if scheduler.config.prediction_type != _TRAINED_WITH["prediction_type"]:
        raise ValueError(f"{type(scheduler).__name__} expects {scheduler.config.prediction_type}, not epsilon")
    if scheduler.config.get("clip_sample") and "clip_sample" in signature(type(scheduler)).parameters:
        raise ValueError(
            f"{type(scheduler).__name__} clips pictures to [-1, 1], which latents leave; set clip_sample=False"
        )
