"""Each code is found in facts that have its fault, and in healthy facts nothing is found."""

from __future__ import annotations

import shlex
from dataclasses import replace

import pytest

from ecs_discovery.cli.doctor.checks import CODES, Severity, judge
from ecs_discovery.cli.doctor.facts import ConnectFacts, InstanceFacts, LibraryFacts, ServerFacts
from ecs_discovery.cli.doctor.gather import CONTROL
from tests.doctor.support import (
    AAAA,
    ADDRESSES,
    HEALTHY,
    NAME,
    SERVER,
    SRV,
    A,
    Change,
    address,
    answer,
    api,
    both,
    but,
    codes,
    connects,
    dns,
    srv,
    target,
)

NOTHING = [replace(each, records=(), additional=(), zone="prod.local", negative_ttl=15.0) for each in (A, AAAA, SRV)]
NO_SUCH = [replace(each, rcode="NXDOMAIN") for each in NOTHING]
SILENT = [answer(kind, outcome="silent", rcode="", zone=None) for kind in ("a", "aaaa", "srv")]
NO_ZONE = answer("soa", name="prod.local", rcode="NXDOMAIN", zone="", negative_ttl=900.0)
EIGHT = tuple(address(f"10.0.3.{number}") for number in range(8))
UNKNOWN_ZONE = [replace(each, zone="") for each in NO_SUCH]


def all_silent(facts):
    return replace(facts, answers=tuple(replace(each, outcome="silent", records=()) for each in facts.answers))


def custom_server(facts):
    mine = [replace(each, server="10.1.1.1:53") for each in (NO_ZONE, *UNKNOWN_ZONE)]
    return replace(
        facts,
        servers=(ServerFacts("10.1.1.1:53"), ServerFacts(SERVER, used=False, amazon=True)),
        answers=(*mine, *facts.answers),
    )


def failing(facts):
    return replace(
        facts, answers=tuple(replace(each, rcode="SERVFAIL", records=(), zone=None) for each in facts.answers)
    )


def but_no_server(facts):
    return replace(facts, stop_timeout=None)


SERVFAIL = dns(
    answer("soa", name="prod.local", rcode="SERVFAIL", zone=None),
    *(answer(kind, rcode="SERVFAIL", zone=None) for kind in ("a", "aaaa", "srv")),
)
CLOUD_MAP = both(target(asked="billing", source="cloudmap://prod.local/orders", scheme="cloudmap"), api(wanted=True))
WEIGHTED = [answer("a", address(host)) for host in ADDRESSES]

SICK: dict[str, Change] = {
    "D101": both(dns(NO_ZONE, replace(NO_ZONE, transport="tcp"), *UNKNOWN_ZONE), api(outcome="denied", count=0)),
    "D102": all_silent,
    "D103": custom_server,
    "D104": dns(*(replace(each, zone=NAME) for each in NO_SUCH)),
    "D105": SERVFAIL,
    "D106": but(resolver={"mdns_first": True}),
    "D107": target(hosts=("10.9.9.9",)),
    "D108": but(resolver={"ndots": 5, "names": 4}),
    "D109": but(resolver={"libc": "musl", "alpine": "3.17.3"}),
    "D110": dns(answer("soa", name="prod.local", transport="tcp", outcome="silent", rcode="")),
    "D111": dns(*(replace(each, tries=2) for each in (A, AAAA, SRV))),
    "D112": both(but(settings={"namespace": None}), target(name="orders", api=None), lambda f: replace(f, zones=())),
    "D113": failing,
    "D201": both(dns(answer("a", *(address(host, 300.0) for host in ADDRESSES))), but_no_server),
    "D202": dns(*[answer("a", *(address(host, 0.0) for host in ADDRESSES))] * 2, NOTHING[2]),
    "D203": both(dns(answer("a", *EIGHT)), api(count=12)),
    "D204": both(dns(*WEIGHTED), api(count=2)),
    "D205": dns(answer("soa", name="prod.local", negative_ttl=300.0)),
    "D206": both(dns(NOTHING[0]), target(scheme="dns", port=8080)),
    "D207": dns(NOTHING[0], NOTHING[1], answer("srv", srv("gone.prod.local"), srv("lost.prod.local"))),
    "D208": connects("refuses", "refuses", port=80),
    "D209": connects("silent", "silent"),
    "D210": connects("accepts", "refuses"),
    "D211": api(instances=(InstanceFacts("10.0.1.5", 8080, "UNKNOWN"),)),
    "D212": api(instances=(InstanceFacts("10.0.1.5", 8080, "UNHEALTHY"),)),
    "D213": target(hosts=("127.255.0.1",), proxied=True),
    "D214": dns(*NO_SUCH),
    "D215": dns(NO_ZONE, replace(NO_ZONE, transport="tcp"), *UNKNOWN_ZONE),
    "D216": both(dns(*NO_SUCH), api(outcome="not found", count=0)),
    "D217": connects("accepts", "silent"),
    "D301": both(CLOUD_MAP, api(outcome="denied", revision="denied", count=0)),
    "D302": both(CLOUD_MAP, api(revision="denied")),
    "D303": both(CLOUD_MAP, api(outcome="no way", code="ConnectTimeoutError", count=0)),
    "D304": both(CLOUD_MAP, api(outcome="no credentials", code="NoCredentialsError", count=0)),
    "D305": api(skew=-900.0),
    "D306": api(count=150),
    "D307": both(CLOUD_MAP, api(outcome="throttled", code="RequestLimitExceeded", count=0)),
    "D401": but(process={"name": "sh", "term": "default"}),
    "D402": lambda facts: replace(facts, stop_timeout=15.0),
    "D403": target(keep_alive=5.0),
    "D404": but(process={"preload": True, "libraries": (LibraryFacts("opentelemetry-sdk", "1.40"),)}),
    "D405": but(process={"libraries": (LibraryFacts("aiohttp-retry", "2.9"),)}),
    "D406": but(settings={"installed": True}),
    "D407": but(process={"files_limit": 512}),
    "D408": both(CLOUD_MAP, but(task={"ipv4": False, "ipv6": True})),
    "D409": but(settings={"warnings": ("the environment variable ECS_DISCOVERY_X means nothing",)}),
    "D410": but(settings={"zone_prefer": True}, task={"zone": None}),
}
STEPS = ("settings", "task", "resolver", "servers", "zones", "name orders", "name billing", "api", "program")


