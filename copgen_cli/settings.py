"""Every knob once, typed, with its unit and default; and where its value came from.

Command line > COPGEN_TRAIN__STEPS and the like > --config FILE or ./copgen.toml > preset > the defaults below.
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from copgen_cli.errors import UnknownNameError, UsageError, nearest_name
from copgen_cli.layout import Workspace
from copgen_cli.modalities import Modality
from copgen_cli.records import Solver
from copgen_cli.regions import BUILT_IN_REGIONS

PUBLIC_ENDPOINT = "https://huggingface.co"
DEFAULT_FILE = Path("copgen.toml")
ENV_PREFIX = "COPGEN_"


class Section(BaseModel):
    """Common to all sections: unknown keys are refused, values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


def _check_cloud_range(value: tuple[float, float]) -> tuple[float, float]:
    low, high = value
    if not 0 <= low <= high <= 100:
        raise ValueError(f"cloud cover is a range MIN MAX in percent with 0 <= MIN <= MAX <= 100, not {low:g} {high:g}")
    return value


def _check_plain_name(value: str) -> str:
    if not value or value in {".", ".."} or any(c in value for c in "/\\\0") or not value.isprintable():
        raise ValueError(f"{value!r} can not be the name of a folder")
    return value


CloudRange = Annotated[tuple[float, float], AfterValidator(_check_cloud_range)]
PlainName = Annotated[str, AfterValidator(_check_plain_name)]


