"""`open_gateway()`: puts routes, endpoints, keys and an HTTP server in front of a router.

Decides which routes there are and refuses to let strangers in by accident. What an endpoint does
is in its dialect's room; how HTTP/1.1 is spoken is in `server`.
"""

from __future__ import annotations

import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import islice
from typing import Any
from urllib.parse import parse_qsl

import attrs
import trio
from starlette.routing import BaseRoute, Route

from .._subscribers import open_bus
from .._version import __version__
from ..dialer import Router, new_request_id
from ..events import Bus
from ..exceptions import ConfigurationError
from ._app import Application, Door, JsonRoute
from ._endpoint import Endpoint, Service
from ._errors import Refusal, spell_bad_request
from ._live import LiveRequests
from ._offered import Naming, models_body, one_model_body
from ._openapi import describe
from .anthropic import _listed as anthropic_models
from .anthropic._endpoints import CountTokens, Messages
from .keys._keys import KeyStore
from .keys._quotas import Quotas
from .ollama._endpoints import Embed, Generate, OldEmbed, OllamaChat
from .ollama._lists import ps_body, tags_body
from .ollama._managing import OLLAMA_VERSION, Pull, Running, Show, refused_change
from .openai._endpoints import Chat, Completions, Embeddings
from .openai._responses import Responses
from .openai._stored import DEFAULT_STORED_SECONDS
from .server import DRAIN_SECONDS, Limits, Request, Server, Sharing, open_server

# Above Ollama's 11434, so that both can be there.
DEFAULT_PORT = 11435

# Listeners out of reach that `/ready` names: the first few say what is wrong with the network.
MAX_UNREACHABLE = 16

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


@attrs.frozen(kw_only=True)
class GatewaySettings:
    """Where a gateway listens, whom it lets in, and its limits."""

    host: str = "127.0.0.1"
    """Interface to listen on."""

    port: int = DEFAULT_PORT
    """Port to listen on; 0 for any that is free."""

    ollama_port: int | None = None
    """A second port to listen on, for programs that know Ollama's address and no other."""

    open_to_all: bool = False
    """Let everybody ask who reaches an interface that is not loopback, with no key."""

    strict: bool = False
    """Real inference only, whatever a request says."""

    timeout: float = 300.0
    """Seconds for a whole answer, where the caller does not say."""

    store_responses: float = DEFAULT_STORED_SECONDS
    """Seconds for which a response can be referred to after its last use; 0 for none at all.

    Never where everybody may ask from elsewhere without a key: ids are no secrets.
    """

    any_name: bool | None = None
    """Whether any name means the one model on offer, if it is one; `None`: if no key is needed."""

    origins: tuple[str, ...] = ()
    """Web pages whose scripts may ask, as ``https://example.org``; ``*`` for all."""

    limits: Limits = attrs.field(factory=Limits)
    """Limits of a client."""

    drain: float = DRAIN_SECONDS
    """Seconds that requests under way may take at the end."""


HandOver = Callable[[Application, Request, trio.SocketStream, "bytes | None"], Awaitable[bool]]
"""`server.HandOver` for an application."""


@attrs.frozen(kw_only=True)
class Shared:
    """What a gateway shares with other processes of it; by default it has none."""

    accepts: bool = True
    """Whether it accepts connections itself, or they do at its sockets."""

    sockets: tuple[socket.socket, ...] = ()
    """Sockets that listen already, in place of its own, in the order of its ports."""

    hand_over: HandOver | None = None
    """Gives connections to the process that is to answer; `None` if that is always this one."""

    give_way: Callable[[int], Awaitable[None]] | None = None
    """Waits a moment where others have fewer connections than this process has."""

    new_id: Callable[[], str] = new_request_id
    """Makes the ids of requests, so that they lead to this process."""


