from .conditions import (
    Nothing as Nothing,
    open_pictures as open_pictures,
    parse_inputs as parse_inputs,
)
from .pictures import (
    SUFFIXES as SUFFIXES,
    Frame as Frame,
    Picture as Picture,
    advice_on_scale as advice_on_scale,
    read_rgb as read_rgb,
)
from .rasters import OneRecord as OneRecord, WithScalars as WithScalars, read_middle as read_middle
from .records import choose_data as choose_data, open_data as open_data, table_of as table_of
from .views import InputFile as InputFile, Record as Record, Source as Source, View as View
