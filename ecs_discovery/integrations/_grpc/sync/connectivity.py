"""The connectivity of a channel of ours: the best of the channels to its endpoints. For `grpc.channel_ready_future`."""

from __future__ import annotations

from collections.abc import Callable
from threading import RLock
from typing import Any

import grpc

from ecs_discovery.errors import DiscoveryError
from ecs_discovery.integrations._grpc.channels import SubChannel
from ecs_discovery.integrations._grpc.sync.route import Route

__all__ = ["Connectivity"]

State = grpc.ChannelConnectivity
_BEST = (State.READY, State.CONNECTING, State.IDLE, State.TRANSIENT_FAILURE)
_LOOKED_AT = 3  # endpoints
_AGAIN = 1.0  # seconds until another look, while no endpoint is ready


class Connectivity:
    """Tells those who asked. Each endpoint that is looked at takes a thread of gRPC's, while they ask."""

    def __init__(self, route: Route) -> None:
        self._route = route
        self._lock = RLock()
        self._callbacks: list[Callable[[State], None]] = []
        self._states: dict[SubChannel, State] = {}
        self._relays: dict[SubChannel, Callable[[State], None]] = {}
        self._told: State | None = None

    def subscribe(self, callback: Callable[[State], None], connect: bool) -> None:
        """Call `callback` with the state now, and with each that follows; with `connect`, connect to some endpoints."""
        self._route.check_open()
        with self._lock:
            self._callbacks.append(callback)
            state = self._told or State.IDLE
        self._spawn(lambda: callback(state))
        if connect:
            self._spawn(self._connect)

    def unsubscribe(self, callback: Callable[[State], None]) -> None:
        """Call it no longer."""
        with self._lock:
            if callback in self._callbacks:
                self._callbacks.remove(callback)
            last = not self._callbacks
        if last:
            self.close()

    def close(self) -> None:
        """No one asks any longer."""
        with self._lock:
            self._callbacks = []
            relays, self._relays, self._states, self._told = self._relays, {}, {}, None
        for sub, relay in relays.items():
            sub.channel.unsubscribe(relay)

    def _spawn(self, job: Callable[[], Any]) -> None:
        self._route.driver.background.attempts.spawn(job)

    def _connect(self) -> None:
        route = self._route
        try:
            route.check_open()
            now = route.engine.clock()
            route.driver.background.ready(route.service, now + route.service.timeout.connect)
            for node in route.service.nodes[:_LOOKED_AT]:
                self._look_at(route.find(node, False))
        except DiscoveryError:
            self._tell(State.TRANSIENT_FAILURE)
        with self._lock:
            again = bool(self._callbacks) and self._told is not State.READY
        if again and not route.closed and not route.engine.closed:
            route.set_alarm(_AGAIN, lambda: self._spawn(self._connect))

    def _look_at(self, sub: SubChannel) -> None:
        def relay(state: State) -> None:
            with self._lock:
                if sub not in self._relays:
                    return
                self._states[sub] = state
                found = set(self._states.values())
                best = next((each for each in _BEST if each in found), State.IDLE)
            self._tell(best)

        with self._lock:
            if sub in self._relays or not self._callbacks:
                return
            self._relays[sub] = relay
        sub.channel.subscribe(relay, try_to_connect=True)

    def _tell(self, state: State) -> None:
        with self._lock:
            if state is self._told:
                return
            self._told = state
            callbacks = list(self._callbacks)
        for callback in callbacks:
            callback(state)
