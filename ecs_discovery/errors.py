"""Everything that can go wrong, as one tree of exceptions.

Every error a user can meet is a `DiscoveryError`. It names the target, the endpoints that were
tried and what to do about it, keeps its cause, and survives pickling (the cause as text).
What others wrote enters an error, a log line or a terminal by `foreign` only.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from traceback import clear_frames
from typing import Any, Self

from ecs_discovery.models import Value

__all__ = [
    "LINE",
    "LONGEST",
    "AttemptReport",
    "ClosedError",
    "ConfigurationError",
    "ConnectError",
    "ConnectTimeout",
    "DeadlineExceeded",
    "DiscoveryError",
    "NoEndpoints",
    "NotSent",
    "Overloaded",
    "RequestError",
    "ResolutionError",
    "ResolutionTimeout",
    "TargetNotFound",
    "combined",
    "foreign",
    "line",
    "plain",
    "unknown_setting",
]

_CHAIN = 16  # causes looked at
_LONGEST = 1000  # characters of a message: resolvers of other packages write some of them


class AttemptReport(Value):
    """One attempt, as shown on responses and exceptions."""

    endpoint: str
    """`address:port` that was tried."""
    outcome: str
    """`ok`, or the class of the failure (`connect`, `connect timeout`, `closed`, `status 503`, …), or
    `overtaken`: another endpoint connected first, or answered a hedged call first."""
    seconds: float
    """How long the attempt took."""
    error: str = ""
    """The text of the failure, empty for a success."""
    kind: str = ""
    """"" for a success. Else `connect` (nothing was sent), `closed`, `status` or `error`: this decides whether a retry
    follows. `overtaken` as for `outcome`."""
    number: int = 1
    """1 for the first attempt. Endpoints that were connected to in one attempt have one number."""
    start: float = 0.0
    """Seconds from the start of the call to the start of the attempt."""

    def __str__(self) -> str:
        text = f": {self.error}" if self.error else ""
        return f"{self.endpoint} {self.outcome} after {self.seconds * 1000:.0f} ms{text}"


class DiscoveryError(Exception):
    """The base of every error of this package.

    `target` is what the application asked for, `attempts` what was tried (a tuple of
    `AttemptReport`), `hint` what to do. `cause_text` is the text of the cause; it is kept when
    the error is pickled, where the cause itself cannot be.
    """

    target: str | None
    attempts: tuple[AttemptReport, ...]
    hint: str | None
    cause_text: str
    message: str
    """What happened, without target, attempts and hint."""

    def __init__(
        self,
        message: str,
        *,
        target: str | None = None,
        attempts: Sequence[AttemptReport] = (),
        hint: str | None = None,
        **fields: Any,
    ) -> None:
        # One positional argument only: OSError, which some errors also are, reads two as errno and text.
        self.message = foreign(message, _LONGEST)
        Exception.__init__(self, self.message)
        self.target = target
        self.attempts = tuple(attempts)
        self.hint = hint
        self.cause_text = ""
        for name, value in fields.items():
            setattr(self, name, value)

    @property
    def endpoints(self) -> tuple[str, ...]:
        """The endpoints that were tried, in order, as `address:port`."""
        return tuple(attempt.endpoint for attempt in self.attempts)

    def __str__(self) -> str:
        parts = [f"{self.target}: " if self.target else "", self.message]
        if self.attempts:
            parts.append(" [" + "; ".join(map(str, self.attempts)) + "]")
        if self.hint:
            parts.append(f" ({self.hint})")
        if self.__cause__ is None and self.cause_text:
            parts.append(f" caused by {self.cause_text}")
        return plain("".join(parts))

    def about(self, target: str) -> Self:
        """The same error, with its cause, about another name of the target."""
        twin = type(self).__new__(type(self), *self.args)
        twin.__dict__.update(self.__dict__)
        twin.target = target
        twin.__cause__ = self.__cause__
        return twin.with_traceback(self.__traceback__)

    def __reduce__(self) -> tuple[Any, ...]:
        state = dict(self.__dict__)
        for name in ("request", "response", "pool", "conn", "reason"):  # of client libraries; they may hold anything
            if name in state and not _pickles(state[name]):
                del state[name]
        if self.__cause__ is not None:
            text = str(self.__cause__) if isinstance(self.__cause__, DiscoveryError) else foreign(self.__cause__)
            state["cause_text"] = f"{type(self.__cause__).__name__}: {text}"
        mixed: tuple[type, ...] = getattr(type(self), "combined_of", ())
        return _rebuild, (mixed or (type(self),), self.args, state)


def _pickles(value: object) -> bool:
    import pickle  # not before it is needed: errors that are shown are seldom pickled

    try:
        pickle.dumps(value)
    except Exception:  # noqa: BLE001  # whatever stands in its way: the error is to arrive without it
        return False
    return True


def _rebuild(classes: tuple[type, ...], args: tuple[Any, ...], state: dict[str, Any]) -> DiscoveryError:
    cls = combined(*classes)
    error: DiscoveryError = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class ConfigurationError(DiscoveryError, ValueError):
    """A target, policy value, argument or environment variable that cannot be used.

    `field` names what was set, `value` what it was set to, `allowed` what would be accepted.
    """

    field: str
    value: object
    allowed: str

    def __init__(self, field: str, value: object, allowed: str) -> None:
        super().__init__(f"{field} is {foreign(repr(value))}; allowed: {allowed}")
        self.field = field
        self.value = value
        self.allowed = allowed

    def __reduce__(self) -> tuple[Any, ...]:
        rebuild, (classes, args, state) = super().__reduce__()
        if not isinstance(self.value, (str, int, float, bool, type(None))):
            state["value"] = repr(self.value)
        return rebuild, (classes, args, state)


def unknown_setting(name: str, value: object, known: Collection[str], of: str = "") -> ConfigurationError:
    """The error for a setting that does not exist, with the name that was probably meant. `of` is what has them."""
    from difflib import get_close_matches  # not before it is needed

    close = sorted(get_close_matches(name, known, cutoff=0.6), key=lambda each: each[:3] != name[:3])
    meant = f"; did you mean {close[0]!r}?" if close else ""
    error = ConfigurationError(f"{of}.{name}" if of else name, value, f"one of {', '.join(known)}")
    whose = f" of {of}" if of else ""
    error.message = f"unknown setting {foreign(repr(name))}{whose}{meant} (settings: {', '.join(known)})"
    error.args = (error.message,)
    return error


class ClosedError(DiscoveryError):
    """The discovery was used after it was closed."""


class ResolutionError(DiscoveryError):
    """The name could not be resolved: no server answered, or an answer made no sense.

    `refused` are hosts that the source named and that no task can have, if that is why.
    """

    refused: tuple[str, ...] = ()


class ResolutionTimeout(ResolutionError, TimeoutError):
    """No answer to the lookup within its time limit."""


class TargetNotFound(ResolutionError):
    """The name does not exist (NXDOMAIN). `ttl` is how long the source says so, in seconds, if it does."""

    ttl: float | None = None


class NoEndpoints(ResolutionError):
    """The name exists and has no endpoints now. `ttl` is how long the source says so, in seconds, if it does."""

    ttl: float | None = None


class ConnectError(DiscoveryError, OSError):
    """No endpoint accepted a connection; `attempts` has each one's error."""


