"""The published manner of computing and reading, against which the benchmarks measure."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path

import lmdb
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from copgen_cli.model.transformer import Attention

RECORDS_PER_COMMIT = 10_000


class Float32Attention(Attention):
    """Attention on queries, keys and values in float32, whatever the rest computes in."""

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        qkv = self.qkv(x).view(batch, tokens, 3, self.num_heads, width // self.num_heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).float().unbind(0)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.proj(mixed.transpose(1, 2).reshape(batch, tokens, width))


def attend_in_float32(net: nn.Module) -> None:
    """Give a network of ours the published attention."""
    for module in net.modules():
        if type(module) is Attention:
            module.__class__ = Float32Attention


def write_records(folder: Path, records: Iterable[tuple[str, Mapping[str, np.ndarray]]]) -> None:
    """A database as the published exporter writes it: a pickled dict of raw float32 bytes per record."""
    with lmdb.open(str(folder), map_size=1 << 40) as environment:
        transaction = environment.begin(write=True)
        for count, (name, arrays) in enumerate(records, start=1):
            value = pickle.dumps({key: array.tobytes() for key, array in arrays.items()})
            transaction.put(f"{name}.npy".encode(), value)
            if count % RECORDS_PER_COMMIT == 0:
                transaction.commit()
                transaction = environment.begin(write=True)
        transaction.commit()


class PickledRecords(Dataset):
    """Unpickles one record at a time, for a loader that collates: ([(C, H, W) float32 per modality], name).

    Unpickling executes what it is given, so this is only ever given what `write_records` wrote in the same run; the
    package itself reads such databases without it (`copgen_cli.latents.published.published_store`).
    """

    def __init__(self, folder: Path, shape: tuple[int, int, int]) -> None:
        self.folder, self.shape = folder, shape
        self._opened: lmdb.Environment | None = None
        with lmdb.open(str(folder), readonly=True, lock=False) as environment, environment.begin() as transaction:
            self.keys = list(transaction.cursor().iternext(values=False))

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> tuple[list[Tensor], str]:
        if self._opened is None:  # in the worker that reads
            self._opened = lmdb.open(str(self.folder), readonly=True, lock=False, readahead=False)
        with self._opened.begin() as transaction:
            value = transaction.get(self.keys[index])
            assert value is not None  # the key was read from this database
            record = pickle.loads(value)  # noqa: S301 (see above)
        arrays = (np.frombuffer(record[name], np.float32).reshape(self.shape) for name in sorted(record))
        return [torch.tensor(array) for array in arrays], self.keys[index].decode()
