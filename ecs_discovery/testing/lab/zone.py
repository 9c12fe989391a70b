"""What the names of a lab stand for: records of services, drawn as Route 53 does, and others added by hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from random import Random
from typing import Literal

import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.CNAME
import dns.rdtypes.IN.SRV
import dns.rrset

__all__ = ["Found", "Instance", "RecordKind", "Routing", "ServiceRecords", "Zone"]

RecordKind = Literal["A", "SRV", "A+SRV"]
Routing = Literal["MULTIVALUE", "WEIGHTED"]

_MOST_RECORDS = 8
_LONGEST_CNAME_CHAIN = 8
_SOA_MINIMUM = 86400


@dataclass(frozen=True, slots=True)
class Instance:
    """A registered task, as the registry knows it."""

    id: str
    address: str
    port: int
    healthy: bool = True


@dataclass(slots=True)
class ServiceRecords:
    """The part of a service that DNS shows now."""

    name: str
    """Fully qualified, in lower case, without a trailing dot."""
    kind: RecordKind
    ttl: float
    routing: Routing = "MULTIVALUE"
    instances: dict[str, Instance] = field(default_factory=dict)

    def draw(self, rng: Random) -> list[Instance]:
        """The instances one answer shows: up to 8 in random order, or 1 if WEIGHTED.

        Healthy instances; without any, unhealthy instances (Route 53 fails open)."""
        healthy = [instance for instance in self.instances.values() if instance.healthy]
        choice = healthy or list(self.instances.values())
        most = 1 if self.routing == "WEIGHTED" else _MOST_RECORDS
        return rng.sample(choice, min(most, len(choice)))


class _Missing(Enum):
    NAME = "name"
    TYPE = "type"
    """The name exists, with records of other types, or with names below it only."""


@dataclass(slots=True)
class Found:
    """The answer to a question, before it becomes a message."""

    rcode: dns.rcode.Rcode = dns.rcode.NOERROR
    answer: list[dns.rrset.RRset] = field(default_factory=list)
    authority: list[dns.rrset.RRset] = field(default_factory=list)
    additional: list[dns.rrset.RRset] = field(default_factory=list)


@lru_cache(maxsize=4096)
def _rdata(kind: dns.rdatatype.RdataType, text: str) -> dns.rdata.Rdata:
    return dns.rdata.from_text(dns.rdataclass.IN, kind, text)


@lru_cache(maxsize=4096)
def _name(text: str) -> dns.name.Name:
    return dns.name.from_text(text)


def plain(name: dns.name.Name) -> str:
    """A name as this module writes it: lower case, no trailing dot."""
    return name.to_text(omit_final_dot=True).lower()


class Zone:
    """A private hosted zone, and whatever else was added to it."""

    def __init__(self, namespace: str, rng: Random) -> None:
        self.namespace = namespace
        self.negative_ttl = 15.0
        """How long a negative answer holds: the SOA record's TTL, its MINIMUM being larger (RFC 2308, section 5)."""
        self.additional = True
        """Whether the addresses of SRV targets come along."""
        self._rng = rng
        self._services: dict[str, ServiceRecords] = {}
        self._static: dict[tuple[str, dns.rdatatype.RdataType], tuple[float, tuple[str, ...]]] = {}

    def __repr__(self) -> str:
        return f"<Zone {self.namespace} {len(self._services)} services, {len(self._static)} static record sets>"

    def qualified(self, name: str) -> str:
        """A name without a dot belongs to the namespace; any other is fully qualified."""
        short = name.rstrip(".").lower()
        return short if "." in short or name.endswith(".") else f"{short}.{self.namespace}"

    def serve(self, records: ServiceRecords) -> None:
        """Answer for a service from now on. Raises `ValueError` if there is one of that name."""
        if records.name in self._services:
            raise ValueError(f"there is a service {records.name} already")
        self._services[records.name] = records

    def forget(self, records: ServiceRecords) -> None:
        """Undo `serve`."""
        del self._services[records.name]

    def add(self, name: str, kind: str, *rdata: str, ttl: float = 60.0) -> None:
        """Answer with these records for `name`, in place of others of that type."""
        rdtype = dns.rdatatype.from_text(kind)
        for text in rdata:
            _rdata(rdtype, text)
        self._static[self.qualified(name), rdtype] = (ttl, rdata)

    def remove(self, name: str, kind: str | None = None) -> None:
        """Forget what was added for `name`: one type, or all."""
        full = self.qualified(name)
        rdtype = None if kind is None else dns.rdatatype.from_text(kind)
        for key in [key for key in self._static if key[0] == full and rdtype in (None, key[1])]:
            del self._static[key]

    def find(self, asked: dns.name.Name, rdtype: dns.rdatatype.RdataType) -> Found:
        """Answer a question; owner names keep the case in which they were asked for."""
        found = Found()
        owner = asked
        for _ in range(_LONGEST_CNAME_CHAIN):
            records = self._records(plain(owner), rdtype)
            if isinstance(records, dns.rrset.RRset):
                found.answer.append(_owned(records, owner))
                if records.rdtype != dns.rdatatype.CNAME or rdtype == dns.rdatatype.CNAME:
                    found.additional.extend(self._targets(records))
                    return found
                owner = _cname_target(records)
                continue
            if self._is_ours(plain(owner)):
                found.authority.append(self.soa())
                if records is _Missing.NAME:
                    found.rcode = dns.rcode.NXDOMAIN
            elif records is _Missing.NAME and owner is asked:
                found.rcode = dns.rcode.REFUSED
            return found
        found.rcode = dns.rcode.SERVFAIL
        return found

    def soa(self) -> dns.rrset.RRset:
        """The SOA record of the zone."""
        text = f"ns-1536.awsdns-00.co.uk. awsdns-hostmaster.amazon.com. 1 7200 900 1209600 {_SOA_MINIMUM}"
        return _rrset(self.namespace, dns.rdatatype.SOA, self.negative_ttl, [text])

    def _is_ours(self, name: str) -> bool:
        return name == self.namespace or name.endswith("." + self.namespace)

    def _records(self, name: str, rdtype: dns.rdatatype.RdataType) -> dns.rrset.RRset | _Missing:
        for kind in (rdtype, dns.rdatatype.CNAME):
            if (name, kind) in self._static:
                ttl, texts = self._static[name, kind]
                return _rrset(name, kind, ttl, texts) if texts else _Missing.TYPE
        records = self._service_records(name, rdtype)
        if records is not None:
            return records
        if name == self.namespace:
            return self.soa() if rdtype == dns.rdatatype.SOA else _Missing.TYPE
        below = "." + name
        return (
            _Missing.TYPE if any(known == name or known.endswith(below) for known in self._names()) else _Missing.NAME
        )

    def _service_records(self, name: str, rdtype: dns.rdatatype.RdataType) -> dns.rrset.RRset | None:
        service = self._services.get(name)
        if service is not None and service.instances:
            if rdtype == dns.rdatatype.A and "A" in service.kind:
                texts = [instance.address for instance in service.draw(self._rng)]
                return _rrset(name, rdtype, service.ttl, texts)
            if rdtype == dns.rdatatype.SRV and "SRV" in service.kind:
                texts = [f"1 1 {one.port} {one.id}.{name}." for one in service.draw(self._rng)]
                return _rrset(name, rdtype, service.ttl, texts)
        label, _, parent = name.partition(".")
        service = self._services.get(parent)
        if service is not None and "SRV" in service.kind and rdtype == dns.rdatatype.A:
            instance = service.instances.get(label)
            if instance is not None:
                return _rrset(name, rdtype, service.ttl, [instance.address])
        return None

    def _names(self) -> Iterator[str]:
        yield from (name for name, _ in self._static)
        for service in self._services.values():
            if service.instances:
                yield service.name
                if "SRV" in service.kind:
                    yield from (f"{one}.{service.name}" for one in service.instances)

    def _targets(self, records: dns.rrset.RRset) -> Iterator[dns.rrset.RRset]:
        if not self.additional:
            return
        for rdata in records:
            if isinstance(rdata, dns.rdtypes.IN.SRV.SRV):
                addresses = self._records(plain(rdata.target), dns.rdatatype.A)
                if isinstance(addresses, dns.rrset.RRset) and addresses.rdtype == dns.rdatatype.A:
                    yield addresses


def _rrset(name: str, kind: dns.rdatatype.RdataType, ttl: float, texts: list[str] | tuple[str, ...]) -> dns.rrset.RRset:
    records = dns.rrset.RRset(_name(name), dns.rdataclass.IN, kind)
    records.ttl = int(ttl)
    for text in texts:
        records.add(_rdata(kind, text))
    return records


def _owned(records: dns.rrset.RRset, owner: dns.name.Name) -> dns.rrset.RRset:
    records.name = owner
    return records


def _cname_target(records: dns.rrset.RRset) -> dns.name.Name:
    rdata = records[0]
    assert isinstance(rdata, dns.rdtypes.ANY.CNAME.CNAME)
    return rdata.target
