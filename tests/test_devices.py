"""Which arithmetic is chosen, and what is said of it."""

from __future__ import annotations

import logging

import pytest
import torch

from copgen_cli.model import devices
from copgen_cli.training.setup import choose_precision

CPU = torch.device("cpu")
CHOICES = [lambda: devices.choose_dtype("bfloat16", CPU), lambda: choose_precision("bf16", CPU)]


@pytest.mark.parametrize("choose", CHOICES, ids=["use", "train"])
@pytest.mark.parametrize("native", [False, True])
def test_bfloat16_that_a_processor_only_imitates_is_warned_of(monkeypatch, caplog, choose, native):
    monkeypatch.setattr(devices.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)

    with caplog.at_level(logging.WARNING, "copgen_cli"):
        assert choose() in (torch.bfloat16, "bf16")

    assert ("imitates bfloat16" in caplog.text) is not native


def test_no_arithmetic_that_copgen_chooses_itself_is_warned_of(caplog):
    assert devices.choose_dtype("auto", CPU) == torch.float32
    assert devices.choose_sampling_dtypes("auto", CPU)[1] == torch.float32
    assert choose_precision("auto", CPU) == "no"
    assert devices.choose_training_dtype("auto", CPU) in (torch.float32, torch.bfloat16)
    assert caplog.text == ""


@pytest.mark.parametrize("native", [False, True])
def test_auto_samples_in_bfloat16_where_the_cpu_multiplies_it_and_leaves_the_autoencoder_in_float32(
    monkeypatch, native
):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: native)

    assert devices.choose_sampling_dtypes("auto", CPU) == (torch.bfloat16 if native else torch.float32, torch.float32)
    assert devices.choose_sampling_dtypes("auto", torch.device("cuda")) == (torch.bfloat16, torch.bfloat16)
    assert devices.choose_sampling_dtypes("float32", CPU) == (torch.float32, torch.float32)
    assert devices.choose_sampling_dtypes("bfloat16", CPU) == (torch.bfloat16, torch.bfloat16)
