"""Inspection sockets: a process shows its state to commands of the same user, and takes no orders.

Each process has one Unix socket, in a directory that only its user may enter. A client sends a line of text and is
sent one document. What is found in such a directory is trusted as far as its owner is, and no further.
"""

from __future__ import annotations

import atexit
import logging
import os
import re
import selectors
import socket
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from errno import EACCES, ECONNREFUSED, EOPNOTSUPP
from itertools import islice
from threading import RLock, Thread

from ecs_discovery.errors import foreign, line
from ecs_discovery.runtime import fork
from ecs_discovery.runtime.workers import Workers

__all__ = ["NAME", "InspectionSocket", "check_directory", "usual_directories"]

logger = logging.getLogger("ecs_discovery")

NAME = re.compile(r"([0-9]{1,10})-[0-9a-f]{1,16}\.sock", re.ASCII)
"""A socket's name: the process, and when it was opened."""
_CONNECTIONS = 4  # served at once; others wait
_BACKLOG = 16  # that wait
_REQUEST = 512  # bytes
_ASK, _SEND = 1.0, 2.0  # seconds that a client has for its request, and to take the document
_REST = 1.0  # seconds without a new client after one could not be taken
_SETTLE = 0.2  # seconds that the child of a fork has before it opens a socket: many run another program at once
_SWEPT = 1000  # names looked at for sockets of processes that are gone
_YOUNG = 60.0  # seconds: a younger socket may just be opened


def usual_directories(environ: Mapping[str, str], user: int) -> tuple[str, ...]:
    """Where the sockets of a user's processes are, unless the program says where: the first that can be used."""
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    own = (f"{runtime}/ecs_discovery",) if runtime.startswith("/") and "\0" not in runtime else ()
    return (*own, f"/tmp/ecs_discovery-{user}")


def check_directory(path: str, user: int) -> None:
    """Raises `OSError` unless it is a directory of this user that no other may enter; a symbolic link is none."""
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != user or found.st_mode & 0o077:
        raise OSError(EACCES, f"no directory of user {user} alone (mode 700)", path)


def _own_directory(directory: str) -> str:
    """A directory that is ours alone, made if it is not there. Raises `OSError`."""
    user = os.geteuid()
    candidates = (directory,) if directory else usual_directories(os.environ, user)
    for last, path in enumerate(candidates, 1 - len(candidates)):
        try:
            with suppress(FileExistsError):
                os.mkdir(path, 0o700)
            check_directory(path, user)
        except OSError:
            if not last:
                raise
        else:
            return path
    raise AssertionError("no candidates")


def _listen(directory: str) -> tuple[socket.socket, str]:
    """A listening socket of this process, and its path. Raises `OSError`."""
    if not hasattr(socket, "AF_UNIX"):
        raise OSError(EOPNOTSUPP, "there are no Unix sockets here")
    home = _own_directory(directory)
    _sweep(home)
    path = os.path.join(home, f"{os.getpid()}-{time.time_ns():x}.sock")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(path)
        os.chmod(path, 0o600)
        listener.setblocking(False)
        listener.listen(_BACKLOG)
    except BaseException:  # raised again: whatever it is, no file of the socket stays behind
        listener.close()
        _unlink(path)
        raise
    return listener, path


def _sweep(home: str) -> None:
    """Remove the sockets that no process listens at any more. By a connect: another container may share the directory,
    and process ids tell nothing there."""
    old = time.time() - _YOUNG
    with os.scandir(home) as entries:
        for entry in islice(entries, _SWEPT):
            with suppress(OSError):
                found = entry.stat(follow_symlinks=False)
                if NAME.fullmatch(entry.name) and stat.S_ISSOCK(found.st_mode) and found.st_mtime < old:
                    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                        probe.setblocking(False)
                        if probe.connect_ex(entry.path) == ECONNREFUSED:
                            os.unlink(entry.path)


def _unlink(path: str) -> None:
    with suppress(OSError):
        os.unlink(path)


