"""The client libraries that have a way in, each behind the same few methods: what the scenarios are played with."""

from __future__ import annotations

from tests.integrations.clients import aiohttp, httpx, made_up, requests, urllib3
from tests.integrations.clients.base import Answer, ClientUnderTest, Once, Opened

__all__ = ["CLIENTS", "Answer", "ClientUnderTest", "Once", "Opened"]

CLIENTS: tuple[type[ClientUnderTest], ...] = (
    *made_up.CLIENTS,
    *requests.CLIENTS,
    *httpx.CLIENTS,
    *aiohttp.CLIENTS,
    *urllib3.CLIENTS,
)
