"""Streams of requests that can go to another endpoint as long as nothing of them was sent.

gRPC takes the first request from a stream before it has a connection, and the second once the first was sent. So one
request is kept, and a stream from which two were taken was sent.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from threading import Lock
from typing import Any

__all__ = ["AsyncReplay", "Replay"]


class Replay:
    """A stream of requests. Each attempt reads it by an iterator of its own; the one made last is in force."""

    def __init__(self, source: Iterable[Any]) -> None:
        self._source = iter(source)
        self._lock = Lock()
        self._current: object = None
        self._kept: list[Any] = []  # what was taken from the source, and was not sent for certain
        self._taken = 0
        self._ended = False

    def is_whole(self) -> bool:
        """Is nothing lost that another attempt would have to send?"""
        return self._taken <= 1

    def attempt(self) -> Iterator[Any]:
        """The requests, for one attempt."""
        self._current = mark = object()
        return self._read(mark)

    def _read(self, mark: object) -> Iterator[Any]:
        place = 0
        while True:
            with self._lock:  # an earlier attempt's reader may still wait for the source
                if self._current is not mark:
                    return
                if place < len(self._kept):
                    item = self._kept[place]
                elif self._ended:
                    return
                else:
                    try:
                        item = next(self._source)
                    except StopIteration:
                        self._ended = True
                        return
                    self._taken += 1
                    if self._current is not mark:
                        self._kept.append(item)  # the next attempt's
                        return
                    self._kept = [item] if self._taken == 1 else []
                place = place + 1 if self._kept else 0
            yield item


class AsyncReplay:
    """The same for asyncio, of an iterable of either kind."""

    def __init__(self, source: Any) -> None:
        self._source = aiter(source) if hasattr(source, "__aiter__") else _in_loop(source)
        self._current: object = None
        self._kept: list[Any] = []
        self._taken = 0
        self._ended = False
        self._pull: Any = None  # an earlier attempt's reader may be cancelled while it waits for the source

    def is_whole(self) -> bool:
        """Is nothing lost that another attempt would have to send?"""
        return self._taken <= 1

    def attempt(self) -> AsyncIterator[Any]:
        """The requests, for one attempt."""
        self._current = mark = object()
        return self._read(mark)

    async def _read(self, mark: object) -> AsyncIterator[Any]:
        import asyncio

        place = 0
        while self._current is mark:
            if place < len(self._kept):
                item = self._kept[place]
            elif self._ended:
                return
            else:
                if self._pull is None:
                    self._pull = asyncio.ensure_future(_next(self._source))
                pull = self._pull
                await asyncio.wait((pull,))
                if self._current is not mark:
                    return
                self._pull = None
                found = pull.result()
                if found is _END:
                    self._ended = True
                    return
                item = found
                self._taken += 1
                self._kept = [item] if self._taken == 1 else []
            place = place + 1 if self._kept else 0
            yield item

    def close(self) -> None:
        """No attempt reads it any longer."""
        self._current = None
        pull, self._pull = self._pull, None
        if pull is not None:
            pull.cancel()


_END = object()


async def _next(source: AsyncIterator[Any]) -> Any:
    try:
        return await anext(source)
    except StopAsyncIteration:
        return _END


async def _in_loop(source: Iterable[Any]) -> AsyncIterator[Any]:
    for item in source:
        yield item
