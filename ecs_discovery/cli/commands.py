"""The commands and their options."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from ecs_discovery import __version__
from ecs_discovery.cli.console import fail
from ecs_discovery.cli.resolve import resolve_target

__all__ = ["commands"]

SHORTEST = 10
"""Seconds below which the demo's deployment would be faster than any DNS can follow."""


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ecs-discovery")
def commands() -> None:
    """Client-side service discovery for Amazon ECS."""


@commands.command()
@click.argument("name")
@click.option("--namespace", metavar="NS", help="Namespace that completes short names, such as prod.local.")
@click.option(
    "--nameserver",
    "nameservers",
    metavar="HOST:PORT",
    multiple=True,
    help="Ask this server; can be given more than once.",
)
@click.option(
    "--timeout", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS", help="Wait no longer than this."
)
@click.option("--trace", "with_trace", is_flag=True, help="Show each question, the server asked and its answer.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output, also of a failure.")
def resolve(
    name: str,
    namespace: str | None,
    nameservers: tuple[str, ...],
    timeout: float | None,
    with_trace: bool,
    as_json: bool,
) -> None:
    """Show the endpoints that NAME resolves to.

    NAME is what an application would ask for: orders, orders:8080, srv://orders.prod.local,
    dns://orders.prod.local:8080, cloudmap://prod/orders, static://10.0.0.1:8080. What is not given is taken from
    ECS_DISCOVERY_… variables. Exit status 1: it cannot be resolved; 2: it makes no sense.
    """
    os.environ.pop("ECS_DISCOVERY_INSPECT", None)  # this command is open to no other
    sys.exit(resolve_target(name, namespace, nameservers, timeout, as_json=as_json, with_trace=with_trace))


@commands.command(add_help_option=False, context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def run(arguments: tuple[str, ...]) -> None:
    """Start a program whose client libraries find services by name: run -- COMMAND."""
    from ecs_discovery.cli.run import run as start

    start(arguments)


@commands.command(add_help_option=False, context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def doctor(arguments: tuple[str, ...]) -> None:
    """Say what is wrong between this task and a service, and what to do: doctor [NAME ...]."""
    from ecs_discovery.cli.doctor.command import doctor as examine

    examine(arguments)


@commands.command(add_help_option=False, context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def watch(arguments: tuple[str, ...]) -> None:
    """Show what running programs know of a service, as it changes: watch NAME."""
    from ecs_discovery.cli.watch.command import watch as look

    look(arguments)


@commands.command()
@click.option(
    "--seconds",
    type=click.FloatRange(min=SHORTEST, max=3600),
    default=30.0,
    show_default=True,
    help="Duration of the demo in seconds.",
)
@click.option("--json", "as_json", is_flag=True, help="Nothing but one JSON object at the end.")
@click.option(
    "--rate",
    type=click.FloatRange(min=1, max=1000),
    default=60.0,
    show_default=True,
    metavar="N",
    help="Requests per second of each client.",
)
@click.option("--seed", type=int, metavar="N", help="Random seed, for a repeatable run.")
@click.option(
    "--report",
    "page",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    metavar="FILE.html",
    help="Write a page with charts to this file at the end.",
)
def demo(seconds: float, as_json: bool, rate: float, seed: int | None, page: Path | None) -> None:
    """Watch requests survive what happens to tasks.

    A small ECS on loopback: its tasks become slow, die, vanish and fail, and a deployment replaces them. A wrapped
    requests session, a plain session and a plain session with urllib3's Retry call them at the same rate. No AWS
    account is needed. Exit status: 0 if the wrapped session lost nothing, 1 if it did, 130 after Ctrl-C.
    """
    try:
        import dns  # noqa: F401  # the lab's name server
        import h11  # noqa: F401  # the lab's HTTP
        import requests  # noqa: F401
    except ModuleNotFoundError as error:
        missing = "dnspython" if error.name == "dns" else error.name
        sys.exit(fail(f"{missing} is not installed: from a clone, pip install '.[demo]'", 1))
    if page is not None and not page.absolute().parent.is_dir():  # told now, not after the demo
        raise click.BadParameter(f"there is no folder {page.parent}", param_hint="--report")
    from ecs_discovery.cli.demo.command import show

    sys.exit(show(seconds=seconds, rate=rate, seed=seed, as_json=as_json, page=page))
