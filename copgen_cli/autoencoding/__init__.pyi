from . import recipe as recipe
from .state import finished_steps as finished_steps
