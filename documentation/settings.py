"""The page of all settings, from pydantic."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from copgen_cli.settings.loading import ENV_PREFIX, Settings

Entry = tuple[str, FieldInfo]


def settings() -> Iterator[Entry]:
    """Each setting with its whole key; of tables that users name, `NAME` stands for the name."""
    yield from _below("", Settings)


def settings_page() -> str:
    """Markdown: a table per section."""
    sections: dict[str, list[Entry]] = {}
    for key, field in settings():
        sections.setdefault(key.rpartition(".")[0], []).append((key, field))
    parts = [
        "# Settings\n\nEach stands in `copgen.toml`, or in a variable: `train.steps` is `steps` below `[train]`, "
        f"and `{ENV_PREFIX}TRAIN__STEPS`. The command line goes before variables, these before the "
        "file, the file before the preset, and that before the default. "
        "`copgen config show` prints all, and where each came from.\n"
    ]
    for section, entries in sections.items():
        parts.append(f"\n## {f'[{section}]' if section else 'At the top'}\n")
        parts.append("\n| setting | what | default | kind |\n|---|---|---|---|\n")
        parts += [_row(key, field) for key, field in entries]
    return "".join(parts)


def _below(prefix: str, model: type[BaseModel]) -> Iterator[Entry]:
    for name, field in model.model_fields.items():
        key = f"{prefix}{name}"
        inner = _model_in(field.annotation)
        if inner is None:
            yield key, field
        else:
            yield from _below(f"{key}.NAME." if typing.get_origin(field.annotation) is dict else f"{key}.", inner)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The section that a field holds, by itself, or where there is one, or in a table by name."""
    arguments = typing.get_args(annotation)
    kinds = arguments[1:] if typing.get_origin(annotation) is dict else (annotation, *arguments)
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def _row(key: str, field: FieldInfo) -> str:
    cells = (f"`{key}`", field.description or "", _default(field), _kind(field.annotation))
    return "| " + " | ".join(_cell(cell) for cell in cells) + " |\n"


def _default(field: FieldInfo) -> str:
    if field.default_factory is not None:
        return ""
    if field.default is PydanticUndefined:
        return "must be given"
    value = field.default
    return "" if value is None or value == () else f"`{getattr(value, 'value', value)}`"


def _kind(annotation: Any) -> str:
    """`int`, `path or none`, `list of str`: in words."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _kind(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_kind(argument) for argument in arguments)
    if origin is typing.Literal:
        return " or ".join(map(str, arguments))
    if origin in (tuple, list, frozenset, set):
        return f"list of {_kind(arguments[0])}" if arguments else "list"
    if origin is dict:
        return "table"
    if annotation is type(None):
        return "none"
    name = getattr(annotation, "__name__", str(annotation))
    members = getattr(annotation, "__members__", None)
    return " or ".join(str(member.value) for member in members.values()) if members else name.lower()


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|").replace("<", "&lt;").strip()
