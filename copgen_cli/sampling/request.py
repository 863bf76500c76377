"""What one call of `copgen sample` asks for, and whether it goes together: told before torch is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from copgen_cli.errors import UsageError
from copgen_cli.inputs import parse_inputs
from copgen_cli.modalities import Modality, as_modality, parse_scalar
from copgen_cli.pipeline import carried
from copgen_cli.records import Ignored, SampleRequest
from copgen_cli.sampling.roles import choose_roles
from copgen_cli.settings import Settings


@dataclass(frozen=True, slots=True)
class RequestOptions:
    """What one call asks for besides the settings."""

    condition: str | None = None
    generate: str | None = None
    inputs: tuple[str, ...] = ()
    given: tuple[str, ...] = ()
    """Places and dates, such as `place=41.9,12.5`."""
    data: Path | None = None
    resolution: int | None = None
    spread: bool = False
    ignored: Ignored = Ignored.MARGINALISE
    preview: str | None = None
    """Name of a small decoder to use in place of the autoencoder."""
    compiled: bool = False


def check_request(
    settings: Settings, options: RequestOptions
) -> tuple[SampleRequest, dict[Modality, Path], dict[Modality, Mapping[str, Any]]]:
    """The request that settings and options amount to, and the files and the scalars that are given, as far as they go
    together.

    Raises:
        UsageError: the options contradict one another, or a path is not there.
    """
    asked = settings.sample
    if asked.model is not None:
        carried(asked.model)  # what it calls its modalities is understood from here on
    inputs = parse_inputs(options.inputs)
    scalars = parse_given(options.given)
    if inputs and options.data:
        raise UsageError("--input and --data are both given.", hint="Conditions come from one of them; drop the other.")
    if options.data and not (options.condition or "").strip(" ,"):
        raise UsageError("--data without a --condition gives nothing.", hint="Name what it gives, or drop --data.")
    steps, solver = asked.calls()  # until the model is known, which may be made for others
    request = SampleRequest(
        roles=choose_roles(options.condition, options.generate, inputs, scalars),
        n_samples=asked.n_samples,
        steps=steps,
        solver=solver,
        guidance_scale=asked.guidance_scale,
        seed=asked.seed,
    )
    _check_spread(request, spread=options.spread)
    return request, inputs, scalars


def parse_given(texts: Sequence[str]) -> dict[Modality, Mapping[str, Any]]:
    """Read `place=41.9,12.5` and `time=2020-07-01`.

    Raises:
        UsageError: one is no such text, names a modality again, or one that is given as a file.
    """
    given: dict[Modality, Mapping[str, Any]] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not value:
            raise UsageError(f"--given {text} is not MODALITY=VALUE.", hint="For instance: --given place=41.9,12.5")
        modality = as_modality(name)
        if not modality.spec.is_scalar:
            raise UsageError(f"{modality} is no place and no date.", hint=f"Give a file: --input {modality}=FILE")
        if modality in given:
            raise UsageError(f"--given names {modality} twice.", hint="Give it once.")
        given[modality] = parse_scalar(value, modality.spec)
    return given


def _check_spread(request: SampleRequest, *, spread: bool) -> None:
    if spread and request.n_samples < 2:
        raise UsageError("--spread of one sample.", hint="Add --n-samples 4, or more.")
    if spread and not request.conditions:
        raise UsageError(
            "--spread without a condition: the samples have nothing in common.", hint="Add --condition or --input."
        )
