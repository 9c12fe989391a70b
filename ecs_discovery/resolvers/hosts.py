"""The hosts file, read as glibc reads it. For addresses it is looked at before DNS."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network

from ecs_discovery.errors import NoEndpoints
from ecs_discovery.models import PROXIED, Question, Resolution
from ecs_discovery.resolvers.records import MAX_ENDPOINTS, AddressRecord, endpoints_from_addresses, plain_name

__all__ = ["HOSTS_TTL", "HostsFile"]

HOSTS_TTL = 5.0
"""How long an answer from the file holds, in seconds: the file names no TTL and may be edited at any time."""
_MAX_BYTES = 4 * 1024 * 1024  # what follows is ignored; larger files are block lists, not services

# Addresses that the agent of ECS Service Connect writes for the aliases of its proxy.
_SERVICE_CONNECT = (ip_network("127.255.0.0/16"), ip_network("2600:f0f0::/32"))

_Names = Mapping[str, tuple[AddressRecord, ...]]


@dataclass(frozen=True, slots=True)
class _Snapshot:
    stamp: tuple[int, int, int] | None
    names: _Names


class HostsFile:
    """Names and addresses of a hosts file, read again whenever the file changes. A missing file has no names."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._snapshot = _Snapshot(None, {})

    def __repr__(self) -> str:
        return f"<HostsFile {self._path} {len(self._snapshot.names)} names>"

    def lookup(self, question: Question) -> Resolution | None:
        """The file's answer to an `a` or `aaaa` question, None if it does not have the name.

        Raises `NoEndpoints` if the file has the name with no usable address of that family: a name
        found in the file is not asked for in DNS (glibc's `hosts: files dns`).
        """
        records = self._names().get(plain_name(question.name))
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
        return Resolution(endpoints[:MAX_ENDPOINTS], HOSTS_TTL, "hosts", partial=len(endpoints) > MAX_ENDPOINTS)

    def has_alias(self, name: str) -> bool:
        """Is this name a Service Connect alias?"""
        return any(_is_service_connect(record.address) for record in self._names().get(plain_name(name), ()))

    def _names(self) -> _Names:
        try:
            status = os.stat(self._path)
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
            snapshot = self._snapshot
            if stamp != snapshot.stamp:
                with open(self._path, "rb") as file:
                    snapshot = _Snapshot(stamp, parse_hosts(file.read(_MAX_BYTES)))
                self._snapshot = snapshot
        except OSError:
            return {}
        return snapshot.names


def _is_service_connect(address: str) -> bool:
    return any(ip_address(address) in network for network in _SERVICE_CONNECT)


def parse_hosts(content: bytes) -> _Names:
    """The names of a hosts file with their addresses in the file's order; lines that make no sense are skipped."""
    found: dict[str, list[AddressRecord]] = {}
    for line in content.decode("utf-8", "replace").split("\n"):
        words = line.partition("#")[0].split()
        if len(words) < 2:
            continue
        try:
            address = ip_address(words[0])
        except ValueError:
            continue
        family = "a" if address.version == 4 else "aaaa"
        for name in map(plain_name, words[1:]):
            found.setdefault(name, []).append(AddressRecord(name, family, str(address), HOSTS_TTL))
    return {name: tuple(records) for name, records in found.items()}
