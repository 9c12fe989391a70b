"""Clients for Cloud Map that several tests use: scripted ones, real ones, and the moto server."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.servers import free_port

_STARTING = 30.0
KEYS = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing", "region_name": "us-east-1"}


def client_for(endpoint_url: str, **config: Any) -> Any:
    """A boto3 client as an application makes one to hand over."""
    settings = {"connect_timeout": 1, "read_timeout": 2, "retries": {"total_max_attempts": 1}, **config}
    return boto3.Session(**KEYS).client(
        "servicediscovery", endpoint_url=endpoint_url, config=Config(inject_host_prefix=False, **settings)
    )


def client_error(code: str, status: int = 400) -> ClientError:
    """What boto3 raises when the API answers with an error."""
    response: Any = {
        "Error": {"Code": code, "Message": "said the API"},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    return ClientError(response, "DiscoverInstances")


def instance(instance_id: str = "t1", health: str = "HEALTHY", **attributes: Any) -> dict[str, Any]:
    """An instance as the API shows it."""
    return {"InstanceId": instance_id, "HealthStatus": health, "Attributes": attributes}


class FakeClient:
    """A client whose answers are set: `instances` and `revision` are values, exceptions, or functions of one."""

    def __init__(self, *instances: Any, revision: Any = 1) -> None:
        self.instances: Any = list(instances)
        self.revision: Any = revision
        self.inside: Any = None  # the revision inside an answer, if it is another one
        self.calls: list[tuple[str, dict[str, Any]]] = []

    @property
    def operations(self) -> list[str]:
        return [name for name, _ in self.calls]

    def discover_instances(self, **parameters: Any) -> dict[str, Any]:
        self.calls.append(("full", parameters))
        revision = self._value(self.revision) if self.inside is None else self.inside
        return {"Instances": self._value(self.instances), "InstancesRevision": revision}

    def discover_instances_revision(self, **parameters: Any) -> dict[str, Any]:
        self.calls.append(("revision", parameters))
        return {"InstancesRevision": self._value(self.revision)}

    def _value(self, told: Any) -> Any:
        found = told() if callable(told) else told
        if isinstance(found, Exception):
            raise found
        return found


def moto_server(log: Any) -> Iterator[str]:
    """The URL of a moto server that runs meanwhile. Skips without moto, or fails where servers are required."""
    if importlib.util.find_spec("moto") is None or importlib.util.find_spec("flask") is None:
        reason = "moto[server] is not installed"
        if os.environ.get("TESTS_REQUIRE_SERVERS") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    port = free_port()
    code = f"from moto.server import main; main(['-H', '127.0.0.1', '-p', '{port}'])"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("COVERAGE")}
    process = subprocess.Popen([sys.executable, "-c", code], stdout=log, stderr=log, env=environment)
    try:
        until = time.monotonic() + _STARTING
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > until:
                    pytest.fail("the moto server did not start")
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)
