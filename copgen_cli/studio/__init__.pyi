from .app import create_app as create_app
from .server import (
    Address as Address,
    listen as listen,
    make_server as make_server,
    open_browser as open_browser,
    open_model as open_model,
    require_studio as require_studio,
)
