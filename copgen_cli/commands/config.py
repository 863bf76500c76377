"""`copgen config show`: the merged settings, and where each value came from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from copgen_cli import console
from copgen_cli.options import JsonOption, config_file

config = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@config.callback()
def _group() -> None:
    """Look at the settings.

    Example:  copgen config show
    """


@config.command()
def show(
    context: typer.Context,
    json: JsonOption = False,
) -> None:
    """Print the merged settings, and where each value came from.

    Example:  copgen config show --json
    """
    from copgen_cli.settings import load_settings_with_origins

    loaded = load_settings_with_origins(config_file(context))
    rows = [
        {"key": ".".join(path), "value": value, "origin": loaded.origin_of(path)}
        for path, value in _leaves(loaded.settings.model_dump(mode="json"))
    ]
    if json:
        console.result_json(rows)
        return
    width = max(len(row["key"]) for row in rows)
    for row in rows:
        console.line(f"{row['key']:<{width}}  {_as_toml(row['value'])}  # {row['origin']}")


def _leaves(values: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, (*path, key))
        else:
            yield (*path, key), value


def _as_toml(value: Any) -> str:
    import json

    return "unset" if value is None else f"= {json.dumps(value)}"
