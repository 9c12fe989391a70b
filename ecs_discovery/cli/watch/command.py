"""`ecs-discovery watch`: its options, its loop and its exit status. A live table needs rich; all else needs nothing."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from importlib.util import find_spec
from typing import Any, NoReturn, Protocol

from ecs_discovery.cli.doctor.look_around import Places, program_environment
from ecs_discovery.cli.watch.changes import changes
from ecs_discovery.cli.watch.frame import Frame, as_dict
from ecs_discovery.cli.watch.look import Gone, Watcher
from ecs_discovery.cli.watch.view import Line, screen
from ecs_discovery.config.settings import Settings, inspection_directory
from ecs_discovery.config.targets import parse_target
from ecs_discovery.errors import ConfigurationError, plain

__all__ = ["watch"]

_SHORTEST, _LONGEST = 0.1, 3600.0  # seconds between looks
_LOG = 50  # changes kept for the picture
_INTERRUPTED = 130  # as shells say it


class _Output(Protocol):
    def show(self, frame: Frame, lines: Sequence[str]) -> None: ...


def watch(
    arguments: Sequence[str],
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> NoReturn:
    """Look again and again, and show it; ends with the exit status."""
    given = _parser().parse_args(arguments)
    status = 0
    try:
        with ExitStack() as stack:
            watcher = stack.enter_context(_watcher(given))
            _loop(given, watcher, stack, clock, sleep)
    except KeyboardInterrupt:
        status = _INTERRUPTED
    except ConfigurationError as error:
        _say(str(error))
        status = 2
    except Gone as error:
        _say(str(error))
        status = 1
    except BrokenPipeError:  # who read the lines has seen enough
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    raise SystemExit(status)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ecs-discovery watch",
        usage="ecs-discovery watch [OPTIONS] NAME",
        description="Show what running programs know of the service NAME, as it changes: its endpoints with their "
        "health, share, latency and cost, retries, ejections and lookups. Programs that were started with "
        "ECS_DISCOVERY_INSPECT=1 are seen, with all their workers. Without such a program, show what NAME resolves to.",
        epilog="Nothing is changed. On a terminal a live table; else a line for each change. Exit status 1: there is "
        "no such process; 2: what is given makes no sense; 130: ended by Ctrl-C.",
    )
    parser.add_argument("name", metavar="NAME", help="what the program asks for: orders, orders:8080, srv://orders, …")
    parser.add_argument("--pid", type=_process, metavar="PID", help="this process alone")
    parser.add_argument("--interval", type=_seconds, default=1.0, metavar="SECONDS", help="between looks (default: 1)")
    parser.add_argument("--seconds", type=_seconds, metavar="SECONDS", help="end after so long")
    parser.add_argument("--json", dest="as_json", action="store_true", help="a JSON object a line for each look")
    parser.add_argument("--namespace", metavar="NS", help="namespace of the service, such as prod.local")
    parser.add_argument(
        "--nameserver", metavar="HOST:PORT", action="append", help="ask this server; can be given more than once"
    )
    return parser


def _seconds(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not _SHORTEST <= found <= _LONGEST:
        raise argparse.ArgumentTypeError(f"{text!r}: must be seconds from {_SHORTEST:g} to {_LONGEST:g}")
    return found


def _process(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r}: must be a process id from 1")
    return int(text)


def _watcher(given: argparse.Namespace) -> Watcher:
    parse_target(given.name)  # what is no target is told before anything is looked at
    # A session of ECS Exec may be without what the program was given.
    environ = {**program_environment(Places(), given.pid or 1), **os.environ}
    os.environ.pop("ECS_DISCOVERY_INSPECT", None)  # this command is open to no other
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        settings = Settings.make(namespace=given.namespace, nameservers=given.nameserver, environ=environ)
    for warning in found:
        _say(str(warning.message))
    return Watcher(given.name, given.pid, inspection_directory(environ) or "", settings, environ)


def _loop(
    given: argparse.Namespace,
    watcher: Watcher,
    stack: ExitStack,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> None:
    output: _Output | None = None
    before: Frame | None = None
    ends_at = None if given.seconds is None else clock() + given.seconds
    while True:
        began = clock()
        frame = watcher.look()
        if output is None:  # not before the first look, which may be refused
            output = _output(given, stack)
        output.show(frame, list(changes(before, frame)))
        before = frame
        next_at = max(clock(), began + given.interval)
        if ends_at is not None and next_at >= ends_at:
            sleep(max(0.0, ends_at - clock()))
            return
        sleep(max(0.0, next_at - clock()))


def _output(given: argparse.Namespace, stack: ExitStack) -> _Output:
    if given.as_json:
        return _Json()
    if not sys.stdout.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        return _Lines()
    if find_spec("rich") is None:
        _say("a live table needs rich (from a clone, pip install '.[cli]'); a line for each change follows")
        return _Lines()
    return _Table(stack)


class _Json:
    def show(self, frame: Frame, lines: Sequence[str]) -> None:
        sys.stdout.write(json.dumps(as_dict(frame), allow_nan=False) + "\n")
        sys.stdout.flush()


class _Lines:
    def show(self, frame: Frame, lines: Sequence[str]) -> None:
        at = time.strftime("%H:%M:%S", time.localtime(frame.at))
        text = "".join(f"{at} {plain(each)}\n" for each in lines)
        try:
            text.encode(sys.stdout.encoding or "ascii")
        except (UnicodeEncodeError, LookupError):
            text = text.encode("ascii", "backslashreplace").decode("ascii")
        sys.stdout.write(text)
        sys.stdout.flush()


class _Table:
    """A picture on the terminal's other screen, so that what was there before comes back. The last one stays."""

    def __init__(self, stack: ExitStack) -> None:
        from rich.live import Live

        from ecs_discovery.cli.console import output

        self._console = output()
        self._log: deque[str] = deque(maxlen=_LOG)
        self._frame: Frame | None = None
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # the terminal is put back first
        stack.callback(self._last)
        self._live = stack.enter_context(Live(console=self._console, screen=True, auto_refresh=False))

    def show(self, frame: Frame, lines: Sequence[str]) -> None:
        at = time.strftime("%H:%M:%S", time.localtime(frame.at))
        self._log += [f"{at} {plain(each)}" for each in lines]
        self._frame = frame
        width, height = self._console.size
        self._live.update(_text(screen(frame, list(self._log), width, height)), refresh=True)

    def _last(self) -> None:
        if self._frame is not None:
            width, height = self._console.size
            self._console.print(_text(screen(self._frame, list(self._log), width, height - 1)))


def _text(lines: Sequence[Line]) -> Any:
    from rich.text import Text

    text = Text(no_wrap=True, overflow="ellipsis")
    for number, line in enumerate(lines):
        text.append("\n" * bool(number))
        text.append(plain(line.text), line.style)
    return text


def _say(message: str) -> None:
    sys.stderr.write(f"ecs-discovery watch: {plain(' '.join(message.split()))}\n")
