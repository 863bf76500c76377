"""From patches to latents: `Patch` -> `Moments` -> the packed store -> batches for training.

`encoding` is the stage that runs patches through the frozen autoencoder, `packing` the one that fills a store; `store`
reads one as a torch Dataset; `store_format` says what is in it, byte for byte. `published_store` imports databases of
the published workflow without unpickling them, `published` those of COP-GEN (2026).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
