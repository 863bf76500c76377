"""The forward process, one step per modality, and the loss, after UniDiffuser (arXiv:2303.06555).

B batch, M modalities, C latent channels, H and W latent pixels, T = 1000 steps. Steps are counted from 1 to T, with 0
for clean; diffusers counts the same steps from 0 to T - 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from copgen_cli.records import SCHEDULE_STEPS, Prediction, TimestepDraw

Denoiser = Callable[..., Sequence[Tensor]]
"""A network: M latents (B, C, H, W) and M timesteps (B,) to a prediction for each, as `CopGenTransformer` makes it."""


@dataclass(frozen=True, slots=True, eq=False)
class NoiseSchedule:
    """How much signal each step leaves, in float64 on the CPU.

    A step n leaves sqrt(abar[n]) of the signal beside sqrt(1 - abar[n]) of noise; in continuous time, t = n / T.
    """

    betas: Tensor
    """(T,) share of signal power that step n = index + 1 replaces by noise."""
    abar: Tensor
    """(T + 1,) share of signal power left after n steps: 1 at 0, then the products of 1 - beta."""

    @classmethod
    def scaled_linear(cls, start: float, end: float, steps: int) -> NoiseSchedule:
        """Betas whose square roots are evenly spaced, as in latent diffusion (arXiv:2112.10752)."""
        betas = torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64) ** 2
        return cls(betas, torch.cat([torch.ones(1, dtype=torch.float64), torch.cumprod(1 - betas, dim=0)]))

    def ending_in_noise(self) -> NoiseSchedule:
        """The schedule whose last step leaves no signal: amplitudes shifted and scaled, the first one kept
        (arXiv:2305.08891, algorithm 1).

        What is left, `LEAST_SIGNAL`, is what diffusers' schedulers leave, so that log-SNR stays finite.
        """
        signal = self.abar[1:].sqrt()
        first, last = signal[0], signal[-1]
        abar = torch.cat([self.abar[:1], ((signal - last) * first / (first - last)).square()])
        abar[-1] = LEAST_SIGNAL
        return NoiseSchedule(1 - abar[1:] / abar[:-1], abar)

    @property
    def steps(self) -> int:
        return len(self.betas)

    def log_alpha(self, t: Tensor) -> Tensor:
        """log sqrt(abar) at continuous times in [0, 1], linear in t between the steps; float64 in, float64 out."""
        knots = torch.cat([torch.zeros(1, dtype=torch.float64), torch.log1p(-self.betas).cumsum(0) / 2])
        position = t * self.steps
        below = position.floor().clamp(0, self.steps - 1).long()
        return torch.lerp(knots[below], knots[below + 1], position - below)

    def amplitudes(self, n: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Amplitudes of signal and of noise at steps in [0, T], whole or fractional.

        Args:
            n: integers or floats, of any shape.
            dtype: of the result; all arithmetic before is in float64.

        Returns:
            sqrt(abar) and sqrt(1 - abar), shaped as `n` and on its device.

        Raises:
            ValueError: steps outside [0, T].
        """
        if n.device.type == "cpu" or n.is_floating_point():  # whole steps on a device are not waited for
            self._check_range(n)
        if not n.is_floating_point():
            signal, noise = _amplitude_tables(self, n.device, dtype)
            return signal[n.long()], noise[n.long()]  # bytes would be taken as a mask
        exact = n.detach().to("cpu", torch.float64)  # some devices have no float64
        log_alpha = self.log_alpha(exact / self.steps)
        signal, noise = log_alpha.exp(), torch.expm1(2 * log_alpha).neg().sqrt()
        return signal.to(n.device, dtype), noise.to(n.device, dtype)

    def _check_range(self, n: Tensor) -> None:
        if not ((n >= 0) & (n <= self.steps)).all():
            raise ValueError(f"timesteps from {n.min()} to {n.max()}, expected within 0 to {self.steps}")


