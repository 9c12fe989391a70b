"""Real servers on loopback, run as children.

Knot DNS (authoritative) and Unbound (caching resolver) answer names. Prometheus reads metrics and answers queries.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from http.client import HTTPConnection
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode

import pytest

_STARTING = 10.0
_SBIN = "/usr/sbin:/usr/local/sbin"


def required(program: str, package: str) -> str:
    """The path of a program. Skips the test if it is not installed, or fails where servers are required."""
    path = shutil.which(program, path=os.environ.get("PATH", "") + ":" + _SBIN)
    if path is None:
        reason = f"{program} is not installed (Debian package {package})"
        if os.environ.get("TESTS_REQUIRE_SERVERS") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return path


def required_module(name: str, package: str) -> None:
    """As `required`, for what is installed with pip."""
    if find_spec(name) is None:
        reason = f"{package} is not installed (extra test)"
        if os.environ.get("TESTS_REQUIRE_SERVERS") == "1":
            pytest.fail(reason)
        pytest.skip(reason)


def free_port() -> int:
    """A port that nobody uses at the moment, neither for UDP nor for TCP."""
    while True:
        with (
            socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        ):
            tcp.bind(("127.0.0.1", 0))
            try:
                udp.bind(tcp.getsockname())
            except OSError:
                continue
            port: int = tcp.getsockname()[1]
            return port


class _Child:
    """A server in the foreground, ended by its process id when the context is left."""

    def __init__(self, command: list[str], directory: Path, port: int) -> None:
        self.port = port
        self._command = command
        self._log = directory / "log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            self._wait()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _wait(self) -> None:
        """Wait until it answers."""
        until = time.monotonic() + _STARTING
        while time.monotonic() < until:
            if self._process is not None and self._process.poll() is not None:
                break
            try:
                self._ask()
                return
            except OSError:
                time.sleep(0.02)
        raise RuntimeError(f"{self._command[0]} did not start:\n{self._log.read_text(errors='replace')}")

    def _ask(self) -> None:
        """Any answer to a question of ours will do. Raises `OSError` if there is none."""
        query = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x01"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(0.1)
            sock.connect(("127.0.0.1", self.port))
            sock.send(query)
            sock.recv(4096)

    def _end(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None


class KnotServer(_Child):
    """Knot DNS, authoritative for the zone `prod.local` with the given content."""

    def __init__(self, program: str, directory: Path, zone: str, also: str = "") -> None:
        """`also` is a second address to listen on, as `127.0.0.2@53`."""
        port = free_port()
        (directory / "prod.local.zone").write_text(zone)
        config = directory / "knot.conf"
        config.write_text(f"""
server:
    listen: [{", ".join(filter(None, (f"127.0.0.1@{port}", also)))}]
    rundir: "{directory}"
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
database:
    storage: "{directory}"
log:
  - target: stderr
    any: warning
zone:
  - domain: prod.local
    storage: "{directory}"
    file: prod.local.zone
""")
        super().__init__([program, "-c", str(config)], directory, port)


class UnboundServer(_Child):
    """Unbound as a caching resolver whose `zone` comes from an authoritative server at `upstream` (`address:port`)."""

    def __init__(self, program: str, directory: Path, zone: str, upstream: str) -> None:
        port = free_port()
        config = directory / "unbound.conf"
        config.write_text(f"""
server:
    interface: 127.0.0.1@{port}
    port: {port}
    access-control: 127.0.0.0/8 allow
    username: ""
    chroot: ""
    directory: "{directory}"
    pidfile: ""
    use-syslog: no
    verbosity: 1
    num-threads: 1
    do-daemonize: no
    do-ip6: no
    do-not-query-localhost: no
    module-config: "iterator"
    local-zone: "{zone}." nodefault
stub-zone:
    name: "{zone}."
    stub-addr: {upstream.replace(":", "@")}
remote-control:
    control-enable: no
""")
        super().__init__([program, "-d", "-c", str(config)], directory, port)


class PrometheusServer(_Child):
    """Prometheus, which reads the metrics at `target` (`address:port`) each second."""

    def __init__(self, program: str, directory: Path, target: str) -> None:
        port = free_port()
        config = directory / "prometheus.yml"
        config.write_text(f"""
global:
  scrape_interval: 1s
  scrape_timeout: 1s
scrape_configs:
  - job_name: caller
    static_configs:
      - targets: ["{target}"]
""")
        command = [program, f"--config.file={config}", f"--storage.tsdb.path={directory / 'data'}"]
        command += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"]
        super().__init__(command, directory, port)

    def get(self, path: str, **arguments: object) -> Any:
        """The data of its answer at `/api/v1/` and the path. Raises `ValueError` with what Prometheus says is wrong."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", f"/api/v1/{path}?{urlencode(arguments)}")
            answer = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        if answer["status"] != "success":
            raise ValueError(answer["error"])
        return answer["data"]

    def _ask(self) -> None:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=1)
        try:
            connection.request("GET", "/-/ready")
            if connection.getresponse().status != 200:
                raise OSError("it is not ready")
        finally:
            connection.close()
