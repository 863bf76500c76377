"""What flows from stage to stage: Product, Scene, Patch, Moments, LatentBatch, and what is asked of a model.

Frozen, and free of heavy imports, so that commands and completion can name these types before torch loads.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from copgen_cli.modalities import Modality, Role, Split

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


SCHEDULE_STEPS = 1000
"""Noise levels of the schedule."""


class Solver(StrEnum):
    """How the reverse process is integrated."""

    REFERENCE = "reference"
    DPM_2M = "dpm++2m"
    DPM_3M = "dpm++3m"
    UNIPC = "unipc"
    DDIM = "ddim"


USUAL_CALLS = (15, Solver.DPM_2M)
"""In how many network calls of which solver a model is sampled that is made for no number of them; with these,
`benchmarks/sampling.py --sweep` stops changing."""


class Ignored(StrEnum):
    """How a modality that is neither generated nor given enters the network."""

    MARGINALISE = "marginalise"
    """Noise drawn once and held fixed, at the last timestep: as the network was trained."""
    PUBLISHED = "published"
    """Fresh noise in every call, labelled as clean: what the published script does, for comparison."""


class TimestepDraw(StrEnum):
    """How training draws the step that a modality is noised to."""

    UNIFORM = "uniform"
    LOGIT_NORMAL = "logit-normal"
    """More often the middle steps."""
    ROLES = "roles"
    """As sampling asks: some modalities given, some generated at one step, some left out."""


class Prediction(StrEnum):
    """What a network's output means, in diffusers' words."""

    NOISE = "epsilon"
    """As published."""
    VELOCITY = "v_prediction"
    """Noise and clean latents weighed against one another, so that both ends of the way are told as well."""


class Optimizer(StrEnum):
    """What turns gradients into new weights."""

    ADAMW = "adamw"
    """AdamW on all of them (arXiv:1711.05101), as published."""
    MUON = "muon"
    """Muon on the matrices of the blocks (arXiv:2502.16982), AdamW on the rest."""


class PositionStart(StrEnum):
    """What the position embeddings of a new network are before training."""

    NORMAL = "normal"
    """Small random values, as published."""
    SINE = "sine"
    """Sines of row and column, the same in every modality (arXiv:2111.06377)."""


class LearningRateDecay(StrEnum):
    """How the learning rate goes on after its warm-up."""

    CONSTANT = "constant"
    COSINE = "cosine"
    """Half a cosine down to 0 at the last step (arXiv:1608.03983)."""


class StopReason(StrEnum):
    """Why a training run ends where it does."""

    FINISHED = "finished"
    TIME = "time"
    """The time that it was given is up."""
    SIGINT = "SIGINT"
    SIGTERM = "SIGTERM"
    SIGUSR1 = "SIGUSR1"


@dataclass(frozen=True, slots=True)
class Product:
    """One row of a Major TOM index: an image of one cell, and where its bytes are."""

    modality: Modality
    cell: str
    product_id: str
    """The word "id" where a source names no product."""
    timestamp: str | None
    """Acquisition time in ISO 8601, UTC; None for elevation."""
    cloud_cover: float | None
    """Percent; None where a source has none."""
    centre_lon: float
    centre_lat: float
    crs: str
    """`EPSG:326xx`, the doubled prefix of some rows already mended."""
    part_url: str
    """Address of the Parquet part as the index gives it, before it is mapped to the endpoint in use."""
    part_row: int
    """Row group of that part."""


@dataclass(frozen=True, slots=True)
class Scene:
    """One cell with one thumbnail per modality, as downloaded."""

    cell: str
    products: Mapping[Modality, Product]
    thumbnails: Mapping[Modality, Path]


@dataclass(frozen=True, slots=True)
class Georeferencing:
    """Where a picture lies on the ground."""

    crs: str
    transform: tuple[float, float, float, float, float, float]
    """Affine map from (column, row) in pixels to (x, y) in metres: a, b, c, d, e, f with x = a*col + b*row + c."""

    def to_ground(self, column: float, row: float) -> tuple[float, float]:
        """(x, y) of a point among the pixels, whose corners are whole numbers."""
        a, b, c, d, e, f = self.transform
        return a * column + b * row + c, d * column + e * row + f

    def to_pixels(self, x: float, y: float) -> tuple[float, float]:
        """(column, row) of a point on the ground."""
        a, b, c, d, e, f = self.transform
        area = a * e - b * d
        return (e * (x - c) - b * (y - f)) / area, (a * (y - f) - d * (x - c)) / area


@dataclass(frozen=True, slots=True)
class Patch:
    """A square cut from one cell, in every modality: what the autoencoder sees."""

    cell: str
    position: int | None
    """k = row * patches per side + column; None for the one patch of the centre crop."""
    split: Split
    georeferencing: Georeferencing
    """Of the first modality."""
    pixels: Mapping[Modality, np.ndarray]
    """(H, W, 3) uint8 of pictures, (B, H, W) of others, as they are in their files."""
    nodata: Mapping[Modality, float] = field(default_factory=dict)
    """What marks pixels without a value."""
    scalars: Mapping[Modality, Mapping[str, Any]] = field(default_factory=dict)
    """Place and time."""

    @property
    def name(self) -> str:
        return patch_name(self.cell, self.position)


def patch_name(cell: str, position: int | None) -> str:
    """`<grid_cell>_<k>`, or `<grid_cell>_center` for the one patch of the centre crop."""
    return f"{cell}_{'center' if position is None else position}"


@dataclass(frozen=True, slots=True)
class Moments:
    """Mean and log-variance of one patch under the frozen autoencoder, before scaling."""

    name: str
    modalities: tuple[Modality, ...]
    values: np.ndarray
    """(M, 2 * C, H, W) float32 or float16: mean first, then log-variance."""


@dataclass(frozen=True, slots=True)
class LatentBatch:
    """Clean latents, scaled to about unit variance, ready for noising."""

    names: tuple[str, ...]
    modalities: tuple[Modality, ...]
    latents: Tensor
    """(M, B, C, H, W)."""


@dataclass(frozen=True, slots=True)
class SampleRequest:
    """What one run of sampling is asked for; with the inputs, it determines every pixel."""

    roles: Mapping[Modality, Role]
    n_samples: int = 1
    steps: int = 50
    solver: Solver = Solver.REFERENCE
    guidance_scale: float = 0.0
    seed: int = 0

    @property
    def generated(self) -> tuple[Modality, ...]:
        return self._with(Role.GENERATE)

    @property
    def conditions(self) -> tuple[Modality, ...]:
        return self._with(Role.CONDITION)

    def _with(self, role: Role) -> tuple[Modality, ...]:
        return tuple(modality for modality in Modality if self.roles.get(modality) is role)


@dataclass(frozen=True, slots=True)
class LatentPart:
    """What the latents of one modality are."""

    shape: tuple[int, int, int]
    """(C, H, W)."""
    autoencoder: str
    """Where the autoencoder that made them came from."""
    fingerprint: str | None
    """Of its weights; None where the store does not tell."""
    scale_factor: float


@dataclass(frozen=True, slots=True)
class LatentSpec:
    """What the data's latents are: what a network must fit."""

    modalities: tuple[Modality, ...]
    """Those in the store, in its order."""
    parts: tuple[LatentPart, ...]
    """Of each of them."""

    @classmethod
    def alike(
        cls,
        modalities: tuple[Modality, ...],
        channels: int,
        side: int,
        autoencoder: str,
        fingerprint: str | None,
        scale_factor: float,
    ) -> LatentSpec:
        """Latents of one shape and one autoencoder."""
        part = LatentPart((channels, side, side), autoencoder, fingerprint, scale_factor)
        return cls(modalities, (part,) * len(modalities))

    @property
    def common(self) -> LatentPart | None:
        """What all have in common; None where they differ."""
        first = self.parts[0]
        pictures = all(modality.spec.is_picture for modality in self.modalities)
        return first if pictures and all(part == first for part in self.parts) else None

    def of(self, modality: Modality) -> LatentPart:
        return self.parts[self.modalities.index(modality)]

    def scales(self, modalities: Iterable[Modality]) -> tuple[float, ...]:
        """What drawn latents of these are multiplied by."""
        return tuple(self.of(modality).scale_factor for modality in modalities)


