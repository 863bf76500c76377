from . import recipe as recipe
from .export import export_autoencoder as export_autoencoder, is_finished as is_finished
from .plan import Training as Training, plan_trainings as plan_trainings
from .rasters import RasterPatches as RasterPatches, reconstruction_quality as reconstruction_quality
from .state import finished_steps as finished_steps