class RegionSettings(Section):
    """What to fetch: a box, and which products in it."""

    bbox: tuple[float, float, float, float]
    """West, south, east, north in degrees; a cell belongs to it when its centre does."""
    start_date: date = date(2017, 1, 1)
    """First acquisition day; bounds are inclusive."""
    end_date: date = date(2025, 1, 1)
    """Last acquisition day, compared at midnight."""
    cloud_cover: CloudRange = (0.0, 10.0)
    """Least and most cloud in percent."""
    criteria: Literal["latest"] = "latest"
    """Which product of a cell is kept where there are several."""
    n_samples: PositiveInt | None = None
    """How many of the common cells to draw; all where None."""
    seed: int = 42
    """Seed of that draw."""

    @field_validator("bbox")
    @classmethod
    def _box(cls, value: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
        west, south, east, north = value
        if not (-180 <= west < east <= 180 and -90 <= south < north <= 90):
            raise ValueError(
                "a bbox is WEST SOUTH EAST NORTH in degrees with west < east and south < north, "
                f"not {west:g} {south:g} {east:g} {north:g}"
            )
        return value

    @model_validator(mode="after")
    def _dates(self) -> RegionSettings:
        if self.start_date > self.end_date:
            raise ValueError(f"the start date {self.start_date} is after the end date {self.end_date}")
        return self


class DownloadSettings(Section):
    endpoint: str = PUBLIC_ENDPOINT
    """Where the Major TOM datasets are: https://, http:// or file://."""
    token: SecretStr | None = None
    """Bearer token for the endpoint; never sent to another host."""
    sources: tuple[Modality, ...] = tuple(Modality)
    """Modalities to fetch; only cells that all of them have are kept."""
    workers: PositiveInt = 8
    """Requests under way at a time."""
    bands: str = "none"
    """Raw GeoTIFF bands to write as well: none, all, or a comma-separated list of columns."""
    retries: NonNegativeInt = 8
    """Attempts after the first for one request, before its product is set aside."""
    timeout: PositiveFloat = 30.0
    """Seconds without a byte before a connection counts as stalled."""


class PrepareSettings(Section):
    train_ratio: Annotated[float, Field(ge=0, le=1)] = 0.95
    """Share of cells that go to the train split."""
    seed: int = 42
    """Seed of the split, which depends on it and the cell's name alone."""
    split_block: PositiveInt = 1
    """Side in cells of the blocks that go to one split together; 1 splits cell by cell."""
    center_crop: bool = False
    """One 256 px patch from the middle of a cell instead of 16."""
    workers: PositiveInt = os.cpu_count() or 1
    """Processes that cut."""


class EncodeSettings(Section):
    vae: str = "stabilityai/sd-vae-ft-ema"
    """Folder, file or hub id of the image autoencoder; frozen, never trained here."""
    batch_size: PositiveInt = 16
    """Images per forward pass."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Arithmetic of the autoencoder; auto is bfloat16 on CUDA and float32 elsewhere. Moments are float32."""
    to: Literal["npy", "lmdb"] = "npy"
    """One file per patch and modality, or straight into the packed store."""


class PackSettings(Section):
    input_type: Literal["npy", "png", "lmdb"] = "npy"
    """What is packed: moments, patches to encode on the way, or a database of the published workflow."""
    dtype: Literal["float32", "float16"] = "float32"
    """float16 halves the store; the error is far below the spread of a latent."""


class AutoencoderSettings(Section):
    """How `copgen train-autoencoder` makes a small autoencoder of its own."""

    steps: PositiveInt = 10_000
    """Updates; the last fifth of them lowers the learning rate, on whole patches."""
    batch_size: PositiveInt = 8
    """Crops of 128 px per update; a quarter as many whole patches of 256 px."""
    channels: tuple[PositiveInt, ...] = (16, 32, 64, 128)
    """Width of each resolution; every further one halves the side of the latents. Multiples of 8."""
    lr: PositiveFloat = 1e-3
    """Learning rate after warm-up."""
    structure_weight: NonNegativeFloat = 0.2
    """Weight of the structural loss beside the mean absolute error."""
    kl_weight: NonNegativeFloat = 1e-4
    """Weight of the divergence of a latent from a standard normal."""
    seed: int = 0
    save_every: PositiveInt = 250
    """Updates between checkpoints."""
    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic; auto is bfloat16 where the device multiplies it natively."""


class SampleSettings(Section):
    model: str | None = None
    """Folder or hub id; None is the newest model trained on the region, or else the one that comes with the package."""
    n_samples: PositiveInt = 1
    """Samples per condition."""
    steps: PositiveInt = 50
    """Network calls per sample."""
    solver: Solver = Solver.REFERENCE
    guidance_scale: NonNegativeFloat = 0.0
    """0 is off."""
    seed: int = 0
    save_as: Literal["grid", "pngs"] = "grid"
    batch_size: PositiveInt | None = None
    """Samples at a time; None chooses by the memory of the device."""
    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    limit: PositiveInt | None = None
    """Records to use of the input; all where None."""


class Settings(BaseSettings):
    """All settings, merged; made by `load_settings` alone."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
    )

    data_dir: Path = Path("data/majorTOM")
    """Where data lies, one folder per region."""
    runs_dir: Path = Path("runs")
    """Where training runs lie."""
    region: PlainName = "rome"
    """The region that commands work on when none is named."""
    regions: dict[PlainName, RegionSettings] = Field(default_factory=dict)
    """Named regions; the built-in ones are always there."""
    download: DownloadSettings = DownloadSettings()
    prepare: PrepareSettings = PrepareSettings()
    encode: EncodeSettings = EncodeSettings()
    pack: PackSettings = PackSettings()
    sample: SampleSettings = SampleSettings()
    autoencoder: AutoencoderSettings = AutoencoderSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """`load_settings` reads the sources itself, because it must say which of them a value came from."""
        return (init_settings,)

    @property
    def workspace(self) -> Workspace:
        return Workspace(self.data_dir, self.region)

    def region_settings(self, name: str | None = None) -> RegionSettings:
        """The named region, or the one that the settings chose.

        Raises:
            UnknownNameError: it is neither built in nor configured.
        """
        wanted = name or self.region
        if wanted not in self.regions:
            raise UnknownNameError("region", wanted, known=sorted(self.regions))
        return self.regions[wanted]


@dataclass(frozen=True, slots=True)
class Layer:
    """The values that one source gave, as nested dictionaries."""

    origin: str
    values: dict[str, Any]


@dataclass(frozen=True, slots=True)
class LoadedSettings:
    settings: Settings
    layers: tuple[Layer, ...]
    """Strongest first."""

    def origin_of(self, path: tuple[str, ...]) -> str:
        """Which source the value at this path came from."""
        for layer in self.layers:
            if _has(layer.values, path):
                return layer.origin
        return "default"


def load_settings(config: Path | None = None, **options: Any) -> Settings:
    """Merge all sources into frozen settings. `options` are nested dictionaries; None in them means "not given".

    Raises:
        UsageError: the file is not there, a key is unknown (the nearest is named), or a value does not fit.
    """
    return load_settings_with_origins(config, **options).settings


