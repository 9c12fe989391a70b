"""What Cloud Map is asked, and what its answers and errors come to. No I/O, and no AWS library either."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_address
from typing import Any

from ecs_discovery.config.policies import CloudMapPolicy
from ecs_discovery.config.targets import parse_target, port_number
from ecs_discovery.errors import NoEndpoints, ResolutionError, ResolutionTimeout, TargetNotFound, foreign
from ecs_discovery.models import Endpoint, Question, Resolution
from ecs_discovery.resolvers.addresses import is_usable, refusal, screened

__all__ = ["DENIED", "MAX_RESULTS", "MISSING", "THROTTLED", "UNSUPPORTED", "error_code", "failure", "read", "request"]

MAX_RESULTS = 1000
"""The most that one answer can hold, and the most instances of a service. Without it an answer ends at 100, and there
is no next page."""

THROTTLED = frozenset(
    {"RequestLimitExceeded", "ThrottlingException", "Throttling", "ThrottledException", "TooManyRequestsException"}
)
DENIED = frozenset({"AccessDeniedException", "AccessDenied", "UnauthorizedOperation", "NotAuthorized"})
UNSUPPORTED = frozenset({"UnknownOperationException", "InvalidAction", "NotImplemented"})
MISSING = frozenset({"ServiceNotFound", "NamespaceNotFound"})
_CREDENTIALS = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "MissingAuthenticationToken",
        "UnrecognizedClientException",
    }
)

_ADDRESSES = {"ipv4": ("AWS_INSTANCE_IPV4", 4), "ipv6": ("AWS_INSTANCE_IPV6", 6)}
_ATTRIBUTES = {
    "cluster": "ECS_CLUSTER_NAME",
    "service": "ECS_SERVICE_NAME",
    "family": "ECS_TASK_DEFINITION_FAMILY",
    "task_set": "ECS_TASK_SET_EXTERNAL_ID",
    "region": "REGION",
}
_WANTED = ("AWS_INSTANCE_IPV4", "AWS_INSTANCE_IPV6", "AVAILABILITY_ZONE", *_ATTRIBUTES.values())
_MAX_ID = 64  # characters (RegisterInstance)
_MAX_VALUE = 255  # characters of a name in ECS
# What botocore raises before there is an answer, by class name: the client may be of another library.
_NO_ANSWER_HINTS = {
    "NoCredentialsError": "give the task a role, or set AWS credentials",
    "CredentialRetrievalError": "the task's role could not be asked for credentials",
    "NoRegionError": "set AWS_REGION or CloudMapPolicy(region=…)",
    "EndpointConnectionError": "is there a way to the API: a NAT gateway, or a VPC endpoint for Cloud Map?",
    "ParamValidationError": "correct the target; boto3 may be too old for what it asks",
}
_TIMEOUTS = {"ConnectTimeoutError", "ReadTimeoutError", "TimeoutError"}


def request(question: Question, policy: CloudMapPolicy) -> tuple[dict[str, Any], dict[str, Any]]:
    """The parameters of `DiscoverInstancesRevision`, and those that `DiscoverInstances` takes besides.

    Raises `ConfigurationError` for a question that is no Cloud Map target.
    """
    target = parse_target(f"cloudmap://{question.name}")
    namespace, _, service = target.name.rpartition("/")
    query = dict(target.query)
    who: dict[str, Any] = {"NamespaceName": namespace, "ServiceName": service}
    owner = query.pop("owner", None)
    if owner is not None:
        who["OwnerAccount"] = owner
    what: dict[str, Any] = {"MaxResults": MAX_RESULTS, "HealthStatus": query.pop("health", policy.health)}
    optional = {name.removeprefix("optional."): query[name] for name in query if name.startswith("optional.")}
    required = {name: value for name, value in query.items() if not name.startswith("optional.")}
    if required:
        what["QueryParameters"] = required
    if optional:
        what["OptionalParameters"] = optional
    return who, what


def read(question: Question, answer: Mapping[str, Any], policy: CloudMapPolicy) -> Resolution:
    """The endpoints of an answer, in an order that does not change from one to the next: Cloud Map shuffles.

    Raises `NoEndpoints`, and `ResolutionError` for what is no answer of Cloud Map's.
    """
    instances = answer.get("Instances")
    if not isinstance(instances, (list, tuple)):
        # boto3 reads an empty answer into whatever else comes with status 200: a proxy's page is not "there is none".
        raise ResolutionError("Cloud Map's answer makes no sense: it has no instances", target=str(question))
    found, refused = screened(endpoints(instances[:MAX_RESULTS], policy.families), policy.allowed_networks)
    if not found and refused:
        message, hint = refusal("Cloud Map", refused, "CloudMapPolicy")
        raise ResolutionError(message, target=str(question), hint=hint, refused=refused)
    if not found:
        if instances:
            told = f"none of its {len(instances)} instances has an address and port that can be connected to"
        else:
            told = "Cloud Map has no such instances now"
        raise NoEndpoints(
            told,
            target=str(question),
            hint="no task is registered, or none has the attributes and health asked for",
        )
    return Resolution(found, policy.poll, "cloudmap", partial=len(instances) >= MAX_RESULTS, refused=refused)


def endpoints(instances: Iterable[Any], families: Sequence[str]) -> tuple[Endpoint, ...]:
    """One endpoint an instance, with port 0 where it has none. What cannot be connected to is left out."""
    found: dict[str, Endpoint] = {}
    for instance in instances:
        endpoint = _endpoint(instance, families) if isinstance(instance, Mapping) else None
        if endpoint is not None and endpoint.instance_id is not None:
            found[endpoint.instance_id] = endpoint  # registered anew, it replaces what it was
    return tuple(found[instance_id] for instance_id in sorted(found))


def _endpoint(instance: Mapping[str, Any], families: Sequence[str]) -> Endpoint | None:
    instance_id, given = instance.get("InstanceId"), instance.get("Attributes")
    if not isinstance(instance_id, str) or not isinstance(given, Mapping):
        return None
    if len(instance_id) > _MAX_ID:
        return None
    # What ECS would not have registered is not kept, so that an answer of any size costs little.
    facts = {name: value for name in _WANTED if isinstance(value := given.get(name), str) and len(value) <= _MAX_VALUE}
    host = next((host for family in families if (host := _address(facts, family)) is not None), None)
    told = given.get("AWS_INSTANCE_PORT")
    port = port_number(told) if isinstance(told, str) else 0
    if host is None or port is None:
        return None
    attributes = [(ours, facts[name]) for ours, name in _ATTRIBUTES.items() if name in facts]
    health = instance.get("HealthStatus")
    if isinstance(health, str) and len(health) <= _MAX_VALUE:
        attributes.append(("health", health))
    zone = facts.get("AVAILABILITY_ZONE") or None
    return Endpoint(host, port, zone=zone, instance_id=instance_id, attributes=tuple(attributes))


def _address(facts: Mapping[str, str], family: str) -> str | None:
    name, version = _ADDRESSES[family]
    text = facts.get(name, "")
    if "%" in text or not is_usable(text):  # the zone of another host's link means nothing here
        return None
    address = ip_address(text)
    return str(address) if address.version == version else None


def error_code(error: BaseException) -> str:
    """What the API says went wrong, empty if it did not answer."""
    response = getattr(error, "response", None)
    details = response.get("Error") if isinstance(response, Mapping) else None
    code = details.get("Code") if isinstance(details, Mapping) else None
    return code if isinstance(code, str) else ""


def failure(question: Question, error: BaseException, operation: str) -> ResolutionError:
    """An error of a client as one of ours, with what to do about it."""
    code, said = error_code(error), foreign(error)
    kinds = {cls.__name__ for cls in type(error).__mro__}
    hint: str | None = None
    kind: type[ResolutionError] = ResolutionError
    message = f"Cloud Map could not be asked: {type(error).__name__}: {said}"
    if code in MISSING:
        kind = TargetNotFound
        message = f"Cloud Map has no such {'namespace' if code == 'NamespaceNotFound' else 'service'}"
        hint = "check the spelling (HTTP namespaces: upper and lower case too), the Region, and owner= if it is shared"
    elif code in THROTTLED:
        message = f"Cloud Map throttles this account: {code}"
        hint = "poll less often (CloudMapPolicy(poll=…)) or have the quota raised"
    elif code in DENIED:
        message = f"not allowed to call {operation}: {said}"
        hint = f"grant the task role servicediscovery:{operation}"
    elif code in _CREDENTIALS:
        hint = "check the credentials of the task role"
    elif code:
        message = f"Cloud Map answered {foreign(code, 64)}: {said}"
    elif kinds & _TIMEOUTS:
        kind = ResolutionTimeout
        message = f"Cloud Map did not answer in time: {said}"
        hint = _NO_ANSWER_HINTS["EndpointConnectionError"]
    else:
        hint = next((_NO_ANSWER_HINTS[name] for name in kinds if name in _NO_ANSWER_HINTS), None)
    named = kind(message, target=str(question), hint=hint)
    named.__cause__ = error
    return named