def test_nothing_is_found_in_healthy_facts():
    assert codes(judge(HEALTHY)) == []


@pytest.mark.parametrize("code", CODES)
def test_a_fault_is_named_by_its_code_alone(code: str):
    found = judge(SICK[code](HEALTHY))
    assert set(codes(found)) == {code}, found


@pytest.mark.parametrize("code", CODES)
def test_a_finding_says_what_was_seen_what_it_means_and_what_to_do(code: str):
    finding = next(each for each in judge(SICK[code](HEALTHY)) if each.code == code)
    assert finding.severity is CODES[code].severity
    assert finding.step in STEPS
    assert finding.docs == f"docs/doctor.md#{code.lower()}"
    for text in (finding.title, finding.seen, finding.means, finding.do):
        assert text
        assert text.isprintable()


@pytest.mark.parametrize("code", CODES)
def test_the_same_facts_give_the_same_findings(code: str):
    facts = SICK[code](HEALTHY)
    assert judge(facts) == judge(facts)


@pytest.mark.parametrize(
    ("change", "code", "severity"),
    [
        (both(dns(NOTHING[0]), target(port=8080)), "D206", Severity.WARNING),  # the library turns to SRV records
        (both(dns(NOTHING[2]), target(scheme="srv")), "D206", Severity.ERROR),
        (connects("refuses", "silent"), "D210", Severity.ERROR),
        (connects("refuses", "silent"), "D217", Severity.ERROR),
        (both(CLOUD_MAP, api(outcome="failed", code="InternalFailure", count=0)), "D307", Severity.ERROR),
        (but(process={"preload": True}), "D404", Severity.INFO),
        (but(settings={"problem": "namespace is 5"}), "D409", Severity.ERROR),
        (lambda facts: replace(facts, servers=()), "D113", Severity.ERROR),
    ],
)
def test_how_bad_it_is_depends_on_what_is_left(change: Change, code: str, severity: Severity):
    assert severity in [each.severity for each in judge(change(HEALTHY)) if each.code == code]


