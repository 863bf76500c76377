from .download import Download as Download
from .grid import (
    FOOTPRINT_METRES as FOOTPRINT_METRES,
    Cell as Cell,
    Footprint as Footprint,
    candidates_in_box as candidates_in_box,
    columns_in_row as columns_in_row,
    columns_of_row as columns_of_row,
    footprint as footprint,
    from_utm as from_utm,
    is_in_box as is_in_box,
    parse_cell as parse_cell,
    to_utm as to_utm,
    utm_zone as utm_zone,
)
