"""Name resolution of a program without this package: `getaddrinfo` over a resolver that caches by TTL.

In a VPC the resolver behind `getaddrinfo` would do this; for a lab on loopback it has to be brought along.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from random import Random
from threading import Lock
from typing import Any

import dns.exception
import dns.message
import dns.nameserver
import dns.resolver

__all__ = ["PlainDns"]

_RECORDS = {socket.AF_INET: "A", socket.AF_INET6: "AAAA"}


class PlainDns:
    """Answers names of a namespace from one name server; each answer holds for its TTL.

    Addresses come in another order each time, as from a resolver that rotates them.
    """

    def __init__(self, namespace: str, address: str, port: int, *, rng: Random | None = None) -> None:
        self._suffix = f".{namespace}"
        self._rng = rng or Random()
        self._server = _Counted(address, port)
        self._resolver = dns.resolver.Resolver(configure=False)
        self._resolver.nameservers = [self._server]
        self._resolver.cache = dns.resolver.Cache()

    @property
    def queries(self) -> int:
        """Queries that went to the name server."""
        return self._server.queries

    @contextlib.contextmanager
    def installed(self) -> Iterator[PlainDns]:
        """Inside the block `socket.getaddrinfo` answers names of the namespace from here, all others as before."""
        before = socket.getaddrinfo

        def getaddrinfo(
            host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
        ) -> list[Any]:
            name = host.decode("ascii", "replace") if isinstance(host, bytes) else host
            if not isinstance(name, str) or not name.removesuffix(".").lower().endswith(self._suffix):
                return before(host, port, family, type, proto, flags)
            return self._answer(before, name, port, family, type, proto, flags)

        socket.getaddrinfo = getaddrinfo
        try:
            yield self
        finally:
            socket.getaddrinfo = before

    def addresses(self, name: str, family: int = socket.AF_UNSPEC) -> list[str]:
        """The addresses of a name. Raises `socket.gaierror` as `getaddrinfo` does."""
        found: list[str] = []
        for one, kind in _RECORDS.items():
            if family in (socket.AF_UNSPEC, one):
                try:
                    answer = self._resolver.resolve(name, kind, search=False, raise_on_no_answer=False)
                except dns.resolver.NXDOMAIN:
                    break
                except dns.exception.DNSException as error:
                    raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution") from error
                found += [record.to_text() for record in answer.rrset or ()]
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        self._rng.shuffle(found)
        return found

    def _answer(self, plain: Callable[..., list[Any]], name: str, port: Any, family: int, *rest: int) -> list[Any]:
        return [entry for address in self.addresses(name, family) for entry in plain(address, port, family, *rest)]


class _Counted(dns.nameserver.Do53Nameserver):
    def __init__(self, address: str, port: int) -> None:
        super().__init__(address, port)
        self.queries = 0
        self._lock = Lock()

    def query(self, *args: Any, **options: Any) -> dns.message.Message:
        with self._lock:
            self.queries += 1
        return super().query(*args, **options)
