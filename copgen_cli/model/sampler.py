"""What each role means to the network, guidance, and the walk from noise to latents: `sample_latents`.

B batch, M modalities, G of them generated, C latent channels, H and W latent pixels.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from diffusers import SchedulerMixin
from torch import Tensor

from copgen_cli.errors import NotFiniteError
from copgen_cli.model.diffusion import (
    SCHEDULE,
    SCHEDULE_ENDING_IN_NOISE,
    NoiseSchedule,
    noise_from,
    prediction_of,
    schedule_of,
)
from copgen_cli.model.solvers import find_solver
from copgen_cli.model.transformer import CopGenTransformer
from copgen_cli.records import Ignored, Solver

CLEAN, NOISE = 0.0, float(SCHEDULE.steps)
"""Timesteps of a latent that is given, and of one that is noise."""
RESCALE = 0.7
"""How far tone and contrast go back to those without guidance: phi of arXiv:2305.08891, section 3.4, and its value."""

OnStep = Callable[[int, int, dict[int, Tensor]], None]
"""Called after every network call with its number from 1, the total, and what it takes the clean latents to be."""


Shape = tuple[int, int, int]
"""(C, H, W) of a latent."""


@dataclass(frozen=True, slots=True)
class SampleNoise:
    """Noise that depends on (seed, sample id, modality, purpose) alone: not on batch size, order or device."""

    seed: int | tuple[int, ...]
    """Of all samples, or of each."""
    sample_ids: tuple[str, ...]
    """One per sample of the batch; equal ids get equal noise."""
    modalities: tuple[str, ...]
    """Names of the model's modalities, in its order."""

    def draw(self, purpose: str, modality: int, shape: tuple[int, int, int]) -> Tensor:
        """(B, C, H, W) standard normal float32 noise, on the CPU."""
        name = self.modalities[modality]
        if isinstance(self.seed, int):
            return sample_noise(self.seed, self.sample_ids, name, shape, purpose=purpose)
        pairs = zip(self.seed, self.sample_ids, strict=True)
        return torch.cat([sample_noise(seed, [sample], name, shape, purpose=purpose) for seed, sample in pairs])

    def of(self, samples: Sequence[int]) -> SampleNoise:
        """The noise of some of the samples, by index."""
        seed = self.seed if isinstance(self.seed, int) else tuple(self.seed[i] for i in samples)
        return replace(self, seed=seed, sample_ids=tuple(self.sample_ids[i] for i in samples))


def sample_noise(
    seed: int, sample_ids: Sequence[str], modality: str, shape: tuple[int, ...], *, purpose: str = "start"
) -> Tensor:
    """Standard normal noise of one modality for some samples, each as it would be drawn alone.

    Args:
        seed: any integer.
        sample_ids: names of the samples.
        modality: name of the modality.
        shape: of one sample.
        purpose: what it is for; another purpose gets other noise.

    Returns:
        (len(sample_ids), *shape) float32, on the CPU.
    """
    return torch.stack([torch.from_numpy(_normal((str(seed), i, modality, purpose), shape)) for i in sample_ids])


def _normal(key: tuple[str, ...], shape: tuple[int, ...]) -> np.ndarray:
    """Noise that is a function of its key.

    NumPy's generator takes all 128 bits of the hash; torch's on the CPU keeps 32, by which two of a hundred thousand
    samples would likely meet. Lengths keep ("ab", "c") from being ("a", "bc").
    """
    text = "".join(f"{len(part)}:{part}" for part in key)
    digest = blake2b(text.encode(), digest_size=16).digest()
    generator = np.random.Generator(np.random.PCG64(int.from_bytes(digest, "little")))
    return generator.standard_normal(shape, dtype=np.float32)


