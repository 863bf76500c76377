"""What one call of `copgen sample` asks for, and whether it goes together: told before torch is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from copgen_cli.errors import UsageError
from copgen_cli.inputs import parse_inputs
from copgen_cli.modalities import Modality
from copgen_cli.records import Ignored, SampleRequest
from copgen_cli.sampling.roles import choose_roles
from copgen_cli.settings import Settings


@dataclass(frozen=True, slots=True)
class RequestOptions:
    """What one call asks for besides the settings."""

    condition: str | None = None
    generate: str | None = None
    inputs: tuple[str, ...] = ()
    data: Path | None = None
    resolution: int | None = None
    spread: bool = False
    ignored: Ignored = Ignored.MARGINALISE
    preview: str | None = None
    """Name of a small decoder to use in place of the autoencoder."""
    compiled: bool = False


def check_request(settings: Settings, options: RequestOptions) -> tuple[SampleRequest, dict[Modality, Path]]:
    """The request that settings and options amount to, and the pictures that are named, as far as they go together.

    Raises:
        UsageError: the options contradict one another, or a path is not there.
    """
    asked = settings.sample
    inputs = parse_inputs(options.inputs)
    if inputs and options.data:
        raise UsageError("--input and --data are both given.", hint="Conditions come from one of them; drop the other.")
    if options.data and not (options.condition or "").strip(" ,"):
        raise UsageError("--data without a --condition gives nothing.", hint="Name what it gives, or drop --data.")
    request = SampleRequest(
        roles=choose_roles(options.condition, options.generate, inputs),
        n_samples=asked.n_samples,
        steps=asked.steps,
        solver=asked.solver,
        guidance_scale=asked.guidance_scale,
        seed=asked.seed,
    )
    _check_spread(request, spread=options.spread)
    return request, inputs


def _check_spread(request: SampleRequest, *, spread: bool) -> None:
    if spread and request.n_samples < 2:
        raise UsageError("--spread of one sample.", hint="Add --n-samples 4, or more.")
    if spread and not request.conditions:
        raise UsageError(
            "--spread without a condition: the samples have nothing in common.", hint="Add --condition or --input."
        )
