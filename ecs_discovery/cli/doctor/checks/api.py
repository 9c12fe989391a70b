"""Cloud Map's API: D3xx. What the application does not ask it for is no error."""

from __future__ import annotations

from collections.abc import Iterator

from ecs_discovery.cli.doctor.checks.findings import Finding, Severity, found
from ecs_discovery.cli.doctor.facts import ApiFacts, Facts, MachineFacts

__all__ = ["POLICY", "api"]

POLICY = (
    '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": ["servicediscovery:DiscoverInstances", '
    '"servicediscovery:DiscoverInstancesRevision"], "Resource": "*"}]}'
)
_GRANT = f"aws iam put-role-policy --role-name TASK-ROLE --policy-name discover --policy-document '{POLICY}'"
_ALLOW = "allow both calls in the task role"
_WAY = "give the subnet a NAT gateway, or the VPC an interface endpoint"
_SKEW = 300.0
_ENDPOINT = (
    "aws ec2 create-vpc-endpoint --vpc-endpoint-type Interface --vpc-id VPC "
    "--subnet-ids SUBNET --service-name com.amazonaws.REGION.data-servicediscovery"
)


def api(facts: Facts) -> Iterator[Finding]:
    """Once for each cause, not for each service."""
    told: set[str] = set()
    for target in facts.targets:
        if target.api is not None:
            for finding in _of(target.api, facts.machine):
                if finding.code not in told:
                    told.add(finding.code)
                    yield finding


def _of(api: ApiFacts, machine: MachineFacts) -> Iterator[Finding]:
    step, named = "api", f"{api.namespace}/{api.service}"
    if api.skew is not None and abs(api.skew) > _SKEW:
        side = "ahead of" if api.skew > 0 else "behind"
        yield found(
            "D305",
            step,
            f"this clock is {abs(api.skew):g} s {side} the API's",
            "have the host follow Amazon's time service: server 169.254.169.123 in chrony.conf of the EC2 instance",
        )
    if not api.wanted:
        return
    if api.outcome == "denied":
        yield found("D301", step, f"{named}: {api.code}", _ALLOW, _GRANT)
    elif api.revision == "denied":
        yield found("D302", step, f"{named}: the revision is denied, the instances are not", _ALLOW, _GRANT)
    if api.outcome == "no way" or (api.outcome == "late" and not api.code):
        yield found("D303", step, f"{named}: {api.code or 'no answer in time'}", _WAY, _ENDPOINT)
    elif api.outcome in ("no boto3", "no region", "no credentials"):
        yield found("D304", step, f"{named}: {_lack(api, machine)}", *_remedy(api, machine))
    elif machine.proxy and not machine.no_proxy and machine.credentials == "task role" and api.outcome != "answered":
        yield found("D304", step, f"{named}: {api.code}; {_lack(api, machine)}", *_remedy(api, machine))
    if api.outcome == "not found":
        yield found(
            "D216",
            step,
            f"{named}: {api.code}",
            "check the spelling (HTTP namespaces: upper and lower case too), the Region, and owner= if it is shared",
        )
    elif api.outcome in ("throttled", "failed") or (api.outcome == "late" and api.code):
        yield found(
            "D307",
            step,
            f"{named}: {api.code}",
            "poll less often (ECS_DISCOVERY_CLOUDMAP_POLL=10) or have the quota raised"
            if api.outcome == "throttled"
            else "try again; if it stays, look at the endpoint that is asked and at AWS's health page",
            severity=Severity.ERROR if api.outcome != "throttled" else None,
        )


def _lack(api: ApiFacts, machine: MachineFacts) -> str:
    if api.outcome == "no boto3":
        return "boto3 is not installed"
    if api.outcome == "no region":
        return "no Region is set"
    if machine.proxy and not machine.no_proxy:
        return "a proxy is set, and NO_PROXY does not have 169.254.170.2"
    return f"no credentials ({machine.credentials or 'neither a task role nor keys'})"


def _remedy(api: ApiFacts, machine: MachineFacts) -> tuple[str, ...]:
    if api.outcome == "no boto3":
        return "install the extra cloudmap, from a clone", "pip install '.[cloudmap]'"
    if api.outcome == "no region":
        return ("set AWS_REGION, or ECS_DISCOVERY_CLOUDMAP_REGION",)
    if machine.proxy and not machine.no_proxy:
        return ("set NO_PROXY=169.254.170.2,169.254.169.254 in the container's environment",)
    return ("give the task definition a taskRoleArn",)
