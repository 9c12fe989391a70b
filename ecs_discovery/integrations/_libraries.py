"""The client libraries that integrations serve: what to install, and what serves which."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["needs", "served_by"]

_SERVED_BY = {
    "requests": "wrap_session",
    "httpx": "wrap_client",
    "httpx2": "wrap_client",
    "aiohttp": "client_session of ecs_discovery.integrations.aiohttp",
    "urllib3": "DiscoveryPoolManager of ecs_discovery.integrations.urllib3",
    "grpc": "insecure_channel and secure_channel of ecs_discovery.integrations.grpc",
}


@contextmanager
def needs(library: str, package: str | None = None) -> Iterator[None]:
    """For the import of a library: where it is not installed, the error says what to install.

    `library` is the module's name, and the extra's. `package` is the name it is installed by, if that is another.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != library:
            raise
        text = (
            f"ecs_discovery.integrations.{library} needs {package or library}: from a clone, pip install '.[{library}]'"
        )
        raise ModuleNotFoundError(text, name=library) from error


def served_by(client: object, refused_by: str) -> str:
    """What to use for a client that `refused_by` does not serve."""
    for each in type(client).__mro__:
        name = each.__module__.partition(".")[0]
        if _SERVED_BY.get(name, refused_by) != refused_by:
            return f"for {name} there is {_SERVED_BY[name]}"
    return "for other clients there are Discovery.call and Discovery.lease"