@attrs.frozen(kw_only=True)
class GatewayParts:
    """The parts of a gateway beside its router; each has a default."""

    settings: GatewaySettings = attrs.field(factory=GatewaySettings)
    """Address, access and limits."""

    events: Bus = attrs.field(factory=open_bus)
    """Where it publishes what becomes of requests."""

    keys: KeyStore | None = None
    """The API keys; `None` if requests need none."""

    quotas: Quotas = attrs.field(factory=Quotas)
    """Decides when a request may begin; by default with one limit for all requests together."""

    routes: tuple[BaseRoute, ...] = ()
    """Further routes, which come before the gateway's own."""

    shared: Shared = attrs.field(factory=Shared)
    """What other processes do of its work."""

    wall: Callable[[], float] = time.time
    """The time, in seconds since 1970."""


class Gateway:
    """A running gateway. Made by `open_gateway`."""

    def __init__(self, server: Server, application: Application) -> None:
        self._server = server
        self._door = application.door
        self._live = application.service.live
        self._naming = application.service.naming

    @property
    def address(self) -> tuple[str, int]:
        """Host and port where the gateway listens."""
        return self._server.addresses[0]

    @property
    def url(self) -> str:
        """The address, as a browser takes it."""
        return _url(self.address)

    @property
    def ollama_url(self) -> str:
        """The address for Ollama's programs: of the second port, if there is one."""
        return _url(self._server.addresses[-1])

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return self._server.connections

    @property
    def listeners(self) -> Sequence[trio.SocketListener]:
        """The sockets at which the gateway listens, or other processes do."""
        return self._server.listeners

    def adopt(self, connection: socket.socket, ahead: bytes) -> None:
        """Serve a client whose first request, *ahead*, another process has read."""
        self._server.adopt(connection, ahead)

    @property
    def under_way(self) -> int:
        """How many requests are being answered."""
        return len(self._live.under_way)

    @property
    def has_keys(self) -> bool:
        """Whether requests need an API key."""
        return self._door.keys is not None

    def lock(self, keys: KeyStore) -> None:
        """Ask for one of these API keys from now on, where none was needed."""
        self._door.keys = keys
        self._naming.is_keyed = True


def _url(address: tuple[str, int]) -> str:
    host, port = address
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def build_application(router: Router, parts: GatewayParts | None = None) -> Application:
    """The gateway as an ASGI application, for a server of your own and for tests.

    Args:
      router: Is asked for the answers.
      parts: The other parts; by default all defaults.

    """
    parts = parts or GatewayParts()
    settings = parts.settings
    is_public = parts.keys is None and settings.host not in LOOPBACK
    service = Service(
        router=router,
        live=LiveRequests(parts.events),
        limits=settings.limits,
        timeout=settings.timeout,
        strict=settings.strict,
        naming=Naming(
            any_name=settings.any_name, is_keyed=parts.keys is not None, strict=settings.strict
        ),
        quotas=parts.quotas,
        stored_seconds=0.0 if is_public else settings.store_responses,
        began_at=int(parts.wall()),
        new_id=parts.shared.new_id,
        wall=parts.wall,
    )
    kinds = (
        *(Chat, Completions, Embeddings, Responses),
        *(Messages, CountTokens),
        *(OllamaChat, Generate, Embed, OldEmbed),
    )
    endpoints: list[Endpoint[Any]] = [kind(service) for kind in kinds]
    described = describe(endpoints, keys=parts.keys is not None)
    return Application(
        service,
        endpoints=endpoints,
        routes=[Running(), *parts.routes, *_own_routes(service, described)],
        absent=refused_change,
        door=Door(
            keys=parts.keys,
            origins=settings.origins,
            # Without keys, loopback is the only protection, and DNS rebinding gets around that.
            own_names_only=parts.keys is None and settings.host in LOOPBACK,
        ),
    )


