"""Libraries that only some metrics need, and how to get them."""

from __future__ import annotations

from importlib.util import find_spec

from copgen_cli.errors import CopgenError


def require(library: str, *, extra: str, purpose: str) -> None:
    """Make sure that an optional library is there.

    Raises:
        CopgenError: it is not; the hint names the extra that brings it.
    """
    if find_spec(library) is None:
        raise CopgenError(f"{purpose} needs {library}, which is not installed.", hint=f"pip install 'copgen[{extra}]'")
