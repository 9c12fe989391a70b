"""Tasks that speak gRPC, made of generic handlers, and a source that names them."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from math import inf
from typing import Any

import grpc

from ecs_discovery import Endpoint, NoEndpoints, Question, Resolution
from ecs_discovery.testing.lab.sockets import drop_packets

__all__ = ["Fleet", "Front", "Task"]

_places = count(1)


class Task(grpc.GenericRpcHandler):
    """One task: `calls` counts what reached it, by method."""

    def __init__(self, address: str, port: int, credentials: grpc.ServerCredentials | None = None) -> None:
        self.address = address
        self.calls: Counter[str] = Counter()
        self.authorities: set[str] = set()
        self.received: list[bytes] = []
        self.cancelled = 0
        self.answer: tuple[grpc.StatusCode, str, tuple[tuple[str, str], ...]] | None = None
        """What it answers every RPC with."""
        self.dies = False
        """It ends at the next RPC, before it answers."""
        self.cuts = False
        """It cuts the stream of each RPC, as a server does that stops at once."""
        self._executor = ThreadPoolExecutor(16)
        self.server = grpc.server(self._executor, options=[("grpc.so_reuseport", 0)])
        self.server.add_generic_rpc_handlers((self,))
        place = f"{address}:{port}"
        self.port = (
            self.server.add_insecure_port(place)
            if credentials is None
            else self.server.add_secure_port(place, credentials)
        )
        self.server.start()

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(self.address, self.port)

    def stop(self, grace: float | None = 0) -> None:
        self.server.stop(grace).wait(5)
        self._executor.shutdown(wait=False)

    def service(self, details: Any) -> Any:
        name = details.method.rpartition("/")[2]
        self.calls[name] += 1
        found = getattr(self, f"_{name.lower()}", None)
        if found is None:
            return None
        made: Any = getattr(grpc, f"{_KINDS.get(name, 'unary_unary')}_rpc_method_handler")

        def checked(request: Any, context: Any) -> Any:
            self.authorities.add(context._rpc_event.call_details.host.decode())
            if self.dies:
                threading.Thread(target=self.stop).start()
                time.sleep(0.5)
            if self.cuts:
                context.cancel()
            if self.answer is not None:
                code, text, trailing = self.answer
                context.set_trailing_metadata(trailing)
                context.abort(code, text)
            return found(request, context)

        return made(checked)

    def _get(self, request: bytes, context: Any) -> bytes:
        return self.address.encode()

    def _put(self, request: bytes, context: Any) -> bytes:
        return self.address.encode()

    def _slow(self, request: bytes, context: Any) -> bytes:
        context.add_callback(lambda: self._count_cancelled(context))
        time.sleep(float(request))
        return self.address.encode()

    def _count_cancelled(self, context: Any) -> None:
        self.cancelled += not context.is_active() and context.code() is None

    def _said(self, request: bytes, context: Any) -> bytes:
        context.set_trailing_metadata((("x-task", self.address),))
        return repr(sorted(context.invocation_metadata())).encode()

    def _list(self, request: bytes, context: Any) -> Iterator[bytes]:
        def items() -> Iterator[bytes]:
            for number in range(int(request or b"3")):
                yield b"%d" % number
                time.sleep(0.005)

        return items()

    def _upload(self, requests: Iterator[bytes], context: Any) -> bytes:
        self.received = list(requests)
        return self.address.encode()

    def _chat(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        return (b"re:" + each for each in requests)


_KINDS = {"List": "unary_stream", "Upload": "stream_unary", "Chat": "stream_stream"}


class Fleet:
    """The tasks of one service, all on one port. It is a resolver: `fleet://orders` names those that it shows."""

    def __init__(self, tasks: int, *, credentials: grpc.ServerCredentials | None = None, ttl: float = inf) -> None:
        self._credentials = credentials
        self._place = next(_places)
        self._number = count(1)
        self.ttl = ttl
        self.port = 0
        self.tasks: list[Task] = []
        for _ in range(tasks):
            self.start()
        self.shown = [task.endpoint for task in self.tasks]

    def start(self) -> Task:
        """A new task, which is not shown yet."""
        task = Task(f"127.9.{self._place % 250}.{next(self._number)}", self.port, self._credentials)
        self.port = task.port
        self.tasks.append(task)
        return task

    def show(self) -> None:
        """Name the tasks there are now."""
        self.shown = [task.endpoint for task in self.tasks]

    def end(self, task: Task, grace: float | None = 0) -> None:
        self.tasks.remove(task)
        task.stop(grace)

    def resolve(self, question: Question, timeout: float) -> Resolution:
        if not self.shown:
            raise NoEndpoints("there is no task")
        return Resolution(tuple(self.shown), self.ttl, "fleet")

    def close(self) -> None:
        for task in self.tasks:
            task.stop()


class Front:
    """Stands before a task and passes bytes on, until it is to vanish, or cuts its connections."""

    def __init__(self, task: Task, address: str) -> None:
        self._task = task
        self._listener = socket.socket()
        self._listener.bind((address, 0))
        self._listener.listen(16)
        self.endpoint = Endpoint(address, self._listener.getsockname()[1])
        self._accepted: list[socket.socket] = []
        self._all = [self._listener]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                ours, _ = self._listener.accept()
                theirs = socket.create_connection((self._task.address, self._task.port))
                self._accepted.append(ours)
                self._all += [ours, theirs]
                threading.Thread(target=_pass_on, args=(ours, theirs), daemon=True).start()
                threading.Thread(target=_pass_on, args=(theirs, ours), daemon=True).start()

    def vanish(self) -> None:
        """Nothing is acknowledged any more."""
        for sock in (self._listener, *self._accepted):
            drop_packets(sock)

    def cut(self) -> None:
        """End all connections, and accept none."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in self._accepted:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        for sock in self._all:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(65536):
            target.sendall(piece)
    with suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)
