"""What an exception of aiohttp says of a request."""

from __future__ import annotations

from ssl import CertificateError, SSLEOFError, SSLError, SSLZeroReturnError

from aiohttp import (
    ClientConnectionError,
    ClientConnectorError,
    ClientOSError,
    ClientPayloadError,
    ClientResponseError,
    ServerDisconnectedError,
    ServerFingerprintMismatch,
    ServerTimeoutError,
)

from ecs_discovery.core.calls.failure_kinds import Fault
from ecs_discovery.integrations.http.failure_table import FailureTable, Row, by_the_kernel, of_this_side
from ecs_discovery.integrations.http.liveness import PeerSilentError

__all__ = ["TABLE", "PoolTimeout"]


class PoolTimeout(TimeoutError):
    """No connection of the session's became free in time: the limit is this side's."""


def _of_no_connection(error: BaseException) -> bool:
    # The class itself is what aiohttp raises for a connector that was closed, and for a body that failed as it was
    # read: the application's doing.
    return type(error) is ClientConnectionError


def _of_reading_the_body(error: BaseException) -> bool:
    return "write request body" in str(error) and not isinstance(error.__cause__, ConnectionError)


TABLE = FailureTable(
    unsent=(
        Row(Fault.NOT_OURS, (ClientConnectionError,), _of_no_connection),
        Row(Fault.OWN, (PoolTimeout,)),
        Row(Fault.OWN, (OSError,), of_this_side),
        Row(Fault.CERTIFICATE, (CertificateError, ServerFingerprintMismatch)),
        # The connection ended in the handshake, if it came so far.
        Row(Fault.CONNECT, (SSLEOFError, SSLZeroReturnError, ConnectionError)),
        Row(Fault.TLS, (SSLError,)),
        Row(Fault.CONNECT_TIMEOUT, (TimeoutError,)),
        Row(Fault.CONNECT, (ClientConnectorError, OSError)),
    ),
    sent=(
        Row(Fault.NOT_OURS, (ClientConnectionError,), _of_no_connection),
        Row(Fault.NOT_OURS, (ClientOSError,), _of_reading_the_body),
        Row(Fault.SILENT, (OSError,), by_the_kernel),
        Row(Fault.SILENT, (PeerSilentError,)),
        Row(Fault.READ_TIMEOUT, (ServerTimeoutError,)),
        Row(Fault.OUT_OF_TIME, (TimeoutError,)),  # the session's own limit for the whole request
        Row(Fault.CUT, (ClientPayloadError,)),
        Row(Fault.BAD_ANSWER, (ClientResponseError,)),
        Row(Fault.CLOSED, (ServerDisconnectedError, ConnectionError)),
    ),
)
