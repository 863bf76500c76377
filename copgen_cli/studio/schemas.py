"""What the page and the server say to one another, as JSON: requests and responses with their types and limits."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from copgen_cli.records import Ignored, Solver

Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Corners = list[tuple[float, float]]
"""Longitude and latitude of upper left, upper right, lower right, lower left."""


class State(StrEnum):
    """How far a request is."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        return self in (State.DONE, State.FAILED, State.CANCELLED)


class Message(BaseModel):
    """Common to all: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class Place(Message):
    """A patch of a region on disk."""

    region: Name
    patch: Name


class Area(Message):
    """A whole area of a region on disk: a cell, or a box of west, south, east, north in degrees."""

    region: Name
    cell: Name | None = None
    bbox: tuple[float, float, float, float] | None = None


class Ask(Message):
    """What is wanted, from what. What is left out of both lists is marginalised; None is as in the settings."""

    generate: Annotated[list[Name], Field(min_length=1, max_length=64)]
    """Modalities to draw."""
    condition: Annotated[list[Name], Field(max_length=64)] = []
    """Modalities that are given: by an upload, or else by the place."""
    place: Place | None = None
    area: Area | None = None
    """In place of a patch: a map of it is drawn, as `copgen scene` does."""
    uploads: Annotated[dict[Name, Name], Field(max_length=64)] = {}
    """Id of an uploaded file, by modality."""
    scalars: Annotated[dict[Name, Name], Field(max_length=8)] = {}
    """Places and dates, such as `{"place": "41.9,12.5"}`, for models that know them."""
    n_samples: Annotated[int, Field(ge=1)] | None = None
    """Samples of the place."""
    steps: Annotated[int, Field(ge=1)] | None = None
    """Network calls per sample."""
    solver: Solver | None = None
    guidance_scale: Annotated[float, Field(ge=0, le=100)] | None = None
    """How much to insist on the condition; 0 is off."""
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] | None = None
    spread: bool = False
    """Mean and deviation over the samples as well."""
    ignored: Ignored = Ignored.MARGINALISE


class Problem(Message):
    """What is wrong, and what to do about it."""

    error: str
    hint: str


class Picture(Message):
    """One picture of a result."""

    number: int
    """By which its files are asked for."""
    modality: str
    name: str
    kind: str
    """sample, mean, std, or of maps a quantile such as q10."""
    width: int
    height: int
    corners: Corners | None
    """Where it lies; None where nobody knows."""
    is_raster: bool
    """Whether its GeoTIFF holds measurements rather than a picture."""


class Lines(Message):
    """What makes the same pixels without the page."""

    command: str
    python: str


class Result(Message):
    """What a request came to. All of it is synthetic."""

    synthetic: Literal[True] = True
    record: str
    pictures: list[Picture]
    given: list[str]
    """Modalities whose pictures can be shown beside."""
    truth: list[str]
    """Generated modalities of which the place has the truth."""
    documents: list[str]
    """Files of JSON beside: how all was made, and of maps the STAC catalogue. By their number they are asked for."""
    samples: list[dict[str, Any]]
    """Ids and seeds, and what scalars were drawn."""
    seconds: float
    lines: Lines
    cached: bool = False
    """Whether an earlier request had drawn it."""


class RequestState(Message):
    """Where a request stands."""

    id: str
    state: State
    position: int | None = None
    """Requests before it, while it waits."""
    step: int = 0
    steps: int = 0
    """Network calls of all its samples, and how many are done."""
    preview: int = 0
    """Number of the newest preview; 0 where there is none."""
    problem: Problem | None = None
    result: Result | None = None


class ModalityInfo(Message):
    """What the page needs to know of a modality."""

    name: str
    title: str
    kind: str
    unit: str
    bands: list[str]
    side: int
    pixel_size: float


class SolverInfo(Message):
    name: str


class ModelInfo(Message):
    """What the open model can, and what is asked of it where nothing else is said."""

    source: str
    sha256: str
    version: str
    family: str | None
    modalities: list[ModalityInfo]
    side: int
    """Pixels of what it takes and gives, along a side."""
    device: str
    dtype: str
    defaults: dict[str, Any]
    solvers: list[str]
    limits: dict[str, int]


class RegionInfo(Message):
    """A region on disk."""

    name: str
    cells: int
    patches: int
    modalities: list[str]
    bounds: tuple[float, float, float, float] | None
    """West, south, east, north."""
    prepared: bool
    """Whether it has patches to start from."""


class UploadInfo(Message):
    """A file that was taken."""

    id: str
    modality: str
    side: int
    corners: Corners | None
    notes: list[str]


class PixelValues(Message):
    """What a picture holds at one point."""

    of: str
    column: int
    row: int
    bands: list[str]
    values: list[float | None]
    """None where the pixel has no value."""
    unit: str
    """Empty where values are 8 bits of a picture."""
    meaning: str | None = None
    """Name of the class, where it is one."""


class Scores(Message):
    """How like the truth each sample is, in the numbers of `copgen evaluate`."""

    quantities: dict[str, QuantityInfo]
    samples: list[SampleScores]
    notes: list[str] = []


class QuantityInfo(Message):
    title: str
    unit: str
    better: str


class SampleScores(Message):
    modality: str
    name: str
    values: dict[str, float | None]


class Health(Message):
    status: Literal["ok"] = "ok"
    version: str
    waiting: int
    running: bool


Scores.model_rebuild()