@pytest.mark.parametrize(
    ("change", "code", "seen"),
    [
        (but(settings={"disabled": True}), "D409", "ECS_DISCOVERY_DISABLED"),
        (but(process={"libraries": (LibraryFacts("requests", "2.31.0"),)}), "D409", "older than 2.32.3"),
        (but(process={"libraries": (LibraryFacts("urllib3-future", "2.13"),)}), "D409", "urllib3's place"),
        (but(process={"files_open": 60_000}), "D407", "60000 of 65536"),
        (but(process={"throttled": 500}), "D407", "50 %"),
        (but(process={"server": "uwsgi"}), "D404", "unknown version"),
        (but(process={"server": "uwsgi", "libraries": (LibraryFacts("uWSGI", "2.0.26"),)}), "D404", "2.0.26"),
        (both(CLOUD_MAP, api(outcome="no boto3", count=0)), "D304", "boto3 is not installed"),
        (both(CLOUD_MAP, api(outcome="no region", count=0)), "D304", "no Region"),
        (both(CLOUD_MAP, api(outcome="late", count=0)), "D303", "no answer in time"),
        (both(CLOUD_MAP, api(outcome="late", code="ReadTimeoutError", count=0)), "D307", "ReadTimeoutError"),
        (both(CLOUD_MAP, api(outcome="not found", code="ServiceNotFound", count=0)), "D216", "ServiceNotFound"),
        (both(CLOUD_MAP, api(count=0)), "D216", "no instances"),
        (both(CLOUD_MAP, api(instances=(InstanceFacts("10.0.1.5"),)), target(connects=())), "D208", "no port"),
        (connects("untold"), "D209", "no connect could be made"),
        (both(dns(*NOTHING), api(outcome="not found", count=0)), "D216", "no records"),
        (dns(A, NOTHING[0]), "D212", "1 of 2 answers had no A records"),
        (both(target(api=None), dns(answer("a", *EIGHT))), "D203", "8 A records"),
        (but(settings={"problem": "namespace is 5"}), "D409", "namespace is 5"),
        (lambda facts: replace(facts, servers=()), "D113", "no DNS server is configured"),
    ],
)
def test_a_code_has_more_than_one_cause(change: Change, code: str, seen: str):
    assert any(each.code == code and seen in each.seen for each in judge(change(HEALTHY)))


@pytest.mark.parametrize(
    "change",
    [
        both(dns(answer("a", *EIGHT)), api(count=8)),  # Cloud Map says that there are 8
        api(outcome="denied", code="AccessDeniedException", revision="denied"),  # the program does not ask the API
        api(outcome="no credentials"),
        api(outcome="no boto3"),
        but(resolver={"libc": "musl", "alpine": "3.20.1"}),
        but(machine={"proxy": True, "no_proxy": False}),
        but(process={"server": "uwsgi", "threads": True}),
        but(process={"pid": 7, "term": "default"}),  # signals without a handler end any process but the first
        but(process={"pid": 0, "term": "", "files_limit": None, "files_open": None}),
        but(settings={"zone_prefer": True}),
        but(settings={"zone_prefer": True, "zone_own": "eu-west-1a"}, task={"zone": None}),
        target(keep_alive=None),
        lambda facts: replace(facts, stop_timeout=None),
        dns(answer("soa", name=CONTROL, rcode="REFUSED", zone=None)),
        dns(replace(AAAA, tries=2)),  # one lost packet is chance
    ],
)
def test_what_is_no_fault_is_passed_over(change: Change):
    assert codes(judge(change(HEALTHY))) == []


@pytest.mark.parametrize("code", CODES)
def test_a_command_to_copy_is_one_that_a_shell_can_read(code: str):
    for finding in judge(SICK[code](HEALTHY)):
        for command in finding.run:
            assert shlex.split(command)[0] in ("aws", "pip")


def test_another_port_that_accepts_is_named():
    wrong = ConnectFacts("10.0.1.5", 80, result="refuses")
    right = ConnectFacts("10.0.1.5", 8080, used=False, result="accepts")
    (finding,) = judge(target(connects=(wrong, right))(HEALTHY))
    assert finding.code == "D208"
    assert "port 8080 accepts" in finding.seen
    assert "use port 8080" in finding.do


def test_a_task_that_listens_a_second_later_is_told_from_one_that_does_not():
    (late,) = judge(connects("accepts", "refuses", again="accepts")(HEALTHY))
    assert (late.code, "1 accepted a second later" in late.seen) == ("D210", True)


def test_a_proxy_that_stands_before_the_credentials_is_named():
    change = both(CLOUD_MAP, api(outcome="failed", code="X"), but(machine={"proxy": True, "no_proxy": False}))
    finding = next(each for each in judge(change(HEALTHY)) if each.code == "D304")
    assert "NO_PROXY" in finding.do


def test_a_policy_is_given_with_a_denied_call():
    (finding,) = judge(SICK["D301"](HEALTHY))
    assert '"servicediscovery:DiscoverInstancesRevision"' in finding.run[0]


def test_a_cause_that_many_services_share_is_told_once():
    facts = SICK["D301"](HEALTHY)
    twice = replace(facts, targets=(*facts.targets, replace(facts.targets[0], asked="users")))
    assert codes(judge(twice)) == ["D301"]


def test_what_a_facts_file_names_cannot_be_pasted_as_another_command():
    zone = "x; touch owned"
    facts = both(SERVFAIL, lambda f: replace(f, zones=(zone,)))(HEALTHY)
    facts = replace(facts, answers=(*facts.answers, answer("soa", name=zone, rcode="SERVFAIL", zone=None)))
    commands = [command for finding in judge(facts) for command in finding.run if "--domain-name" in command]
    assert commands
    assert [shlex.split(command)[-1] for command in commands] == ["prod.local", zone][-len(commands) :]
