"""Files anywhere: a local disk, or an object store that fsspec reaches (`s3://`, `gs://`, `memory://`, …).

`as_path` is the one place that turns text into a path: plain text and `file://` become a `pathlib.Path`, another
scheme a `upath.UPath`, which has the same methods over fsspec. Rooms above use these methods and do not ask which of
the two they hold; what a path's methods can not do alike (list a tree with sizes, append, put a finished file in
place, hand a library a file of its own) is a function here. `UPath` is no `os.PathLike`: what was forgotten fails
loudly and never writes to a local folder called `s3:`.

An object store has no rename, no append and no lock. So files are made in a local temporary folder and put in place by
one upload of the whole object (`transfer`), a lock is an object that is created exclusively, refreshed while it is
held and taken over when its owner is gone (`object_lock`), and what a library has to map or open by name, such as a
packed store or a model, is copied to a local cache first (`local_copies`).

Credentials and endpoints are those of the store's own tools (`AWS_PROFILE`, `AWS_ENDPOINT_URL`, `~/.aws/config`,
`GOOGLE_APPLICATION_CREDENTIALS`); nothing here reads, keeps or passes them on.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
