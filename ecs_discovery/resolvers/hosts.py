"""The hosts file, read as glibc reads it. For addresses it is looked at before DNS."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from typing import ClassVar
from weakref import WeakValueDictionary

from ecs_discovery.errors import NoEndpoints
from ecs_discovery.models import PROXIED, Question, Resolution, replace
from ecs_discovery.resolvers.dns.records import AddressRecord, endpoints_from_addresses, plain_name
from ecs_discovery.runtime.files import Stamp, opened

__all__ = ["HOSTS_TTL", "HostsFile"]

HOSTS_TTL = 5.0
"""How long an answer from the file holds, in seconds: the file names no TTL and may be edited at any time."""
_MAX_BYTES = 4 * 1024 * 1024  # what follows is ignored; larger files are block lists, not services
_BLOCK = 64 * 1024
_MAX_LINE = 4096  # bytes; longer ones are passed over
_MAX_LINES = 1000  # that have the name somewhere in them; what follows is ignored
_MAX_NAMES = 1000  # answers remembered

# Addresses that the agent of ECS Service Connect writes for the aliases of its proxy.
_SERVICE_CONNECT = (ip_network("127.255.0.0/16"), ip_network("2600:f0f0::/32"))

_Records = tuple[AddressRecord, ...]


class HostsFile:
    """Names and addresses of a hosts file, looked for again whenever the file changes. A missing file has no names.

    The file is searched for the name that is asked for. The caller waits for it, and with asyncio the event loop does.
    So a long block list is not taken apart for a few names.
    """

    _shared: ClassVar[WeakValueDictionary[str, HostsFile]] = WeakValueDictionary()

    @classmethod
    def shared(cls, path: str) -> HostsFile:
        """The one of the process for this path: what it has found serves all who ask."""
        found = cls._shared.get(path)
        return found if found is not None else cls._shared.setdefault(path, cls(path))

    def __init__(self, path: str) -> None:
        self._path = path
        self._found: tuple[Stamp | None, dict[str, _Records | None]] = (None, {})

    def __repr__(self) -> str:
        return f"<HostsFile {self._path}>"

    def lookup(self, question: Question) -> Resolution | None:
        """The file's answer to an `a` or `aaaa` question, None if it does not have the name.

        Raises `NoEndpoints` if the file has the name without a usable address of that family. DNS is asked only for
        names that the file does not have (glibc's `hosts: files dns`).
        """
        records = self._records(plain_name(question.name))
        if records is None:
            return None
        proxied = any(_is_service_connect(record.address) for record in records)
        if question.scheme == "srv" and proxied:
            raise NoEndpoints(
                f"{self._path} has it as a Service Connect alias, which has no SRV record",
                target=str(question),
                ttl=HOSTS_TTL,
            )
        if question.scheme not in ("a", "aaaa"):
            return None
        endpoints = endpoints_from_addresses([record for record in records if record.family == question.scheme])
        if not endpoints:
            raise NoEndpoints(
                f"{self._path} has the name, but no usable {question.scheme.upper()} address for it",
                target=str(question),
                hint="names in the hosts file are not asked for in DNS; DnsPolicy(hosts_file='') leaves it out",
                ttl=HOSTS_TTL,
            )
        if proxied:
            endpoints = tuple(replace(endpoint, attributes=(PROXIED,)) for endpoint in endpoints)
            return Resolution(endpoints[:1], HOSTS_TTL, "service-connect")
        return Resolution(endpoints, HOSTS_TTL, "hosts", partial=len(records) >= _MAX_LINES)

    def has_alias(self, name: str) -> bool:
        """Is this name a Service Connect alias?"""
        return any(_is_service_connect(record.address) for record in self._records(plain_name(name)) or ())

    def _records(self, name: str) -> _Records | None:
        """The records of a name, None if the file does not have it."""
        try:
            status = os.stat(self._path)
            stamp, found = self._found
            if stamp == (status.st_mtime_ns, status.st_size, status.st_ino, status.st_dev) and name in found:
                return found[name]
            with opened(self._path) as (descriptor, stamp):
                records = _search(descriptor, name)
        except (OSError, ValueError):  # ValueError: a NUL in the path
            return None
        known, found = self._found  # as it is now: another thread may have met a newer file
        if stamp != known or len(found) >= _MAX_NAMES:
            found = {}
        found[name] = records
        self._found = (stamp, found)
        return records


def _is_service_connect(address: str) -> bool:
    return any(ip_address(address) in network for network in _SERVICE_CONNECT)


def _search(descriptor: int, name: str) -> _Records | None:
    """The addresses of a name in the file's order; lines that make no sense are skipped."""
    found: list[AddressRecord] = []
    if not name:
        return None
    for number, line in enumerate(_lines(descriptor, name.encode("utf-8", "replace"))):
        if number >= _MAX_LINES:
            break
        words = line.partition(b"#")[0].decode("utf-8", "replace").split()
        if name not in map(plain_name, words[1:]) or not words[0].isprintable():
            continue
        try:
            address = ip_address(words[0])
        except ValueError:
            continue
        found.append(AddressRecord(name, "a" if address.version == 4 else "aaaa", str(address), HOSTS_TTL))
    return tuple(found) or None


def _lines(descriptor: int, name: bytes) -> Iterator[bytes]:
    """The lines with this word, of those that are not too long. Case does not matter."""
    word = re.escape(name)
    # The name first: a fixed text is what the search is fast at.
    pattern = re.compile(word + rb"(?<=[\s]" + word + rb")\.?(?=[\s#]|\Z)")
    rest, left = b"", _MAX_BYTES
    while True:
        block = os.read(descriptor, min(_BLOCK, left))
        left -= len(block)
        text, _, rest = (rest + block).rpartition(b"\n") if block else (rest, b"", b"")
        if len(rest) > _MAX_LINE:
            rest = b"#"  # the rest of this line is passed over
        lower, at = text.lower(), 0
        while (match := pattern.search(lower, at)) is not None:
            begin = text.rfind(b"\n", 0, match.start()) + 1
            end = text.find(b"\n", match.end())
            at = len(text) if end < 0 else end
            if at - begin <= _MAX_LINE:
                yield text[begin:at]
        if not block:
            return
