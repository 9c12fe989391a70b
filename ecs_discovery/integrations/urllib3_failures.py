"""What an exception of urllib3 says of a request: the class of its failure, and a word for it."""

from __future__ import annotations

import errno
from http.client import HTTPException, IncompleteRead, RemoteDisconnected
from ssl import SSLCertVerificationError

from urllib3.exceptions import (
    ClosedPoolError,
    ConnectTimeoutError,
    MaxRetryError,
    NewConnectionError,
    ProtocolError,
    ReadTimeoutError,
    SSLError,
)
from urllib3.util.ssl_match_hostname import CertificateError  # of another name: urllib3 compares by itself

from ecs_discovery.core.retry import Failure
from ecs_discovery.sockets import is_ours

__all__ = ["PeerSilentError", "classify"]


class PeerSilentError(ConnectionAbortedError):
    """The peer's kernel did not acknowledge the request: the task's network interface is gone."""


def classify(error: BaseException, *, sent: bool) -> tuple[Failure, str]:
    """The class of a request's failure, and a word for it.

    `error` is urllib3's or one that was raised from it; `sent` is whether bytes may have left.
    """
    chain = [error]
    while len(chain) < 16 and (deeper := _deeper(chain[-1])) is not None and deeper not in chain:
        chain.append(deeper)
    if not sent:
        if any(isinstance(item, ClosedPoolError) or (isinstance(item, OSError) and is_ours(item)) for item in chain):
            return Failure.NOT_SENT, "own"
        if any(isinstance(item, ConnectTimeoutError) and not isinstance(item, NewConnectionError) for item in chain):
            return Failure.NOT_SENT, "connect timeout"
        if any(isinstance(item, (SSLCertVerificationError, CertificateError)) for item in chain):
            return Failure.NOT_SENT, "certificate"
        if any(isinstance(item, SSLError) for item in chain):
            return Failure.NOT_SENT, "tls"
        if any(isinstance(item, (ReadTimeoutError, TimeoutError)) for item in chain):
            return Failure.NOT_SENT, "connect timeout"  # in the handshake
        if any(isinstance(item, (NewConnectionError, ProtocolError, OSError)) for item in chain):
            return Failure.NOT_SENT, "connect"
        return Failure.OTHER, type(error).__name__
    # Unanswered keep-alive probes or retransmissions: the kernel ended the connection. Python calls that a
    # TimeoutError too, but only the kernel's has an errno.
    if any(isinstance(item, OSError) and item.errno == errno.ETIMEDOUT for item in chain):
        return Failure.CLOSED, "silent"
    if any(isinstance(item, (ReadTimeoutError, TimeoutError)) for item in chain):
        return Failure.OTHER, "read timeout"
    if any(isinstance(item, PeerSilentError) for item in chain):
        return Failure.CLOSED, "silent"
    if any(isinstance(item, (RemoteDisconnected, ConnectionError)) for item in chain):
        return Failure.CLOSED, "closed"
    if any(isinstance(item, IncompleteRead) for item in chain):
        return Failure.CLOSED, "cut"
    if any(isinstance(item, HTTPException) for item in chain):
        return Failure.OTHER, "bad answer"
    return Failure.OTHER, type(error).__name__


def _deeper(error: BaseException) -> BaseException | None:
    if isinstance(error, MaxRetryError) and error.reason is not None:
        return error.reason
    return error.__cause__ or error.__context__
