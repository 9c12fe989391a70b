"""Where am I: the ECS task metadata endpoint, version 4.

ECS gives each container the address in `ECS_CONTAINER_METADATA_URI_V4` (Fargate platform 1.4.0, EC2
agent 1.39.0 and newer). It is asked once per process, within a short time; without an answer nothing is known.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from io import BufferedReader, RawIOBase
from threading import Lock
from typing import Any, NamedTuple

from ecs_discovery.runtime import fork

__all__ = ["TaskMetadata", "task_metadata"]

_VARIABLE = "ECS_CONTAINER_METADATA_URI_V4"
_MAX_BYTES = 256 * 1024  # of the answer; ten containers make a tenth of it
_LONGEST = 255  # characters of a fact


class TaskMetadata(NamedTuple):
    """The task this process runs in. None where the endpoint does not say."""

    cluster: str | None = None
    """The cluster's short name, also where the endpoint gives its ARN."""
    service: str | None = None
    family: str | None = None
    """The task definition's family."""
    task_id: str | None = None
    zone: str | None = None
    """Availability zone name, such as `eu-west-1a`. Names differ from account to account."""
    zone_id: str | None = None
    """Availability zone id, such as `euw1-az1`: the same in every account."""
    network_mode: str | None = None
    """`awsvpc`, `bridge` or `host`."""
    address: str | None = None
    """The container's first private IPv4 address."""


class _Once:
    """The answer of this process, asked for when first needed."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._known: dict[str, TaskMetadata | None] = {}
        fork.track(self)

    def get(self, uri: str, timeout: float) -> TaskMetadata | None:
        with self._lock:  # held over the request on purpose: one asks, the others wait for its answer
            if uri not in self._known:
                self._known[uri] = _ask(uri, timeout)
            return self._known[uri]

    def after_fork(self) -> None:
        self._lock = Lock()


_once = _Once()


def task_metadata(*, timeout: float = 0.5, environ: Mapping[str, str] | None = None) -> TaskMetadata | None:
    """What ECS says of this task.

    None outside of ECS, and when ECS gives no sensible answer within `timeout` seconds. The first call asks; later
    calls get the same answer. `timeout` is a hard limit where the endpoint is named by its address, as ECS does.
    Redirects are not followed, and proxies not used.
    """
    uri = (os.environ if environ is None else environ).get(_VARIABLE, "")
    return _once.get(uri, timeout) if uri.startswith("http://") else None


def own_zone() -> str | None:
    """The availability zone of this task, None where that cannot be told."""
    found = task_metadata()
    return found.zone if found is not None else None


def _ask(uri: str, timeout: float) -> TaskMetadata | None:
    import json  # on ECS, and once: no other program is to wait for them
    import urllib.parse
    from http.client import HTTPException, HTTPResponse

    # By hand: urllib follows redirects, and waits anew for each byte.
    deadline_at = time.monotonic() + timeout
    try:
        place = urllib.parse.urlsplit(f"{uri.rstrip('/')}/task")
        host, port = place.hostname or "", place.port or 80
        request = f"GET {place.path} HTTP/1.0\r\nHost: {place.netloc}\r\nAccept: */*\r\n\r\n".encode("ascii")
        with socket.create_connection((host, port), _left(deadline_at)) as sock:
            sock.settimeout(_left(deadline_at))
            sock.sendall(request)
            answer = HTTPResponse(_Limited(sock, deadline_at))  # type: ignore[arg-type]  # all that it uses of a socket
            answer.begin()
            if answer.status != 200:
                return None
            return parse(json.loads(answer.read(_MAX_BYTES)))
    except (OSError, ValueError, HTTPException, RecursionError):  # RecursionError: JSON nested thousands deep
        return None


def _left(deadline_at: float) -> float:
    left = deadline_at - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


class _Limited(RawIOBase):
    """A socket's bytes until a time: a limit of each read alone would let a byte now and then go on for ever."""

    def __init__(self, sock: socket.socket, deadline_at: float) -> None:
        self._sock = sock
        self._deadline_at = deadline_at
        self._more = _MAX_BYTES

    def makefile(self, mode: str) -> BufferedReader:
        return BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._sock.settimeout(_left(self._deadline_at))
        count = self._sock.recv_into(buffer)
        self._more -= count
        if self._more < 0:
            raise ValueError("too much")
        return count


def parse(task: Any) -> TaskMetadata | None:
    """The answer's facts, None if it is no task's description."""
    if not isinstance(task, dict):
        return None
    container = next((each for each in _dicts(task.get("Containers")) if each.get("Type", "NORMAL") == "NORMAL"), {})
    network = next(iter(_dicts(container.get("Networks"))), {})
    addresses = network.get("IPv4Addresses")
    return TaskMetadata(
        cluster=_tail(task.get("Cluster")),
        service=_text(task.get("ServiceName")),
        family=_text(task.get("Family")),
        task_id=_tail(task.get("TaskARN")),
        zone=_text(task.get("AvailabilityZone")),
        zone_id=_text(task.get("AvailabilityZoneID")),
        network_mode=_text(network.get("NetworkMode")),
        address=_text(addresses[0]) if isinstance(addresses, list) and addresses else None,
    )


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _text(value: Any) -> str | None:
    fits = isinstance(value, str) and 0 < len(value) <= _LONGEST and value.isprintable()
    return value if fits else None


def _tail(value: Any) -> str | None:
    """The last part of an ARN, or the name itself."""
    return _text(value.rsplit("/", 1)[-1]) if isinstance(value, str) else None
