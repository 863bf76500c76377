from .builtin import (
    PUBLISHED as PUBLISHED,
    Modality as Modality,
    Rendering as Rendering,
    Role as Role,
    Split as Split,
    as_modality as as_modality,
    in_index_order as in_index_order,
    parse_modalities as parse_modalities,
)
from .copgen_2026 import (
    COPGEN_2026 as COPGEN_2026,
    RasterFacts as RasterFacts,
    ValueKind as ValueKind,
    decode_place as decode_place,
    decode_time as decode_time,
    encode_place as encode_place,
    encode_time as encode_time,
    normalise as normalise,
    to_values as to_values,
)
from .render import (
    Picture as Picture,
    as_jpeg as as_jpeg,
    as_png as as_png,
    decibel_ranges as decibel_ranges,
    elevation_picture as elevation_picture,
    false_colour as false_colour,
    hillshade as hillshade,
    light_on as light_on,
    shade_range as shade_range,
    stretched_light as stretched_light,
    true_colour as true_colour,
)
