from . import conversion as conversion
from .pipeline import CopGenPipeline as CopGenPipeline
from .sources import INDEX_NAME as INDEX_NAME, find_parts as find_parts
