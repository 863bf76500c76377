"""How good a model's pictures are: from a model and a test split, or from two folders, to a report.

A datum goes: `pairs` (what is translated to what) -> `protocol` (samples drawn for the test patches) or `pictures`
(folders of samples and truths) -> `scores` (every metric of one set after another) and `calibration` (whether its
samples are as unsure as they should be), gathered by `assessment` -> `report` (JSON, tables) and `page` (HTML). `run`
is the whole of it; `choices` says which metrics it computes. The metrics themselves are in `metrics`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
