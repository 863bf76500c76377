"""Training of the network: a run whose every step is a function of settings, data and the step's number.

A datum goes: store -> `data_order` (which samples a step sees, and their noise) -> `loop` (one step, and the run) ->
`optimisers` -> `state` (checkpoints) -> `export` (a pipeline's folder). `distillation/` is what a student learns
instead of the data alone. `setup` builds a run, `resumption` finds where one goes on, `run` is what the command calls.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