@torch.no_grad()
def sample_latents(
    net: CopGenTransformer,
    generate: Sequence[int],
    condition: Mapping[int, Tensor] | None = None,
    noise: Tensor | Sequence[Tensor] | Mapping[int, Tensor] | None = None,
    steps: int = 50,
    solver: Solver | str | SchedulerMixin = Solver.REFERENCE,
    guidance_scale: float = 0.0,
    generator: torch.Generator | None = None,
    *,
    noise_source: SampleNoise | None = None,
    batch_size: int | None = None,
    ignored: Ignored = Ignored.MARGINALISE,
    interpolate_positions: bool = False,
    callback: OnStep | None = None,
) -> dict[int, Tensor]:
    """Draw latents of some modalities given others, from the joint model (UniDiffuser, arXiv:2303.06555, section 3.2).

    What is generated shares one time, from noise to clean. What is given is held, at timestep 0. Modalities that are
    neither are marginalised: noise drawn once and held, at timestep 1000.

    Args:
        net: a `CopGenTransformer`, compiled or not, or a module of the same call and `config`.
        generate: positions of the modalities to draw.
        condition: position to (B, C, H, W) scaled latents, never written to.
        noise: (G, B, C, H, W) standard normal start, `noise[k]` of `generate[k]`, or by position; drawn where None.
        steps: network calls.
        solver: how the reverse process is integrated: a name, or a scheduler of diffusers, which is left as it is.
        guidance_scale: of `guide`; 0 is off. What it puts together comes from one call of 2 B.
        generator: source of a seed for all noise that is drawn (None: torch's global one); on any device.
        noise_source: all noise that is drawn, by seed and sample id; then `generator` is not used.
        batch_size: B where neither condition, `noise` nor `noise_source` tells; None means 1.
        ignored: how modalities that are neither generated nor given enter.
        interpolate_positions: allow latents of another size than in training.
        callback: called after every network call.

    Returns:
        Position to (B, C, H, W) scaled latents, for every modality in `generate`; float32, on the network's device.

    Raises:
        ValueError: roles, shapes or batch sizes contradict one another, or the solver cannot take so few or many steps.
        UnknownNameError: there is no such solver.
    """
    integrate = find_solver(solver, schedule_of(net)).integrate
    condition, noise = dict(condition or {}), _in_order(noise, generate)
    _check_roles(generate, condition, net.config.num_modalities)
    batch, shapes = _batch_shapes(net, generate, condition, noise, noise_source, batch_size)
    if noise_source is None:
        noise_source = _from_generator(generator, batch, net.config.num_modalities)
    draw = functools.partial(_draw_on_device, noise_source, shapes, net.device)
    start = {i: draw("start", i) for i in generate} if noise is None else dict(zip(generate, noise, strict=True))
    ordered = sorted(generate)
    x = _side_by_side([start[i].to(net.device, _state_dtype(start[i])) for i in ordered])
    guidance = guidance_scale if condition and guidance_scale != 0 else None
    held, redrawn = _hold(net, ordered, condition, draw, Ignored(ignored), guided=guidance is not None)
    options = {"interpolate_positions": True} if interpolate_positions else {}
    own = [shapes[i] for i in ordered]
    predict = _Network(net, ordered, own, held, redrawn, draw, guidance, options, steps, callback)
    x = _require_finite(integrate(x, steps, predict))
    return dict(zip(ordered, predict.apart(x), strict=True))


def _draw_on_device(
    source: SampleNoise, shapes: Sequence[Shape], device: torch.device, purpose: str, modality: int
) -> Tensor:
    return source.draw(purpose, modality, shapes[modality]).to(device)


def _side_by_side(latents: Sequence[Tensor]) -> Tensor:
    """Latents (B, C_i, H_i, W_i), of whatever shapes, as one state (B, K): solvers work on each value alone."""
    return torch.cat([latent.flatten(1) for latent in latents], dim=1)


def _hold(
    net: CopGenTransformer,
    generate: Sequence[int],
    condition: Mapping[int, Tensor],
    draw: Callable[[str, int], Tensor],
    ignored: Ignored,
    *,
    guided: bool,
) -> tuple[dict[int, _Held], list[int]]:
    """What every modality that is not generated is held at, and those that get fresh noise in every call instead."""
    held = {i: _Held.condition(z.to(net.device), draw("guidance", i) if guided else None) for i, z in condition.items()}
    others = [i for i in range(net.config.num_modalities) if i not in generate and i not in condition]
    if ignored is not Ignored.MARGINALISE:
        return held, others
    return held | {i: _Held.repeat(draw("ignored", i), NOISE, 2 if guided else 1) for i in others}, []


def _require_finite(latents: Tensor) -> Tensor:
    if not latents.isfinite().all():
        raise NotFiniteError(
            "The network made latents that are no finite numbers.",
            hint="Its weights may be too large for the arithmetic: try float32, or an earlier checkpoint.",
        )
    return latents


