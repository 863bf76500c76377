"""What may be asked of a model: roles that contradict one another, or that it does not know, are refused."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from copgen_cli.errors import UsageError
from copgen_cli.modalities import PUBLISHED, Modality, Role, parse_modalities


def choose_roles(
    condition: str | None, generate: str | None, given: Iterable[Modality], scalars: Iterable[Modality] = ()
) -> dict[Modality, Role]:
    """Roles out of `--condition`, `--generate` and the modalities of `--input` and `--given`; others are ignored.

    Where there are inputs and no `--condition`, the inputs are the condition.

    Raises:
        UsageError: nothing is to be generated, a modality has two roles, or inputs and condition differ.
        UnknownNameError: there is no such modality.
    """
    inputs = tuple(given)
    generated = parse_modalities(generate or "", option="--generate")
    conditions = inputs if condition is None else parse_modalities(condition, option="--condition")
    if not generated:
        raise UsageError(
            "Nothing to generate.",
            hint=f"Give --generate with one or more of {', '.join(PUBLISHED)}, or what else the model knows.",
        )
    told = tuple(scalars)
    conditions = (*(m for m in conditions if m not in told), *told)
    both = [str(modality) for modality in generated if modality in conditions]
    if both:
        where = "--condition" if condition is not None else "--input"
        raise UsageError(
            f"{', '.join(both)} stands in {where} and in --generate.",
            hint="What is given is not generated; drop it from one of them.",
        )
    _match_inputs([modality for modality in conditions if modality not in told], inputs)
    roles = dict.fromkeys(generated, Role.GENERATE) | dict.fromkeys(conditions, Role.CONDITION)
    return {modality: roles[modality] for modality in Modality if modality in roles}


def check_known(roles: Iterable[Modality], known: Sequence[Modality], model: str) -> None:
    """A modality is matched to the model by name, never by position.

    Raises:
        UsageError: the model has no such modality.
    """
    unknown = [str(modality) for modality in roles if modality not in known]
    if unknown:
        raise UsageError(f"The model {model} does not know {', '.join(unknown)}.", hint=f"It knows {', '.join(known)}.")


def _match_inputs(conditions: Sequence[Modality], inputs: Sequence[Modality]) -> None:
    if not inputs:
        return
    idle = [str(modality) for modality in inputs if modality not in conditions]
    if idle:
        raise UsageError(
            f"--input gives {', '.join(idle)}, which --condition does not name.",
            hint="Add it to --condition, or leave --condition out: then the inputs are the condition.",
        )
    missing = [str(modality) for modality in conditions if modality not in inputs]
    if missing:
        raise UsageError(
            f"--condition names {', '.join(missing)}, and there is no --input for it.",
            hint=f"Add --input {missing[0]}=IMAGE_OR_FOLDER.",
        )
