"""What commands import, imported: the server of `copgen_processes.py` does so once, and its processes need not."""

from __future__ import annotations

import gc

import accelerate
import lmdb
import pandas  # pyarrow imports it, where it is installed, for its first list of values
import pyarrow.dataset
import pyarrow.parquet
import pystac
import rasterio.warp
import torch.utils.tensorboard
from PIL import Image
from tensorboard.plugins.hparams import api_pb2

import copgen_cli.archive.download
import copgen_cli.autoencoding
import copgen_cli.evaluation
import copgen_cli.patches.cutting
import copgen_cli.pipeline.pipeline
import copgen_cli.places
import copgen_cli.sampling
import copgen_cli.training.run
from copgen_cli.app import command_line
from copgen_cli.settings import load_settings

__all__ = ["accelerate", "api_pb2", "copgen_cli", "lmdb", "pandas", "pyarrow", "pystac", "rasterio", "torch"]

Image.init()
command_line()
load_settings()
gc.freeze()  # what is there stays; collections in a process that is forked need not look at it
