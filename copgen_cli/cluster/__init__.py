"""Work on other machines: a Dask cluster in the place of a local pool.

`executor` is an `Executor` of the stages' driver that maps work through a scheduler; `connection` finds or starts that
scheduler, `workers` looks at those who work before anything is given to them, and `request_budget` has all of them ask
a server as one. Work is handed out, results and files come back; journal and manifest are written by the driver alone.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
