"""The gateway: one OpenAI and Ollama address for all the listeners of a namespace.

``python -m punch.gateway``, or ``punch serve``; ``--help`` has the options.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import attrs
import trio

from .._background import open_background
from .._logs import get_logger
from ..cli import (
    BOOTSTRAP,
    DECISION_LOG,
    IDENTITY,
    KEYS,
    KNOWN,
    LOG_LEVEL,
    NAMESPACE,
    STRICT,
    TRANSPORT,
    ExitCode,
    Option,
    Settings,
    Shutdown,
    boolean,
    claim_identity,
    count,
    decision_log_path,
    is_strict,
    keys_path,
    open_router_of,
    positive,
    run_program,
)
from ..dashboard import dashboard_routes, open_feed
from ..decision_log import open_decision_log
from ..dialer import __main__ as dialer
from ..listener import __main__ as listener
from ._exchange import Observer
from ._gateway import DEFAULT_PORT, GatewaySettings, open_gateway
from .keys._keys import KeyStore, open_keys
from .keys._quotas import Quotas
from .keys._usage import open_usage
from .server._limits import Limits
from .telemetry._canonical import CanonicalLog
from .telemetry._metrics import Metrics, metrics_route
from .telemetry._spans import open_spans

log = get_logger("punch.gateway")

ABOUT = "Serve OpenAI's and Ollama's API, answered by the best listener of a namespace."

# What the listener half takes, if there is one; the rest it shares with the gateway.
LISTENER_OPTIONS = frozenset(
    {"--listen", "--backend", "--model", "--slots", "--context", "--queue", "--calibrate"}
)

# And what the gateway takes over from the dialer.
DIALER_OPTIONS = frozenset({"--policy", "--hedge"})


def megabytes(text: str) -> int:
    """A size in MiB, as bytes."""
    size: int = count(1)(text)
    return size << 20


OPTIONS = (
    Option(
        name="--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="interface to serve on; any but loopback needs API keys, or --open-to-all",
    ),
    Option(
        name="--port",
        default=DEFAULT_PORT,
        convert=count(0),
        metavar="PORT",
        help="port to serve on; 0 for any that is free",
        variable="PUNCH_GATEWAY_PORT",
    ),
    KEYS,
    Option(
        name="--open-to-all",
        default=False,
        convert=boolean,
        help="let everybody ask who reaches the interface, with no API key",
    ),
    Option(
        name="--allow-origin",
        many=True,
        default=(),
        metavar="ORIGIN",
        help="web page whose scripts may ask, such as https://example.org; * for all",
    ),
    Option(
        name="--body-limit",
        default=32 << 20,
        convert=megabytes,
        metavar="MIB",
        help="longest request body",
        shown_default="32",
    ),
    Option(
        name="--timeout",
        default=300.0,
        convert=positive,
        metavar="SECONDS",
        help="when to give up on an answer, where the caller does not say",
    ),
    Option(
        name="--show-prompts",
        default=False,
        convert=boolean,
        help="show on the dashboard what was asked",
    ),
    BOOTSTRAP,
    NAMESPACE,
    TRANSPORT,
    *(option for option in dialer.OPTIONS if option.name in DIALER_OPTIONS),
    STRICT,
    IDENTITY,
    KNOWN,
    DECISION_LOG,
    Option(
        name="--listen-too",
        default=False,
        convert=boolean,
        help="answer as well: be a listener in the same process, with the options below",
    ),
    *(option for option in listener.OPTIONS if option.name in LISTENER_OPTIONS),
    LOG_LEVEL,
)


@asynccontextmanager
async def open_books(settings: Settings) -> AsyncIterator[tuple[KeyStore | None, list[Observer]]]:
    """The API keys, and who keeps their books; neither if there is no file of keys."""
    path = keys_path(settings.keys)
    asked_for = settings.keys or os.environ.get(KEYS.environment)
    if not asked_for and (settings.open_to_all or not path.exists()):
        if path.exists():
            log.warning("there are API keys, and --open-to-all asks nobody for one", keys=str(path))
        yield None, []
        return
    async with open_keys(path) as keys, open_usage(keys.database) as usage:
        yield keys, [usage]


@asynccontextmanager
async def open_listener_too(settings: Settings) -> AsyncIterator[None]:
    """A listener in this process, if there is to be one; at the end it drains."""
    if not settings.listen_too:
        yield
        return
    # It is a peer of its own, with a key of its own.
    own = Settings(**{**vars(settings), "identity": None})
    shutdown = Shutdown()
    ended = trio.Event()

    async def listen() -> None:
        await listener.listen(own, shutdown)
        ended.set()

    async with open_background() as nursery:
        nursery.start_soon(listen)
        yield
        shutdown.requested.set()
        await ended.wait()


async def serve(settings: Settings, shutdown: Shutdown) -> ExitCode:
    """Serve until told to stop."""
    quotas = Quotas()
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        keys, observers = await enter(open_books(settings))
        identity = stack.enter_context(claim_identity("gateway", settings.identity))
        await enter(open_listener_too(settings))
        decisions = await enter(open_decision_log(decision_log_path(settings.decision_log)))
        router = await enter(open_router_of(settings, identity=identity, decision_log=decisions))
        feed = await enter(
            open_feed(router, decision_log=decisions, show_prompts=settings.show_prompts)
        )
        metrics = Metrics(router, waiting=lambda: quotas.statistics().waiting)
        spans = await enter(open_spans(endpoint=os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")))
        observers += [metrics, CanonicalLog(), feed]
        gateway = await enter(
            open_gateway(
                router,
                gateway_settings(settings),
                keys=keys,
                quotas=quotas,
                observers=[*observers, *([] if spans is None else [spans])],
                routes=[
                    *dashboard_routes(feed, decision_log=decision_log_path(settings.decision_log)),
                    metrics_route(metrics),
                ],
                asked=feed.asked if settings.show_prompts else None,
            )
        )
        log.info(
            "serving",
            url=gateway.url,
            openai=f"{gateway.url}/v1",
            ollama=gateway.url,
            namespace=settings.namespace,
            keys=keys is not None,
        )
        shutdown.drains = True
        await shutdown.requested.wait()
        # Whoever watches the dashboard has no request that would end by itself.
        feed.close()
        log.info("draining; interrupt again to stop at once", requests=gateway.under_way)
    log.info("stopped")
    return ExitCode.OK


def gateway_settings(settings: Settings) -> GatewaySettings:
    """What the HTTP half is told."""
    return GatewaySettings(
        host=settings.host,
        port=settings.port,
        open_to_all=settings.open_to_all,
        strict=is_strict(settings),
        timeout=settings.timeout,
        origins=tuple(settings.allow_origin),
        limits=attrs.evolve(Limits(), body=settings.body_limit),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; its exit code."""
    return run_program("punch.gateway", ABOUT, OPTIONS, serve, arguments)


if __name__ == "__main__":
    sys.exit(main())
