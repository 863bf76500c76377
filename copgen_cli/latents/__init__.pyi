from .autoencoder_record import facts_of_tree as facts_of_tree
from .batches import read_patch as read_patch
from .encoding import (
    ENCODE as ENCODE,
    encode_to_files as encode_to_files,
    encode_to_files_elsewhere as encode_to_files_elsewhere,
    work_items_of as work_items_of,
)
from .moments import NpyMoments as NpyMoments, read_moments as read_moments
from .packing import (
    PACK as PACK,
    Forecast as Forecast,
    MomentPacking as MomentPacking,
    Packed as Packed,
    Packing as Packing,
    pack as pack,
)
from .published.merged_store import MergedStore as MergedStore, is_merged as is_merged
from .published.published_store import PublishedStore as PublishedStore
from .published.scalars import PlaceCache as PlaceCache, TimeCache as TimeCache
from .sharded.dealing import Sharding as Sharding
from .sharded.index import INDEX_FILE as INDEX_FILE, index_of as index_of
from .sharded.store import open_store as open_store
from .store import LatentStore as LatentStore
from .store_cache import StoreCache as StoreCache, cache_of as cache_of
from .store_format import DATA_FILE as DATA_FILE
from .store_parts import PatchPacking as PatchPacking, open_patches as open_patches
