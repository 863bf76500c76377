"""What stores answer when something is wrong, in one line with what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from copgen_cli.errors import EXIT_FAILED, CopgenError

EXTRAS = {"s3": "copgen[s3]", "gs": "copgen[gs]"}
"""What brings the package that reaches a scheme."""
_LIBRARIES = ("botocore", "aiobotocore", "s3fs", "gcsfs", "google", "aiohttp", "fsspec", "adlfs")
_CREDENTIALS = ("NoCredentials", "PartialCredentials", "CredentialRetrieval", "ProfileNotFound", "TokenRetrieval")
_REFUSED = ("AccessDenied", "Access Denied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "Forbidden")

_reached: set[str] = set()


class StorageError(CopgenError):
    """An object store that can not be used: no package, no credentials, no bucket, no answer."""

    def __init__(self, message: str, *, hint: str, code: int = EXIT_FAILED) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = code


def reach(path: Path) -> None:
    """Make sure that the bucket of a remote path answers: paths' methods take "refused" for "not there".

    One request a process and bucket; none for a local path.

    Raises:
        StorageError: it is not there, or refuses.
    """
    if isinstance(path, Path):
        return
    place: Any = path  # a UPath
    bucket = f"{place.protocol}://{place.path.split('/')[0]}"
    if place.protocol == "memory" or bucket in _reached:
        return
    with explain(path):
        try:
            store, key = place.fs, place.path
            store.info(key)
        except FileNotFoundError:
            name = key.split("/")[0]
            if hasattr(store, "call_s3"):  # a page of one: all of a bucket's first level may be much
                store.call_s3("list_objects_v2", Bucket=name, MaxKeys=1)
            else:
                store.ls(name, detail=False)
    _reached.add(bucket)


@contextmanager
def explain(path: Path | str) -> Iterator[None]:
    """Turn what a store or its library raises in the block into a StorageError; other errors pass."""
    try:
        yield
    except CopgenError:
        raise
    except Exception as error:
        told = told_of(error, str(path))
        if told is None:
            raise
        raise told from error


def told_of(error: BaseException, place: str = "The object store") -> StorageError | None:
    """A store's error as one line with a hint; None where it is of another kind."""
    kind, text = type(error), " ".join(str(error).split())
    names = {one.__name__ for one in kind.__mro__}
    origin = error.__cause__ or error.__context__
    from_library = kind.__module__.split(".")[0] in _LIBRARIES
    from_library |= origin is not None and type(origin).__module__.split(".")[0] in _LIBRARIES
    if not from_library:
        return None
    if any(name.startswith(_CREDENTIALS) for name in names):
        return StorageError(
            f"{place}: there are no credentials for it.",
            hint="Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; for Google `gcloud auth "
            "application-default login`.",
        )
    if isinstance(error, PermissionError) or any(word in text for word in _REFUSED):
        return StorageError(
            f"{place}: the store refuses: {text}.",
            hint="Check the credentials (AWS_PROFILE, AWS_ACCESS_KEY_ID) and what they may do in this bucket.",
        )
    if isinstance(error, FileNotFoundError) and "ucket" in text:
        return StorageError(f"{place}: there is no such bucket.", hint="Create it first, or check its name.")
    if names & {"EndpointConnectionError", "ConnectTimeoutError", "ClientConnectorError", "ConnectionError"}:
        return StorageError(
            f"{place}: the store does not answer: {text}.",
            hint="Check the network and AWS_ENDPOINT_URL; running again continues.",
        )
    if isinstance(error, FileNotFoundError):
        return None
    return StorageError(f"{place}: {text}.", hint="Running again continues; if it stays, ask who runs the store.")
