"""Metrics, as functions of pictures or of features, free of where these come from.

`catalogue` lists them with what each reports (light, for completion); `pairwise`, `perceptual`, `distributions`,
`retrieval`, `ranks` and `sample_spread` compute them; `features` holds the networks that pictures are compared by,
`confidence` the intervals over places. `in_units` judges measurements rather than pictures: values, classes, places and
dates.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
