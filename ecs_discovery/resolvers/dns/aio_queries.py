"""The queries of one lookup in flight under asyncio: at most so many at once, the first good reply of each wins."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from ecs_discovery.models import Question
from ecs_discovery.resolvers.dns.records import Reply
from ecs_discovery.resolvers.dns.servers import PAUSE, WINDOW, Allowance, BadAnswer, QueryResult, Server, Tries

__all__ = ["first_replies"]


async def first_replies(
    questions: Sequence[Question],
    servers: Sequence[Server],
    ask: Callable[[Question, Server], Awaitable[Reply]],
    *,
    query_timeout: float,
    seconds: float,
    allowance: Allowance,
) -> Mapping[Question, QueryResult]:
    """What became of each question after at most `seconds`: asked side by side, each with its own tries."""
    loop = asyncio.get_running_loop()
    deadline_at = loop.time() + seconds
    window = asyncio.Semaphore(WINDOW)

    async def outcome(question: Question) -> QueryResult:
        tries = Tries(question, servers)
        try:
            async with asyncio.timeout_at(deadline_at), window:
                while not allowance.question():
                    await asyncio.sleep(PAUSE)
                return await _first_reply(tries, lambda server: ask(question, server), query_timeout, allowance)
        except TimeoutError:
            return tries.error(seconds)

    if len(questions) == 1:
        return {questions[0]: await outcome(questions[0])}
    tasks = [asyncio.ensure_future(outcome(question)) for question in questions]
    try:
        return dict(zip(questions, await asyncio.gather(*tasks), strict=True))
    finally:
        await _cancelled(tasks)


async def _first_reply(
    tries: Tries, ask: Callable[[Server], Awaitable[Reply]], query_timeout: float, allowance: Allowance
) -> Reply:
    running: dict[asyncio.Future[Reply], Server] = {}
    try:
        while True:
            server = tries.next_server() if allowance.query() else None
            if server is not None:
                running[asyncio.ensure_future(ask(server))] = server
            elif not running:
                raise TimeoutError
            done, _ = await asyncio.wait(
                running, timeout=query_timeout if server else None, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                server = running.pop(task)
                problem = task.exception()
                if problem is None:
                    return task.result()
                if not isinstance(problem, (BadAnswer, OSError)):
                    raise problem
                tries.drop(server, problem)
    finally:
        await _cancelled(list(running))


async def _cancelled(tasks: Sequence[asyncio.Future[Reply]] | Sequence[asyncio.Future[QueryResult]]) -> None:
    """End what is still running, and look at every result: asyncio complains about failures that were not looked at."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.gather(*tasks, return_exceptions=True)
