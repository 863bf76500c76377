"""torchgeo, also where torchvision was built for another torch than the one that is installed."""

from __future__ import annotations

import re
import sys

import pytest

_declared = []  # a library that is collected takes its operators with it


def require_torchgeo() -> None:
    """Import torchgeo or skip the test.

    A wheel of torchvision for CUDA does not load its operators beside a torch for CPUs, and then fails as it registers
    what belongs to them. Declared without a body they let it through; no dataset or sampler calls one.
    """
    pytest.importorskip("torchgeo", reason="torchgeo is not installed")
    import torch

    for _ in range(8):
        try:
            pass
        except RuntimeError as problem:
            lacking = re.search(r"operator torchvision::(\w+) does not exist", str(problem))
            if not lacking:
                pytest.skip(f"torchgeo does not import here: {problem}")
            _declared.append(torch.library.Library("torchvision", "FRAGMENT"))
            _declared[-1].define(f"{lacking[1]}(Tensor any) -> Tensor")
            for name in [name for name in sys.modules if name.partition(".")[0] in ("torchvision", "torchgeo")]:
                del sys.modules[name]
        else:
            return
    pytest.skip("torchgeo does not import here")
