"""Training of small autoencoders: the loss, one update, the run that stops and continues anywhere.

Patches come in as uint8 pictures, or as rasters and classes; out comes a folder in diffusers layout that
`copgen encode` takes with --vae or finds beside the patches. The use of a finished autoencoder, frozen, is in
`model.autoencoder`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
