"""The Cloud Map API on loopback: it answers as AWS does, counts its calls and can be made to fail."""

from __future__ import annotations

import asyncio
import json
import socket
from collections import Counter
from collections.abc import Mapping
from random import Random
from typing import Any

from ecs_discovery.testing.lab import sockets
from ecs_discovery.testing.lab.connection import Connection
from ecs_discovery.testing.lab.faults import CloudMapFault
from ecs_discovery.testing.lab.loop import LoopThread
from ecs_discovery.testing.lab.registry import Listed, Listing
from ecs_discovery.testing.lab.replies import Reply, Request

__all__ = ["CloudMap"]

ACCOUNT = "123456789012"
_PREFIX = "Route53AutoNaming_v20170314."
_USUAL_RESULTS = 100
_MOST_RESULTS = 1000
_ERRORS = {
    CloudMapFault.THROTTLED: (400, "RequestLimitExceeded", "Rate exceeded"),
    CloudMapFault.DENIED: (400, "AccessDeniedException", "not authorized to perform this action"),
    CloudMapFault.ERROR: (500, "InternalFailure", "internal failure"),
}


class _Refused(Exception):
    """An answer with an error: its code and message."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class CloudMap:
    """`DiscoverInstances` and `DiscoverInstancesRevision` over HTTP, for every service of the lab.

    As at AWS, an answer holds 100 instances unless `MaxResults` says otherwise, 1,000 at most, in random order, without
    a next page. The revision grows when an instance comes or goes, and not when its health changes. A registration is
    shown when DNS shows it, a deregistration at once, a change of health after `health_lag`. Counts, faults and delays
    may be read and set from any thread."""

    def __init__(self, thread: LoopThread, namespace: str, rng: Random, address: str) -> None:
        self.namespace = namespace
        self.calls: Counter[str] = Counter()
        """Calls received, by operation."""
        self.health_lag = 30.0
        """Seconds until a change of health is shown. Cloud Map waits about 30."""
        self.delay = 0.0
        """Seconds each answer waits."""
        self.in_flight = 0
        self.requests = 0
        self._fault: CloudMapFault | None = None
        self._faults: dict[str, CloudMapFault] = {}
        self._listings: dict[str, Listing] = {}
        self._rng = rng
        self._thread = thread
        self._open: set[Connection] = set()
        self._listener: socket.socket | None = sockets.bind(address, 0)
        self.address, self.port = self._listener.getsockname()
        self.endpoint_url = f"http://{self.address}:{self.port}"
        """What to give to a client as `endpoint_url`, with `inject_host_prefix=False`."""
        thread.call(self._listen)

    def __repr__(self) -> str:
        fault = f" {self._fault.value}" if self._fault else ""
        return f"<CloudMap {self.endpoint_url} {self.total} calls{fault}>"

    @property
    def total(self) -> int:
        """Calls received."""
        return sum(self.calls.copy().values())

    def reset_counts(self) -> None:
        """Count from zero again."""
        self._thread.call(self.calls.clear)

    @property
    def fault(self) -> CloudMapFault | None:
        """What happens to every call in place of an answer; None: nothing. The text of a fault may be assigned."""
        return self._fault

    @fault.setter
    def fault(self, fault: CloudMapFault | str | None) -> None:
        self._fault = None if fault is None else CloudMapFault(fault)

    def fail(self, operation: str, fault: CloudMapFault | str | None) -> None:
        """Have one operation fail, or with None no longer; this goes before `fault`."""
        value = None if fault is None else CloudMapFault(fault)

        def change() -> None:
            self._faults.pop(operation, None)
            if value is not None:
                self._faults[operation] = value

        self._thread.call(change)

    def heal(self) -> None:
        """End every fault and delay."""
        self._thread.call(self._faults.clear)
        self._fault = None
        self.delay = 0.0

    def add(self, service: str, instance_id: str, attributes: Mapping[str, str]) -> None:
        """Register an instance without a task, or register it anew. A service that is not there is made."""

        def change() -> None:
            if service not in self._listings:
                self.serve(Listing(service, self._rng, cluster="default", family=service, instance_port=True))
            self._listings[service].put(instance_id, attributes)

        self._thread.call(change)

    def remove(self, service: str, instance_id: str) -> None:
        """Deregister an instance."""
        self._thread.call(lambda: self._listings[service].drop(instance_id))

    def set_revision(self, service: str, revision: int) -> None:
        """Have a service tell this revision until its instances change: for revisions that are wrong."""
        self._thread.call(lambda: setattr(self._listings[service], "revision", revision))

    # What follows runs in the loop's thread.

    def serve(self, listing: Listing) -> None:
        """Answer for a service from now on."""
        self._listings[listing.name] = listing

    def forget(self, listing: Listing) -> None:
        """Undo `serve`."""
        del self._listings[listing.name]

    def end(self) -> None:
        """Stop answering and close every socket."""
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            sockets.close_listener(self._listener)
            self._listener = None
        for connection in list(self._open):
            connection.abort()

    def _listen(self) -> None:
        if self._listener is not None:
            self._listener.listen(sockets.BACKLOG)
            asyncio.get_running_loop().add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        while self._listener is not None:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.setblocking(False)
            connection = Connection(self, sock)
            self._open.add(connection)
            loop = asyncio.get_running_loop()
            loop.create_task(_handshake(connection, sock))  # noqa: RUF006  # the connection keeps it alive

    # As the host of its connections

    @property
    def draining(self) -> bool:
        """Never: connections are kept."""
        return False

    @property
    def hanging(self) -> bool:
        """Is nothing said to new requests?"""
        return self._fault is CloudMapFault.SILENCE

    def ended(self, connection: Connection) -> None:
        """A connection is closed."""
        self._open.discard(connection)

    def answer(self, request: Request) -> Reply | None:
        """The answer to a call; None: there never will be an answer."""
        operation = request.header("x-amz-target").removeprefix(_PREFIX)
        self.calls[operation] += 1
        fault = self._faults.get(operation, self._fault)
        if fault is CloudMapFault.SILENCE:
            return None
        if fault is CloudMapFault.GARBAGE:
            return self._reply(200, b"<html>it works</html>")
        if fault is not None:
            status, code, message = _ERRORS[fault]
            return self._error(status, code, message)
        try:
            parameters = json.loads(request.body)
            if operation == "DiscoverInstances":
                found = self._discover(parameters)
            elif operation == "DiscoverInstancesRevision":
                found = {"InstancesRevision": self._listing(parameters).revision}
            else:
                raise _Refused("UnknownOperationException", f"no operation {operation!r}")
        except _Refused as refused:
            return self._error(400, refused.code, str(refused))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return self._error(400, "InvalidInput", f"{type(error).__name__}: {error}")
        return self._reply(200, json.dumps(found).encode())

    def _error(self, status: int, code: str, message: str) -> Reply:
        return self._reply(status, json.dumps({"__type": code, "message": message}).encode())

    def _reply(self, status: int, body: bytes) -> Reply:
        return Reply(status, (("Content-Type", "application/x-amz-json-1.1"),), body, after=self.delay)

    def _listing(self, parameters: dict[str, Any]) -> Listing:
        if parameters["NamespaceName"] != self.namespace or parameters.get("OwnerAccount", ACCOUNT) != ACCOUNT:
            raise _Refused("NamespaceNotFound", f"no namespace {parameters['NamespaceName']}")
        listing = self._listings.get(parameters["ServiceName"])
        if listing is None:
            raise _Refused("ServiceNotFound", f"no service {parameters['ServiceName']}")
        return listing

    def _discover(self, parameters: dict[str, Any]) -> dict[str, Any]:
        listing = self._listing(parameters)
        most = parameters.get("MaxResults", _USUAL_RESULTS)
        if not 1 <= most <= _MOST_RESULTS:
            raise _Refused("InvalidInput", f"MaxResults must be between 1 and {_MOST_RESULTS}")
        chosen = _having(list(listing.instances.items()), parameters.get("QueryParameters", {}))
        chosen = _having(chosen, parameters.get("OptionalParameters", {})) or chosen
        chosen = _of_health(chosen, parameters.get("HealthStatus", "ALL"))
        chosen = self._rng.sample(chosen, min(most, len(chosen)))
        return {
            "Instances": [
                {
                    "InstanceId": instance_id,
                    "NamespaceName": self.namespace,
                    "ServiceName": listing.name,
                    "HealthStatus": "HEALTHY" if listed.healthy else "UNHEALTHY",
                    "Attributes": listed.attributes,
                }
                for instance_id, listed in chosen
            ],
            "InstancesRevision": listing.revision,
        }


_Rows = list[tuple[str, Listed]]


def _having(rows: _Rows, wanted: dict[str, str]) -> _Rows:
    return [row for row in rows if all(row[1].attributes.get(name) == value for name, value in wanted.items())]


def _of_health(rows: _Rows, status: str) -> _Rows:
    healthy = [row for row in rows if row[1].healthy]
    match status:
        case "ALL":
            return rows
        case "HEALTHY":
            return healthy
        case "UNHEALTHY":
            return [row for row in rows if not row[1].healthy]
        case "HEALTHY_OR_ELSE_ALL":
            return healthy or rows
    raise _Refused("InvalidInput", f"no health status {status!r}")


async def _handshake(connection: Connection, sock: socket.socket) -> None:
    try:
        await asyncio.get_running_loop().connect_accepted_socket(lambda: connection, sock)
    except BaseException:  # cancelled too: nobody else knows of the socket
        sock.close()
        raise
