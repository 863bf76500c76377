"""From downloaded scenes to patches: `Scene` -> `Patch`.

A datum goes: `scenes` (one product per source of a cell) -> `cutting` (aligned squares) -> `split` (train or test) ->
`tree` and `table` (files, and where each lies). `preparation` is the stage; `georeferencing` gives a picture's affine
map.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
