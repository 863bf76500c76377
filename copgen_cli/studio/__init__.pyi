from .app import create_app as create_app
from .server import (
    Address as Address,
    listen as listen,
    open_browser as open_browser,
    open_model as open_model,
    require_studio as require_studio,
    serve as serve,
)