@dataclass(frozen=True, slots=True)
class ValidationReport:
    """The loss of the averaged weights on held-out samples, with noise and timesteps that never change."""

    samples: int
    loss: float
    """Summed over modalities, mean over samples."""
    train_loss: float
    """Likewise of as many samples of the train split: the lower beside the other, the more is learned by heart."""
    by_modality: Mapping[Modality, float]
    by_timesteps: Mapping[str, float]
    """Mean loss of one modality by range of its timestep, such as "1-250"."""


@dataclass(frozen=True, slots=True)
class TrainReport:
    """What one step of training did."""

    step: int
    """Steps done so far, this one included."""
    steps: int
    """Steps of the whole run."""
    epoch: float
    """Passes over the data so far."""
    names: tuple[str, ...]
    """The samples of the global batch, in order."""
    loss: float
    """Summed over modalities, mean over the global batch."""
    by_modality: Mapping[Modality, float]
    lr: float
    """Learning rate that the step used."""
    grad_norm: float
    seconds: float
    """How long the step took, data included."""
    samples_per_second: float
    skipped: int = 0
    """Steps so far that were left out because loss or gradient was not finite."""
    validation: ValidationReport | None = None
    checkpoint: Path | None = None
    """The checkpoint that was written after the step."""
    preview: Path | None = None
    """The picture that was drawn after the step."""
    stopped: StopReason | None = None
    """Set on the last report of a run."""


def without_nan(values: Any) -> Any:
    """Values for JSON, which knows no NaN and no infinity: these are null there."""
    if isinstance(values, float):
        return values if math.isfinite(values) else None
    if isinstance(values, Mapping):
        return {key: without_nan(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [without_nan(value) for value in values]
    return values
