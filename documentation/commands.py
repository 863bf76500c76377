"""The page of all commands, from Typer itself."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from enum import Enum
from typing import Any

import typer

from copgen_cli.app import app

PLAIN_PANEL = "Options"


def commands() -> Iterator[tuple[str, Any]]:
    """Each command with its whole name, groups before what is in them."""
    yield from _below("copgen", typer.main.get_command(app))


def commands_page() -> str:
    """Markdown: a section per command, a table per panel of its options."""
    parts = [
        "# Commands\n\nEach command continues where it stopped, and explains itself with `--help`. "
        "A default *from settings* is the one of [Settings](settings.md).\n"
    ]
    for name, command in commands():
        parts.append(f"\n## {name}\n\n{_text(command.help)}\n")
        for panel, parameters in _panels(command).items():
            parts.append(f"\n### {panel} {{ #{name.replace(' ', '-')}-{panel.lower().replace(' ', '-')} }}\n")
            parts.append("\n| option | what | default |\n|---|---|---|\n")
            parts += [_row(parameter) for parameter in parameters]
    return "".join(parts)


def _below(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    yield name, command
    for part, child in getattr(command, "commands", {}).items():
        yield from _below(f"{name} {part}", child)


def _panels(command: Any) -> dict[str, list[Any]]:
    panels: dict[str, list[Any]] = {}
    for parameter in command.params:
        if not getattr(parameter, "hidden", False):
            panels.setdefault(getattr(parameter, "rich_help_panel", None) or PLAIN_PANEL, []).append(parameter)
    return panels


def _row(parameter: Any) -> str:
    names = " ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
    return f"| {names} {_values(parameter)} | {_cell(parameter.help or '')} | {_cell(_default(parameter))} |\n"


def _values(parameter: Any) -> str:
    if getattr(parameter, "is_flag", False):
        return ""
    kind = parameter.type_descriptor.annotation
    for inner in (kind, *typing.get_args(kind)):
        if isinstance(inner, type) and issubclass(inner, Enum):
            return f"<small>{_cell(', '.join(str(member.value) for member in inner))}</small>"
    name = parameter.metavar or getattr(kind, "__name__", "value")
    return f"<small>{_cell(name.upper())}</small>"


def _default(parameter: Any) -> str:
    shown = getattr(parameter, "show_default", True)
    if isinstance(shown, str):
        return shown
    default = parameter.default
    if shown is False or default is None or default is False or callable(default):
        return "required" if parameter.required else ""
    return str(default)


def _text(docstring: str | None) -> str:
    """A docstring's paragraphs; the examples, which stand behind two spaces, as code."""
    paragraphs = []
    for paragraph in (docstring or "").replace("\f", "").replace("\b", "").split("\n\n"):
        before, mark, line = " ".join(paragraph.split("\n")).partition(":  copgen ")
        paragraphs.append(f"{before}:\n\n    copgen {line.strip()}" if mark else paragraph.strip())
    return "\n\n".join(paragraphs)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("[", "\\[")
