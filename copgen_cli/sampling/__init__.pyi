from .batches import choose_batch_size as choose_batch_size
from .generation import Painter as Painter, Task as Task
from .listing import finish as finish
from .models import LoadedModel as LoadedModel, choose_model as choose_model, load_model as load_model
from .plan import plan_job as plan_job
from .repetition import repeat_picture as repeat_picture
from .request import Wishes as Wishes, check_wishes as check_wishes
from .run import (
    Job as Job,
    draw as draw,
    help_drawing as help_drawing,
    start_run as start_run,
    steps_of as steps_of,
    units_of as units_of,
)
