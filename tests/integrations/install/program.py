"""A program that knows nothing of discovery: it asks a URL through the client libraries named, and says who answered.

python program.py URL LIBRARY... [--times N] [--target TARGET] [--rounds N]

`--target` is what gRPC asks instead of the URL. After each round but the last it waits for a line on standard input.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from typing import Any


def by_requests(url: str, times: int) -> list[str]:
    import requests
    from requests.adapters import HTTPAdapter

    session = requests.Session()
    session.mount("http://", HTTPAdapter(max_retries=1))  # what applications do after the session is made
    with session:
        return [session.get(url, timeout=10).json()["task"] for _ in range(times)]


def by_urllib3(url: str, times: int) -> list[str]:
    import urllib3

    with urllib3.PoolManager() as manager:
        return [manager.request("GET", url).json()["task"] for _ in range(times)]


def by_httpx(url: str, times: int) -> list[str]:
    import httpx

    with httpx.Client() as client:
        return [client.get(url).json()["task"] for _ in range(times)]


def by_httpx2(url: str, times: int) -> list[str]:
    import httpx2

    with httpx2.Client() as client:
        return [client.get(url).json()["task"] for _ in range(times)]


def by_httpx_in_tasks(url: str, times: int) -> list[str]:
    import httpx

    async def main() -> list[str]:
        async with httpx.AsyncClient() as client:
            return [(await client.get(url)).json()["task"] for _ in range(times)]

    return asyncio.run(main())


def by_aiohttp(url: str, times: int) -> list[str]:
    import aiohttp

    async def main() -> list[str]:
        found: list[str] = []
        async with aiohttp.ClientSession() as session:
            for _ in range(times):
                async with session.get(url) as response:
                    found.append((await response.json())["task"])
        return found

    return asyncio.run(main())


def by_grpc(url: str, times: int) -> list[str]:
    import grpc

    with grpc.insecure_channel(url) as channel:
        say = channel.unary_unary("/shop.Orders/Get")
        return [say(b"", timeout=10).decode() for _ in range(times)]


def by_grpc_in_tasks(url: str, times: int) -> list[str]:
    import grpc.aio

    async def main() -> list[str]:
        async with grpc.aio.insecure_channel(url) as channel:
            say = channel.unary_unary("/shop.Orders/Get")
            return [(await say(b"", timeout=10)).decode() for _ in range(times)]

    return asyncio.run(main())


def by_name(url: str, times: int) -> list[str]:
    """Only resolves names: the standard library."""
    from urllib.request import urlopen

    return [json.load(urlopen(url, timeout=10))["task"] for _ in range(times)]


def option(arguments: list[str], name: str, default: str) -> str:
    """Take the value of an option out of the arguments."""
    if name not in arguments:
        return default
    at = arguments.index(name)
    del arguments[at]
    return arguments.pop(at)


def main(arguments: list[str]) -> None:
    times, rounds = int(option(arguments, "--times", "6")), int(option(arguments, "--rounds", "1"))
    target = option(arguments, "--target", "")
    url, *names = arguments
    asked: dict[str, Any] = {
        "requests": by_requests,
        "urllib3": by_urllib3,
        "httpx": by_httpx,
        "httpx2": by_httpx2,
        "httpx_in_tasks": by_httpx_in_tasks,
        "aiohttp": by_aiohttp,
        "grpc": by_grpc,
        "grpc_in_tasks": by_grpc_in_tasks,
        "name": by_name,
    }
    for left in reversed(range(rounds)):
        found = {}
        for name in names:
            place = target if target and name.startswith("grpc") else url
            found[name] = sorted(Counter(asked[name](place, times)).values())
        print(json.dumps(found), flush=True)
        if left:
            sys.stdin.readline()


if __name__ == "__main__":
    main(sys.argv[1:])
