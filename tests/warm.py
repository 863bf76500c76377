"""What commands import, imported: the server of `copgen_processes.py` does so once, and its processes need not."""

from __future__ import annotations

import contextlib
import gc
import importlib

import torch
from PIL import Image

from copgen_cli.app import command_line
from copgen_cli.settings import load_settings

torch.set_num_threads(1)
MODULES = """
    accelerate lmdb pandas pyarrow.dataset pyarrow.parquet pystac rasterio.warp scipy.ndimage torch.distributed.fsdp
    torch.utils.tensorboard tensorboard.plugins.hparams.api_pb2 distributed fastapi uvicorn
    copgen_cli.archive.download copgen_cli.autoencoding.recipe copgen_cli.evaluation.run copgen_cli.latents.encoding
    copgen_cli.latents.packing copgen_cli.outputs.files copgen_cli.outputs.pages copgen_cli.patches.cutting
    copgen_cli.patches.table copgen_cli.pipeline.pipeline copgen_cli.places.run copgen_cli.sampling.run
    copgen_cli.simulation.archive copgen_cli.studio.app copgen_cli.studio.server copgen_cli.training.run
"""  # pyarrow imports pandas, where it is installed, for its first list of values
for name in MODULES.split():
    with contextlib.suppress(ImportError):  # of an extra
        importlib.import_module(name)
Image.init()
command_line()
load_settings()
gc.freeze()  # what is there stays; collections in a process that is forked need not look at it
