"""One health check in a thread."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

from ecs_discovery.client.health_check import BLOCK, GOOD, Answer, Result, failed, judged, request
from ecs_discovery.core.balancing.health_checks import Check
from ecs_discovery.runtime import sockets

__all__ = ["examine"]


def examine(check: Check, clock: Callable[[], float] = time.monotonic) -> Result:
    """Check an endpoint, within the policy's time limit."""
    deadline_at = clock() + check.policy.timeout
    sock: socket.socket | None = None
    try:
        sock = sockets.connect(check.node.endpoint, check.policy.timeout)
        if check.policy.kind == "tcp":
            return GOOD
        answer = Answer()
        sock.settimeout(_left(deadline_at - clock()))
        sock.sendall(request(check))
        while answer.status is None:
            sock.settimeout(
                _left(deadline_at - clock())
            )  # a limit of each read alone would let a byte now and then go on for ever
            answer.feed(sock.recv(BLOCK))
        return judged(check, answer.status)
    except (OSError, ValueError) as error:
        return failed(check, error, sock is not None, clock() - deadline_at)
    finally:
        if sock is not None:
            sock.close()


def _left(left: float) -> float:
    if left <= 0:
        raise TimeoutError
    return left
