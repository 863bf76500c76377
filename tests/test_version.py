"""The version: by the tag where the package was built or installed, and one that says so where it was not."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(("written", "told"), [('__version__ = "7.8.9"\n', "7.8.9"), (None, "fallback")])
def test_the_version_is_the_one_written_at_the_build_else_the_fallback(tmp_path, written, told):
    package = tmp_path / "copgen_cli"
    package.mkdir()
    shutil.copy(ROOT / "copgen_cli/__init__.py", package)
    if written:
        (package / "_version.py").write_text(written)
    fallback = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools_scm"]["fallback_version"]

    line = "import copgen_cli; print(copgen_cli.__version__)"
    # without site-packages, since an editable install finds the module that its checkout has written
    said = subprocess.run([sys.executable, "-S", "-c", line], cwd=tmp_path, env={}, capture_output=True, text=True)

    assert said.stdout.strip() == (fallback if told == "fallback" else told)
