"""Targets: what an application may ask for, taken apart, and the rules for names, addresses and ports."""

from __future__ import annotations

import re
from ipaddress import ip_address
from urllib.parse import parse_qsl, quote, urlencode

from ecs_discovery.errors import ConfigurationError
from ecs_discovery.models import Endpoint, Value

__all__ = ["HEALTH_FILTERS", "Target", "parse_host_port", "parse_target"]

HEALTH_FILTERS = ("HEALTHY_OR_ELSE_ALL", "HEALTHY", "ALL", "UNHEALTHY")
"""What Cloud Map can be told to answer with."""


class Target(Value):
    """What the application asks for, taken apart.

    `scheme` is `auto` for a plain name, else `srv`, `dns`, `cloudmap`, `static` or a registered one. `port` is
    None where the target names none. `addresses` is filled for `static` targets only.
    """

    scheme: str
    name: str
    port: int | None = None
    addresses: tuple[Endpoint, ...] = ()
    query: tuple[tuple[str, str], ...] = ()

    @property
    def asked(self) -> str:
        """The name with its query, as a question has it."""
        if not self.query:
            return self.name
        return f"{self.name}?{urlencode(self.query, safe='/:,@*', quote_via=quote)}"


_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)", re.ASCII)

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://(.*)", re.ASCII | re.IGNORECASE | re.DOTALL)

_ACCOUNT = r"[0-9]{12}"

_LIKE_ADDRESS = re.compile(r"[0-9a-f.:]+(?:%.*)?", re.ASCII | re.IGNORECASE | re.DOTALL)

_NAME_RULE = "a DNS name: labels of 1 to 63 letters, digits, '-' or '_', 253 characters at most"


def check_name(field: str, name: str) -> str:
    """`name` in lower case without a trailing dot. Raises `ConfigurationError` if it is no DNS name."""
    if not isinstance(name, str):
        raise ConfigurationError(field, name, _NAME_RULE)
    plain = name.removesuffix(".").lower()
    if not plain or len(plain) > 253 or not all(map(_LABEL.fullmatch, plain.split("."))):
        raise ConfigurationError(field, name, _NAME_RULE)
    return plain


def is_address(host: str) -> bool:
    """True for an IPv4 or IPv6 literal (brackets allowed)."""
    bare = host.strip("[]")
    if _LIKE_ADDRESS.fullmatch(bare) is None:  # a name, nearly always: `ip_address` takes long to say so
        return False
    try:
        ip_address(bare)
    except ValueError:
        return False
    return True


def parse_host_port(field: str, text: str, default_port: int | None = None) -> tuple[str, int]:
    """`address:port` or `[v6]:port` as a pair. Raises `ConfigurationError` when a part is missing or wrong."""
    allowed = "address:port, for example 127.0.0.1:8080 or [::1]:8080"
    host, port = _split_port(field, text)
    if not is_address(host):
        raise ConfigurationError(field, text, allowed)
    if port is None:
        port = default_port
    if port is None:
        raise ConfigurationError(field, text, allowed)
    return host.strip("[]"), port


def _split_port(field: str, text: str) -> tuple[str, int | None]:
    if is_address(text):
        return text, None
    host, colon, port = text.rpartition(":")
    if not colon:
        return text, None
    number = port_number(port)
    if number is None:
        raise ConfigurationError(field, text, "a port from 1 to 65535 after the colon")
    return host, number


def port_number(text: str) -> int | None:
    """The port that a text names, None if it is no port: 1 to 5 digits for a number from 1 to 65535."""
    # The length comes first: what is used must be what was checked, and 5,000 digits are slow to read.
    if not (len(text) <= 5 and text.isascii() and text.isdigit()):
        return None
    number = int(text)
    return number if 0 < number < 65536 else None


def parse_target(text: str) -> Target:
    """Take a target apart.

    Accepted: `orders`, `orders:8080`, `orders.prod.local:8080`, `srv://name`, `dns://name:port`,
    `static://ip:port,ip:port`, `cloudmap://namespace/service?ATTRIBUTE=value`, `scheme://name/path?KEY=value` for a
    registered scheme.
    Raises `ConfigurationError` for anything else.
    """
    if not isinstance(text, str):
        raise ConfigurationError("target", text, "a string such as 'orders:8080' or 'srv://orders.prod.local'")
    match = _SCHEME.fullmatch(text)
    if match is None:
        host, port = _split_port("target", text)
        if is_address(host):
            raise ConfigurationError("target", text, f"'static://{host}:{port or 80}': an address is not asked of DNS")
        return Target("auto", check_name("target", host), port)
    scheme, rest = match[1].lower(), match[2]
    if scheme == "static":
        pairs = [parse_host_port("target", item.strip()) for item in rest.split(",") if item.strip()]
        if not pairs:
            raise ConfigurationError("target", text, "static://address:port,address:port with at least one of them")
        endpoints = tuple(Endpoint(host, port) for host, port in dict.fromkeys(pairs))
        return Target("static", ",".join(map(str, endpoints)), None, endpoints)
    if scheme in ("dns", "srv"):
        host, port = _split_port("target", rest)
        if scheme == "srv" and port is not None:
            raise ConfigurationError("target", text, "srv://name without a port: the SRV record gives it")
        return Target(scheme, check_name("target", host), port)
    if scheme in ("http", "https"):
        raise ConfigurationError("target", text, "a name, not a URL: for example 'orders:8080'")
    path, _, query = rest.partition("?")
    if not path:
        raise ConfigurationError("target", text, f"{scheme}:// followed by what to look up")
    pairs_of_query = tuple(parse_qsl(query, keep_blank_values=True))
    if scheme == "cloudmap":
        return _cloud_map_target(text, path, pairs_of_query)
    return Target(scheme, path, None, (), pairs_of_query)


def _cloud_map_target(text: str, path: str, query: tuple[tuple[str, str], ...]) -> Target:
    """Attributes in one order, whatever was written, so that targets that mean the same are asked for once."""
    namespace, _, service = path.rpartition("/")
    if not namespace or not service:
        raise ConfigurationError("target", text, "cloudmap://namespace/service")
    port: int | None = None
    found: dict[str, str] = {}
    for name, value in query:
        if name in found or not name.removeprefix("optional."):
            raise ConfigurationError("target", text, "attributes with a name, each once")
        if name == "health":
            value = value.upper().replace("-", "_")
            if value not in HEALTH_FILTERS:
                raise ConfigurationError("target", text, f"health= one of {', '.join(HEALTH_FILTERS)}")
        elif name == "owner" and not re.fullmatch(_ACCOUNT, value):
            raise ConfigurationError("target", text, "owner= an AWS account number of 12 digits")
        elif name == "port":
            _, port = _split_port("target", f":{value}")
            continue
        found[name] = value
    return Target("cloudmap", path, port, (), tuple(sorted(found.items())))
