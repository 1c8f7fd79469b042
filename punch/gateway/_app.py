"""Decides which requests may enter, which route answers each, and what every answer carries.

Keys, page origins and paths are checked here; what a route answers is left to its endpoint.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import attrs
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.routing import Router as Routes

from .._logs import get_logger
from ..exceptions import ConfigurationError, PunchError, Unauthorized
from ._client import Receive, Send
from ._endpoint import Endpoint, Scope, Service, send_refusal
from ._errors import ANTHROPIC_VERSION, Refusal, dialect_of, internal, refusal_of
from ._json import as_json
from .keys._keys import Key, KeyStore
from .server import ClientGone, discarding_body, has_body

log = get_logger(__name__)

# Paths that need no key: they say that a gateway is there and how to talk to it, and give no data.
PUBLIC = frozenset({"/", "/health", "/ready", "/openapi.json", "/api/version"})
PUBLIC_FOLDER = "/assets/"

# Names by which a machine calls itself. A page whose own name was made to resolve to this machine
# (DNS rebinding) sends that name as its Host and is refused; Ollama has the same list.
OWN_NAMES = (".localhost", ".local", ".internal")

# What a browser's script may read of an answer from elsewhere.
EXPOSED = (
    "X-Request-ID, X-Punch-Model, X-Punch-Peer, X-Punch-Decision, X-Punch-Provenance, "
    "X-Punch-Segments, X-Punch-Taken, Retry-After"
)

# What stands under /v1. Programs disagree on whether that is a part of the address they are given.
_UNDER_V1 = frozenset({"chat", "completions", "responses", "embeddings", "models", "messages"})

_USUAL_PORTS = {"http": ":80", "https": ":443"}

# A key of a browser's, which can give a WebSocket no headers of its own: the page offers it as a
# subprotocol of this form beside the one that is spoken. That travels as a header does, so it is
# in no address, no history and no log of requests; and it is never answered with.
KEY_SUBPROTOCOL = "punch.key."

# What an address must not hold, for the same reason.
KEYS_IN_ADDRESSES = frozenset({"key", "api_key", "apikey", "api-key", "token", "access_token"})

BODILESS = frozenset({"GET", "HEAD", "OPTIONS", "DELETE"})

Value = Callable[[Any], Any]


class JsonRoute:
    """A route that answers with a plain value, as JSON; an ASGI application.

    Args:
      value: Called with the path's parameters; may raise `Refusal` or `PunchError`.
      status: Called with the value.
      anthropic: Makes the value for Anthropic's clients, of the scope of a request; by default
        they get the same.

    """

    def __init__(
        self,
        value: Value,
        *,
        status: Callable[[Any], int] = lambda value: 200,
        anthropic: Value | None = None,
    ) -> None:
        self._value = value
        self._status = status
        self._anthropic = anthropic

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if self._anthropic is not None and ANTHROPIC_VERSION in scope["punch.headers"]:
            value = self._anthropic(scope)
        else:
            value = self._value(scope.get("path_params", {}))
        data = as_json(value).encode(errors="replace")
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(data)).encode()),
        ]
        start = {"type": "http.response.start", "status": self._status(value), "headers": headers}
        await send(start)
        await send({"type": "http.response.body", "body": data, "more_body": False})


def origins_of(given: Sequence[str]) -> tuple[str, ...]:
    """*given*, as browsers write them (https://html.spec.whatwg.org/#ascii-serialisation-of-an-origin).

    Raises:
      ConfigurationError: if one of them is no origin.

    """
    return tuple(map(_origin, given))


def _origin(text: str) -> str:
    if text in ("*", "null"):
        return text
    place = _place_of(text)
    scheme, _, rest = text.partition("://")
    scheme = scheme.lower()
    if not place or "@" in place or rest.rstrip("/").lower() != place:
        raise ConfigurationError(
            f"--allow-origin {text[:80]!r} is no origin: it has a scheme, a host and perhaps a "
            "port, such as https://example.org, and nothing after them"
        )
    if (port := _USUAL_PORTS.get(scheme)) is not None:
        place = place.removesuffix(port)
    return f"{scheme}://{place}"


def _place_of(origin: str) -> str:
    """Host and port of an origin, in small letters; nothing if it is none."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


@attrs.frozen
class Cors:
    """The rights of other web pages' scripts: https://fetch.spec.whatwg.org/#http-cors-protocol."""

    origins: tuple[str, ...]
    """Pages whose scripts may ask; ``*`` for all."""

    def allows(self, origin: str) -> bool:
        """Whether scripts of *origin* may ask."""
        return "*" in self.origins or origin in self.origins

    def headers(self, headers: Mapping[bytes, bytes]) -> list[tuple[bytes, bytes]]:
        """The headers that every answer to a request with these *headers* has."""
        origin = headers.get(b"origin")
        if origin is None or not self.allows(origin.decode("latin-1")):
            return []
        return [
            (b"access-control-allow-origin", origin),
            (b"access-control-expose-headers", EXPOSED.encode()),
            (b"vary", b"Origin"),
        ]

    def preflight(
        self, headers: Mapping[bytes, bytes], methods: Sequence[str]
    ) -> list[tuple[bytes, bytes]]:
        """Further headers of the answer to ``OPTIONS``, if the request is a CORS preflight."""
        origin = headers.get(b"origin", b"").decode("latin-1")
        if b"access-control-request-method" not in headers or not self.allows(origin):
            return []
        wanted = headers.get(b"access-control-request-headers", b"authorization, content-type")
        return [
            (b"access-control-allow-methods", ", ".join(methods).encode()),
            (b"access-control-allow-headers", wanted[:1024]),
            (b"access-control-max-age", b"600"),
        ]


@attrs.define(kw_only=True)
class Door:
    """The check that every request passes before it is routed: origin, host and API key."""

    keys: KeyStore | None = None
    """The API keys; `None` if requests need none. Set where the first one is made later."""

    origins: tuple[str, ...] = attrs.field(default=(), converter=origins_of)
    """Web pages whose scripts may ask, as ``https://example.org``; ``*`` for all."""

    own_names_only: bool = False
    """The gateway is on loopback with no keys: only this machine's own names lead to it."""

    cors: Cors = attrs.field(
        init=False, default=attrs.Factory(lambda own: Cors(own.origins), takes_self=True)
    )
    """The rights of these pages' scripts."""

    async def enter(self, scope: Scope, headers: Mapping[bytes, bytes]) -> None:
        """Let a request in, and note its key in *scope*; raises `Refusal` or `PunchError`."""
        self._check_origin(scope, headers)
        path = scope["path"]
        if self.keys is None or path in PUBLIC or path.startswith(PUBLIC_FOLDER):
            return
        if scope["type"] == "websocket":
            _check_address(scope)
            secret = (
                bearer_in(headers) or bare_key_in(headers) or secret_offered(scope["subprotocols"])
            )
            scope["punch.key"] = await self.keys.authenticate(secret)
            return
        if scope["method"] == "OPTIONS":
            # A browser asks what it may send before it sends it, a key included:
            # https://fetch.spec.whatwg.org/#cors-preflight-fetch.
            return
        scope["punch.key"] = await self._authenticate(self.keys, headers)

    async def key_of(self, headers: Mapping[bytes, bytes]) -> Key | None:
        """The key that a request comes with, if it has a good one and needs one."""
        if self.keys is None:
            return None
        try:
            return await self._authenticate(self.keys, headers)
        except Unauthorized:
            return None

    async def _authenticate(self, keys: KeyStore, headers: Mapping[bytes, bytes]) -> Key:
        """The key in either header: programs that want a word in one get any, and fill in both."""
        bearer, bare = bearer_in(headers), bare_key_in(headers)
        if bearer is None or bare in (None, bearer):
            return await keys.authenticate(bearer or bare)
        try:
            return await keys.authenticate(bearer)
        except Unauthorized:
            return await keys.authenticate(bare)

    def _check_origin(self, scope: Scope, headers: Mapping[bytes, bytes]) -> None:
        host = _host_in(headers.get(b"host", b"").decode("latin-1"))
        if self.own_names_only and host and not is_own_name(host):
            raise _stranger(f"{host[:80]!r} is not a name of this machine", "host_not_allowed")
        origin = headers.get(b"origin")
        # What a page from elsewhere gets to a GET, its browser keeps from it; of a WebSocket nobody
        # keeps anything from it (RFC 6455, section 10.2).
        if origin is None or scope.get("method") in ("GET", "HEAD", "OPTIONS"):
            return
        text = origin.decode("latin-1")
        host = headers.get(b"host", b"").decode("latin-1")
        if self.cors.allows(text) or _place_of(text) == host.lower():
            return
        raise _stranger(
            f"pages of {text[:80]!r} may not ask here; the gateway's --allow-origin changes that",
            "origin_not_allowed",
        )


def bearer_in(headers: Mapping[bytes, bytes]) -> str | None:
    """The API key in ``Authorization``, as OpenAI's clients send it."""
    given = headers.get(b"authorization", b"").decode("latin-1")
    scheme, _, secret = given.partition(" ")
    return secret.strip() or None if scheme.lower() == "bearer" else None


def bare_key_in(headers: Mapping[bytes, bytes]) -> str | None:
    """The API key in ``x-api-key``, as Anthropic's clients send it."""
    return headers.get(b"x-api-key", b"").decode("latin-1").strip() or None


def secret_offered(subprotocols: Sequence[str]) -> str | None:
    """The API key among the subprotocols that a browser offers."""
    found = [name for name in subprotocols if name.startswith(KEY_SUBPROTOCOL)]
    return found[0].removeprefix(KEY_SUBPROTOCOL) or None if found else None


def _check_address(scope: Scope) -> None:
    """Refuse a key in an address, which ends in histories and in the logs of proxies."""
    names = {name for name, _ in parse_qsl(scope["query_string"].decode("latin-1"))}
    if found := sorted(names & KEYS_IN_ADDRESSES):
        raise Refusal(
            status=400,
            message=f"{found[0]} is in the address, where others can read it: send the key as "
            f"Authorization: Bearer KEY, or as the subprotocol {KEY_SUBPROTOCOL}KEY beside punch",
            code="key_in_address",
        )


def usual_path(path: str) -> str:
    """*path* with the ``/v1`` of OpenAI's and Anthropic's interfaces, once, and single slashes.

    Programs are given an address with it or without, and with a slash at its end or without, and
    add theirs or do not.
    """
    if "//" in path or path.endswith("/"):
        path = "/" + "/".join(filter(None, path.split("/")))
    bare = path.removeprefix("/v1") if path.startswith("/v1/v1/") else path
    first = bare.removeprefix("/").partition("/")[0]
    return f"/v1{bare}" if first in _UNDER_V1 else bare


@lru_cache(maxsize=64)
def is_own_name(host: str) -> bool:
    """Whether *host* can only mean this machine, or says its address outright."""
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(OWN_NAMES):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _host_in(value: str) -> str:
    """The host of a ``Host`` header, without its port."""
    if value.startswith("["):
        return value[1:].partition("]")[0]
    return value.partition(":")[0]


def _stranger(message: str, code: str) -> Refusal:
    return Refusal(
        status=403, message=message, type="permission_error", code=code, cause="not_permitted"
    )


class Application:
    """All routes behind one door; an ASGI application.

    Args:
      service: What the endpoints work with.
      endpoints: Those that ask a model: ``POST`` and nothing else.
      routes: Everything else.
      door: Decides which requests may enter.
      absent: Says of a method and a path that have no route why that is so, if it knows.

    """

    def __init__(
        self,
        service: Service,
        *,
        endpoints: Sequence[Endpoint[Any]],
        routes: Sequence[BaseRoute],
        door: Door,
        absent: Callable[[str, str], Refusal | None] = lambda method, path: None,
    ) -> None:
        self.service = service
        self.door = door
        """Decides which requests may enter."""
        self._endpoints: dict[str, Endpoint[Any]] = {each.path: each for each in endpoints}
        sockets = [route.path for route in routes if isinstance(route, WebSocketRoute)]
        self.websockets = frozenset(sockets)
        """Paths at which there are WebSockets."""
        all_routes = [
            *routes,
            *(Route(path, _is_for_websockets, methods=["GET"]) for path in sockets),
            *(Route(each.path, each, methods=["POST"]) for each in endpoints),
        ]
        self._routes = Routes(all_routes, redirect_slashes=False, default=self._nothing_here)
        self._absent = absent

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] not in ("http", "websocket"):
            return
        headers = scope["punch.headers"] = dict(scope["headers"])
        if scope["path"] not in self._endpoints:
            scope = {**scope, "path": usual_path(scope["path"])}
        answer = _Sender(send, self.door.cors.headers(headers), scope["type"])
        try:
            await self.door.enter(scope, headers)
            endpoint = self._endpoints.get(scope["path"])
            if scope["type"] == "websocket":
                scope["punch.may_stay"] = lambda: self._may_stay(scope, headers)
                await self._routes(scope, receive, answer)
            elif endpoint is not None and scope["method"] == "POST":
                await endpoint(scope, receive, answer)
            else:
                await self._route(scope, headers, receive, answer)
        except (Refusal, PunchError) as error:
            refusal = error if isinstance(error, Refusal) else refusal_of(error)
            await self._refuse(refusal, scope, headers, receive, answer)
        except ClientGone:
            return
        except HTTPException as error:
            refusal = _as_refusal(error)
            if error.status_code == 405:
                # Of several routes at one path, each knows its own methods alone.
                refusal.headers = (("allow", ", ".join(self.methods_of(scope))),)
            await self._refuse(refusal, scope, headers, receive, answer)
        except Exception:
            log.exception("a request met a bug", path=scope["path"])
            await self._refuse(internal(), scope, headers, receive, answer)

    def asks(self, path: str) -> bool:
        """Whether *path* is that of an endpoint which asks a model."""
        return path in self._endpoints

    async def _may_stay(self, scope: Scope, headers: Mapping[bytes, bytes]) -> bool:
        """Whether a client that has been in for a while would still be let in."""
        try:
            await self.door.enter(scope, headers)
        except (Refusal, PunchError):
            return False
        return True

    async def _route(
        self, scope: Scope, headers: Mapping[bytes, bytes], receive: Receive, send: _Sender
    ) -> None:
        scope["app"] = self
        if scope["method"] == "OPTIONS":
            await self._options(scope, headers, send)
            return
        work: Callable[[], Awaitable[None]] = lambda: self._routes(scope, receive, send)  # noqa: E731
        if scope["method"] in BODILESS and has_body(headers):
            await discarding_body(receive, work)
        else:
            await work()

    async def _refuse(
        self,
        refusal: Refusal,
        scope: Scope,
        headers: Mapping[bytes, bytes],
        receive: Receive,
        send: _Sender,
    ) -> None:
        if send.has_begun:
            # Too late for a status: the server breaks the body off, which is all that is left.
            log.error("an answer broke after it had begun", path=scope["path"])
            raise RuntimeError("an answer broke after it had begun")
        self.service.live.refuse(refusal.status)
        dialect = dialect_of(scope["path"], headers)
        if has_body(headers):
            refusal = attrs.evolve(refusal, closes=True)
            work: Callable[[], Awaitable[None]] = lambda: send_refusal(  # noqa: E731
                refusal, dialect, send
            )
            await discarding_body(receive, work)
        else:
            await send_refusal(refusal, dialect, send)

    async def _options(self, scope: Scope, headers: Mapping[bytes, bytes], send: _Sender) -> None:
        """Answer ``OPTIONS``: the methods of a path, and what a CORS preflight wants to know."""
        methods = self.methods_of(scope)
        if not methods:
            raise HTTPException(404)
        headers_out = [(b"allow", ", ".join(methods).encode())]
        headers_out += self.door.cors.preflight(headers, methods)
        await send({"type": "http.response.start", "status": 204, "headers": headers_out})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _nothing_here(self, scope: Scope, receive: Receive, send: Send) -> None:
        raise self._absent(scope["method"], scope["path"]) or HTTPException(404)

    def methods_of(self, scope: Scope) -> list[str]:
        """Methods of a path; none if there is no such path."""
        found: set[str] = set()
        for route in self._routes.routes:
            if isinstance(route, Route) and route.path_regex.match(scope["path"]):
                found |= route.methods or set()
        return sorted(found | {"OPTIONS"}) if found else []


