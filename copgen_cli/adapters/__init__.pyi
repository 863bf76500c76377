from .datasets import (
    PatchDataset as PatchDataset,
    StoreDataset as StoreDataset,
    open_geo_dataset as open_geo_dataset,
)
from .xarray_views import open_patches as open_patches, open_store as open_store
