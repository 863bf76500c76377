"""From patches to latents: `Patch` -> `Moments` -> the packed store -> batches for training.

`encoding` is the stage that runs patches through the frozen autoencoder, `packing` the one that fills a store; `store`
reads one as a torch Dataset; `store_format` says what is in it, byte for byte. `sharded` deals one to many files and
reads them as one, `store_cache` copies these to a disk of this machine. `published` imports databases of the published
workflow, and of COP-GEN (2026), without unpickling them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
