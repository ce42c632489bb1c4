"""What fsspec reaches by URL: opening it, and telling its errors apart."""

from __future__ import annotations

import logging
from typing import Any

from galatea.errors import InvalidInput, MachineError
from galatea.extras import needs_extra

__all__ = ["does_not_answer", "open_filesystem"]

# How botocore, aiohttp and Python call what means that nobody answered.
UNREACHABLE = {
    "ConnectionError", "ConnectTimeoutError", "HTTPClientError", "ClientConnectionError",
    "TimeoutError",
}  # fmt: skip

log = logging.getLogger(__name__)


def open_filesystem(url: str) -> tuple[Any, str]:
    """A filesystem of fsspec, and the path of the URL in it.

    Endpoint, credentials and retries are those of the store's own library: for S3 the environment
    (``AWS_ENDPOINT_URL``, ``AWS_ACCESS_KEY_ID``, ``AWS_MAX_ATTEMPTS``, …) and ``~/.aws``.

    Raises:
        InvalidInput: there is no such kind of store.
        MachineError: the package for it is not installed.
    """
    with needs_extra("s3"):
        import fsspec
    try:
        filesystem, root = fsspec.url_to_fs(url)
    except ImportError as error:
        extra = url.startswith(("s3:", "s3a:"))
        raise MachineError(
            f"{url}: {error}",
            "run: pip install 'galatea[s3]'" if extra else "install the package that it names",
        ) from error
    except ValueError as error:
        raise InvalidInput(f"{url}: {error}", "give a folder, or s3://BUCKET/PREFIX") from error
    if (loop := getattr(filesystem, "loop", None)) is not None:
        # Of a broken connection tasks are left behind; its error is raised by the call itself.
        loop.set_exception_handler(lambda _, context: log.debug(context["message"]))
    return filesystem, root


def does_not_answer(error: Exception) -> bool:
    """Whether an error of any store means that nobody answered."""
    return bool(UNREACHABLE & {kind.__name__ for kind in type(error).__mro__})
