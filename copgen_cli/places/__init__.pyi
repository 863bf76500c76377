from .area import Area as Area, area_of_box as area_of_box, read_area as read_area
from .canvas import Canvas as Canvas
from .catalogue import build_single_item as build_single_item, require_pystac as require_pystac
from .grid import Grid as Grid, grid_of_area as grid_of_area
from .mosaics import SceneRaster as SceneRaster
from .request import (
    Missing as Missing,
    SceneOptions as SceneOptions,
    SceneRequest as SceneRequest,
    check_scene as check_scene,
)
from .run import (
    ScenePlan as ScenePlan,
    counts_of as counts_of,
    draw_blocks as draw_blocks,
    is_whole as is_whole,
    plan_scene as plan_scene,
    seconds_of as seconds_of,
    start_run as start_run,
    work_items_of as work_items_of,
    write_scene as write_scene,
)
