"""What is translated to what: how the pairs of a protocol are written. Light, so that completion can read it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from copgen_cli.errors import UnknownNameError, UsageError
from copgen_cli.modalities import Modality, as_modality, in_index_order

GROUPS = {
    "single": "each modality alone from each other alone",
    "joint": "from each modality, all others at once",
    "rest": "each modality from all others",
    "unconditional": "all modalities at once from nothing",
}


@dataclass(frozen=True, slots=True)
class Pair:
    """What is given, and what is generated from it in one run; all else is ignored."""

    conditions: tuple[Modality, ...]
    targets: tuple[Modality, ...]

    @property
    def text(self) -> str:
        """As `parse_pairs` reads it."""
        return f"{'+'.join(self.conditions)}:{'+'.join(self.targets)}"


def parse_pairs(text: str, modalities: Sequence[Modality]) -> tuple[Pair, ...]:
    """Read a comma-separated list of groups and pairs, such as `single,unconditional` or `dem+s1_rtc:s2_l2a,:dem`.

    Args:
        text: names of `GROUPS`, and pairs CONDITION:TARGET of modalities joined by +.
        modalities: those of the model.

    Raises:
        UsageError: nothing is generated, or a modality is on both sides.
        UnknownNameError: there is no such group or modality, or the model lacks it.
    """
    pairs: list[Pair] = []
    for part in (part.strip() for part in text.split(",") if part.strip()):
        pairs += [_parse_pair(part, modalities)] if ":" in part else _group(part, modalities)
    if not pairs:
        raise UsageError("--pairs names nothing.", hint=f"Name {', '.join(GROUPS)}, or pairs such as s1_rtc:dem.")
    return tuple(dict.fromkeys(pairs))


def modalities_of(pairs: Sequence[Pair]) -> tuple[Modality, ...]:
    """What is given or generated in any of the pairs."""
    return in_index_order(m for pair in pairs for m in (*pair.conditions, *pair.targets))


def _parse_pair(text: str, modalities: Sequence[Modality]) -> Pair:
    sides = [_side(side, modalities) for side in text.split(":", 1)]
    conditions, targets = sides
    if not targets or set(conditions) & set(targets):
        raise UsageError(
            f"The pair {text} does not say what is generated from what.",
            hint="Write CONDITION:TARGET, such as s1_rtc:dem; dem+s1_rtc:s2_l2a; or :dem for nothing given.",
        )
    return Pair(conditions, targets)


def _side(text: str, modalities: Sequence[Modality]) -> tuple[Modality, ...]:
    chosen = [as_modality(name.strip()) for name in text.split("+") if name.strip()]
    for modality in chosen:
        if modality not in modalities:
            raise UnknownNameError("modality of this model", modality, known=modalities)
    return in_index_order(chosen)


def _group(name: str, modalities: Sequence[Modality]) -> list[Pair]:
    if name not in GROUPS:
        raise UnknownNameError("group of pairs", name, known=GROUPS)
    return list(_members(name, in_index_order(modalities)))


def _members(name: str, modalities: tuple[Modality, ...]) -> Iterator[Pair]:
    if name == "unconditional":
        yield Pair((), modalities)
        return
    for one in modalities:
        others = tuple(m for m in modalities if m is not one)
        if name == "single":
            yield from (Pair((one,), (other,)) for other in others)
        elif others:
            yield Pair((one,), others) if name == "joint" else Pair(others, (one,))
