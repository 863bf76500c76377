"""What sampling starts from: records with conditions (`Record`).

`conditions` reads pictures that a user names, `records` what earlier commands wrote (store, moments, patches);
`pictures` brings a picture to the square that a model takes, and `names` finds the pictures of one place in several
folders.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
