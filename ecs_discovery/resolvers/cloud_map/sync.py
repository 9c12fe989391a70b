"""Lookups at the AWS Cloud Map API for threads, and the only module that knows boto3.

Most lookups of a target in use are a cheap `DiscoverInstancesRevision`; `revisions` says when the instances themselves
must be asked for. boto3's own retries are off: the caller decides when to ask again.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from functools import partial
from threading import Lock
from typing import Any
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

from ecs_discovery.config.policies import CloudMapPolicy
from ecs_discovery.core.rate_limiter import RateLimiter
from ecs_discovery.errors import ResolutionError, ResolutionTimeout, foreign, line
from ecs_discovery.models import Question, Resolution
from ecs_discovery.resolvers.cloud_map.calls import Calls
from ecs_discovery.resolvers.cloud_map.instances import (
    DENIED,
    THROTTLED,
    UNSUPPORTED,
    error_code,
    failure,
    read,
    request,
)
from ecs_discovery.resolvers.cloud_map.revisions import Asked, Revisions
from ecs_discovery.runtime import fork
from ecs_discovery.runtime.workers import Workers

__all__ = ["CloudMapResolver", "too_slow"]

_log = logging.getLogger("ecs_discovery")
_THREADS = 8  # calls at a time, and connections kept

_limiters: WeakValueDictionary[float, RateLimiter] = WeakValueDictionary()
"""One per rate, for all resolvers of the process: the quota that they share is the account's."""


class CloudMapResolver:
    """Asks Cloud Map for the instances of a service: `cloudmap://namespace/service?ATTRIBUTE=value`.

    `client` is a boto3 client for `servicediscovery` of your own; switch its retries off and its timeouts down. With
    None a client is made from a session of this resolver's own when it is first needed.

    Each endpoint has its instance id and its zone. As attributes it has `cluster`, `service`, `family`, `task_set`,
    `region` and `health`, as far as they are registered.

    Calls run in a few threads of this resolver's own, so that a time limit holds whatever the client does. An answer
    may come a byte at a time. A client made here ends such a call after twice the connect and read timeouts. With a
    client of your own the thread of such a call is replaced, up to eight times.
    """

    def __init__(
        self,
        policy: CloudMapPolicy | None = None,
        *,
        client: Any = None,
        clock: Callable[[], float] = time.monotonic,
        rate_limiter: RateLimiter | None = None,
    ) -> None:
        self.policy = policy = policy if policy is not None else CloudMapPolicy()
        self._given = client
        self._made: Any = None
        self._clock = clock
        self._rate_limiter = rate_limiter if rate_limiter is not None else _rate_limiter(policy.max_calls, clock)
        # The poll after this one would come too late, so that one asks for all.
        self._revisions: Revisions[Question, Resolution] = Revisions(policy.full_interval - policy.poll)
        self._workers = Workers(_THREADS)
        # A lookup makes two calls at most, each of which connects and waits for an answer.
        longest = max(policy.timeout, 2 * (policy.connect_timeout + policy.read_timeout))
        self._calls = Calls(self._workers, clock, longest=longest, replacements=_THREADS)
        self._closed = False
        self._lock = Lock()
        fork.track(self)

    def __repr__(self) -> str:
        return f"<CloudMapResolver {self._revisions!r}>"

    def resolve(self, question: Question, timeout: float) -> Resolution:
        """See `Resolver.resolve`. Raises `ConfigurationError` for what is no Cloud Map target."""
        future = self.submit(question)
        if not wait([future], timeout).done:
            future.cancel()
            raise too_slow(question, timeout)
        return future.result()

    def forget(self, question: Question) -> None:
        """See `Remembering.forget`."""
        self._revisions.invalidate(question)

    def submit(self, question: Question) -> Future[Resolution]:
        """Start a lookup in a thread of this resolver's own. Cancelling keeps it from starting, no more."""
        future: Future[Resolution] = Future()
        if self._closed:
            future.set_exception(ResolutionError("its resolver is closed", target=str(question)))
            return future
        self._calls.end_overdue()
        self._workers.spawn(partial(self._work, question, future))
        return future

    def close(self) -> None:
        """Drop what has not begun, and close the client if it was made here."""
        self._closed = True
        self._workers.close()
        with self._lock:
            made, self._made = self._made, None
        if made is not None:
            made.close()

    def after_fork(self) -> None:
        """In the child of a fork there are no threads, and the connections are the parent's."""
        self._lock = Lock()
        self._made = None
        self._revisions.reset_lock()
        self._calls.after_fork()
        self._rate_limiter.reset_lock()

    # In workers

    def _work(self, question: Question, future: Future[Resolution]) -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            with self._calls.call():
                found = self._lookup(question)
            future.set_result(found)
        except BaseException as error:  # noqa: BLE001  # the caller that waits gets it
            future.set_exception(error)

    def _lookup(self, question: Question) -> Resolution:
        who, what = request(question, self.policy)
        client = self._client(question)
        asked = self._revisions.start(question, self._clock())
        revision = self._revision(client, question, who) if asked.check else None
        known = self._revisions.confirm(question, asked, revision)
        return known if known is not None else self._discover(client, question, {**who, **what}, asked, revision)

    def _revision(self, client: Any, question: Question, who: Mapping[str, Any]) -> int | None:
        """The revision now; None if it cannot be had and the instances must be asked for."""
        operation = "DiscoverInstancesRevision"
        call = getattr(client, "discover_instances_revision", None)
        if call is None:
            self._without_revisions(question, "boto3 is too old for it")
            return None
        self._govern(question)
        try:
            revision = call(**who).get("InstancesRevision")
        except Exception as error:
            code = error_code(error)
            if code in THROTTLED:
                # What is remembered stays: asking for the instances would burden the smaller quota.
                raise failure(question, error, operation) from error
            if not code:
                self._revisions.invalidate(question)
                raise failure(question, error, operation) from error
            if code in DENIED or code in UNSUPPORTED:
                self._without_revisions(question, error)
            return None
        return revision if isinstance(revision, int) else None

    def _discover(
        self, client: Any, question: Question, parameters: Mapping[str, Any], asked: Asked, revision: int | None
    ) -> Resolution:
        self._govern(question)
        try:
            answer = client.discover_instances(**parameters)
            resolution = read(question, answer, self.policy)
        except ResolutionError:
            self._revisions.invalidate(question)
            raise
        except Exception as error:
            if error_code(error) not in THROTTLED:
                self._revisions.invalidate(question)
            raise failure(question, error, "DiscoverInstances") from error
        inside = answer.get("InstancesRevision")
        # Both, because nothing says that an answer cut down by attributes or health has the service's revision.
        revisions = [told for told in (inside, revision) if isinstance(told, int)]
        self._revisions.keep(question, asked, revisions, resolution)
        return resolution

    def _without_revisions(self, question: Question, why: object) -> None:
        if self._revisions.deny(question, self._clock()):
            grant = "every poll is a DiscoverInstances; grant the task role servicediscovery:DiscoverInstancesRevision"
            _log.warning("%s", line(f"{foreign(question, 80)}: {grant}: {foreign(why)}"))

    def _govern(self, question: Question) -> None:
        if not self._rate_limiter.try_acquire(self._clock()):
            raise ResolutionError(
                f"this process is over its own limit of {self.policy.max_calls:g} Cloud Map calls per second",
                target=str(question),
                hint="raise CloudMapPolicy(max_calls=…), or poll less often",
            )

    def _client(self, question: Question) -> Any:
        if self._given is not None:
            return self._given
        with self._lock:
            if self._made is None:
                try:
                    self._made = _client(self.policy)
                    self._calls.watch(self._made)
                except ImportError as error:
                    raise ResolutionError(
                        "Cloud Map needs boto3, which is not installed",
                        target=str(question),
                        hint="from a clone, pip install '.[cloudmap]'",
                    ) from error
                except Exception as error:
                    raise failure(question, error, "DiscoverInstances") from error
            return self._made


