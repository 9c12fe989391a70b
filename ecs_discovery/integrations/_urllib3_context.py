"""An application's SSLContext in the hands of urllib3, which changes the contexts that it is given."""

from __future__ import annotations

import ssl
from typing import Any

__all__ = ["ForeignContext"]


class ForeignContext:
    """An application's SSLContext, for urllib3, which changes the contexts that it is given.

    Others use it too: it is never made to verify less, and to a context that has root certificates none are added. A
    context without any gets those of `verify=`, as with plain requests: it could verify nothing otherwise.
    """

    __slots__ = ("_context", "_own")

    def __init__(self, context: ssl.SSLContext) -> None:
        object.__setattr__(self, "_context", context)
        object.__setattr__(self, "_own", {})

    def __getattr__(self, name: str) -> Any:
        own: dict[str, Any] = self._own
        return own[name] if name in own else getattr(self._context, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "verify_mode" and value < self._context.verify_mode:
            raise ValueError("verify=False does not reach into an SSLContext of your own: set its verify_mode")
        if name == "check_hostname" and not value:
            self._own[name] = value  # urllib3 compares the name itself then; the context goes on doing so too
        elif getattr(self._context, name) != value:
            setattr(self._context, name, value)

    def load_verify_locations(self, cafile: Any = None, capath: Any = None, cadata: Any = None) -> None:
        """Root certificates for a context that has none."""
        if not self._context.cert_store_stats()["x509_ca"]:
            self._context.load_verify_locations(cafile, capath, cadata)
