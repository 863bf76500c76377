"""All sections together, read from where users set them; and where each value came from.

Command line > COPGEN_TRAIN__STEPS and the like > --config FILE or ./copgen.toml > preset > the sections' defaults.
"""

from __future__ import annotations

import codecs
import os
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from copgen_cli.errors import UnknownNameError, UsageError, nearest_name
from copgen_cli.layout import Workspace
from copgen_cli.modalities import BETA, Family, family
from copgen_cli.settings.presets import Preset, preset_values
from copgen_cli.settings.regions import BUILT_IN_REGIONS
from copgen_cli.settings.sections import (
    AutoencoderSettings,
    ClusterSettings,
    DataSettings,
    DistillSettings,
    DownloadSettings,
    EncodeSettings,
    EvaluateSettings,
    HomePath,
    PackSettings,
    PlainName,
    PrepareSettings,
    RegionSettings,
    SampleSettings,
    SceneSettings,
    StudioSettings,
    TrainSettings,
)
from copgen_cli.settings.vocabulary import FamilySettings, ModalitySettings, declare_users, validate_users

DEFAULT_FILE = Path("copgen.toml")
ENV_PREFIX = "COPGEN_"
HUB_VARIABLES = {"HF_ENDPOINT": "endpoint", "HF_TOKEN": "token"}
"""Variables that the hub's own tools read, and the settings of downloads that they stand for."""


class Settings(BaseSettings):
    """All settings, merged; made by `load_settings` alone."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
    )

    data_dir: HomePath = Path("data/majorTOM")
    """Where data lies, one folder per region."""
    runs_dir: HomePath = Path("runs")
    """Where training runs lie."""
    region: PlainName = "rome"
    """The region that commands work on when none is named."""
    regions: dict[PlainName, RegionSettings] = Field(default_factory=dict)
    """Named regions; the built-in ones are always there."""
    family: PlainName = BETA.name
    """The family of modalities that commands work on when none is named; `copgen modalities` lists them."""
    modalities: dict[PlainName, ModalitySettings] = Field(default_factory=dict)
    """Modalities of users, beside those of the package."""
    families: dict[PlainName, FamilySettings] = Field(default_factory=dict)
    """Families of users, beside those of the package."""
    download: DownloadSettings = DownloadSettings()
    prepare: PrepareSettings = PrepareSettings()
    encode: EncodeSettings = EncodeSettings()
    cluster: ClusterSettings = ClusterSettings()
    pack: PackSettings = PackSettings()
    data: DataSettings = DataSettings()
    train: TrainSettings = TrainSettings()
    distill: DistillSettings = DistillSettings()
    sample: SampleSettings = SampleSettings()
    scene: SceneSettings = SceneSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    studio: StudioSettings = StudioSettings()
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
        """Raises UnknownNameError where the region is neither known nor on disk: it is misspelt."""
        place = Workspace(self.data_dir, self.region, self.family)
        if self.region not in self.regions and not place.subset.exists():
            self.region_settings()
        return place

    @property
    def chosen_family(self) -> Family:
        """Raises UnknownNameError where there is no such family."""
        return family(self.family)

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
    layers: tuple[Layer, ...] = (
        Layer("command line", _given(options)),
        _environment_layer(),
        _hub_environment_layer(),
        _file_layer(config),
    )
    layers += (_preset_layer(layers), Layer("built in", {"regions": BUILT_IN_REGIONS}))
    merged: dict[str, Any] = {}
    for layer in reversed(layers):
        merged = _merge(merged, layer.values)
    try:
        declare_users(*validate_users(merged))  # first: other sections name what these declare
        settings = Settings(**merged)
    except ValidationError as error:
        raise _explain(error, layers) from None
    family(settings.family)  # it is one of them
    return LoadedSettings(settings, layers)


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
    fields = {f"{ENV_PREFIX}{name}".upper(): field for name, field in Settings.model_fields.items()}
    plain = {name for name, field in fields.items() if field.annotation in (Path, str)}  # nothing lies below them
    for variable in os.environ:
        head, below, _ = variable.upper().partition("__")
        if variable.upper().startswith(ENV_PREFIX) and (head not in fields or (below and head in plain)):
            nearest = nearest_name(head, [name.lower() for name in fields])
            raise UsageError(
                f"Unknown setting in the environment: {variable}.",
                hint=f"Did you mean {(nearest or min(fields)).upper()}? `copgen config show` lists all keys.",
            )
    source = EnvSettingsSource(Settings)
    try:
        return Layer("environment", source())
    except SettingsError:
        unreadable = [variable for variable in os.environ if _is_unreadable(source, variable)]
        raise UsageError(
            f"{' and '.join(unreadable)} in the environment can not be read.",
            hint="""Lists are written as JSON, such as COPGEN_DOWNLOAD__SOURCES='["dem", "s1_rtc"]'.""",
        ) from None


def _is_unreadable(source: EnvSettingsSource, variable: str) -> bool:
    """Whether a variable is no setting's value in JSON; the library tells no more than the section."""
    source.env_vars = {variable.lower(): os.environ[variable]}
    try:
        source()
    except SettingsError:
        return True
    return False


def _hub_environment_layer() -> Layer:
    """The variables that the hub's own tools use."""
    found = {key: os.environ.get(variable) for variable, key in HUB_VARIABLES.items()}
    return Layer("environment (HF_…)", _given({"download": {k: v for k, v in found.items() if v}}))


def _file_layer(config: Path | None) -> Layer:
    file = Path(config or DEFAULT_FILE)
    if not file.is_file():
        if config is None:
            return Layer(str(file), {})
        raise UsageError(f"There is no settings file {config}.", hint="Check the path after --config, or leave it out.")
    data = file.read_bytes()
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in data[:64]:
        raise UsageError(f"{file} is text in UTF-16.", hint="Save it as UTF-8, which TOML asks for.")
    try:
        return Layer(str(file), tomllib.loads(data.decode("utf-8-sig").replace("\r\n", "\n")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} is not valid TOML: {error}", hint="Mend that line; see https://toml.io.") from None


def _preset_layer(layers: tuple[Layer, ...]) -> Layer:
    """The values of the preset that the strongest of these layers names, or of the default one."""
    path = ("train", "preset")
    named = [layer.values["train"]["preset"] for layer in layers if _has(layer.values, path)]
    chosen = named[0] if named else TrainSettings.model_fields["preset"].default
    if chosen not in list(Preset):
        raise UnknownNameError("preset", str(chosen), known=list(Preset))
    return Layer(f"preset {chosen}", {"train": preset_values(Preset(chosen))})


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
    if first["type"] in ("enum", "literal_error"):
        known = re.findall(r"'([^']+)'", first["ctx"]["expected"])
        return UnknownNameError(f"value of {key} ({origin})", str(first["input"]), known=known)
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


_BY_NAME: dict[str, Any] = {
    "regions": RegionSettings,
    "modalities": ModalitySettings,
    "families": FamilySettings,
}
"""Sections that hold one table for each name."""


def _fields_at(path: tuple[str, ...]) -> dict[str, Any]:
    model: Any = Settings
    for key in path:
        if model is Settings and key in _BY_NAME:
            return _BY_NAME[key].model_fields
        annotation = model.model_fields[key].annotation
        model = next((part for part in get_args(annotation) if hasattr(part, "model_fields")), annotation)
    return model.model_fields
