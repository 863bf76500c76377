from .batches import choose_batch_size as choose_batch_size
from .generation import PictureGenerator as PictureGenerator, Task as Task
from .listing import Report as Report, finish as finish
from .models import (
    LoadedModel as LoadedModel,
    ModelChoice as ModelChoice,
    choose_model as choose_model,
    load_model as load_model,
)
from .plan import plan_job as plan_job
from .progress import Tell as Tell, tell_while as tell_while
from .repetition import repeat_picture as repeat_picture
from .request import RequestOptions as RequestOptions, check_request as check_request
from .roles import check_known as check_known
from .run import (
    Job as Job,
    SaveAs as SaveAs,
    Step as Step,
    draw as draw,
    help_drawing as help_drawing,
    start_run as start_run,
    steps_of as steps_of,
    work_items_of as work_items_of,
)
