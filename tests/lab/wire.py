"""Talking to a lab with nothing but sockets, http.client and dnspython."""

from __future__ import annotations

import http.client
import json
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

import dns.message
import dns.query

from ecs_discovery.testing.lab import Lab, LabTask


def eventually(condition: Callable[[], object], *, seconds: float = 3.0) -> None:
    """Wait for a condition, in small steps, and fail if it does not come."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not come true in time"
        time.sleep(0.005)


def dial(task: LabTask, *, timeout: float = 2.0) -> socket.socket:
    return socket.create_connection((task.address, task.port), timeout)


def get(task: LabTask, path: str = "/", **request: Any) -> tuple[http.client.HTTPResponse, bytes]:
    """One request on a connection of its own."""
    connection = http.client.HTTPConnection(task.address, task.port, timeout=2)
    try:
        connection.request(request.pop("method", "GET"), path, **request)
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


def said(task: LabTask, path: str = "/", **request: Any) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(get(task, path, **request)[1])
    return facts


def send(sock: socket.socket, path: str = "/") -> None:
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: orders.prod.local\r\n\r\n".encode())


def unacknowledged(sock: socket.socket) -> int:
    """Segments the peer's kernel has not acknowledged (tcpi_unacked, Linux)."""
    number: int = struct.unpack_from("=I", sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104), 24)[0]
    return number


def ask(
    lab: Lab, name: str, kind: str, *, tcp: bool = False, payload: int | None = None, timeout: float = 2.0
) -> dns.message.Message:
    query = dns.message.make_query(name, kind, use_edns=False if payload is None else 0, payload=payload)
    host, _, port = lab.nameserver.partition(":")
    send_query = dns.query.tcp if tcp else dns.query.udp
    return send_query(query, host, port=int(port), timeout=timeout)


def records(answer: dns.message.Message) -> list[str]:
    """The data of the answer section, in its order."""
    return [rdata.to_text() for rrset in answer.answer for rdata in rrset]


def addresses(lab: Lab, name: str) -> set[str]:
    return set(records(ask(lab, name, "A", payload=4096)))
