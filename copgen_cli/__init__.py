"""copgen: turn satellite views of one place into one another.

`from copgen_cli import CopGenPipeline` is the way in from Python. The import is lazy, so that the command line
starts without torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from copgen_cli.pipeline import CopGenPipeline

__all__ = ["CopGenPipeline", "__version__"]

try:
    from copgen_cli._version import __version__  # by the tag; written as the package is built or installed
except ImportError:
    __version__ = "0.2.0.dev0"  # a checkout that was never installed


def __getattr__(name: str) -> Any:
    if name == "CopGenPipeline":
        from copgen_cli.pipeline import CopGenPipeline

        return CopGenPipeline
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
