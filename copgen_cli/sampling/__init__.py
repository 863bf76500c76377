"""From what a user asks of a model to its pictures: `SampleRequest` -> files and `samples.json`.

A datum goes: `request` and `roles` (what is asked, and whether it goes together) -> `plan` (model, records, settings,
output) -> `run` (records in batches, by `generation`) -> `outputs` -> `listing`. `repetition` makes a picture again
from its own metadata.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
