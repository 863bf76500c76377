"""From an area to maps: conditions of all of it -> one joint walk over overlapping windows -> rasters on the ground.

A datum goes: `request` (area, grid, layers, what is generated) -> `layers` (pixels of the conditions, wherever they are
asked for) -> `canvas` (the area in latent pixels, its windows and blocks) -> `drawing` (the pictures of a block, by
`walk`, with known pixels kept by `gaps`) -> `mosaics` (blocks to Cloud-Optimized GeoTIFFs) -> `catalogue`, `preview`.
`run` is the stage around it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
