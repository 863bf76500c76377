"""The commands of the examples, as they stand there; the sampling itself in one step."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import rasterio

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("example", ["cloud_removal.md"])
def test_the_commands_of_an_example_run_as_they_stand(tmp_path, example):
    blocks = re.findall(r"```bash\n(.*?)```", (EXAMPLES / example).read_text(encoding="utf-8"), flags=re.DOTALL)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(blocks)],
        cwd=tmp_path,
        env=os.environ | {"PATH": path, "COPGEN_SAMPLE__STEPS": "1"},
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    with rasterio.open(tmp_path / "cleared/s2_l2a_synthetic.tif") as drawn:
        assert 0.02 < drawn.read(1).mean() < 0.5
