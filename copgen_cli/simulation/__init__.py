"""The simulated Earth: co-registered cells of known truth, in the format of a Major TOM archive.

A datum goes: `climate`, `terrain`, `drainage`, `landcover`, `parcels` (the ground of a cell) -> `optical`, `radar`,
`atmosphere` (what sensors see of it) -> `products` (rows with thumbnails and bands) -> `archive` (Parquet files).
`world` ties them together.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
