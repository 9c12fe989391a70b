"""What Cloud Map's API says of services, and why it says nothing. Calls run in threads that end with the program."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from email.utils import parsedate_to_datetime
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import Any

from ecs_discovery.cli.doctor.facts import ApiFacts, InstanceFacts
from ecs_discovery.config.policies import CloudMapPolicy
from ecs_discovery.config.targets import port_number
from ecs_discovery.errors import foreign
from ecs_discovery.resolvers.addresses import is_usable
from ecs_discovery.resolvers.cloud_map.instances import DENIED, MAX_RESULTS, MISSING, THROTTLED, error_code
from ecs_discovery.resolvers.cloud_map.sync import _client

__all__ = ["Calls"]

_THREADS = 4
_KEPT = 50  # instances
_OUTCOMES = {
    "NoRegionError": "no region",
    "NoCredentialsError": "no credentials",
    "PartialCredentialsError": "no credentials",
    "CredentialRetrievalError": "no credentials",
    "ConnectTimeoutError": "no way",
    "EndpointConnectionError": "no way",
    "ReadTimeoutError": "late",
}


class Calls:
    """The calls about some services, from when it is made. `wait` for them later."""

    def __init__(
        self,
        services: Sequence[tuple[ApiFacts, Mapping[str, Any]]],
        policy: CloudMapPolicy,
        *,
        make: Callable[[CloudMapPolicy], Any] = _client,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """`services` are what is to be asked about, each with further parameters of `DiscoverInstances`."""
        self._policy = policy
        self._make = make
        self._wall_clock = wall_clock
        self._client: Any = None
        self._lock = Lock()
        self._left = list(enumerate(services))
        self._found: SimpleQueue[tuple[int, ApiFacts]] = SimpleQueue()
        self._facts = [replace(facts, outcome="late") for facts, _ in services]
        self._missing = len(services)
        # Of the kind that does not hold up the program's end: a call may take as long as it likes.
        for _ in range(min(_THREADS, len(services))):
            Thread(target=self._work, name="ecs-discovery-doctor", daemon=True).start()

    def wait(self, seconds: float, *, clock: Callable[[], float] = time.monotonic) -> list[ApiFacts]:
        """What is known after so many seconds, in the order of the services. May be called again."""
        deadline_at = clock() + seconds
        while self._missing:
            try:
                number, facts = self._found.get(timeout=max(0.0, deadline_at - clock()))
            except Empty:
                break
            self._facts[number] = facts
            self._missing -= 1
        return list(self._facts)

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._left:
                    return
                number, (facts, parameters) = self._left.pop(0)
            try:
                found = self._ask(facts, parameters)
            except Exception as error:  # noqa: BLE001  # whatever a foreign client raises is a fact
                found = replace(facts, outcome="failed", code=foreign(type(error).__name__, 64))
            self._found.put((number, found))

    def _ask(self, facts: ApiFacts, parameters: Mapping[str, Any]) -> ApiFacts:
        try:
            with self._lock:
                if self._client is None:
                    self._client = self._make(self._policy)
        except ImportError:
            return replace(facts, outcome="no boto3")
        except Exception as error:  # noqa: BLE001  # as above
            return replace(facts, **_failure(error))
        who = {"NamespaceName": facts.namespace, "ServiceName": facts.service}
        if "OwnerAccount" in parameters:
            who["OwnerAccount"] = parameters["OwnerAccount"]
        try:
            answer = self._client.discover_instances(
                **{**parameters, **who, "MaxResults": MAX_RESULTS, "HealthStatus": "ALL"}
            )
        except Exception as error:  # noqa: BLE001  # as above
            facts = replace(facts, **_failure(error), skew=self._skew(getattr(error, "response", None)))
        else:
            instances = answer.get("Instances") if isinstance(answer, Mapping) else None
            if not isinstance(instances, list):
                return replace(facts, outcome="failed", code="an answer without instances")
            facts = replace(
                facts,
                outcome="answered",
                count=len(instances),
                instances=tuple(map(_instance, instances[:_KEPT])),
                skew=self._skew(answer),
            )
        if facts.outcome not in ("answered", "denied"):
            return facts
        try:
            self._client.discover_instances_revision(**who)
        except AttributeError:
            return replace(facts, revision="failed")
        except Exception as error:  # noqa: BLE001  # as above
            return replace(facts, revision=_failure(error)["outcome"])
        return replace(facts, revision="answered")

    def _skew(self, answer: Any) -> float | None:
        with suppress(Exception):  # there is none, or it is none
            date = answer["ResponseMetadata"]["HTTPHeaders"]["date"]
            return round(self._wall_clock() - parsedate_to_datetime(date).timestamp())
        return None


def _failure(error: Exception) -> dict[str, Any]:
    # What the API says beside its code names accounts and roles: it is not kept.
    code = error_code(error)
    if code in DENIED:
        outcome = "denied"
    elif code in THROTTLED:
        outcome = "throttled"
    elif code in MISSING:
        outcome = "not found"
    elif code:
        outcome = "failed"
    else:
        kinds = [each.__name__ for each in type(error).__mro__]
        outcome = next((_OUTCOMES[kind] for kind in kinds if kind in _OUTCOMES), "failed")
    return {"outcome": outcome, "code": foreign(code or type(error).__name__, 64)}


def _instance(instance: Any) -> InstanceFacts:
    given = instance.get("Attributes") if isinstance(instance, Mapping) else None
    if not isinstance(given, Mapping):
        return InstanceFacts()
    address = next(
        (
            text
            for name in ("AWS_INSTANCE_IPV4", "AWS_INSTANCE_IPV6")
            if isinstance(text := given.get(name), str) and len(text) < 64 and "%" not in text and is_usable(text)
        ),
        None,
    )
    port = given.get("AWS_INSTANCE_PORT")
    return InstanceFacts(
        address, port_number(port) if isinstance(port, str) else None, foreign(instance.get("HealthStatus") or "", 32)
    )
