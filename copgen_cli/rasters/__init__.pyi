from .georeferencing import encode_sidecar as encode_sidecar, read_georeferencing as read_georeferencing
from .geotiff import encode_geotiff as encode_geotiff, read_tags as read_tags
from .integrity import check_band as check_band, check_thumbnail as check_thumbnail
from .measurements import (
    georeferencing_of_picture as georeferencing_of_picture,
    read_measurements as read_measurements,
    render_picture as render_picture,
)
from .pictures import (
    decode_upright as decode_upright,
    encode_png as encode_png,
    read_colour as read_colour,
    read_grey as read_grey,
    values_beyond_8_bits as values_beyond_8_bits,
)
