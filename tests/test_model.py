"""The interface to latents is one import away, and costs nothing before it is used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import copgen_cli.model


def test_the_interface_to_latents_is_importable_from_the_package():
    from copgen_cli.model import CopGenTransformer, denoising_loss, load_transformer, sample_latents

    found = {CopGenTransformer.__name__, denoising_loss.__name__, load_transformer.__name__, sample_latents.__name__}
    assert found <= set(copgen_cli.model.__all__)


def test_importing_the_package_alone_loads_no_heavy_library():
    program = "import sys, copgen_cli.model as m; m.__all__; print(*{'torch', 'diffusers', 'numpy'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert run.stdout.split() == []


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="UNet"):
        _ = copgen_cli.model.UNet
