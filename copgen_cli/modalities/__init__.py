"""What a modality is: names, order, sources, sizes, bands; and how bands become the picture of a modality.

The one place that knows these facts; everything else asks here. Imports nothing but errors.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
