"""The model that comes with the package, under its built-in name."""

from __future__ import annotations

from pathlib import Path

from copgen_cli.errors import CopgenError

BUNDLED_NAME = "copgen-sim"
"""Built-in name of the small model trained on the simulated Earth; a folder of that name is written `./copgen-sim`."""

_FOLDER = Path(__file__).resolve().parents[1] / "assets" / BUNDLED_NAME


def bundled_folder() -> Path:
    """The folder of the bundled pipeline, in diffusers layout.

    Raises:
        CopgenError: this installation comes without it.
    """
    if not (_FOLDER / "model_index.json").is_file():
        raise CopgenError(
            f"This installation of copgen comes without {BUNDLED_NAME}.",
            hint="Install a released wheel, or name another model: a folder or a hub id.",
        )
    return _FOLDER
