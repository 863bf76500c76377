"""The web page: what one asks of a model with a mouse, and what comes of it, on a map.

A request goes: `app` (routes, typed by `schemas`, guarded by `guard`) -> `tickets` (one queue, one worker) ->
`generation` (the job that `copgen sample` would run, or in `scenes` that of `copgen scene`, with the model that is
open) -> files in the studio's folder, which `results` shows, judges, and tells how to make again. `places_on_disk` says
what there is to start from, `uploads` keeps what is handed in. `server` listens. What the browser loads is in `page/`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
