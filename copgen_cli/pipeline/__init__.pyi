from . import conversion as conversion
from .folders import save_model as save_model
from .pipeline import CopGenPipeline as CopGenPipeline
from .sources import INDEX_NAME as INDEX_NAME, find_parts as find_parts
