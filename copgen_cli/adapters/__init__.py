"""Patches and stores as other libraries want them: xarray trees, and datasets as torchgeo's.

A page of code each over the readers of `patches`, `rasters` and `latents`; nothing here writes. `xarray_views` needs
xarray (`copgen[xarray]`), `datasets` only torch, `patch_geo_dataset` needs torchgeo (`copgen[torchgeo]`).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
