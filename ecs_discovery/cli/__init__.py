"""The command line: `ecs-discovery resolve`, `doctor`, `watch`, `run` and `demo`."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

__all__ = ["main"]

_QUIET = logging.NullHandler()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; ends with `SystemExit`. `arguments` are those of the process if None."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given[:1] == ["run"]:  # a program in production has neither click nor rich
        from ecs_discovery.cli.run import run

        run(given[1:])
    # What goes wrong is told once, by the command; without a handler Python would print warnings itself.
    logging.getLogger("ecs_discovery").addHandler(_QUIET)
    if given[:1] == ["doctor"]:  # it runs where the program runs
        from ecs_discovery.cli.doctor.command import doctor

        doctor(given[1:])
    if given[:1] == ["watch"]:
        from ecs_discovery.cli.watch.command import watch

        watch(given[1:])
    try:
        from ecs_discovery.cli.commands import commands  # click and rich are extras
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing == "ecs_discovery":
            raise
        sys.stderr.write(
            f"ecs-discovery: {missing} is not installed: from a clone, pip install '.[demo]'"
            " (ecs-discovery run, doctor and watch work without it)\n"
        )
        raise SystemExit(1) from None
    commands(args=given, prog_name="ecs-discovery")
