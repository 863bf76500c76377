from .builtin import (
    PUBLISHED as PUBLISHED,
    Modality as Modality,
    Role as Role,
    Split as Split,
    as_modality as as_modality,
    in_index_order as in_index_order,
    parse_modalities as parse_modalities,
)
from .render import (
    Picture as Picture,
    as_jpeg as as_jpeg,
    as_png as as_png,
    elevation_picture as elevation_picture,
    false_colour as false_colour,
    hillshade as hillshade,
    true_colour as true_colour,
)
