from .archive import write_archive as write_archive
from .products import REAL_GAPS as REAL_GAPS
from .world import cells_of_region as cells_of_region, days_between as days_between
