"""The driver around every data stage, and what it stands on.

A stage is a plain function from one item to a result. `driver` runs it over `work_items` with `executors` (this thread,
threads, processes), notes what is finished in a journal, and writes the `manifest`; `private_folder` holds the lock;
`atomic` and `numbered_folders` write files and folders that are complete or absent; `process_group` is the processes of
one run as one thing.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
