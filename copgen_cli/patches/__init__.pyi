from .georeferencing import georeferencing_of as georeferencing_of
from .preparation import (
    TABLES_AND_MAP as TABLES_AND_MAP,
    Plan as Plan,
    cut_cells as cut_cells,
    plan_patches as plan_patches,
    write_map as write_map,
    write_tables as write_tables,
)
from .scenes import Subset as Subset, is_plain_name as is_plain_name, read_subset as read_subset
from .split import SplitRule as SplitRule, neighbours as neighbours, split_of as split_of
from .split_map import require_matplotlib as require_matplotlib
from .thumbnails import read_thumbnails as read_thumbnails
from .tree import (
    PatchTree as PatchTree,
    fingerprint as fingerprint,
    read_tree as read_tree,
    unrecorded_files as unrecorded_files,
)