class InspectionSocket:
    """`answer(request)` makes the document. `wanted()` says whether there is anything to show: else the socket closes.

    `directory` is a path, or "" for the usual one. A fault is logged once, and breaks nothing else.
    """

    def __init__(self, directory: str, answer: Callable[[str], bytes], wanted: Callable[[], bool]) -> None:
        self._directory = directory
        self._answer = answer
        self._wanted = wanted
        self._lock = RLock()
        self._open = False
        self._running = False
        self._listener: socket.socket | None = None
        self._waker: tuple[socket.socket, socket.socket] | None = None  # of which one is read by the thread
        self._path = ""
        self._pid = 0
        self._faulty = False
        self._workers = Workers(1)
        fork.track(self)
        fork.track_threads(self)
        atexit.register(self.close)

    def open(self) -> None:
        """Open the socket, unless it is open."""
        with self._lock:
            if self._open and self._pid == os.getpid():
                return
            try:
                self._listen_locked()
            except Exception as error:  # noqa: BLE001  # whatever it is: the program has better things to do
                self._fault("this process is not open to inspection", error)
                return
            self._open = True
            self._start_locked()

    def close(self) -> None:
        """Close the socket and remove its name."""
        with self._lock:
            self._open = False
            self._drop_locked()
            self.wake()

    def close_if_unwanted(self) -> None:
        """The same, unless there is something to show. In one step: who comes to want it opens it afterwards."""
        with self._lock:
            if not self._wanted():
                self.close()

    def wake(self) -> None:
        """Have the thread look whether it is still wanted. Takes no lock: finalisers call it."""
        waker = self._waker
        if waker is not None:
            # A finaliser may come when Python ends and has emptied this module: only builtins are left.
            try:
                waker[1].send(b"!")
            except OSError:  # closed, or it was woken before
                pass

    def _listen_locked(self) -> None:
        self._listener, self._path = _listen(self._directory)
        self._pid = os.getpid()

    def _start_locked(self) -> None:
        if self._waker is None:
            self._waker = socket.socketpair()
            for each in self._waker:
                each.setblocking(False)
        if self._running:
            self.wake()
            return
        self._running = True
        if not self._workers.spawn(self._run, inline=False):
            self._running = False
            self._drop_locked()
            self._fault("this process is not open to inspection", "no thread can be started (a child may have one)")

    def _drop_locked(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        if self._path and self._pid == os.getpid():
            _unlink(self._path)
        self._path = ""
        if not self._running and self._waker is not None:
            for each in self._waker:
                each.close()
            self._waker = None

    def _fault(self, what: str, error: object) -> None:
        if not self._faulty:
            self._faulty = True
            kind = f"{type(error).__name__}: " if isinstance(error, Exception) else ""
            logger.warning("%s", line(f"{what}: {kind}{foreign(error)}"))

    # The thread

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._open or fork.coming():
                    self._running = False
                    if not self._open:
                        self._drop_locked()
                    return
                listener, waker = self._listener, self._waker
            assert waker is not None
            try:
                if listener is None:
                    self._settle(waker[0])
                else:
                    with selectors.DefaultSelector() as selector:
                        _Server(listener, waker[0], self._answered, self._is_served, selector).run()
            except Exception as error:  # noqa: BLE001
                self._fault("the inspection socket failed", error)
                self.close()
            self.close_if_unwanted()

    def _is_served(self, listener: socket.socket) -> bool:
        """Is this listener to be served further? Its clients are, while others wake the thread."""
        self.close_if_unwanted()
        return self._open and self._listener is listener and not fork.coming()

    def _settle(self, woken: socket.socket) -> None:
        """In the child of a fork, open the socket a moment later: what else there is to start anew has been by then."""
        with selectors.DefaultSelector() as selector:
            selector.register(woken, selectors.EVENT_READ)
            if selector.select(_SETTLE):
                _drain(woken)
                return
        with self._lock:
            if self._open and not fork.coming():
                self._listen_locked()

    def _answered(self, request: str) -> bytes:
        try:
            return self._answer(request)
        except Exception as error:  # noqa: BLE001
            self._fault("an inspection failed", error)
            return b""

    # Around a fork

    def before_fork(self, patience: float) -> Sequence[Thread]:
        """Have the thread end. The socket stays, and who connects waits."""
        self.wake()
        return ()

    def after_fork_in_parent(self, patience: float) -> None:
        """Go on."""
        if not self._lock.acquire(timeout=patience):
            return
        try:
            if self._open and not self._running:
                self._start_locked()
        finally:
            self._lock.release()

    def after_fork(self) -> None:
        """In the child of a fork: a socket of its own. The parent's stays where it is."""
        self._lock = RLock()
        self._workers = Workers(1)
        self._running = self._faulty = False
        self._path = ""
        self._pid = os.getpid()
        with suppress(OSError):
            self._drop_locked()
        if self._open:
            self._start_locked()


def _drain(woken: socket.socket) -> None:
    with suppress(OSError):
        while woken.recv(64):
            pass


class _Client:
    """One connection: its request, then what is left to send."""

    __slots__ = ("ends_at", "request", "unsent")

    def __init__(self, ends_at: float) -> None:
        self.ends_at = ends_at
        self.request = b""
        self.unsent: memoryview | None = None


class _Server:
    """Serves a few clients at a time, each for a bounded time, until the thread is woken to end that."""

    def __init__(
        self,
        listener: socket.socket,
        woken: socket.socket,
        answer: Callable[[str], bytes],
        goes_on: Callable[[socket.socket], bool],
        selector: selectors.BaseSelector,
    ) -> None:
        self._listener = listener
        self._woken = woken
        self._answer = answer
        self._goes_on = goes_on
        self._selector = selector
        self._clients: dict[socket.socket, _Client] = {}
        self._rest_until = 0.0

    def run(self) -> None:
        self._selector.register(self._woken, selectors.EVENT_READ)
        listening = False
        try:
            while True:
                now = time.monotonic()
                for sock in [sock for sock, client in self._clients.items() if now >= client.ends_at]:
                    self._end(sock)
                listen = len(self._clients) < _CONNECTIONS and now >= self._rest_until
                if listen and not listening:
                    self._selector.register(self._listener, selectors.EVENT_READ)
                elif listening and not listen:
                    self._selector.unregister(self._listener)
                listening = listen
                ends = [client.ends_at for client in self._clients.values()]
                ends += [] if now >= self._rest_until else [self._rest_until]
                for key, _ in self._selector.select(max(0.0, min(ends) - now) if ends else None):
                    if key.fileobj is self._woken:
                        _drain(self._woken)
                        if not self._goes_on(self._listener):
                            return
                    elif key.fileobj is self._listener:
                        self._accept()
                    elif isinstance(key.fileobj, socket.socket):
                        self._go_on(key.fileobj, self._clients[key.fileobj])
        finally:
            for sock in list(self._clients):
                self._end(sock)

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except BlockingIOError:
            return
        except OSError:  # no descriptor left, say: the client waits
            self._rest_until = time.monotonic() + _REST
            return
        sock.setblocking(False)
        self._clients[sock] = _Client(time.monotonic() + _ASK)
        self._selector.register(sock, selectors.EVENT_READ)

    def _go_on(self, sock: socket.socket, client: _Client) -> None:
        try:
            if client.unsent is None:
                self._read(sock, client)
            if client.unsent is not None:
                client.unsent = client.unsent[sock.send(client.unsent) :]
                if not client.unsent:
                    self._end(sock)
        except BlockingIOError:
            return
        except OSError:
            self._end(sock)

    def _read(self, sock: socket.socket, client: _Client) -> None:
        read = sock.recv(_REQUEST)
        client.request += read
        if read and b"\n" not in client.request and len(client.request) < _REQUEST:
            return
        request, end, _ = client.request.partition(b"\n")
        if not end:
            raise OSError("no request")
        document = self._answer(request.decode("utf-8", "replace"))
        client.unsent = memoryview(document)
        client.ends_at = time.monotonic() + _SEND
        self._selector.modify(sock, selectors.EVENT_WRITE)

    def _end(self, sock: socket.socket) -> None:
        del self._clients[sock]
        self._selector.unregister(sock)
        sock.close()
