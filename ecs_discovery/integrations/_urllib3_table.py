"""What an exception of urllib3 says of a request."""

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

from ecs_discovery.core.calls.failure_kinds import Fault
from ecs_discovery.integrations.http.failure_table import FailureTable, Row, by_the_kernel, of_this_side
from ecs_discovery.integrations.http.liveness import PeerSilentError, PeerUncertainError

__all__ = ["TABLE"]

_FILES = frozenset({errno.ENOENT, errno.EACCES, errno.EISDIR, errno.ENOTDIR})


def _no_connection_in_time(error: BaseException) -> bool:
    return not isinstance(error, NewConnectionError)  # urllib3 derives it from the timeout


def _file(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in _FILES


TABLE = FailureTable(
    unsent=(
        Row(Fault.OWN, (ClosedPoolError, EmptyPoolError)),
        Row(Fault.OWN, (OSError,), of_this_side),
        Row(Fault.CONNECT_TIMEOUT, (ConnectTimeoutError,), _no_connection_in_time),
        Row(Fault.CERTIFICATE, (SSLCertVerificationError, CertificateError)),
        # The connection ended in the handshake, if it came so far.
        Row(Fault.CONNECT, (SSLEOFError, SSLZeroReturnError, ConnectionError)),
        Row(Fault.TLS, (SSLError,)),
        Row(Fault.OWN_FILE, (OSError,), _file),
        Row(Fault.CONNECT_TIMEOUT, (ReadTimeoutError, TimeoutError)),  # in the handshake
        Row(Fault.CONNECT, (NewConnectionError, ProtocolError, OSError)),
    ),
    sent=(
        Row(Fault.SILENT, (OSError,), by_the_kernel),
        Row(Fault.READ_TIMEOUT, (ReadTimeoutError, TimeoutError)),
        Row(Fault.DOUBTED, (PeerUncertainError,)),
        Row(Fault.SILENT, (PeerSilentError,)),
        Row(Fault.CLOSED, (RemoteDisconnected, ConnectionError)),
        Row(Fault.CUT, (IncompleteRead,)),
        Row(Fault.BAD_ANSWER, (HTTPException,)),
    ),
)
