"""`copgen info`: versions, devices and paths, to be pasted into a bug report."""

from __future__ import annotations

import typer

from copgen_cli import __version__, console
from copgen_cli.options import JsonOption, config_file

LIBRARIES = (
    "torch",
    "diffusers",
    "accelerate",
    "huggingface-hub",
    "safetensors",
    "numpy",
    "pillow",
    "pyarrow",
    "lmdb",
    "typer",
)


def info(
    context: typer.Context,
    json: JsonOption = False,
) -> None:
    """Print versions, devices and paths: what one pastes into a bug report.

    Example:  copgen info --json
    """
    import importlib.metadata
    import os
    import platform
    import sys
    from pathlib import Path

    from copgen_cli.settings import DEFAULT_FILE, load_settings

    settings = load_settings(config_file(context))
    file = config_file(context) or DEFAULT_FILE
    facts: dict[str, object] = {
        "copgen": __version__,
        "python": f"{platform.python_version()} ({sys.executable})",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": os.cpu_count() or 1,
    }
    facts |= {library: importlib.metadata.version(library) for library in LIBRARIES}
    facts["devices"] = _devices()
    facts["settings_file"] = str(file.resolve()) if file.is_file() else "none"
    facts["data_dir"] = str(settings.data_dir.resolve())
    facts["runs_dir"] = str(settings.runs_dir.resolve())
    facts["package"] = str(Path(__file__).resolve().parents[1])
    if json:
        console.result_json(facts)
    else:
        console.result("copgen information", **facts)


def _devices() -> list[str]:
    import torch

    names = [f"cpu ({torch.get_num_threads()} threads)"]
    names += [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        names.append("mps")
    return names
