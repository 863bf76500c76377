"""How many samples at a time: by the memory of the device, and fewer when that was too much."""

from __future__ import annotations

import pytest
import torch
from tiny_models import tiny_autoencoder, tiny_transformer

from copgen_cli.errors import CopgenError
from copgen_cli.modalities import PUBLISHED
from copgen_cli.model.autoencoder import ImageAutoencoder
from copgen_cli.model.autoencoders import Autoencoders
from copgen_cli.sampling import batches
from copgen_cli.sampling.batches import MOST_ON_CPU, choose_batch_size, in_batches

CPU = torch.device("cpu")


class Device:
    """Work on numbers that fails like a device whose memory holds so many."""

    def __init__(self, holds: int) -> None:
        self.holds = holds
        self.sizes: list[int] = []

    def __call__(self, items):
        self.sizes.append(len(items))
        if len(items) > self.holds:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        return [10 * item for item in items]


def results(pairs) -> list[int]:
    return [result for _, batch in pairs for result in batch]


def test_items_go_through_in_batches_and_in_order():
    device = Device(holds=9)

    assert results(in_batches([1, 2, 3, 4, 5], 2, device)) == [10, 20, 30, 40, 50]
    assert device.sizes == [2, 2, 1]


def test_out_of_memory_halves_the_batch_from_then_on_and_loses_nothing():
    device = Device(holds=2)

    assert results(in_batches(list(range(10)), 8, device)) == [10 * i for i in range(10)]
    assert device.sizes == [8, 4, 2, 2, 2, 2, 2]


def test_one_item_too_large_is_an_error_with_advice():
    with pytest.raises(CopgenError, match="one sample at a time") as failed:
        list(in_batches([1], 4, Device(holds=0)))

    assert "--dtype" in failed.value.hint


def test_another_failure_is_not_taken_for_want_of_memory():
    def fail(items):
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        list(in_batches([1, 2], 2, fail))


def test_the_batch_size_follows_free_memory_up_to_a_bound(monkeypatch):
    net = tiny_transformer()
    autoencoders = Autoencoders(dict.fromkeys(PUBLISHED, ImageAutoencoder(tiny_autoencoder())))

    def chosen(free: int, *, guided: bool = False) -> int:
        monkeypatch.setattr(batches, "free_memory", lambda device: free)
        return choose_batch_size(net, autoencoders, guided=guided, device=CPU)

    one = 2 * 8 * 256 * 256 * 8 * 4  # twice what eight maps of the tiny decoder take
    assert chosen(0) == 1
    assert chosen(2 * one) == 2
    assert chosen(100 * one) == MOST_ON_CPU


def test_free_memory_of_the_machine_is_known():
    assert batches.free_memory(CPU) > 1 << 20
