"""The templates in `examples/ecs`: a tool of each kind accepts them, and they say what the library expects."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from cfnlint.api import ManualArgs, lint_file
from cfnlint.decode import decode

from ecs_discovery.cli.doctor.checks.api import POLICY
from ecs_discovery.client.engine import Engine
from ecs_discovery.config.settings import Settings
from tests.servers import free_port

ECS = Path(__file__).resolve().parents[2] / "examples" / "ecs"
WAYS = ("awsvpc-a", "bridge-srv", "http-namespace")
SERVER = (ECS / "server.py").read_text()


def template(way: str) -> dict[str, Any]:
    document, _ = decode(str(ECS / "cloudformation" / f"{way}.yaml"))
    assert document is not None
    return document  # type: ignore[no-any-return]


def container(document: dict[str, Any], name: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = [
        each
        for resource in document["Resources"].values()
        if resource["Type"] == "AWS::ECS::TaskDefinition"
        for each in resource["Properties"]["ContainerDefinitions"]
        if each["Name"] == name
    ]
    assert len(found) == 1
    return found[0]


def resources(document: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [each["Properties"] for each in document["Resources"].values() if each["Type"] == kind]


def environment(document: dict[str, Any], namespace: str) -> dict[str, str]:
    """What the program is given, with the namespace filled in and the first of what depends on a condition left out."""
    found = {}
    for entry in container(document, "shop")["Environment"]:
        value = entry["Value"]
        if isinstance(value, dict):
            if "Fn::If" in value:
                value = value["Fn::If"][2]
            if isinstance(value, dict):
                value = namespace if "Ref" in value else value["Fn::Sub"]
        assert isinstance(value, str)
        found[entry["Name"]] = value.replace("${Namespace}", namespace)
    return found


def problems(paths: list[str], ignored: tuple[str, ...] = ()) -> list[str]:
    config = ManualArgs(regions=["eu-west-1"], ignore_checks=list(ignored))
    matches = [match for path in paths for match in lint_file(Path(path), config=config)]
    return [f"{match.rule.id} {match.filename}:{match.linenumber} {match.message}" for match in matches]


@pytest.mark.parametrize("way", WAYS)
def test_cfn_lint_has_nothing_to_say_of_the_cloudformation_template(way: str):
    assert problems([str(ECS / "cloudformation" / f"{way}.yaml")]) == []


@pytest.mark.parametrize("way", WAYS)
def test_cloudformation_runs_the_same_server_as_the_other_tools(way: str):
    assert container(template(way), "orders")["Command"] == ["python", "-c", SERVER]


@pytest.mark.parametrize(("way", "record"), [("awsvpc-a", "A"), ("bridge-srv", "SRV")])
def test_tasks_are_registered_for_ten_seconds_and_by_their_health(way: str, record: str):
    (name,) = resources(template(way), "AWS::ServiceDiscovery::Service")
    assert name["DnsConfig"]["RoutingPolicy"] == "MULTIVALUE"
    assert name["DnsConfig"]["DnsRecords"] == [{"Type": record, "TTL": 10}]
    assert name["HealthCheckCustomConfig"] == {"FailureThreshold": 1}


@pytest.mark.parametrize("way", WAYS)
def test_a_stopped_task_serves_on_until_its_record_has_expired_and_is_killed_later(way: str):
    orders = container(template(way), "orders")
    wait = re.search(r"Timer\((\d+), server.shutdown", orders["Command"][2])
    assert wait is not None
    assert 10 < int(wait[1]) < orders["StopTimeout"] <= 120


@pytest.mark.parametrize(
    ("way", "namespace", "schemes"),
    [
        ("awsvpc-a", "prod.local", {"a", "aaaa", "srv"}),
        ("bridge-srv", "prod.local", {"a", "aaaa", "srv"}),
        ("http-namespace", "prod", {"cloudmap"}),
    ],
)
def test_the_library_takes_the_environment_of_the_caller(
    way: str, namespace: str, schemes: set[str], monkeypatch: pytest.MonkeyPatch
):
    given = environment(template(way), namespace)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    engine = Engine(Settings.make())
    target = given["ORDERS_URL"].removeprefix("http://")
    asked = {question.scheme for question in engine.due(engine.service(target)).wait}
    assert asked
    assert asked <= schemes


def test_the_permission_for_cloud_map_is_the_same_everywhere():
    wanted = json.loads((ECS / "iam" / "cloud-map.json").read_text())
    assert json.loads(POLICY) == wanted
    policies = [
        policy["PolicyDocument"]
        for role in resources(template("http-namespace"), "AWS::IAM::Role")
        for policy in role.get("Policies", [])
    ]
    assert wanted in policies


@pytest.mark.parametrize("way", WAYS)
def test_terraform_says_what_cloudformation_says(way: str):
    text = (ECS / "terraform" / way / "main.tf").read_text()
    document = template(way)
    orders = container(document, "orders")
    assert f"stopTimeout  = {orders['StopTimeout']}" in text
    for name in resources(document, "AWS::ServiceDiscovery::Service"):
        assert "ttl  = 10" in text
        assert f'type = "{name["DnsConfig"]["DnsRecords"][0]["Type"]}"' in text
    for entry in container(document, "shop")["Environment"]:
        assert f'name = "{entry["Name"]}"' in text
    assert 'file("${path.module}/../../server.py")' in text


@pytest.mark.parametrize("way", WAYS)
def test_terraform_accepts_its_module(way: str, tmp_path: Path):
    terraform = shutil.which("terraform")
    if terraform is None:
        pytest.skip("there is no terraform here")
    shutil.copytree(ECS, tmp_path / "ecs")
    module = tmp_path / "ecs" / "terraform" / way
    formatted = subprocess.run([terraform, "fmt", "-check", "-diff"], cwd=module, capture_output=True, text=True)
    assert formatted.returncode == 0, formatted.stdout
    began = subprocess.run(
        [terraform, "init", "-backend=false", "-input=false", "-no-color"],
        cwd=module,
        capture_output=True,
        text=True,
        timeout=120,
    )
    if began.returncode:
        pytest.skip("terraform's provider for AWS cannot be had here")
    judged = subprocess.run([terraform, "validate", "-json"], cwd=module, capture_output=True, text=True, timeout=120)
    said = json.loads(judged.stdout)
    assert said["valid"], said
    assert said["diagnostics"] == []


def test_cdk_makes_the_three_stacks_and_cfn_lint_accepts_them(tmp_path: Path):
    if find_spec("aws_cdk") is None or shutil.which("node") is None:
        pytest.skip("the CDK is not installed: pip install aws-cdk-lib, and Node.js")
    context = {"shop_image": "example/shop:1"}
    made = subprocess.run(
        [sys.executable, "app.py"],
        cwd=ECS / "cdk",
        env={**os.environ, "CDK_CONTEXT_JSON": json.dumps(context), "CDK_OUTDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert made.returncode == 0, made.stderr
    templates = sorted(tmp_path.glob("*.template.json"))
    assert [each.name.split(".")[0] for each in templates] == ["AwsvpcA", "BridgeSrv", "HttpNamespace"]
    assert problems([str(each) for each in templates], ignored=("W3005",)) == []  # a dependency said twice, by the CDK
    records = {
        name["DnsConfig"]["DnsRecords"][0]["Type"]: name["DnsConfig"]["DnsRecords"][0]["TTL"]
        for each in templates
        for name in resources(json.loads(each.read_text()), "AWS::ServiceDiscovery::Service")
    }
    assert records == {"A": 10, "SRV": 10}


def test_the_server_of_the_examples_serves_on_after_sigterm_and_then_ends_by_itself():
    port = free_port()
    source = SERVER.replace("8080", str(port)).replace("Timer(15,", "Timer(1.5,")
    assert source != SERVER
    with subprocess.Popen([sys.executable, "-c", source], stderr=subprocess.DEVNULL, cwd=ECS) as server:
        try:
            url = f"http://127.0.0.1:{port}/server.py"
            until = time.monotonic() + 30
            while time.monotonic() < until:
                try:
                    assert urlopen(url, timeout=5).status == 200
                    break
                except OSError:
                    time.sleep(0.05)
            server.send_signal(signal.SIGTERM)
            assert urlopen(url, timeout=5).read().decode() == SERVER
            assert server.wait(60) == 0
        finally:
            server.kill()


def test_every_file_of_the_examples_is_named_in_their_readme():
    readme = (ECS / "README.md").read_text()
    for path in ECS.rglob("*"):
        if path.is_file() and path.suffix in (".yaml", ".tf", ".py", ".json") and path.name != "cdk.json":
            named = path.relative_to(ECS)
            assert str(named) in readme or f"{named.parent}/" in readme, named


def test_the_readme_has_the_iam_policies_in_full():
    readme = (ECS / "README.md").read_text()
    for name in ("cloud-map.json", "exec.json"):
        assert textwrap.dedent((ECS / "iam" / name).read_text()).strip() in readme