@dataclass(frozen=True, slots=True)
class _Held:
    """A modality that is not generated: its latents and timesteps in every branch of a call, one after the other."""

    latents: Tensor
    timesteps: Tensor

    @classmethod
    def repeat(cls, latents: Tensor, timestep: float, branches: int) -> _Held:
        repeated = latents.repeat(branches, 1, 1, 1)
        return cls(repeated, repeated.new_full((len(repeated),), timestep, dtype=torch.float32))

    @classmethod
    def condition(cls, latents: Tensor, stand_in: Tensor | None) -> _Held:
        """Given latents; with guidance, the second branch has noise in their place."""
        held = cls.repeat(latents, CLEAN, 1)
        if stand_in is None:
            return held
        noise = cls.repeat(stand_in.to(latents.dtype), NOISE, 1)
        return cls(torch.cat([held.latents, noise.latents]), torch.cat([held.timesteps, noise.timesteps]))


@dataclass(slots=True)
class _Network:
    """The network as a solver sees it: the noise in what is generated, everything else held."""

    net: CopGenTransformer
    generate: list[int]
    shapes: list[Shape]
    """Of the latents of what is generated."""
    held: dict[int, _Held]
    redrawn: list[int]
    """Modalities that get fresh noise in every call, labelled clean."""
    draw: Callable[[str, int], Tensor]
    guidance_scale: float | None
    options: dict[str, Any]
    steps: int
    callback: OnStep | None
    calls: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if _takes(self.net, "heads"):
            self.options = {**self.options, "heads": self.generate}

    def apart(self, x: Tensor) -> list[Tensor]:
        """(B, K) states to the latents (B, C_i, H_i, W_i) of what is generated."""
        pieces = x.split([math.prod(shape) for shape in self.shapes], dim=1)
        return [piece.unflatten(1, shape) for piece, shape in zip(pieces, self.shapes, strict=True)]

    def __call__(self, x: Tensor, timestep: float) -> Tensor:
        """(B, K) states at one timestep in [0, 1000] to the noise in them."""
        branches = 1 if self.guidance_scale is None else 2
        inputs = dict(self.held)
        states = self.apart(x)
        inputs |= {i: _Held.repeat(state, timestep, branches) for i, state in zip(self.generate, states, strict=True)}
        inputs |= {
            i: _Held.repeat(self.draw(f"ignored in call {self.calls}", i), CLEAN, branches) for i in self.redrawn
        }
        in_order = [inputs[i] for i in range(len(inputs))]
        outputs = self.net([i.latents for i in in_order], [i.timesteps for i in in_order], **self.options)
        if "heads" not in self.options:
            outputs = [outputs[i] for i in self.generate]
        outputs = [output.to(x.dtype) for output in outputs]
        schedule = schedule_of(self.net)
        if self.guidance_scale is not None:
            n = torch.tensor(timestep, dtype=torch.float64)
            halves = ((*output.chunk(2), state) for output, state in zip(outputs, states, strict=True))
            outputs = [guide(given, free, self.guidance_scale, state, n, schedule) for given, free, state in halves]
        output = _side_by_side(outputs)
        noise = noise_from(output, x, timestep, prediction_of(self.net), schedule)
        self.calls += 1
        if self.callback is not None:
            signal, spread = schedule.amplitudes(torch.tensor(timestep, dtype=torch.float64), torch.float64)
            clean = (x - float(spread) * noise) / float(signal)
            self.callback(self.calls, self.steps, dict(zip(self.generate, self.apart(clean), strict=True)))
        return noise


def guide(given: Tensor, free: Tensor, scale: float, noisy: Tensor, n: Tensor, schedule: NoiseSchedule) -> Tensor:
    """Classifier-free guidance, (1 + s) given - s free (arXiv:2207.12598).

    The first call of a schedule that ends in noise tells but a mean of all that the condition allows. Guidance moves
    this mean away from that of everything, and the fewer calls follow, the more of the move stays: pictures come out
    too dark or too bright, of too much contrast. There the clean latents that guidance tells take mean and standard
    deviation, of each channel, from those told with the conditions alone, by the share `RESCALE`. The paper does so for
    the deviation of all latents together; the mean of a channel is its tone.

    Args:
        given, free: (B, C, H, W) what a network tells with its conditions and without them: noise or, of a schedule
            that ends in noise, velocities.
        scale: s; 0 is off.
        noisy: (B, C, H, W) latents that the network saw.
        n: steps in [0, T] of these, that broadcast with them.
        schedule: which schedule noised them.

    Returns:
        (B, C, H, W), as `given`.
    """
    guided = (1 + scale) * given - scale * free
    if schedule is not SCHEDULE_ENDING_IN_NOISE:
        return guided
    signal, spread = schedule.amplitudes(n, noisy.dtype)
    aim, clean = (signal * noisy - spread * v.to(noisy.dtype) for v in (given, guided))
    tamed = torch.lerp(clean, _with_moments_of(clean, aim), RESCALE)
    return ((signal * noisy - tamed) / spread).to(given.dtype)


