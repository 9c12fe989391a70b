"""A program that knows nothing of discovery: it asks a URL through the client libraries named, and says who answered.

python program.py URL LIBRARY... [--times N]
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


def main(arguments: list[str]) -> None:
    times = int(arguments.pop(arguments.index("--times") + 1)) if "--times" in arguments else 6
    url, *names = [each for each in arguments if each != "--times"]
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
    print(json.dumps({name: sorted(Counter(asked[name](url, times)).values()) for name in names}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
