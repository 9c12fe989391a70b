"""A library's exceptions as rows: which of them is which fault. The first row that fits decides."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence

from ecs_discovery.client.failures import causes
from ecs_discovery.core.calls.failure_kinds import Fault
from ecs_discovery.models import Value
from ecs_discovery.runtime.sockets import is_ours

__all__ = ["FailureTable", "Row", "by_the_kernel", "of_this_side"]


class Row(Value):
    """Exceptions of these classes, for which `only` is true if it is given, are that fault."""

    fault: Fault
    classes: tuple[type[BaseException], ...]
    only: Callable[[BaseException], bool] | None = None


class FailureTable:
    """`unsent` are the rows while nothing was sent, `sent` those from then on."""

    def __init__(self, unsent: Sequence[Row], sent: Sequence[Row]) -> None:
        self._unsent = tuple(unsent)
        self._sent = tuple(sent)

    def fault(self, error: BaseException, *, sent: bool, handled: BaseException | None = None) -> Fault | None:
        """What went wrong, by the exception and all that led to it; None if no row fits.

        `sent` is whether bytes may have left. The exception that the application was handling when it made the request
        (`handled`) may stand in the chain of contexts. It says nothing of the request.
        """
        chain = causes(error, handled)
        for row in self._sent if sent else self._unsent:
            for each in chain:
                if isinstance(each, row.classes) and (row.only is None or row.only(each)):
                    return row.fault
        return None


def by_the_kernel(error: BaseException) -> bool:
    """Did the kernel end the connection, after keep-alive probes or retransmissions that were not answered?

    Python calls that a `TimeoutError` too. Only the kernel's has an errno.
    """
    return isinstance(error, OSError) and error.errno == errno.ETIMEDOUT


def of_this_side(error: BaseException) -> bool:
    """Has this side run out of descriptors, ports or memory?"""
    return isinstance(error, OSError) and is_ours(error)
