"""Every setting once: typed, with unit and default; where users set them; and where each value came from.

`sections` holds the settings, `presets` sizes of training by name, `regions` the built-in regions, `loading` reads
command line, environment and `copgen.toml`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
