"""The web page: what one asks of a model with a mouse, and what comes of it, on a map.

A request goes: `app` (routes, typed by `schemas`, guarded by `guard`) -> `tickets` (one queue, one worker) ->
`generation` (the job that `copgen sample` would run, with the model that is open) -> files in the studio's folder,
shown by `pictures`, judged by `scores`, told as command and Python lines by `lines`. `places_on_disk` says what there
is to start from, `uploads` keeps what is handed in. `server` listens. What the browser loads is in `page/`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
