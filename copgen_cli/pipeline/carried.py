"""What a model's folder says of its modalities, read without the libraries that its weights need."""

from __future__ import annotations

import json
from pathlib import Path

from copgen_cli.errors import BrokenInputError, MismatchError
from copgen_cli.layout import model_folder
from copgen_cli.modalities import Modality, carry, spec_from_dict
from copgen_cli.storage import local_source

INDEX_NAME = "model_index.json"
VAES = "vaes"
"""Folder of a model with an autoencoder for each of its rasters."""


def carried(source: str | Path) -> dict[Modality, Path]:
    """The autoencoders of a model's rasters; its modalities are known from then on.

    Args:
        source: folder of a model, or of a run with one; what is none says nothing.

    Raises:
        BrokenInputError: the folder does not say what its modalities are.
        MismatchError: one is known under that name and is another.
    """
    folder = Path(local_source(source)).expanduser()
    if (model_folder(folder) / INDEX_NAME).is_file() and not (folder / INDEX_NAME).is_file():
        folder = model_folder(folder)
    file = folder / INDEX_NAME
    try:
        index = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        told = index.get("modalities", ())
        carry([spec_from_dict(values) for values in told], str(folder))
        names = [str(values["name"]) for values in told]
    except MismatchError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BrokenInputError(
            f"{file} does not say what the model's modalities are: {error}.", hint="Restore it."
        ) from error
    return {Modality(name): folder / VAES / name for name in names if (folder / VAES / name).is_dir()}