class ConnectTimeout(ConnectError, TimeoutError):
    """No endpoint accepted a connection in time."""


class Overloaded(DiscoveryError):
    """Every endpoint had as many uses in flight as `BalancingPolicy.max_pending` allows, for the whole connect time."""


class NotSent(DiscoveryError):
    """Raise this in a function given to `call`, or in a lease's block, when nothing of the request was sent.

    The call then goes on with another endpoint, whether the request is idempotent or not. Most client libraries need
    no help: their own errors are understood.
    """

    def __init__(self, message: str = "nothing of the request was sent", **fields: Any) -> None:
        super().__init__(message, **fields)


class RequestError(DiscoveryError):
    """A request reached an endpoint, or may have, and failed there; it was not or could not be repeated."""


class DeadlineExceeded(DiscoveryError, TimeoutError):
    """The deadline over lookup, connections and attempts has passed."""


_combined: dict[tuple[type, ...], type[DiscoveryError]] = {}  # one class each, so that `except` and pickle agree


def without_frames(error: BaseException) -> None:
    """Have an error that is kept for later callers keep nothing alive: the frames that it came through hold all that
    the lookup held. An exception that is a programmer's own keeps the lines that it came through."""
    found: list[BaseException] = []
    deeper: BaseException | None = error
    while deeper is not None and deeper not in found and len(found) < _CHAIN:
        found.append(deeper)
        if isinstance(deeper, (DiscoveryError, OSError)):
            deeper.__traceback__ = None
        else:
            clear_frames(deeper.__traceback__)
        deeper = deeper.__cause__ or deeper.__context__


def combined(ours: type[DiscoveryError], *theirs: type[BaseException]) -> type[DiscoveryError]:
    """A class that is both `ours` and client libraries' own error classes, so that existing `except` clauses hold.

    The class is made once, is named as `ours`, and its instances pickle.
    """
    found = _combined.get((ours, *theirs))
    if found is not None:
        return found
    first, *rest = getattr(ours, "combined_of", (ours,))
    rest += [each for each in theirs if not issubclass(ours, each)]
    # A class before one of its own subclasses has no order of methods; the subclass is that class too.
    rest = [each for each in rest if not any(issubclass(other, each) for other in rest if other is not each)]
    if not rest:
        return ours
    bases = (first, *rest)
    if bases not in _combined:
        made = type(
            ours.__name__, bases, {"combined_of": bases, "__module__": ours.__module__, "__doc__": ours.__doc__}
        )
        _combined.setdefault(bases, made)
    return _combined.setdefault((ours, *theirs), _combined[bases])


# Foreign text: what servers, APIs, files and other libraries say, made fit for a log line, an error and a terminal.
# Its writer could forge log lines with line ends, steer a terminal with escape sequences, or fill a disk with one
# answer. It may repeat the password of a URL. So it passes through `foreign` where it enters a text of ours.

LONGEST = 200
"""Characters kept of one foreign text."""
LINE = 300
"""Characters of a log line."""
_CUT = "…"
_USER_INFO = r"(?<=://)[^\s/?#]{1,1000}@"  # compiled when it is used, which is seldom


def foreign(text: object, longest: int = LONGEST) -> str:
    """`str(text)` in at most `longest` characters. Control characters, line ends and what else is not printable are
    escaped. The user and password of a URL are left out."""
    try:
        found = str(text)
    except Exception:  # noqa: BLE001  # the text of a foreign exception is foreign code
        found = f"<{type(text).__name__} without a text>"
    # Cut first: what follows would take as long as the text. Twice as much, since leaving out makes it shorter.
    found = plain(found[: 2 * longest])
    return found if len(found) <= longest else found[: longest - 1] + _CUT


def line(text: object) -> str:
    """The same for a whole log line."""
    return foreign(text, LINE)


def plain(text: str) -> str:
    """The same in full length, for a text of ours whose foreign parts were cut before."""
    if "://" in text:
        text = re.sub(_USER_INFO, "…@", text)
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else _escaped(each) for each in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
