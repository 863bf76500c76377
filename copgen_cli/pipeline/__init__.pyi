from . import conversion as conversion
from .carried import INDEX_NAME as INDEX_NAME, carried as carried
from .folders import save_model as save_model
from .pipeline import CopGenPipeline as CopGenPipeline
from .sources import find_parts as find_parts
