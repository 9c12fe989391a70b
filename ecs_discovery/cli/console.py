"""Where output goes: a terminal with colours, or plain text for files and pipes."""

from __future__ import annotations

import sys

import click
from rich.console import Console

from ecs_discovery.errors import plain

__all__ = ["fail", "output"]

_PLAIN_WIDTH = 120


def output() -> Console:
    """Standard output; without control codes unless it is a terminal."""
    terminal = sys.stdout.isatty()
    return Console(
        force_terminal=None if terminal else False,
        width=None if terminal else _PLAIN_WIDTH,
        markup=False,  # an IPv6 endpoint in brackets is not a style
        emoji=False,
        highlight=False,
    )


def fail(message: str, status: int) -> int:
    """Say what went wrong in one line on standard error; returns `status`."""
    click.echo(f"ecs-discovery: {plain(' '.join(message.split()))}", err=True)
    return status
