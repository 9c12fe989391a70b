"""Finding the inspection sockets of running programs, and asking all of them at once. Nothing is written or removed.

A directory or socket counts only if it belongs to the user whose programs are looked for; a symbolic link never does.
"""

from __future__ import annotations

import os
import selectors
import socket
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from errno import ECONNREFUSED, ENOENT
from itertools import islice
from typing import NamedTuple

from ecs_discovery.runtime.inspection_socket import NAME, check_directory, usual_directories

__all__ = ["Asked", "Socket", "ask", "directories", "sockets"]

_SOCKETS = 256  # asked at most
_ENTRIES = 4000  # names looked at in a directory
_LARGEST = 1024 * 1024  # bytes of a document


class Socket(NamedTuple):
    """A socket that may be a program's."""

    path: str
    pid: int
    """As its name says."""


class Asked(NamedTuple):
    """What came of asking."""

    documents: tuple[tuple[int, bytes], ...]
    """By process."""
    silent: tuple[int, ...]
    """Processes that did not answer in time, or not in full."""


def directories(
    path: str, environ: Mapping[str, str], user: int, *, temporary: str = "/tmp", run: str = "/run/user"
) -> tuple[tuple[str, int], ...]:
    """Where sockets may be, and to whom such a directory has to belong. `path` is where programs were told to put them.

    Root looks at the sockets of all users: a session of ECS Exec is root's, also where another user runs the program.
    """
    if path:
        owner = user
        if user == 0:
            with suppress(OSError):
                owner = os.lstat(path).st_uid
        return ((path, owner),)
    found = [(each, user) for each in usual_directories(environ, user)]
    found.append((f"{run}/{user}/ecs_discovery", user))
    if user == 0:
        for home, prefix, suffix in ((temporary, "ecs_discovery-", ""), (run, "", "/ecs_discovery")):
            with suppress(OSError), os.scandir(home) as entries:
                for entry in islice(entries, _ENTRIES):
                    owner_text = entry.name.removeprefix(prefix)
                    known = entry.name.startswith(prefix) and owner_text.isascii() and owner_text.isdigit()
                    if known and len(owner_text) <= 10:
                        found.append((f"{home}/{entry.name}{suffix}", int(owner_text)))
    return tuple(dict.fromkeys(found))


def sockets(places: Sequence[tuple[str, int]]) -> tuple[tuple[Socket, ...], tuple[str, ...]]:
    """The sockets there, and what was refused: a directory that another user might write to."""
    found: list[Socket] = []
    refused: list[str] = []
    for path, owner in places:
        try:
            check_directory(path, owner)
            found += _in(path, owner)
        except OSError as error:
            if error.errno != ENOENT:
                refused.append(f"{path}: {error.strerror}")
    return tuple(found[:_SOCKETS]), tuple(refused)


def _in(path: str, owner: int) -> Iterator[Socket]:
    with os.scandir(path) as entries:
        for entry in islice(entries, _ENTRIES):
            match = NAME.fullmatch(entry.name)
            with suppress(OSError):
                status = entry.stat(follow_symlinks=False)
                if match is not None and stat.S_ISSOCK(status.st_mode) and status.st_uid == owner:
                    yield Socket(entry.path, int(match[1]))


class _Open:
    """One that is being asked."""

    __slots__ = ("pid", "received", "unsent")

    def __init__(self, pid: int, request: bytes) -> None:
        self.pid = pid
        self.unsent = request
        self.received = bytearray()


def ask(found: Sequence[Socket], request: str, seconds: float, *, clock: Callable[[], float] = time.monotonic) -> Asked:
    """Ask all of them; ends after so many seconds at most. Sockets that no process listens at are passed over."""
    ends_at = clock() + seconds
    documents: list[tuple[int, bytes]] = []
    silent: list[int] = []
    line = request.encode("utf-8", "replace").replace(b"\n", b" ") + b"\n"
    with selectors.DefaultSelector() as selector:
        try:
            for each in found:
                sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                sock.setblocking(False)
                try:
                    sock.connect(each.path)  # at once, or never
                except OSError as error:
                    sock.close()
                    if error.errno not in (ECONNREFUSED, ENOENT):
                        silent.append(each.pid)
                    continue
                selector.register(sock, selectors.EVENT_WRITE, _Open(each.pid, line))
            while selector.get_map() and (left := ends_at - clock()) > 0:
                for key, _ in selector.select(left):
                    asked: _Open = key.data
                    ended = _go_on(selector, key.fileobj, asked)  # type: ignore[arg-type]  # sockets alone
                    if ended is not None:
                        selector.unregister(key.fileobj)
                        key.fileobj.close()  # type: ignore[union-attr]
                        if ended:
                            documents.append((asked.pid, bytes(asked.received)))
                        else:
                            silent.append(asked.pid)
        finally:
            for key in list(selector.get_map().values()):
                silent.append(key.data.pid)
                key.fileobj.close()  # type: ignore[union-attr]
    return Asked(tuple(sorted(documents)), tuple(sorted(silent)))


def _go_on(selector: selectors.BaseSelector, sock: socket.socket, asked: _Open) -> bool | None:
    """Send or receive what can be now. True at the end of a document, False if there will be none."""
    try:
        if asked.unsent:
            asked.unsent = asked.unsent[sock.send(asked.unsent) :]
            if not asked.unsent:
                selector.modify(sock, selectors.EVENT_READ, asked)
            return None
        read = sock.recv(65536)
    except BlockingIOError:
        return None
    except OSError:
        return False
    asked.received += read
    if len(asked.received) > _LARGEST:
        return False
    return None if read else bool(asked.received)