def load_settings_with_origins(config: Path | None = None, **options: Any) -> LoadedSettings:
    """As `load_settings`, and remember which source gave what."""
    layers = (
        Layer("command line", _given(options)),
        _environment_layer(),
        _hub_environment_layer(),
        _file_layer(config),
        Layer("built in", {"regions": BUILT_IN_REGIONS}),
    )
    merged: dict[str, Any] = {}
    for layer in reversed(layers):
        merged = _merge(merged, layer.values)
    try:
        return LoadedSettings(Settings(**merged), layers)
    except ValidationError as error:
        raise _explain(error, layers) from None


def _given(options: dict[str, Any]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for key, value in options.items():
        if isinstance(value, dict):
            inner = _given(value)
            if inner:
                given[key] = inner
        elif value is not None:
            given[key] = value
    return given


def _environment_layer() -> Layer:
    known = {f"{ENV_PREFIX}{name}".upper() for name in Settings.model_fields}
    for variable in os.environ:
        head = variable.upper().split("__")[0]
        if variable.upper().startswith(ENV_PREFIX) and head not in known:
            nearest = nearest_name(head, [name.lower() for name in known])
            raise UsageError(
                f"Unknown setting in the environment: {variable}.",
                hint=f"Did you mean {(nearest or min(known)).upper()}? `copgen config show` lists all keys.",
            )
    try:
        return Layer("environment", EnvSettingsSource(Settings)())
    except SettingsError as error:
        raise UsageError(
            f"A {ENV_PREFIX}… variable can not be read: {error}", hint="Lists are written as JSON."
        ) from None


def _hub_environment_layer() -> Layer:
    """The variables that the hub's own tools use."""
    found = {"endpoint": os.environ.get("HF_ENDPOINT"), "token": os.environ.get("HF_TOKEN")}
    return Layer("environment (HF_…)", _given({"download": {k: v for k, v in found.items() if v}}))


def _file_layer(config: Path | None) -> Layer:
    file = config or DEFAULT_FILE
    if not file.is_file():
        if config is None:
            return Layer(str(file), {})
        raise UsageError(f"There is no settings file {config}.", hint="Check the path after --config, or leave it out.")
    try:
        return Layer(str(file), tomllib.loads(file.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} is not valid TOML: {error}", hint="Mend that line; see https://toml.io.") from None


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _has(values: Any, path: tuple[str, ...]) -> bool:
    for key in path:
        if not isinstance(values, dict) or key not in values:
            return False
        values = values[key]
    return True


def _explain(error: ValidationError, layers: tuple[Layer, ...]) -> UsageError:
    """One line for the first problem: which source, which key, what is wrong, and the nearest key."""
    first = error.errors()[0]
    location = tuple(str(part) for part in first["loc"])
    origin, path = _origin_of_error(location, layers)
    key = ".".join(path)
    if first["type"] == "extra_forbidden":
        known = list(_fields_at(path[:-1]))
        nearest = nearest_name(path[-1], known)
        did_you_mean = f"Did you mean {'.'.join((*path[:-1], nearest))!r}? " if nearest else ""
        return UsageError(f"Unknown key {key!r} in {origin}.", hint=f"{did_you_mean}Known here: {', '.join(known)}.")
    if first["type"] == "missing":
        return UsageError(
            f"{'.'.join(location)} is missing in {origin}.",
            hint="Add it; `copgen config show` lists the built-in regions.",
        )
    message = first["msg"].removeprefix("Value error, ")
    return UsageError(
        f"{key or 'settings'} from {origin}: {message}.", hint="`copgen config show` prints keys and values."
    )


def _origin_of_error(path: tuple[str, ...], layers: tuple[Layer, ...]) -> tuple[str, tuple[str, ...]]:
    """The strongest source that holds the longest beginning of a path; pydantic adds parts for union members."""
    for length in range(len(path), 0, -1):
        for layer in layers:
            if _has(layer.values, path[:length]):
                return layer.origin, path[:length]
    return "the settings", path


def _fields_at(path: tuple[str, ...]) -> dict[str, Any]:
    model: Any = Settings
    for key in path:
        if model is Settings and key == "regions":
            return RegionSettings.model_fields
        model = model.model_fields[key].annotation
    return model.model_fields
