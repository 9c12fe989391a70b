"""Racing: one connected socket for an attempt, over as many endpoints as that takes. For threads.

What is decided is in `core.calls.race`.
"""

from __future__ import annotations

import selectors
import socket

from ecs_discovery.client.race import RaceState
from ecs_discovery.client.sync.background import Background
from ecs_discovery.core.calls.call import Call
from ecs_discovery.core.lease import Lease
from ecs_discovery.runtime import sockets
from ecs_discovery.runtime.sockets import Tuning

__all__ = ["connect"]


def connect(background: Background, call: Call, lease: Lease, tuning: Tuning | None = None) -> socket.socket:
    """A connected socket; `lease` is then a use of the endpoint that it leads to.

    One endpoint is given all the time to connect that this attempt may have; where there are more, the next starts
    when one is late or has failed. Raises the last one's OSError; `lease` is then of that one, and the others are
    booked and reported.
    """
    state = RaceState(background, call, lease)
    if state.race is None:
        return _alone(state, lease, tuning)
    with selectors.DefaultSelector() as selector:
        pending: dict[Lease, socket.socket] = {}
        try:
            while True:
                while (entrant := state.next()) is not None:
                    try:
                        pending[entrant] = sockets.start_connect(entrant.endpoint, tuning)
                    except OSError as error:
                        state.failed(entrant, error)
                    else:
                        selector.register(pending[entrant], selectors.EVENT_WRITE, entrant)
                pause = state.pause()
                events = selector.select(pause)
                for key, _ in events:
                    entrant = key.data
                    sock = pending[entrant]
                    try:
                        sockets.finish_connect(sock)
                    except OSError as error:
                        selector.unregister(sock)
                        pending.pop(entrant).close()
                        state.failed(entrant, error)
                    else:
                        state.won(entrant)
                        return pending.pop(entrant)
                for entrant in state.overdue(0.0 if events else pause):
                    selector.unregister(pending[entrant])
                    pending.pop(entrant).close()
                    state.failed(entrant, TimeoutError("timed out"))
        finally:
            for sock in pending.values():
                sock.close()
            state.close()


def _alone(state: RaceState, lease: Lease, tuning: Tuning | None) -> socket.socket:
    try:
        sock = sockets.connect(lease.endpoint, state.limit(), tuning)
    except OSError as error:
        state.refused(error)
        raise
    state.connected()
    return sock