def _own_routes(service: Service, described: Mapping[str, Any]) -> list[BaseRoute]:
    """The routes that ask no model."""
    router = service.router

    def readiness(_: Any) -> dict[str, Any]:
        ready_peers = [
            peer
            for peer in router.peers
            if any(not lane.load.draining for lane in peer.capability.lanes)
        ]
        unreachable = dict(islice(router.unreachable.items(), MAX_UNREACHABLE))
        if ready_peers:
            ready: dict[str, Any] = {"ready": True, "peers": len(ready_peers)}
            # Peers that a bootstrap cannot dial are asked all the same: we can.
            poorly = {p.peer_id: p.unreachable_why for p in ready_peers if p.reachable is False}
            if unreachable or poorly:
                ready["unreachable"] = {**unreachable, **poorly}
            return ready | ({"warnings": router.warnings} if router.warnings else {})
        trouble = router.trouble
        why = "no listener is known yet"
        if unreachable:
            said = "; ".join(f"{peer}: {reason}" for peer, reason in unreachable.items())
            why = f"no listener can be reached: {said}"
        raise Refusal(
            status=503,
            message=str(trouble) if trouble is not None else why,
            type="service_unavailable_error",
            code="not_ready",
            retry_after=1.0,
            cause="no_peer",
        )

    def json_route(path: str, value: Callable[[Any], Any], **more: Any) -> Route:
        return Route(path, JsonRoute(value, **more), methods=["GET"])

    def models_for_anthropic(scope: Any) -> dict[str, Any]:
        query = dict(parse_qsl(scope["query_string"].decode("latin-1")))
        return anthropic_models.models_body(router.offering, service.began_at, query)

    def model_for_anthropic(scope: Any) -> dict[str, Any]:
        name = service.naming.found(scope["path_params"]["model"], router.names)
        return anthropic_models.one_model_body(name, router.offering, service.began_at)

    return [
        json_route("/", lambda _: {"punch": "is running", "openapi": "/openapi.json"}),
        json_route("/health", lambda _: {"status": "ok"}),
        json_route("/ready", readiness),
        json_route("/openapi.json", lambda _: described),
        json_route(
            "/v1/models",
            lambda _: models_body(router.offering, service.began_at, router.names),
            anthropic=models_for_anthropic,
        ),
        json_route(
            "/v1/models/{model:path}",
            lambda path: one_model_body(
                service.naming.found(path["model"], router.names), router.offering, service.began_at
            ),
            anthropic=model_for_anthropic,
        ),
        json_route("/api/version", lambda _: {"version": OLLAMA_VERSION, "punch": __version__}),
        json_route("/api/tags", lambda _: tags_body(router.offering, service.began_at)),
        json_route("/api/ps", lambda _: ps_body(router.peers, service.began_at)),
        Route(Show.path, Show(service), methods=["POST"]),
        Route(Pull.path, Pull(service), methods=["POST"]),
    ]


@asynccontextmanager
async def open_gateway(router: Router, parts: GatewayParts | None = None) -> AsyncIterator[Gateway]:
    """A gateway for as long as the context lasts; at its end, requests under way may finish.

    Args:
      router: Is asked for the answers.
      parts: The other parts; by default all defaults.

    Raises:
      AddressUnavailable: if the address cannot be listened on.
      ConfigurationError: if strangers could ask without a key, and `open_to_all` is not set.

    """
    parts = parts or GatewayParts()
    settings = parts.settings
    # Defaults are safe: a machine on the network is shared with strangers only by a clear wish.
    if parts.keys is None and settings.host not in LOOPBACK and not settings.open_to_all:
        raise ConfigurationError(
            f"the gateway would let everybody ask who reaches {settings.host}: give it API keys "
            "(--keys, see `punch keys`), or say --open-to-all if that is what you want"
        )
    application = build_application(router, parts)
    shared = parts.shared
    hand_over = None if shared.hand_over is None else partial(shared.hand_over, application)
    async with open_server(
        application,
        host=settings.host,
        port=settings.port,
        limits=settings.limits,
        more_ports={} if settings.ollama_port is None else {settings.ollama_port: "--ollama-port"},
        drain=settings.drain,
        spell=spell_bad_request,
        websockets=application.websockets,
        sharing=Sharing(
            accepts=shared.accepts,
            sockets=shared.sockets,
            hand_over=hand_over,
            give_way=shared.give_way,
        ),
    ) as server:
        yield Gateway(server, application)
