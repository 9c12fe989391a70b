"""Policies: frozen, keyword-only values that check themselves.

Each field states its meaning and default. Times are in seconds unless said otherwise; ranges are checked, and listed
on the page configuration. Every field can also be set by an environment variable, `ECS_DISCOVERY_<POLICY>_<FIELD>`, for
example `ECS_DISCOVERY_RETRY_ATTEMPTS=2`. What is passed in code wins over the environment.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ecs_discovery.config.fields import (
    FUNCTION,
    NETWORKS,
    TENACITY,
    Policy,
    Rule,
    choices,
    file_path,
    from_environment,
    nameservers,
    number,
    one_of,
    path,
    port,
    ruled,
    split,
    status_ranges,
    statuses,
    subset,
    switch,
    text,
    whole,
)
from ecs_discovery.config.targets import HEALTH_FILTERS

__all__ = [
    "BalancingPolicy",
    "CachePolicy",
    "CloudMapPolicy",
    "ConnectionPolicy",
    "DnsPolicy",
    "HealthCheckPolicy",
    "HedgePolicy",
    "OutlierPolicy",
    "RetryPolicy",
    "TimeoutPolicy",
    "ZonePolicy",
    "from_environment",
]


class CachePolicy(Policy):
    """How long answers are held."""

    min_ttl: float = number(5.0, 0, 3600)
    """Floor on the TTL of an answer, TTL 0 included. 0: no floor; then an answer of TTL 0 serves only the
    callers that waited for it. Default 5 (Linkerd's floor; Envoy asks every 5 s)."""
    max_ttl: float = number(60.0, 1, 86400)
    """Cap on the TTL of an answer. Default 60."""
    negative_ttl: float = number(5.0, 0.1, 60)
    """Cap on how long "there is no such name" is believed, whatever the SOA says. RFC 2308 lets it say hours; Route
    53's default is 900 s. Default 5."""
    idle_grace: float = number(30.0, 0, 3600)
    """A call waits for a new answer if no call tried to refresh the old for its TTL and this long. Default 30."""
    jitter: float = number(0.1, 0, 1, "a share")
    """A refresh comes up to this share of the TTL later, so that clients do not ask together. Default 0.1."""
    retry_min: float = number(1.0, 0.05, 3600)
    """Pause after a failed refresh; doubles with each further failure. Default 1."""
    retry_max: float = number(32.0, 0.05, 3600)
    """Longest pause after failed refreshes. Default 32."""
    max_entries: int = whole(10_000, 1, 10_000_000)
    """Answers held; beyond it the least recently used one goes. Default 10,000."""


class DnsPolicy(Policy):
    """How DNS is asked."""

    nameservers: tuple[str, ...] = ruled(
        (), Rule(nameservers, split, "addresses, each with an optional port: '10.0.0.2' or '127.0.0.1:5353'")
    )
    """Servers to ask, as `address` or `address:port`. Empty: the system's (`/etc/resolv.conf`)."""
    timeout: float = number(3.0, 0.05, 60)
    """Hard limit of one lookup: all its servers, retransmissions, TCP and follow-up questions. Default 3."""
    query_timeout: float = number(0.75, 0.02, 60)
    """Wait for one server's answer before the question is sent again. Default 0.75."""
    families: tuple[str, ...] = choices(("a", "aaaa"), ("a", "aaaa"))
    """Address records to ask for. A name that has only one kind is soon asked only for that. Default both."""
    hosts_file: str = ruled("/etc/hosts", Rule(file_path, str, "a path, or '' for none"))
    """The hosts file that is looked at before DNS for address records; '' for none."""
    max_queries: float = number(200.0, 1, 1000, "lookups per second")
    """Lookups of DNS per second of a discovery; those above fail and what is known stays. Questions that follow from
    an answer, about SRV targets, count too and wait. The VPC resolver drops packets above 1,024 per second and network
    interface. Default 200."""
    search: bool = switch(False)
    """Complete names by the search list of `/etc/resolv.conf`, as glibc does. Default off: names are absolute."""
    min_refresh: float = number(5.0, 0, 3600)
    """Least time between two refreshes that connect failures force. Default 5."""
    allowed_networks: tuple[str, ...] = ruled((), NETWORKS)
    """Networks whose addresses are accepted from DNS although they are link-local (169.254.0.0/16, fe80::/10) or of the
    metadata endpoints of AWS (fd00:ec2::/32): `169.254.8.0/24`. The hosts file and `static://` are not asked. Default
    none."""


class CloudMapPolicy(Policy):
    """How the AWS Cloud Map API is asked."""

    poll: float = number(5.0, 0.1, 3600)
    """A target in use is asked for again after this long (not under `CachePolicy.min_ttl`): mostly by a cheap
    `DiscoverInstancesRevision`. A target out of use is not asked for. Default 5 (Envoy's DNS refresh)."""
    full_interval: float = number(30.0, 0, 3600)
    """`DiscoverInstances` is called at least this often while polling, because changes of health do not change the
    revision (API reference). 0: every time. Default 30 (Cloud Map itself acts on health after 30 s)."""
    timeout: float = number(3.0, 0.05, 60)
    """Hard limit of one lookup. Default 3."""
    connect_timeout: float = number(1.0, 0.05, 60)
    """Limit on connecting to the API. Default 1 (boto3's is 60)."""
    read_timeout: float = number(2.0, 0.05, 60)
    """Limit on waiting for its answer. Default 2 (boto3's is 60)."""
    max_calls: float = number(20.0, 0.1, 1000, "calls per second")
    """The process makes no more calls than this on average, and twice as many in one second. All callers of an
    account and Region share 1,000 `DiscoverInstances` calls per second (Cloud Map quotas). Default 20."""
    health: str = one_of("HEALTHY_OR_ELSE_ALL", HEALTH_FILTERS)
    """Which instances are used, unless the target says `health=…`. Default `HEALTHY_OR_ELSE_ALL`, as Route 53 answers:
    healthy instances, or all instances if none is healthy."""
    families: tuple[str, ...] = choices(("ipv4", "ipv6"), ("ipv4", "ipv6"))
    """Which address of an instance is used: the first of these that it has. Default IPv4, then IPv6."""
    default_port: int | None = ruled(None, Rule(port, int, "a port from 1 to 65535, or None"))
    """The port of instances without `AWS_INSTANCE_PORT` where the target names none either: ECS leaves it out for
    some services. Default none."""
    region: str = text("an AWS Region, or ''")
    """The Region of the API. Empty: what boto3 is configured for, else `AWS_REGION`."""
    endpoint_url: str = text("a URL, or ''")
    """Another place to call the API at. Empty: what boto3 is configured for (`AWS_ENDPOINT_URL`), else AWS."""
    allowed_networks: tuple[str, ...] = ruled((), NETWORKS)
    """Networks whose addresses are accepted from Cloud Map although they are link-local, as in `DnsPolicy`. Default
    none."""


class BalancingPolicy(Policy):
    """How an endpoint is chosen."""

    picker: str = one_of("peak_ewma", ("peak_ewma", "least_pending", "round_robin", "random"))
    """The rule. `peak_ewma`: of two drawn at random, the endpoint with the smaller product of recent latency and uses
    in flight (power of two choices, Mitzenmacher 2001). `least_pending`: the same by uses in flight alone.
    `round_robin`: in turn by weight. `random`: drawn by weight. All take constant time in the number of endpoints.
    Default `peak_ewma` (Finagle)."""
    full_scan: int = whole(4, 2, 64)
    """Up to this many endpoints all are compared, above it two drawn at random. Two choices are weak for tiny
    fleets. Default 4."""
    decay: float = number(10.0, 0.1, 3600)
    """How fast a measured latency is forgotten, also while the endpoint is not used: after this long, 37 % of it is
    left. Default 10 (Finagle)."""
    least_latency: float = number(0.005, 1e-6, 60)
    """Latencies below count as this: endpoints that are all fast share evenly. Default 0.005."""
    slow_start: float = number(20.0, 0, 3600)
    """A new endpoint's share grows from a tenth to its full size in this time, unless most are new. 0: at once.
    Default 20 (Armeria's ten steps of 2 s)."""
    pushback: float = number(5.0, 0, 300)
    """An endpoint that answered 429 or 503 is chosen after all others for this long, or as long as its `Retry-After`
    says, up to 300. Default 5 (Linkerd)."""
    max_pending: int = whole(0, 0, 1_000_000)
    """Uses an endpoint may have in flight from this process; 0: any number. Default 0."""
    wait_for_room: bool = switch(True)
    """What finds all endpoints full waits for room within its connect time, first come first served. Else it fails
    at once. Default on."""
    subset: int = ruled(0, Rule(subset, int, "0 or a whole number from 12 to 100000"))
    """Endpoints that this client uses of a service with more than `subset_above`. The others are kept in reserve. So
    not all of very many clients connect to all of very many endpoints. 0: all. Default 0."""
    subset_above: int = whole(100, 12, 1_000_000)
    """Up to this many endpoints are all used. Default 100."""
    explain: int = whole(64, 0, 100_000)
    """Picks kept for `snapshot`: an ordinary one every 0.05 seconds at most, and every other. Default 64."""


class ZonePolicy(Policy):
    """Whether endpoints of the caller's availability zone are preferred. Needs endpoints with zones, which Cloud Map
    names (`AVAILABILITY_ZONE`)."""

    prefer: bool = switch(False)
    """Prefer the caller's zone as far as its endpoints get no more load than the others (Envoy's zone aware routing).
    Traffic between zones costs money and a millisecond. Off while endpoints are in panic. Default off."""
    own: str = text("the name of an availability zone, or ''")
    """The caller's zone, such as `eu-west-1a`. Empty: what the ECS task metadata endpoint says."""
    callers: float = number(0.0, 0, 1, "a share")
    """The share of all calls to a service that is made from the caller's zone. 0: the zones call alike. Default 0."""
    min_endpoints: int = whole(6, 2, 1_000_000)
    """With fewer endpoints zones are ignored. Default 6 (Envoy)."""


class OutlierPolicy(Policy):
    """When an endpoint is ejected for a while."""

    consecutive_failures: int = whole(5, 1, 1000)
    """Failures in a row that eject an endpoint. Default 5 (Envoy, Finagle)."""
    success_rate: float = number(0.8, 0, 1, "a share")
    """An endpoint of whose requests fewer than this share succeed is ejected. 0: never. Default 0.8 (Finagle)."""
    success_rate_requests: int = whole(10, 1, 1_000_000)
    """Requests needed for that judgement. Default 10."""
    success_rate_window: float = number(30.0, 1, 3600)
    """The requests of the last so many seconds count (of no less than half as many). Default 30 (Finagle)."""
    eject_min: float = number(5.0, 0.05, 3600)
    """First ejection; doubles with each further ejection. Default 5 (Finagle)."""
    eject_max: float = number(300.0, 0.05, 86400)
    """Longest ejection. Default 300."""
    connect_min: float = number(1.0, 0.05, 3600)
    """How long an endpoint is set aside after its first failed connect; doubles with each further failed connect.
    Default 1 (Finagle's FailFast)."""
    connect_max: float = number(32.0, 0.05, 3600)
    """Longest time set aside after failed connects. Default 32."""
    max_ejected: float = number(0.5, 0, 1, "a share")
    """Greatest share of the endpoints ejected at once, counted after ejecting. The last one never is. Default 0.5."""
    panic_threshold: float = number(0.5, 0, 1, "a share")
    """With fewer healthy endpoints than this share, ejections are ignored (Envoy's panic mode). Default 0.5."""
    failure_statuses: tuple[int, ...] = ruled(
        (500, 502, 503, 504), Rule(statuses, lambda t: tuple(map(int, split(t))), "HTTP statuses from 400 to 599")
    )
    """HTTP statuses that count as failures of the endpoint. Default 500, 502, 503, 504."""
    is_failure: Callable[[BaseException], bool] | None = ruled(None, FUNCTION)
    """Which exceptions of a lease or call count against the endpoint. None: every `Exception`;
    cancellation, `KeyboardInterrupt` and `GeneratorExit` never do. Set in code only."""


class HealthCheckPolicy(Policy):
    """Whether the endpoints of a service in use are checked besides the requests they get.

    Checks only eject endpoints, and bring back endpoints that checks ejected."""

    kind: str = one_of("off", ("off", "tcp", "http"))
    """`tcp`: a connection is opened and closed. `http`: a GET over HTTP/1.1, without TLS; a port that speaks TLS can
    be checked by `tcp` only. Default off."""
    path: str = ruled("/", Rule(path, str, "a path that begins with '/', of printable ASCII without spaces and '#'"))
    """What is asked for, with `http`. The Host header is the service's name, with the target's port if it is not 80.
    Default `/`."""
    statuses: str = ruled(
        "200-399", Rule(status_ranges, str, "HTTP statuses from 200 to 599 and ranges of them: '200-299,304'")
    )
    """Which statuses are good, with `http`; any other is a failed check. Redirects are not followed. Default 200-399
    (Kubernetes)."""
    interval: float = number(10.0, 0.1, 3600)
    """Time between two checks of an endpoint, while the service is used. Default 10 (Kubernetes; Envoy names none,
    Armeria takes 3)."""
    jitter: float = number(0.2, 0, 0.5, "a share")
    """Each interval is longer or shorter by up to this share, so that clients do not check together. Default 0.2
    (Armeria)."""
    timeout: float = number(2.0, 0.01, 60)
    """Hard limit of one check: connecting, and the status line with `http`. Default 2 (Kubernetes takes 1)."""
    unhealthy_after: int = whole(3, 1, 100)
    """Failed checks in a row that eject an endpoint. A failed connect does so at once. Default 3 (Kubernetes)."""
    healthy_after: int = whole(2, 1, 100)
    """Good checks in a row that bring it back. Default 2: one answer may be luck."""


class RetryPolicy(Policy):
    """When and how often a call is retried."""

    attempts: int = whole(3, 1, 20)
    """Attempts of one call, the first included. 1: no retries. Default 3."""
    backoff_min: float = number(0.025, 0, 60)
    """First pause is drawn from 0 to this; the bound doubles (full jitter). Default 0.025 (Envoy).
    The first retry on another endpoint after a failed connect does not wait."""
    backoff_max: float = number(0.25, 0, 60)
    """Greatest bound of a pause. Default 0.25 (Envoy)."""
    budget: float = number(0.2, 0, 10, "a share")
    """Retries allowed as a share of the successes of the last 10 seconds. Default 0.2 (Finagle)."""
    budget_floor: float = number(1.0, 0, 1000, "retries per second")
    """Retries per second allowed on top. Default 1."""
    statuses: tuple[int, ...] = ruled(
        (429, 502, 503, 504), Rule(statuses, lambda t: tuple(map(int, split(t))), "HTTP statuses from 400 to 599")
    )
    """HTTP statuses after which an idempotent request is retried. Default 429, 502, 503, 504."""
    tenacity: Any = ruled(None, TENACITY)
    """A `tenacity.Retrying` (for `AsyncDiscovery` an `AsyncRetrying` too). Of a call that may safely be retried, it
    says which results and exceptions are retried, when, and how often. What it leaves at tenacity's defaults is as the
    other fields say. `retry=Retrying(…)` is short for it. Set in code only."""


class HedgePolicy(Policy):
    """Whether a call that is slow is sent to a second endpoint as well; the first good answer counts.

    Only idempotent calls, and only `Discovery.call`, `AsyncDiscovery.call` and wrapped sessions."""

    enabled: bool = switch(False)
    """Default off."""
    percentile: float = number(0.95, 0.5, 0.999, "a share")
    """A call is hedged once it has taken longer than this share of the first attempts lately. Default 0.95 (Finagle
    takes 1 - `max_extra`)."""
    max_extra: float = number(0.05, 0.001, 1, "a share")
    """Hedges allowed as a share of the calls that may be hedged. Each takes from the retry budget too. More than
    1 - `percentile` is no use. Default 0.05."""
    min_delay: float = number(0.001, 0, 60)
    """No call is hedged sooner than this. Default 0.001 (Finagle)."""


class TimeoutPolicy(Policy):
    """Time limits."""

    connect: float = number(2.0, 0.01, 3600)
    """Bound on lookup, pool wait, connect and TLS of a request, over all its attempts. Default 2."""
    deadline: float = number(30.0, 0.01, 86400)
    """No attempt and no wait begins later than this after the call began. Default 30."""


class ConnectionPolicy(Policy):
    """How connections are made and kept."""

    race_limit: int = whole(3, 1, 16)
    """Endpoints that one call connects to at once; the first to connect is used. An endpoint that is silent for eight
    times the learnt connect time counts no longer (0.1 s at least, 0.25 s while none is learnt). 16 in all. 1: one
    after another. Default 3."""
    race_delay: float = number(0.25, 0.01, 60)
    """Head start of an endpoint before the next is connected to beside it. Once the service's connect time is learnt,
    four times that (20 ms at least) if it is less. Default 0.25 (RFC 8305)."""
    max_idle: int = whole(10, 1, 10_000)
    """Idle connections kept per endpoint. Default 10."""
    idle_timeout: float = number(60.0, 0.1, 3600)
    """A connection idle for longer is not used again. Default 60 (under the 350 s after which AWS drops
    idle connections)."""
    unsafe_idle_timeout: float = number(4.0, 0, 3600)
    """The same for a request that may not be replayed; less than the 5 s of common servers (uvicorn). Default 4."""
    max_age: float = number(600.0, 1, 86400)
    """A connection older than this, give or take a fifth, is closed between requests. Default 600."""
    ack_timeout: float = number(0.25, 0.05, 60)
    """A request whose bytes the peer's kernel has not acknowledged for this long (more on slow paths) is given
    up if it may be replayed. Linux only (`TCP_INFO`). Default 0.25."""
