"""`CopGenPipeline`: pictures in, pictures out, in the manner and the folder layout of diffusers.

`sources` says where its parts come from (a folder, a hub, a file of weights, the package), `conversion` brings weights
of any known form into such a folder, `model_card` writes the card beside it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
