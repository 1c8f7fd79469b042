"""Who may change a closed namespace from the page.

The same as with the commands of its machine, which are those of whoever sits there:

1. The machine must be an admin of the namespace.
2. Without API keys, whoever is at this machine: the connection comes from loopback, from a program
   of the user who runs punch, as far as the system tells, and no proxy says that it stands in
   between. Nobody where the gateway is open to all, since a proxy need not say so.
3. With API keys, whoever has one that was made with ``--admin``, from wherever.
4. Of pages, the gateway's own only, whatever others it lets ask questions.

Others are shown what there is, and where it is to be done.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from urllib.parse import urlsplit

import attrs
from starlette.requests import Request

from ..gateway.keys import Key
from ..network import is_of_this_user, plain_ip

# What a proxy adds (RFC 7239, and what is customary): behind it everybody comes from loopback.
_FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip", "via")


@attrs.frozen(kw_only=True)
class Rights:
    """What a gateway's doors are like."""

    has_keys: Callable[[], bool] = lambda: False
    """Says whether the gateway asks for API keys now."""

    is_open: bool = False
    """Whether it serves everybody who reaches it."""

    def hindrance(self, request: Request, *, is_admin: bool, command: str) -> str | None:
        """Why *request* may change nothing; `None` if it may. Reads files, so that a thread does.

        Args:
          request: What a page, or a program, asks.
          is_admin: Whether this machine is an admin of the namespace.
          command: What does the same on this machine, such as ``punch invite``.

        """
        if not is_admin:
            return "This machine is no admin of the namespace: this is done on one that is."
        if not _is_own_page(request):
            return f"Only this gateway's own page may do that, or `{command}` on its machine."
        if self.has_keys():
            key = request.scope.get("punch.key")
            if isinstance(key, Key) and key.is_admin:
                return None
            return (
                "This takes an API key made with `punch keys create NAME --admin`, or "
                f"`{command}` on this machine."
            )
        if self.is_open:
            return f"This gateway is open to all: use `{command}` on its own machine."
        if _is_here(request):
            if _is_ours(request):
                return None
            return f"Another user of this machine asks: `{command}` is for the one who runs punch."
        return (
            "This is done on the gateway's own machine: there at http://localhost, or with "
            f"`{command}`."
        )


def _is_own_page(request: Request) -> bool:
    """Whether no page of another origin asks; programs send no origin."""
    origin = request.headers.get("origin")
    if origin is None:
        return True
    try:
        place = urlsplit(origin).netloc.lower()
    except ValueError:
        return False
    return place == request.headers.get("host", "").lower()


def _is_here(request: Request) -> bool:
    """Whether whoever asks is at this machine."""
    if request.client is None or any(name in request.headers for name in _FORWARDED):
        return False
    try:
        return ipaddress.ip_address(plain_ip(request.client.host)).is_loopback
    except ValueError:
        return False


def _is_ours(request: Request) -> bool:
    """Whether a program of the user who runs punch asks, over loopback."""
    client, server = request.client, request.scope.get("server")
    if client is None or server is None:
        return False
    return is_of_this_user((client.host, client.port), server)
