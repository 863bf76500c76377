from .files import (
    Drawing as Drawing,
    draw_grid_page as draw_grid_page,
    draw_pictures as draw_pictures,
    page_path as page_path,
    sample_ids as sample_ids,
)
from .georeferencing import (
    GeoreferencingTable as GeoreferencingTable,
    read_georeferencing_table as read_georeferencing_table,
)
from .grids import Block as Block, Line as Line, draw_grid as draw_grid
from .pages import GeneratedRecord as GeneratedRecord, records_per_page as records_per_page
from .provenance import (
    FORMAT as FORMAT,
    Provenance as Provenance,
    Recipe as Recipe,
    read_provenance as read_provenance,
    synthetic_text as synthetic_text,
)
from .spread import STD_GAIN as STD_GAIN, show_deviation as show_deviation
