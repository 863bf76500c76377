from .listing import (
    Sizes as Sizes,
    append_lines as append_lines,
    is_there as is_there,
    list_output as list_output,
    names_in as names_in,
    remove_tree as remove_tree,
    sizes_in as sizes_in,
)
from .local_copies import cache_folder as cache_folder, local_copy as local_copy, local_source as local_source
from .object_lock import HeldError as HeldError, ObjectLock as ObjectLock, is_alive as is_alive
from .paths import (
    absolute as absolute,
    as_local_path as as_local_path,
    as_path as as_path,
    is_remote as is_remote,
    require_local as require_local,
)
from .problems import StorageError as StorageError, explain as explain, reach as reach, told_of as told_of
from .transfer import (
    fetch_file as fetch_file,
    fetch_folder as fetch_folder,
    put_file as put_file,
    read_whole as read_whole,
    readable as readable,
)
