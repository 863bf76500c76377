from .display import show as show
from .georeferencing import encode_sidecar as encode_sidecar, read_georeferencing as read_georeferencing
from .geotiff import encode_geotiff as encode_geotiff, read_tags as read_tags
from .integrity import check_band as check_band, check_thumbnail as check_thumbnail
from .measurements import (
    Measurements as Measurements,
    RasterBands as RasterBands,
    find_bands as find_bands,
    find_mask as find_mask,
    find_values as find_values,
    is_nodata as is_nodata,
    kinds_of as kinds_of,
    read_measurements as read_measurements,
    read_values as read_values,
    require_place as require_place,
    share_pixels as share_pixels,
    warp_measurements as warp_measurements,
)
from .pictures import (
    decode_upright as decode_upright,
    encode_png as encode_png,
    read_colour as read_colour,
    read_grey as read_grey,
    values_beyond_8_bits as values_beyond_8_bits,
)
from .rendering import (
    Stretch as Stretch,
    find_stretch as find_stretch,
    georeferencing_of_picture as georeferencing_of_picture,
    is_missing as is_missing,
    render_picture as render_picture,
)
