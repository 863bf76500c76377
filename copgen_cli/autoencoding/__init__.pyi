from . import recipe as recipe
from .plan import Training as Training, plan_trainings as plan_trainings
from .rasters import RasterPatches as RasterPatches, reconstruction_quality as reconstruction_quality
from .state import finished_steps as finished_steps
