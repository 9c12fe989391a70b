"""One request over its attempts, for threads. It stands in the same order as `aio.py`; the two differ in awaits."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import nullcontext
from functools import partial

from ecs_discovery.client.attempt_result import AttemptResult
from ecs_discovery.client.failures import forget
from ecs_discovery.client.hedge import Hedge
from ecs_discovery.client.sync.driver import Driver
from ecs_discovery.client.sync.hedging import Trial, duel
from ecs_discovery.core.lease import Lease
from ecs_discovery.integrations.http.exchange import AttemptUse, Exchange, R, U

__all__ = ["AttemptUse", "SyncExchange"]


class SyncExchange(Exchange[R, U]):
    """See `Exchange`."""

    __slots__ = ()

    driver: Driver

    # What a library supplies

    @abstractmethod
    def send(self, use: U) -> R:
        """Send the request to the use's endpoint: the answer, as much of it as is to be part of this attempt."""

    def discard(self, response: R) -> None:
        """Let go of an answer that is not wanted."""

    def cut(self) -> None:
        """The deadline has passed: what is waited for ends now, however slowly bytes go on coming."""

    def cut_attempt(self, use: U) -> None:
        """Another attempt has won: end this one soon."""

    # The attempts

    def run(self) -> R:
        """The answer. Raises errors that are both the library's and a `DiscoveryError`."""
        try:
            lease = self.begins()
            if lease is not None:
                # Nearly always. It stands here, and not in a method of its own, because that takes longer.
                if self.service.work.due:
                    self.driver.background.work(self.service)
                use = self._use = self.make_use(lease)
                ended: list[AttemptResult[R]] = []  # a variable would keep the error, and the error this frame
                try:
                    response = self.send(use)
                except Exception as error:  # noqa: BLE001  # raised when no attempt follows
                    ended.append(self._failed(error))
                except BaseException:  # interrupted: the use is over, and says nothing of the endpoint
                    use.lease.release()
                    raise
                finally:
                    self.ended(use)
                if not ended:
                    decision = self.answered(response, use)
                    if decision is None:
                        return response
                    ended.append(AttemptResult(response, None, decision))
                return self.driver.go_on(ended.pop(), self.attempt)
            call = self.call
            with self.driver.background.alarms.at(call.deadline_at, self.cut) if call.hard else nullcontext():
                response = self._run() if call.own_policy is None else self.by_own_policy()
            self.over(None)
            return response
        except Exception as error:  # noqa: BLE001  # raised below, with what was tried
            failed = error
        except BaseException as error:  # interrupted
            self._drop_held()
            self.over(error)
            raise
        self._drop_held()
        try:
            failed = self.error_for_caller(failed)
            self.over(failed)
            raise failed  # outside of the block: its context is none of the reader's business
        finally:
            del failed  # kept in this frame, the error would keep the frame

    def by_own_policy(self) -> R:
        """The attempts as the application's tenacity object wants them."""
        return self.driver.pursue(self.call, self.attempt)

    def _run(self) -> R:
        return self.driver.go_on(self.attempt(), self.attempt)

    def attempt(self) -> AttemptResult[R]:
        """One attempt, recorded."""
        use = self._use = self.make_use(self._start())
        try:
            response = self._hedged(use)
        except Exception as error:  # noqa: BLE001  # raised when no attempt follows
            return self._failed(error)
        except BaseException:  # interrupted: the use is over, and says nothing of the endpoint
            self._use.lease.release()
            raise
        finally:
            self.ended(use)
        return AttemptResult(response, None, self.answered(response, self._use))

    def ended(self, use: U) -> None:
        """The use was sent, or was not. The library lets go of what belongs to the exchange."""

    def _start(self) -> Lease:
        service, background = self.service, self.driver.background
        call = self.call
        if call.own_policy is not None:
            self._recall(call)  # asked of attempts that end in any way
        first = not call.number
        if first and self._started_at >= service.refresh_at:
            background.ready(service, call.connect_deadline_at)
        if not first:
            self._drop_held()
            self.rewind()
            background.wait_for_refresh(service, call)
        self._use = None
        lease = background.start_attempt(service, call, prefer=self.pinned if first else None)
        if service.work.due:
            background.work(service)
        return lease

    def _failed(self, error: Exception) -> AttemptResult[R]:
        assert self._use is not None
        decision, ask = self.failed(error, self._use)
        if ask:
            self.driver.background.force(ask)
        attempted: AttemptResult[R] = AttemptResult(None, error, decision)
        if attempted.goes_on:
            forget(error)
        return attempted

    def _hedged(self, use: U) -> R:
        """The first attempt, and another beside it when it takes long. `_use` is then that of the one that counts."""
        hedging, background = self.service.hedging, self.driver.background
        if hedging is None or not self.may_hedge():
            return self._observed(use)
        hedge = Hedge(self.engine, hedging, self.call, use.lease)
        if hedge.delay is None:
            response = self._observed(use)
            if self.is_wanted(response):
                hedge.won(use.lease)
            return response
        uses: dict[Lease, U] = {}

        def trial(lease: Lease) -> Trial[R]:
            made = uses[lease] = self.make_use(lease)
            return Trial(lease, partial(self._tried, made), cut=partial(self.cut_attempt, made), drop=self.discard)

        def wanted(trial: Trial[R]) -> bool:
            return trial.result is not None and self.is_wanted(trial.result)

        def failed(trial: Trial[R]) -> None:
            lost = uses[trial.lease]
            if isinstance(trial.error, Exception):
                background.force(self.failed(trial.error, lost)[1])
            elif trial.result is not None:
                self.answered(trial.result, lost)
                self.discard(trial.result)
                self._response = None

        winner = duel(background, hedge, use.lease.hand_over(), trial, wanted, failed)
        self._use = uses[winner.lease]
        return winner.outcome()

    def _observed(self, use: U) -> R:
        observed = self.call.observed
        if observed is None:
            return self.send(use)
        with self.observe_attempt(observed, use):
            return self.send(use)

    def _tried(self, use: U) -> R:
        try:
            return self._observed(use)
        finally:
            self.ended(use)

    def _drop_held(self) -> None:
        """Let go of an answer that was to be followed by another attempt."""
        response, self._response = self._response, None
        if response is not None:
            self.discard(response)
