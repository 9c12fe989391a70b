"""`ecs-discovery doctor`: its options, its output and its exit status. Needs no other package."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, NoReturn

from ecs_discovery.cli.doctor.checks import Finding, Severity, judge
from ecs_discovery.cli.doctor.facts import Facts, as_plain, load
from ecs_discovery.cli.doctor.gather import MOST_TARGETS, Order, gather
from ecs_discovery.cli.doctor.show import ASCII, report
from ecs_discovery.config.fields import path as request_path
from ecs_discovery.errors import ConfigurationError, plain
from ecs_discovery.runtime.files import opened

__all__ = ["doctor"]

_LARGEST = 4 * 1024 * 1024  # bytes of a file with facts
_PLAIN_WIDTH = 100
_WIDEST = 120
_LONGEST_STOP = 3600.0


def doctor(arguments: Sequence[str], *, look: Callable[[Order], Facts] = gather) -> NoReturn:
    """Look, judge and print; ends with the exit status."""
    given = _parser().parse_args(arguments)
    try:
        facts = _facts(given, look)
    except ConfigurationError as error:
        _refuse(str(error))
    findings = judge(facts)
    if given.as_json:
        sys.stdout.write(json.dumps(_as_dict(facts, findings), allow_nan=False, indent=2) + "\n")
    else:
        _print(facts, findings)
    severities = {finding.severity for finding in findings}
    bad = Severity.ERROR in severities or (given.strict and Severity.WARNING in severities)
    raise SystemExit(1 if bad else 0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ecs-discovery doctor",
        usage="ecs-discovery doctor [OPTIONS] [NAME ...]",
        description="Say what is wrong between this task and the services NAME, and what to do about it. A name is "
        "what the program asks for: orders, orders:8080, srv://orders, cloudmap://prod/orders. Without a name: the "
        "services of ECS_DISCOVERY_SERVICES, the namespace, DNS and the program.",
        epilog="Nothing is changed. It takes at most 10 seconds. Exit status 1: an error was found; 2: what is given "
        "makes no sense.",
    )
    parser.add_argument("names", metavar="NAME", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--namespace", metavar="NS", help="namespace of the services, such as prod.local")
    parser.add_argument(
        "--nameserver", metavar="HOST:PORT", action="append", help="ask this server; can be given more than once"
    )
    parser.add_argument("--pid", type=int, metavar="PID", help="the program's process, if it is not process 1")
    parser.add_argument(
        "--path", metavar="PATH", help="GET this path of each service once, to see how long it keeps idle connections"
    )
    parser.add_argument(
        "--stop-timeout",
        type=float,
        metavar="SECONDS",
        help="judge this container as a server of NAME too: its stopTimeout, which a task cannot see",
    )
    parser.add_argument("--strict", action="store_true", help="exit status 1 for warnings too")
    parser.add_argument("--json", dest="as_json", action="store_true", help="findings and facts as one JSON object")
    parser.add_argument(
        "--facts", metavar="FILE", help="judge the output of --json of another machine; - for standard input"
    )
    return parser


def _facts(given: argparse.Namespace, look: Callable[[Order], Facts]) -> Facts:
    own = (given.names, given.namespace, given.nameserver, given.pid, given.path, given.stop_timeout)
    if given.facts is not None:
        if any(each not in (None, []) for each in own):
            raise ConfigurationError("--facts", given.facts, "no names and no other option than --json and --strict")
        return load(_read(given.facts))
    if len(given.names) > MOST_TARGETS:
        raise ConfigurationError("NAME", f"{len(given.names)} names", f"at most {MOST_TARGETS}")
    if given.pid is not None and given.pid < 1:
        raise ConfigurationError("--pid", given.pid, "a process id from 1")
    if given.stop_timeout is not None and not 0 < given.stop_timeout <= _LONGEST_STOP:
        raise ConfigurationError("--stop-timeout", given.stop_timeout, f"seconds up to {_LONGEST_STOP:g}")
    if given.path is not None:
        try:
            request_path(given.path)
        except ValueError:
            raise ConfigurationError("--path", given.path, "a path such as /health") from None
    order = Order(
        names=tuple(given.names),
        namespace=given.namespace,
        nameservers=tuple(given.nameserver or ()),
        pid=given.pid or 1,
        path=given.path,
        stop_timeout=given.stop_timeout,
    )
    return look(order)


def _read(name: str) -> Any:
    try:
        if name == "-":
            text = sys.stdin.read(_LARGEST + 1)
        else:
            with opened(name) as (descriptor, _), os.fdopen(os.dup(descriptor), "rb") as file:
                text = file.read(_LARGEST + 1).decode("utf-8")
        if len(text) > _LARGEST:
            raise ValueError("too long")
        # Session Manager prints lines of its own around what a command prints.
        return json.loads(text[text.find("{") : text.rfind("}") + 1])
    except OSError as error:
        raise ConfigurationError("--facts", name, f"a file that can be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise ConfigurationError("--facts", name, "a file of JSON, of 4 MiB at most") from error


def _as_dict(facts: Facts, findings: Sequence[Finding]) -> dict[str, Any]:
    severities = [finding.severity for finding in findings]
    return {
        "errors": severities.count(Severity.ERROR),
        "warnings": severities.count(Severity.WARNING),
        "findings": [{**asdict(finding), "severity": finding.severity.value} for finding in findings],
        "facts": as_plain(facts),
    }


def _print(facts: Facts, findings: Sequence[Finding]) -> None:
    terminal = sys.stdout.isatty()
    width = min(shutil.get_terminal_size().columns, _WIDEST) if terminal else _PLAIN_WIDTH
    colour = terminal and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
    text = "\n".join(report(facts, findings, width=width, colour=colour)) + "\n"
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):  # a terminal of the C locale, as in many containers
        for mark, instead in ASCII.items():
            text = text.replace(mark, instead)
        text = text.encode("ascii", "replace").decode("ascii")
    sys.stdout.write(text)
    sys.stdout.flush()


def _refuse(message: str) -> NoReturn:
    sys.stderr.write(f"ecs-discovery doctor: {plain(' '.join(message.split()))}\n")
    raise SystemExit(2)