def _with_moments_of(latents: Tensor, other: Tensor) -> Tensor:
    """Latents whose channels have mean and standard deviation of those of the other ones."""
    (deviation, mean), (wanted, aim) = (torch.std_mean(x, dim=(-2, -1), keepdim=True) for x in (latents, other))
    return (latents - mean) * (wanted / deviation.clamp_min(1e-6)) + aim


def _takes(net: CopGenTransformer, option: str) -> bool:
    """Whether a network's call knows an option; a wrapper that passes everything on is taken at its word."""
    parameters = inspect.signature(net.forward).parameters.values()
    return any(p.name == option or p.kind is p.VAR_KEYWORD for p in parameters)


def _from_generator(generator: torch.Generator | None, batch: int, num_modalities: int) -> SampleNoise:
    """Noise of a seed that a generator gives; samples and modalities go by their number."""
    device = generator.device if generator is not None else None
    seed = int(torch.randint(2**63 - 1, (), generator=generator, device=device, dtype=torch.int64))
    return SampleNoise(seed, tuple(map(str, range(batch))), tuple(map(str, range(num_modalities))))


def _state_dtype(start: Tensor) -> torch.dtype:
    """Solvers work at least in float32, whatever the network computes in."""
    return torch.promote_types(start.dtype, torch.float32)


def _check_roles(generate: Sequence[int], condition: Mapping[int, Tensor], num_modalities: int) -> None:
    chosen = [*generate, *condition]
    if not len(generate) or len(set(chosen)) < len(chosen) or not set(chosen) <= set(range(num_modalities)):
        raise ValueError(
            f"generate {list(generate)} given {list(condition)}: needs at least one to generate, none twice, "
            f"and all within 0 to {num_modalities - 1}"
        )


def _in_order(
    noise: Tensor | Sequence[Tensor] | Mapping[int, Tensor] | None, generate: Sequence[int]
) -> Tensor | Sequence[Tensor] | None:
    if not isinstance(noise, Mapping):
        return noise
    if set(noise) != set(generate):
        raise ValueError(f"start noise of {list(noise)} for the modalities {list(generate)} to generate")
    return [noise[i] for i in generate]


def _batch_shapes(
    net: CopGenTransformer,
    generate: Sequence[int],
    condition: Mapping[int, Tensor],
    noise: Tensor | Sequence[Tensor] | None,
    noise_source: SampleNoise | None,
    batch_size: int | None,
) -> tuple[int, list[Shape]]:
    """Samples, and the shape of each modality's latent, that all inputs agree on."""
    if noise is not None and len(noise) != len(generate):
        raise ValueError(f"{len(noise)} start noises for {len(generate)} modalities to generate")
    given = dict(condition) | (dict(zip(generate, noise, strict=True)) if noise is not None else {})
    shapes = [tuple(z.shape) for z in given.values()]
    batches = {shape[0] for shape in shapes} | ({batch_size} if batch_size is not None else set())
    if noise_source is not None:
        batches.add(len(noise_source.sample_ids))
    known: list[Shape] = list(getattr(net, "latent_shapes", None) or _shapes_of(net.config))
    uniform = len(set(known)) == 1
    if len(batches) > 1 or any(len(shape) != 4 for shape in shapes) or (uniform and len({s[1:] for s in shapes}) > 1):
        raise ValueError(f"latents of shapes {shapes} for {sorted(batches)} samples: expected all (batch, C, H, W)")
    batch = batches.pop() if batches else 1
    if uniform:  # of another size than in training, if the positions are to be interpolated
        return batch, [shapes[0][1:] if shapes else known[0]] * len(known)
    for modality, z in given.items():
        known[modality] = tuple(z.shape[1:])
    return batch, known


def _shapes_of(config: Any) -> list[Shape]:
    """(C, H, W) of each modality, by the configuration of a network that is wrapped."""
    same = (config.in_channels, config.sample_size, config.sample_size)
    return [tuple(shape) for shape in getattr(config, "latent_shapes", None) or [same] * config.num_modalities]
