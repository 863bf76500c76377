"""One walk of the solver for many overlapping windows: what the network says of each is averaged at every call.

After MultiDiffusion (arXiv:2302.08113). The state is that of the whole region: windows are cut from it, the network
predicts the noise in each, the predictions are averaged where windows overlap, and the solver takes one step for all of
it. A seam has no place to arise.

C latent channels, H and W latent pixels of the region, S side of a window, N windows, B of them at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from copgen_cli.errors import NotFiniteError
from copgen_cli.model import SCHEDULE, CopGenTransformer, find_solver, guide, noise_from, prediction_of, schedule_of
from copgen_cli.places.canvas import window_weight
from copgen_cli.places.gaps import KnownLatents, integrate_around
from copgen_cli.records import Solver

CLEAN, NOISE = 0.0, float(SCHEDULE.steps)
"""Timesteps of a latent that is given, and of one that is noise."""


@dataclass(frozen=True, slots=True, eq=False)
class GivenWindows:
    """A condition, encoded window by window, as in training: an autoencoder tells a tone by its surroundings."""

    latents: Tensor
    """(N, C, S, S) scaled."""
    known: Tensor
    """(N,) bool: windows in which there is something to be given. The others get noise in its place."""


@dataclass(slots=True, eq=False)
class JointWalk:
    """A region, its windows, and what is held fixed in them.

    The noise of a modality that is not generated is that of its place in the region, in every window the same.
    """

    net: CopGenTransformer
    windows: Sequence[tuple[int, int]]
    """N upper left corners in the region."""
    generate: Sequence[int]
    """Positions of the generated modalities, in the network's order."""
    given: Mapping[int, GivenWindows]
    held_noise: Mapping[int, Tensor]
    """(C, H, W) of every modality that is not generated: in its place where it is not given, or not known."""
    guidance_noise: Mapping[int, Tensor]
    """(C, H, W) of every condition, in its place in the branch without it; empty without guidance."""
    guidance_scale: float = 0.0
    batch_size: int = 4
    on_call: Callable[[int], None] = lambda windows: None
    """Told how many windows a call of the network had."""
    _weight: Tensor = field(init=False)
    _total: Tensor = field(init=False)

    def __post_init__(self) -> None:
        rows, columns = zip(*self.windows, strict=True)
        height, width = max(rows) + self.side, max(columns) + self.side
        self._weight = window_weight(self.side).to(self.net.device)
        self._total = torch.zeros(height, width, device=self.net.device)
        for row, column in self.windows:
            self._total[row : row + self.side, column : column + self.side] += self._weight

    @property
    def side(self) -> int:
        return int(self.net.config.sample_size)

    def draw(
        self,
        start: Mapping[int, Tensor],
        *,
        steps: int,
        solver: Solver,
        known: Mapping[int, KnownLatents] | None = None,
        fresh_noise: Callable[[int, str], Tensor] | None = None,
    ) -> dict[int, Tensor]:
        """Latents of what is generated.

        Args:
            start: position to (C, H, W) standard normal noise.
            steps: calls of the network for each window; with `known`, steps of noise, each walked several times.
            solver: how the walk is integrated, where nothing of it is known.
            known: latents of generated modalities that are to stay.
            fresh_noise: noise (C, H, W) of a modality for a purpose, which keeping known latents needs.

        Returns:
            Position to (C, H, W) scaled float32 latents.

        Raises:
            NotFiniteError: the network makes latents that are no finite numbers.
        """
        shapes = [start[i].shape for i in self.generate]

        def apart(x: Tensor) -> list[Tensor]:
            pieces = x[0].split([shape.numel() for shape in shapes])
            return [piece.view(shape) for piece, shape in zip(pieces, shapes, strict=True)]

        def predict(x: Tensor, timestep: float) -> Tensor:
            return _side_by_side(self._predict(dict(zip(self.generate, apart(x), strict=True)), timestep))

        x = _side_by_side([start[i].to(self.net.device).float() for i in self.generate])
        if known and fresh_noise is not None:

            def draw_noise(purpose: str) -> Tensor:
                return _side_by_side([fresh_noise(i, purpose).to(self.net.device) for i in self.generate])

            held = KnownLatents.side_by_side([known.get(i, KnownLatents.nothing(start[i])) for i in self.generate])
            x = integrate_around(x, steps, predict, held, draw_noise, schedule_of(self.net))
        else:
            x = find_solver(solver, schedule_of(self.net)).integrate(x, steps, predict)
        if not x.isfinite().all():
            raise NotFiniteError(
                "The network made latents that are no finite numbers.",
                hint="Its weights may be too large for the arithmetic: try --dtype float32, or another checkpoint.",
            )
        return dict(zip(self.generate, apart(x), strict=True))

    @torch.no_grad()
    def _predict(self, states: Mapping[int, Tensor], timestep: float) -> list[Tensor]:
        """The noise (C, H, W) in every generated modality at a timestep in [0, 1000], averaged over windows."""
        sums = {i: torch.zeros_like(state) for i, state in states.items()}
        for first in range(0, len(self.windows), self.batch_size):
            batch = self.windows[first : first + self.batch_size]
            cut = {i: self._cut(state, batch) for i, state in states.items()}
            for i, predicted in zip(self.generate, self._call(cut, timestep, first, batch), strict=True):
                noise = noise_from(
                    predicted.to(cut[i].dtype), cut[i], timestep, prediction_of(self.net), schedule_of(self.net)
                )
                for (row, column), window in zip(batch, noise, strict=True):
                    sums[i][:, row : row + self.side, column : column + self.side] += self._weight * window
            self.on_call(len(batch))
        return [sums[i] / self._total for i in self.generate]

    def _call(
        self, states: Mapping[int, Tensor], timestep: float, first: int, batch: Sequence[tuple[int, int]]
    ) -> list[Tensor]:
        """What the network says of the generated modalities (B, C, S, S) of some windows, guided if asked for."""
        guided = bool(self.guidance_noise)
        latents, timesteps = [], []
        for i in range(self.net.config.num_modalities):
            for latent, step in self._branches(i, states, timestep, first, batch, guided=guided):
                latents.append(latent)
                timesteps.append(step)
        branches = 2 if guided else 1
        stacked = [torch.cat(latents[i : i + branches]) for i in range(0, len(latents), branches)]
        times = [torch.cat(timesteps[i : i + branches]) for i in range(0, len(timesteps), branches)]
        outputs: list[Tensor] = self.net(stacked, times, heads=list(self.generate))
        if not guided:
            return outputs
        n, schedule = torch.tensor(timestep, dtype=torch.float64), schedule_of(self.net)
        halves = ((*output.chunk(2), states[i]) for i, output in zip(self.generate, outputs, strict=True))
        return [guide(given, free, self.guidance_scale, state, n, schedule) for given, free, state in halves]

    def _branches(
        self,
        i: int,
        states: Mapping[int, Tensor],
        timestep: float,
        first: int,
        batch: Sequence[tuple[int, int]],
        *,
        guided: bool,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Latents and timesteps of a modality with the conditions and, where guided, without them."""
        alike = states[i] if i in states else self._cut(self.held_noise[i], batch)
        step = alike.new_full((len(batch),), timestep if i in states else NOISE, dtype=torch.float32)
        if i in self.given:
            windows = self.given[i]
            known = windows.known[first : first + len(batch)]
            latents = torch.where(known[:, None, None, None], windows.latents[first : first + len(batch)], alike)
            yield latents, torch.where(known, step.new_tensor(CLEAN), step)
        else:
            yield alike, step
        if guided:
            yield (self._cut(self.guidance_noise[i], batch), step) if i in self.given else (alike, step)

    def _cut(self, region: Tensor, batch: Sequence[tuple[int, int]]) -> Tensor:
        return torch.stack([region[:, r : r + self.side, c : c + self.side] for r, c in batch]).to(self.net.device)


def _side_by_side(latents: Sequence[Tensor]) -> Tensor:
    """Latents of several modalities as one state (1, K): solvers work on each value alone."""
    return torch.cat([latent.flatten() for latent in latents])[None]
