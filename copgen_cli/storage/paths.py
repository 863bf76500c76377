"""Text to a path, local or remote."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote, urlsplit

from copgen_cli.errors import EXIT_USAGE
from copgen_cli.storage.problems import EXTRAS, StorageError

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
_READ_ONLY = ("http", "https", "data", "github", "zip", "tar")

OPTIONS: dict[str, dict[str, Any]] = {
    "s3": {
        "use_listings_cache": False,  # other processes write there, too
        "config_kwargs": {"retries": {"mode": "standard", "max_attempts": 8}},
    },
    "gs": {"use_listings_cache": False},
}
"""What a store's file system is opened with, beside what its own configuration says."""


def as_path(text: str | Path) -> Path:
    """The path that a text means; a path as it is.

    Returns:
        A `Path`, or for `scheme://…` a `UPath`, which is used as one.

    Raises:
        StorageError: the scheme is unknown, can only be read, or the package that reaches it is not installed.
    """
    if not isinstance(text, str):
        return text
    scheme = _scheme_of(text)
    if scheme is None:
        return Path(text)
    if scheme == "file":
        parts = urlsplit(text)
        if parts.netloc not in ("", "localhost") or not parts.path:
            raise StorageError(f"{text} is no path on this machine.", hint="Write file:///FOLDER.", code=EXIT_USAGE)
        return Path(unquote(parts.path))
    return _remote(text, {"gcs": "gs", "s3a": "s3"}.get(scheme, scheme))


def is_remote(path: str | Path) -> bool:
    """Whether a path, or the text of one, lies in an object store."""
    if isinstance(path, str):
        return _scheme_of(path) not in (None, "file")
    return hasattr(type(path), "fs")  # a UPath


def absolute(path: Path) -> Path:
    """A path without `..`, links left in; a remote one as it is."""
    return path if is_remote(path) else Path(os.path.abspath(path))


def require_local(path: str | Path | None, what: str) -> None:
    """Raises StorageError where `what`, such as an option, is given a remote path and can only use a local one."""
    if path is not None and is_remote(path):
        raise StorageError(
            f"{what} needs a folder or file on this machine, not {path}.",
            hint="Copy it here first, for instance: aws s3 cp --recursive, gsutil cp -r.",
            code=EXIT_USAGE,
        )


def as_local_path(text: str | Path) -> Path:
    """The path that a text means, of this machine.

    Raises:
        StorageError: it is in an object store.
    """
    require_local(text, "This option")
    return as_path(text)


def _scheme_of(text: str) -> str | None:
    match = _SCHEME.match(text)
    return match[1].lower() if match else None


def _remote(text: str, scheme: str) -> Path:
    from fsspec.registry import get_filesystem_class
    from upath import UPath

    if scheme in _READ_ONLY:
        raise StorageError(
            f"{text}: {scheme}:// can only be read, and no folder of copgen lies there.",
            hint="Give a folder of this machine, or s3://BUCKET/FOLDER, gs://BUCKET/FOLDER.",
            code=EXIT_USAGE,
        )
    try:
        get_filesystem_class(scheme)
    except ImportError:
        raise StorageError(
            f"{text} needs the package that reaches {scheme}://, which is not installed.",
            hint=f"Install it: pip install {EXTRAS.get(scheme, f'what fsspec names for {scheme}')}",
        ) from None
    except ValueError:
        raise StorageError(
            f"{text}: there is no storage called {scheme}://.",
            hint="Known are s3://, gs://, memory://, file:// and what else fsspec reaches.",
            code=EXIT_USAGE,
        ) from None
    rest = text.split("://", 1)[1].strip("/")
    if not rest:
        raise StorageError(f"{text} names no bucket.", hint=f"Write {scheme}://BUCKET/FOLDER.", code=EXIT_USAGE)
    if ".." in rest.split("/"):
        raise StorageError(f"{text}: an object's name holds no `..`.", hint="Write the folder out.", code=EXIT_USAGE)
    return cast(Path, UPath(f"{scheme}://{rest}", **OPTIONS.get(scheme, {})))
