"""`ecs-discovery run`: start a program whose client libraries find services by themselves. Needs no other package."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import MutableMapping, Sequence
from typing import Any, NoReturn

from ecs_discovery.config.settings import Settings
from ecs_discovery.errors import ConfigurationError
from ecs_discovery.integrations.install import ASKED

__all__ = ["run"]

_BOOT = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "integrations", "_boot")
_LIMITS = (
    "--getaddrinfo: the choice is made for each connection, and nothing is retried. It does not reach aiohttp with "
    "aiodns, uvloop, gRPC, and connect((name, port)) of a socket."
)
_LONGEST_DELAY = 120.0  # seconds: the longest stopTimeout of ECS on Fargate
_NOT_FOUND, _NOT_RUN = 127, 126  # as shells say it
_NEVER_PASSED_ON = (
    *("SIGKILL", "SIGSTOP"),  # cannot be caught
    *("SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGTRAP", "SIGABRT", "SIGSYS"),  # faults of this process
)
_SI_KERNEL = 0x80  # si_code of Linux: the kernel sent the signal, for example because of a key at the terminal


def run(arguments: Sequence[str]) -> NoReturn:
    """Become the program, or stand in front of it; ends with its exit status. Ends with 2 for what makes no sense."""
    given = _parser().parse_args(arguments)
    command = given.command[1:] if given.command[:1] == ["--"] else given.command
    if not command:
        _refuse("no command: ecs-discovery run [OPTIONS] -- COMMAND [ARGUMENT...]")
    environment = dict(os.environ)
    try:
        _ask(environment, given)
    except ConfigurationError as error:
        _refuse(str(error))
    if given.term_delay:
        if not hasattr(signal, "sigtimedwait"):
            _refuse("--term-delay needs a system with sigtimedwait, such as Linux")
        raise SystemExit(_Init(command, environment, given.term_delay).run())
    _execute(command, environment)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ecs-discovery run",
        usage="ecs-discovery run [OPTIONS] -- COMMAND [ARGUMENT...]",
        description="Start a Python program whose requests, urllib3, httpx, aiohttp and gRPC clients find services by "
        "name. The program is not changed, and neither are the Python processes that it starts.",
        epilog="What is not given is taken from ECS_DISCOVERY_… variables. Python's options -E, -I and -S switch it "
        "off. Exit status: the command's; 2: what is given makes no sense; 127: there is no such command.",
    )
    parser.add_argument("--namespace", metavar="NS", help="namespace of the services, such as prod.local")
    parser.add_argument(
        "--nameserver", metavar="HOST:PORT", action="append", help="ask this server; can be given more than once"
    )
    parser.add_argument(
        "--getaddrinfo",
        action="store_true",
        help="find our names in socket.getaddrinfo too, for libraries that only resolve names",
    )
    parser.add_argument(
        "--term-delay",
        metavar="SECONDS",
        type=_seconds,
        default=0.0,
        help="stand in front of the program, and pass SIGTERM on so much later: callers without this library see "
        "the task leave DNS first. Keep it below the stopTimeout of the container",
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


def _seconds(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 <= found <= _LONGEST_DELAY:
        raise argparse.ArgumentTypeError(f"{text!r}: must be seconds from 0 to {_LONGEST_DELAY:g}")
    return found


def _ask(environment: MutableMapping[str, str], given: Any) -> None:
    """Have the Python processes below this one install. Raises `ConfigurationError`."""
    settings = Settings.make(namespace=given.namespace, nameservers=given.nameserver, environ=environment)
    if given.namespace is not None:
        environment["ECS_DISCOVERY_NAMESPACE"] = given.namespace
    if given.nameserver:
        environment["ECS_DISCOVERY_NAMESERVERS"] = ",".join(given.nameserver)
    if settings.disabled:
        return
    if settings.namespace is None and not settings.services:
        raise ConfigurationError(
            "namespace", None, "the DNS namespace of your services: --namespace, ECS_DISCOVERY_NAMESPACE or _SERVICES"
        )
    if given.getaddrinfo:
        sys.stderr.write(f"ecs-discovery run: {_LIMITS}\n")
    environment[ASKED] = "getaddrinfo" if given.getaddrinfo else "1"
    before = environment.get("PYTHONPATH")
    if before is None or before.split(os.pathsep)[0] != _BOOT:
        environment["PYTHONPATH"] = _BOOT if not before else _BOOT + os.pathsep + before


def _execute(command: Sequence[str], environment: MutableMapping[str, str]) -> NoReturn:
    try:
        os.execvpe(command[0], list(command), environment)
    except FileNotFoundError:
        hint = ": give the words separately, without quotes around all of them" if " " in command[0] else ""
        _refuse(f"{command[0]}: no such command{hint}", _NOT_FOUND)
    except OSError as error:
        _refuse(f"{command[0]}: {error.strerror}", _NOT_RUN)


def _refuse(why: str, status: int = 2) -> NoReturn:
    sys.stderr.write(f"ecs-discovery run: {why}\n")
    raise SystemExit(status)


def _named(names: Sequence[str]) -> set[int]:
    return {getattr(signal, name) for name in names}


class _Init:
    """Stands in front of the program, as process 1 of a container should: passes signals on and reaps orphans."""

    def __init__(self, command: Sequence[str], environment: MutableMapping[str, str], delay: float) -> None:
        self._command = command
        self._environment = environment
        self._delay = delay
        self._signals = signal.valid_signals() - _named(_NEVER_PASSED_ON)
        self._stops = _named(("SIGTSTP", "SIGTTIN", "SIGTTOU"))
        self._keys = self._stops | _named(("SIGINT", "SIGQUIT", "SIGHUP", "SIGCONT", "SIGWINCH"))
        """What a terminal sends to all processes of a job."""
        self._due: float | None = None
        """When SIGTERM is passed on, in monotonic seconds."""
        self._held = False
        """SIGTERM came once."""

    def run(self) -> int:
        """The program's exit status; 128 and more for the signal that ended it."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, self._signals)
        # A process that ignores SIGCHLD is told of no child that ends. A new program inherits that.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        program = os.fork()
        if program == 0:
            try:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
                _execute(self._command, self._environment)
            except SystemExit as error:
                os._exit(int(error.code or 0))
            finally:
                os._exit(_NOT_RUN)
        while True:
            told = self._next()
            if told is None:
                self._due = None
                self._pass_on(program, signal.SIGTERM)
            elif told.si_signo == signal.SIGCHLD:
                status = self._reap(program)
                if status is not None:
                    return status
            elif told.si_signo == signal.SIGTERM and not self._held:
                self._held = True
                self._due = time.monotonic() + self._delay
                self._say(f"SIGTERM is passed on in {self._delay:g} s")
            elif told.si_signo == signal.SIGTERM:
                self._due = None  # the program has it now, and is not to get it again
                self._pass_on(program, signal.SIGTERM)
            elif told.si_code == _SI_KERNEL and told.si_signo in self._keys:
                if told.si_signo in self._stops:  # the program has been sent it as well: stop with it
                    self._take(told.si_signo)
            elif told.si_pid != os.getpid():  # else our own failed write (SIGPIPE, SIGXFSZ)
                self._pass_on(program, told.si_signo)

    def _next(self) -> Any:
        """The next signal; None when it is time to pass SIGTERM on."""
        if self._due is None:
            return signal.sigwaitinfo(self._signals)
        return signal.sigtimedwait(self._signals, max(0.0, self._due - time.monotonic()))

    @staticmethod
    def _take(number: int) -> None:
        """Let the signal have its effect on this process: the shell sees that the job has stopped."""
        os.kill(os.getpid(), number)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
        signal.pthread_sigmask(signal.SIG_BLOCK, {number})

    @staticmethod
    def _say(what: str) -> None:
        try:
            os.write(2, f"ecs-discovery run: {what}\n".encode())
        except OSError:
            pass  # standard error is closed: the program still needs this process

    @staticmethod
    def _pass_on(program: int, number: int) -> None:
        try:
            os.kill(program, number)
        except ProcessLookupError:
            pass  # it has ended: that will be told next

    @staticmethod
    def _reap(program: int) -> int | None:
        """Let go of all processes that have ended. The program's exit status, if it is among them."""
        found: int | None = None
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return found
            if pid == 0:
                return found
            if pid == program:
                code = os.waitstatus_to_exitcode(status)
                found = code if code >= 0 else 128 - code