def too_slow(question: Question, timeout: float) -> ResolutionTimeout:
    """The error of a lookup that took longer than it may."""
    return ResolutionTimeout(
        f"Cloud Map did not answer within {timeout:g} s",
        target=str(question),
        hint="is there a way to the API: a NAT gateway, or a VPC endpoint for Cloud Map?",
    )


def _rate_limiter(rate: float, clock: Callable[[], float]) -> RateLimiter:
    # Twice as many at once as per second, as the API's own quotas: 2,000 and 1,000.
    mine = RateLimiter(rate, 2 * rate)
    return _limiters.setdefault(rate, mine) if clock is time.monotonic else mine


def _client(policy: CloudMapPolicy) -> Any:
    import boto3  # heavy: not before it is needed
    from botocore.config import Config

    settings: dict[str, Any] = {
        "connect_timeout": policy.connect_timeout,
        "read_timeout": policy.read_timeout,
        "retries": {"total_max_attempts": 1, "mode": "standard"},
        "max_pool_connections": _THREADS,
    }
    session = boto3.Session()
    # boto3 reads AWS_DEFAULT_REGION only; ECS sets AWS_REGION.
    region = policy.region or session.region_name or os.environ.get("AWS_REGION") or None
    where = {"region_name": region, "endpoint_url": policy.endpoint_url or None}
    client = session.client("servicediscovery", config=Config(**settings), **where)
    host = urlsplit(client.meta.endpoint_url).hostname or ""
    if not host.startswith(("servicediscovery.", "servicediscovery-fips.")):
        # Another endpoint than AWS's: the prefix "data-" that discovery calls put before the host leads nowhere.
        client.close()
        client = session.client("servicediscovery", config=Config(**settings, inject_host_prefix=False), **where)
    return client
