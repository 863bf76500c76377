from .boxes import problem_of_box as problem_of_box, spans_of_box as spans_of_box
from .loading import (
    DEFAULT_FILE as DEFAULT_FILE,
    ENV_PREFIX as ENV_PREFIX,
    HUB_VARIABLES as HUB_VARIABLES,
    Settings as Settings,
    load_settings as load_settings,
    load_settings_with_origins as load_settings_with_origins,
)
from .presets import Preset as Preset
from .regions import configured as configured, known_regions as known_regions
from .sections import (
    PUBLIC_ENDPOINT as PUBLIC_ENDPOINT,
    AutoencoderSettings as AutoencoderSettings,
    ClusterSettings as ClusterSettings,
    DataSettings as DataSettings,
    DistillSettings as DistillSettings,
    EncodeSettings as EncodeSettings,
    PrepareSettings as PrepareSettings,
    RegionSettings as RegionSettings,
    SampleSettings as SampleSettings,
    StudentSettings as StudentSettings,
    StudioSettings as StudioSettings,
    TrainSettings as TrainSettings,
)
