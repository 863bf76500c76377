"""The network and what is done with it, usable alone: tensors in, tensors out.

`transformer` is the joint denoiser, `diffusion` the forward process and the loss, `solvers` and `sampler` the way back
(`sample_latents`), `autoencoder` pictures to latents and back, `checkpoint` and `weights` reading networks from files.
Knows nothing of the command line, settings' loading, workspaces or Major TOM.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
