"""Pictures and rasters on disk: read without trusting them, written with their place on the ground.

Free of sensors and stages: everyone who opens or writes an image file asks here.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
