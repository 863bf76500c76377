from .atomic import (
    Place as Place,
    WrittenFile as WrittenFile,
    disk_full_is_an_error as disk_full_is_an_error,
    free_space as free_space,
    hash_file as hash_file,
    move_folder as move_folder,
    put_in_place as put_in_place,
    require_free_space as require_free_space,
    safe_path as safe_path,
    share_files as share_files,
    write_atomically as write_atomically,
)
from .claims import (
    PRIVATE_FOLDER as PRIVATE_FOLDER,
    Claims as Claims,
    foreign_file as foreign_file,
    foreign_files as foreign_files,
)
from .driver import Attempt as Attempt, StageRun as StageRun, settings_of as settings_of
from .executors import (
    Executor as Executor,
    OncePerProcess as OncePerProcess,
    Threads as Threads,
    WorkerLostError as WorkerLostError,
    local_executor as local_executor,
)
from .launch_variables import (
    SHARED_FOLDER as SHARED_FOLDER,
    expect_others as expect_others,
    refuse_launch as refuse_launch,
    was_launched as was_launched,
)
from .locks import ExclusiveLock as ExclusiveLock
from .manifest import (
    Journal as Journal,
    Outcome as Outcome,
    Status as Status,
    read_header as read_header,
    read_outcomes as read_outcomes,
    units_file as units_file,
)
from .numbered_folders import (
    MANIFEST as MANIFEST,
    Passed as Passed,
    list_checkpoints as list_checkpoints,
    must_be_whole as must_be_whole,
    newest_whole as newest_whole,
    prune as prune,
    recorded_files as recorded_files,
    remove_leftovers as remove_leftovers,
    step_folder as step_folder,
    step_of as step_of,
    write_folder as write_folder,
)
from .objects.mirror import Mirror as Mirror, mirrored as mirrored
from .private_folder import PrivateFolder as PrivateFolder
from .process_group import (
    World as World,
    gradients_stay_here as gradients_stay_here,
    join_world as join_world,
    noticing_a_lost_process as noticing_a_lost_process,
)
from .work_items import Result as Result, Summary as Summary, WorkItem as WorkItem