@lru_cache(maxsize=16)
def _amplitude_tables(schedule: NoiseSchedule, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(T + 1,) amplitudes of signal and noise at whole steps, kept where they are used."""
    return schedule.abar.sqrt().to(device, dtype), (1 - schedule.abar).sqrt().to(device, dtype)


LEAST_SIGNAL = 2.0**-24
"""Share of signal power at the end of a schedule that ends in noise."""

SCHEDULE = NoiseSchedule.scaled_linear(0.00085, 0.0120, SCHEDULE_STEPS)
"""The schedule of Stable Diffusion and of COP-GEN-Beta, which leaves 7 % of the signal's amplitude at its end."""

SCHEDULE_ENDING_IN_NOISE = SCHEDULE.ending_in_noise()
"""The same, with nothing left, as networks that predict velocities can have it."""


def add_noise(clean: Tensor, noise: Tensor, n: Tensor, schedule: NoiseSchedule = SCHEDULE) -> Tensor:
    """Mix the latents of one modality with noise: sqrt(abar_n) clean + sqrt(1 - abar_n) noise.

    Args:
        clean, noise: (B, C, H, W) scaled latents, and standard normal noise.
        n: (B,) steps from 0 (clean) to T, whole or fractional.

    Returns:
        (B, C, H, W) noisy latents, at least in float32.

    Raises:
        ValueError: `n` does not hold one step per latent.
    """
    if n.shape != clean.shape[:1]:
        raise ValueError(f"n has shape {tuple(n.shape)}, expected ({clean.shape[0]},), one step per latent")
    dtype = torch.promote_types(clean.dtype, torch.float32)
    signal, spread = (a[:, None, None, None] for a in schedule.amplitudes(n, dtype))
    return signal * clean.to(dtype) + spread * noise.to(dtype)


@dataclass(frozen=True, slots=True)
class TimestepLaw:
    """How training draws the steps that modalities are noised to."""

    distribution: TimestepDraw = TimestepDraw.UNIFORM
    shift: float = 1.0
    """s of t -> s t / (1 + (s - 1) t), with t = n / T (arXiv:2403.03206, eq. 23): above 1, noisier steps."""
    one_given: float = 0.0
    """Share of samples, among `ROLES`, that are sure to have exactly one modality given."""
    given_odds: tuple[float, ...] = ()
    """Relative odds of each modality to be the single one given; empty is equal odds."""
    grid: tuple[int, ...] = ()
    """Among `ROLES`, the only steps that anything generated is drawn at, all as often and without a shift; empty is 1
    to T."""


PUBLISHED_LAW = TimestepLaw()
"""One step for every modality and sample, all alike (arXiv:2504.08548)."""


def draw_timesteps(
    batch: int,
    num_modalities: int,
    *,
    law: TimestepLaw = PUBLISHED_LAW,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
    schedule: NoiseSchedule = SCHEDULE,
) -> Tensor:
    """(M, B) int64 steps in 1..T, and 0 among `ROLES`.

    `UNIFORM`, the published choice, draws one for every modality and sample; so does `LOGIT_NORMAL`, as the sigmoid of
    a standard normal times T, which prefers the middle (arXiv:2403.03206). `ROLES` makes every sample a question that
    sampling asks: each modality is given, at 0, generated, at one step for all of them, or left out, at T, with equal
    odds, and one at least is generated. A share of the samples, `law.one_given`, has one modality given, by
    `law.given_odds`, and the others generated or left out with equal odds; where all would be left out, the next one
    in order is generated. What is given has no noise to predict, so such a loss must give step 0 no weight, as
    `min_snr_weight` does. Drawn on the generator's device, then moved.

    Raises:
        ValueError: there are odds, but not one for each modality.
    """
    if len(law.given_odds) not in (0, num_modalities):
        raise ValueError(f"{len(law.given_odds)} odds for {num_modalities} modalities")
    shape = (num_modalities, batch)
    source = generator.device if generator is not None else device
    if law.distribution == TimestepDraw.ROLES:
        role = torch.randint(-1, 2, shape, generator=generator, device=source)  # given, generated, left out
        needed = _one_of(num_modalities, batch, generator, source)
        step = _common_step(batch, law, generator, source, schedule)
        if law.one_given:
            given = _one_of(num_modalities, batch, generator, source, law.given_odds)
            other = torch.randint(0, 2, shape, generator=generator, device=source)
            single = torch.rand(batch, generator=generator, device=source) < law.one_given
            role = torch.where(single, torch.where(given, -1, other), role)
            needed = torch.where(single, given.roll(1, dims=0), needed)
        generated = (role == 0) | (needed & (role != 0).all(0))
        return torch.where(generated, step, torch.where(role < 0, 0, schedule.steps)).to(device)
    if law.distribution == TimestepDraw.UNIFORM:
        step = torch.randint(1, schedule.steps + 1, shape, generator=generator, device=source)
    else:
        fraction = torch.randn(shape, generator=generator, device=source).sigmoid()
        step = (fraction * schedule.steps).ceil().long().clamp(1, schedule.steps)
    return _shifted(step, law, schedule).to(device)


def _common_step(
    batch: int,
    law: TimestepLaw,
    generator: torch.Generator | None,
    device: torch.device | str,
    schedule: NoiseSchedule,
) -> Tensor:
    """(B,) steps in 1..T, one for all that a sample generates."""
    if law.grid:
        place = torch.randint(0, len(law.grid), (batch,), generator=generator, device=device)
        return torch.tensor(law.grid, device=device)[place]
    step = torch.randint(1, schedule.steps + 1, (batch,), generator=generator, device=device)
    return _shifted(step, law, schedule)


def _one_of(
    num_modalities: int,
    batch: int,
    generator: torch.Generator | None,
    device: torch.device | str,
    odds: tuple[float, ...] = (),
) -> Tensor:
    """(M, B) bool, True for one modality of each sample, all as often or by these odds."""
    if odds:
        weights = torch.tensor(odds, dtype=torch.float64, device=device)
        chosen = torch.multinomial(weights, batch, replacement=True, generator=generator)[None]
    else:
        chosen = torch.randint(0, num_modalities, (1, batch), generator=generator, device=device)
    return torch.arange(num_modalities, device=device)[:, None] == chosen


def _shifted(step: Tensor, law: TimestepLaw, schedule: NoiseSchedule) -> Tensor:
    if law.shift == 1:
        return step
    t = step.double() / schedule.steps
    return (law.shift * t / (1 + (law.shift - 1) * t) * schedule.steps).round().long().clamp(1, schedule.steps)


def prediction_of(net: Denoiser) -> Prediction:
    """What a network's output means: as its configuration says, also from within a wrapper for several processes."""
    return Prediction(getattr(config_of(net), "prediction_type", Prediction.NOISE))


def schedule_of(net: Denoiser) -> NoiseSchedule:
    """The schedule of a network: as its configuration says, also from within a wrapper for several processes."""
    return SCHEDULE_ENDING_IN_NOISE if getattr(config_of(net), "rescale_betas_zero_snr", False) else SCHEDULE


def config_of(net: Denoiser) -> Any:
    """A network's configuration, also from within a wrapper for several processes; None where it has none."""
    while not hasattr(net, "config") and hasattr(net, "module"):
        net = net.module
    return getattr(net, "config", None)


def what_to_predict(
    clean: Tensor, noise: Tensor, n: Tensor, prediction: Prediction, schedule: NoiseSchedule = SCHEDULE
) -> Tensor:
    """What a network should say of latents at steps n: their noise, or their velocity.

    The velocity is sqrt(abar_n) noise - sqrt(1 - abar_n) clean (arXiv:2202.00512, appendix D). Near the last step it
    is nearly the clean latents, whose errors the noise would only show divided by 15.

    Args:
        clean, noise: (B, C, H, W).
        n: (B,) steps.

    Returns:
        (B, C, H, W), at least in float32.
    """
    dtype = torch.promote_types(clean.dtype, torch.float32)
    if prediction is Prediction.NOISE:
        return noise.to(dtype)
    signal, spread = (a[:, None, None, None] for a in schedule.amplitudes(n, dtype))
    return signal * noise.to(dtype) - spread * clean.to(dtype)


def noise_from(
    output: Tensor, noisy: Tensor, n: float, prediction: Prediction, schedule: NoiseSchedule = SCHEDULE
) -> Tensor:
    """The noise in latents that all are at step n, from what a network says of them.

    Args:
        output, noisy: tensors of one shape; the result has the dtype of `noisy`.
    """
    output = output.to(noisy.dtype)
    if prediction is Prediction.NOISE:
        return output
    signal, spread = schedule.amplitudes(torch.tensor(n, dtype=torch.float64), torch.float64)
    return float(spread) * noisy + float(signal) * output


def min_snr_weight(n: Tensor, gamma: float, schedule: NoiseSchedule = SCHEDULE) -> Tensor:
    """min(SNR, gamma) / SNR at steps n, with SNR = abar / (1 - abar): the min-SNR weight of a loss on noise.

    It keeps the many nearly clean steps from outweighing the rest (arXiv:2303.09556, section 3.4). On velocities the
    same factor caps how much more than the noisiest step a cleaner one counts: an error of the clean latents has
    the weight min(1 + SNR, gamma + gamma / SNR), which is nowhere below 1 for gamma of at least 1.

    Args:
        n: steps in 0..T, whole or fractional, of any shape; 0, where nothing is to be predicted, has no weight.
        gamma: signal-to-noise ratio from which on a step counts less; the paper takes 5.

    Returns:
        float32 weights in [0, 1], shaped as `n`.
    """
    signal, spread = schedule.amplitudes(n, torch.float32)
    return (gamma * (spread / signal).square()).clamp(max=1)


def denoising_loss(
    net: Denoiser,
    latents: Tensor | Sequence[Tensor],
    timesteps: Tensor | Sequence[Tensor] | None = None,
    noise: Tensor | Sequence[Tensor] | None = None,
    generator: torch.Generator | None = None,
    *,
    law: TimestepLaw = PUBLISHED_LAW,
    min_snr_gamma: float | None = None,
    pure_last_step: bool = False,
) -> Tensor:
    """(B,) loss of each sample: the sum over modalities of `denoising_loss_parts`, whose arguments these are."""
    parts = denoising_loss_parts(
        net,
        latents,
        timesteps,
        noise,
        generator,
        law=law,
        min_snr_gamma=min_snr_gamma,
        pure_last_step=pure_last_step,
    )
    return parts.sum(0)


def denoising_loss_parts(
    net: Denoiser,
    latents: Tensor | Sequence[Tensor],
    timesteps: Tensor | Sequence[Tensor] | None = None,
    noise: Tensor | Sequence[Tensor] | None = None,
    generator: torch.Generator | None = None,
    *,
    law: TimestepLaw = PUBLISHED_LAW,
    min_snr_gamma: float | None = None,
    pure_last_step: bool = False,
) -> Tensor:
    """Mean squared error of the predicted noise, of each modality and sample (arXiv:2303.06555, eq. 6).

    Of a network that predicts velocities it is the error of those.

    Args:
        net: called once, with the noisy latents and their timesteps.
        latents: M tensors (B, C, H, W), clean and scaled; a stacked tensor (M, B, C, H, W) will do.
        timesteps: M tensors (B,), whole or fractional, in [0, T]; drawn by `draw_timesteps` where None.
        noise: M tensors shaped as the latents; standard normal where None.
        generator: source of what is drawn, timesteps first, then the noise of each modality in order.
        law: how timesteps are drawn.
        min_snr_gamma: weigh each part by `min_snr_weight`; None weighs all alike, as published.
        pure_last_step: leave nothing of the signal at T, where sampling starts from noise alone. The schedule leaves
            7 % of it, from which a network learns to read large shapes that a sample's noise does not hold
            (arXiv:2305.08891). What it is to predict there stays as it is, and so does sampling.

    Returns:
        (M, B) float32 (float64 for latents in float64), whatever dtype the network computes in.

    Raises:
        ValueError: timesteps or noise do not match the latents.
    """
    if timesteps is None:
        device = latents[0].device
        timesteps = list(draw_timesteps(latents[0].shape[0], len(latents), law=law, generator=generator, device=device))
    if noise is None:
        noise = [_normal_like(latent, generator) for latent in latents]
    shapes = [z.shape for z in latents]
    if len(timesteps) != len(shapes) or [e.shape for e in noise] != shapes:
        raise ValueError(
            f"latents of shapes {[tuple(shape) for shape in shapes]} with {len(timesteps)} timesteps "
            f"and noise of shapes {[tuple(e.shape) for e in noise]}"
        )
    schedule = schedule_of(net)
    noisy = [add_noise(z, e, n, schedule) for z, e, n in zip(latents, noise, timesteps, strict=True)]
    if pure_last_step:
        last = [(n == SCHEDULE.steps)[:, None, None, None] for n in timesteps]
        noisy = [torch.where(here, e.to(x.dtype), x) for here, e, x in zip(last, noise, noisy, strict=True)]
    predicted = net(noisy, timesteps)
    prediction = prediction_of(net)
    wanted = [what_to_predict(z, e, n, prediction, schedule) for z, e, n in zip(latents, noise, timesteps, strict=True)]
    errors = [
        (guess.to(target.dtype) - target).square().flatten(1).mean(1)
        for guess, target in zip(predicted, wanted, strict=True)
    ]
    parts = torch.stack(errors)
    if min_snr_gamma is None:
        return parts
    return parts * torch.stack([min_snr_weight(n, min_snr_gamma, schedule) for n in timesteps])


def _normal_like(latent: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normal noise, drawn on the generator's device, at least in float32, and moved to the latents'."""
    source = generator.device if generator is not None else latent.device
    dtype = torch.promote_types(latent.dtype, torch.float32)
    return torch.randn(latent.shape, generator=generator, device=source, dtype=dtype).to(latent.device)
