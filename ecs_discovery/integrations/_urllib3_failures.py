"""What an exception of urllib3 says of a request: the class of its failure, and a word for it."""

from __future__ import annotations

import errno
from http.client import HTTPException, IncompleteRead, RemoteDisconnected
from ssl import SSLCertVerificationError, SSLEOFError, SSLZeroReturnError

from urllib3.exceptions import (
    ClosedPoolError,
    ConnectTimeoutError,
    EmptyPoolError,
    NewConnectionError,
    ProtocolError,
    ReadTimeoutError,
    SSLError,
)
from urllib3.util.ssl_match_hostname import CertificateError  # of another name: urllib3 compares by itself

from ecs_discovery.client.failures import causes
from ecs_discovery.core.calls.failure_kinds import Failure
from ecs_discovery.runtime.sockets import is_ours

__all__ = ["PeerDoubtedError", "PeerSilentError", "classify"]

_FILES = frozenset({errno.ENOENT, errno.EACCES, errno.EISDIR, errno.ENOTDIR})


class PeerSilentError(ConnectionAbortedError):
    """The peer's kernel did not acknowledge the request: the task's network interface is gone."""


class PeerDoubtedError(PeerSilentError):
    """The task may have vanished, or be busy with a full queue for connections: the request goes elsewhere, once."""


def classify(error: BaseException, *, sent: bool, handled: BaseException | None = None) -> tuple[Failure, str]:
    """The class of a request's failure, and a word for it.

    `error` is urllib3's; `sent` is whether bytes may have left. The exception that the application was
    handling when it made the request (`handled`) may stand in the chain of contexts. It says nothing of the request.
    """
    chain = causes(error, handled)
    if not sent:
        if any(
            isinstance(item, (ClosedPoolError, EmptyPoolError)) or (isinstance(item, OSError) and is_ours(item))
            for item in chain
        ):
            return Failure.NOT_SENT, "own"
        if any(isinstance(item, ConnectTimeoutError) and not isinstance(item, NewConnectionError) for item in chain):
            return Failure.NOT_SENT, "connect timeout"
        if any(isinstance(item, (SSLCertVerificationError, CertificateError)) for item in chain):
            return Failure.NOT_SENT, "certificate"
        if any(isinstance(item, (SSLEOFError, SSLZeroReturnError, ConnectionError)) for item in chain):
            return Failure.NOT_SENT, "connect"  # the connection ended in the handshake, if it came so far
        if any(isinstance(item, SSLError) for item in chain):
            return Failure.NOT_SENT, "tls"
        if any(isinstance(item, OSError) and item.errno in _FILES for item in chain):
            return Failure.OTHER, "own"  # a certificate of the application's that cannot be read
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
    if any(isinstance(item, PeerDoubtedError) for item in chain):
        return Failure.CLOSED, "doubted"
    if any(isinstance(item, PeerSilentError) for item in chain):
        return Failure.CLOSED, "silent"
    if any(isinstance(item, (RemoteDisconnected, ConnectionError)) for item in chain):
        return Failure.CLOSED, "closed"
    if any(isinstance(item, IncompleteRead) for item in chain):
        return Failure.CLOSED, "cut"
    if any(isinstance(item, HTTPException) for item in chain):
        return Failure.OTHER, "bad answer"
    return Failure.OTHER, type(error).__name__
