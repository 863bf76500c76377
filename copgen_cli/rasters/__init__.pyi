from .geotiff import encode_geotiff as encode_geotiff
from .integrity import check_band as check_band, check_thumbnail as check_thumbnail
from .pictures import (
    EIGHT_BIT_MODES as EIGHT_BIT_MODES,
    encode_png as encode_png,
    read_colour as read_colour,
    read_grey as read_grey,
)
