"""What sampling writes: pictures and grid pages, each of which says where it lies and how it was made.

`files` writes one PNG per picture or page, `grids` and `pages` draw pages, `provenance` is what stands in a picture's
metadata, `georeferencing` where it lies on the ground, `spread` the mean and deviation over samples.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