_NOSNIFF = (b"x-content-type-options", b"nosniff")
# What an answer begins with, a WebSocket, and the refusal of one.
_BEGINNINGS = ("http.response.start", "websocket.accept", "websocket.http.response.start")


class _Sender:
    """Sends, with what every answer carries, and remembers whether one has begun."""

    def __init__(self, send: Send, headers: list[tuple[bytes, bytes]], kind: str = "http") -> None:
        self._send = send
        self._headers = headers
        # A WebSocket is refused by an answer, whose messages have names of their own.
        self._prefix = "websocket." if kind == "websocket" else ""
        self.has_begun = False

    async def __call__(self, message: Any) -> None:
        kind = message["type"]
        if not self.has_begun and kind in _BEGINNINGS:
            self.has_begun = True
            given = dict(message.get("headers", ()))
            more = self._headers if _NOSNIFF[0] in given else [_NOSNIFF, *self._headers]
            message = {**message, "headers": [*message.get("headers", ()), *more]}
        if self._prefix and kind.startswith("http."):
            message = {**message, "type": self._prefix + kind}
        await self._send(message)


async def _is_for_websockets(request: Request) -> Response:
    raise HTTPException(426, headers={"upgrade": "websocket"})


def _as_refusal(error: HTTPException) -> Refusal:
    codes = {404: "unknown_path", 405: "method_not_allowed", 426: "upgrade_required"}
    words = {
        404: "there is nothing at this path; /openapi.json lists what there is",
        405: "this path does not take this method",
        426: "this path is for WebSockets: ask with Upgrade: websocket, as their clients do",
    }
    return Refusal(
        status=error.status_code,
        message=words.get(error.status_code, str(error.detail)),
        code=codes.get(error.status_code, "invalid_request"),
        headers=tuple((error.headers or {}).items()),
    )
