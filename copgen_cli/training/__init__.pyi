from . import run as run
