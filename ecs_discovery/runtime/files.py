"""Files of the system, read in bounded time and memory: what has taken the place of one must not hold up a caller."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EINVAL

__all__ = ["Stamp", "opened", "read_text"]

Stamp = tuple[int, int, int, int]
"""What a file is known by: when it changed, its size, and where it lies."""
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


@contextmanager
def opened(path: str) -> Iterator[tuple[int, Stamp]]:
    """A descriptor of a regular file, and its stamp. Raises `OSError` for anything else: a pipe would wait for ever."""
    try:
        descriptor = os.open(path, _FLAGS)
    except ValueError as error:  # a NUL in it
        raise OSError(EINVAL, str(error)) from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(EINVAL, "not a regular file", path)
        yield descriptor, (status.st_mtime_ns, status.st_size, status.st_ino, status.st_dev)
    finally:
        os.close(descriptor)


def read_text(path: str, limit: int) -> str:
    """The first `limit` bytes of a regular file. Raises `OSError`."""
    with opened(path) as (descriptor, _):
        return os.read(descriptor, limit).decode("utf-8", "replace")
