"""docs/gateway.md says what the code does: endpoints, fields, errors, settings and numbers."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from typing import Any

import attrs
import decision_logs as made
import pytest
import request_records as records
from gateway_client import open_client
from starlette.routing import Route, WebSocketRoute
from trio.testing import MockClock

from punch import create_namespace
from punch.capability import PeerId
from punch.dashboard import Feed, Machines, Newcomers, dashboard_routes, live_routes
from punch.events import Bus, RequestRefused
from punch.gateway import (
    BODIES,
    DEFAULT_PORT,
    TABLE,
    GatewayParts,
    Limits,
    Metrics,
    Refusal,
    build_application,
    metrics_route,
)
from punch.gateway._app import EXPOSED, PUBLIC
from punch.gateway._endpoint import MAX_REQUEST_ID_CHARACTERS
from punch.gateway.bodies import CODES, parse, read, rules_of
from punch.listener import MemberUsage
from punch.settings import GatewaySettings, settings_of

ROOT = Path(__file__).parent.parent
DOCUMENT = (ROOT / "docs" / "gateway.md").read_text(encoding="utf-8")
ROOM = ROOT / "punch" / "gateway"
SOURCES = "\n".join(path.read_text(encoding="utf-8") for path in sorted(ROOM.rglob("*.py")))

# What each of them cannot do without.
LEAST: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "x"}]},
    "/v1/completions": {"prompt": "x"},
    "/v1/responses": {"input": "x"},
    "/v1/messages": {"messages": [{"role": "user", "content": "x"}]},
    "/v1/messages/count_tokens": {"messages": [{"role": "user", "content": "x"}]},
    "/api/chat": {"model": "m"},
    "/api/generate": {"model": "m"},
}


def table(*headings: str) -> list[list[str]]:
    """The cells of the table with these headings."""
    head = f"| {' | '.join(headings)} |\n"
    assert DOCUMENT.count(head) == 1, head
    rows = DOCUMENT.partition(head)[2].partition("\n\n")[0].splitlines()[1:]
    cells = [row.strip("|").split("|") for row in rows if row.startswith("|")]
    return [[cell.strip() for cell in row] for row in cells]


def quoted(cell: str) -> list[str]:
    """What is between backticks."""
    return re.findall(r"`([^`]*)`", cell)


class Watched:
    """As much of a router as the metrics look at."""

    peers = tuple(
        attrs.evolve(peer, capability=attrs.evolve(peer.capability, machine_name="kitchen"))
        for peer in made.PEERS
    )
    sessions = 3


# ---- what may be asked ----


async def test_every_route_is_listed_and_no_other(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """With the dashboard's and the metrics', as `punch serve` puts them together."""
    async with open_client({}) as client:
        feed = Feed(client.router)
        home = create_namespace("home", folder=tmp_path)
        routes = [
            *dashboard_routes(
                feed,
                newcomers=Newcomers(home),
                machines=Machines(home),
                router=client.router,
            ),
            *live_routes(feed, Bus()),
            metrics_route(Metrics(client.router)),
        ]
        app = build_application(client.router, GatewayParts(routes=tuple(routes)))
        there = [route for route in app._routes.routes if isinstance(route, Route)]
        served = {
            (re.sub(r":path\}", "}", route.path), "POST" if "POST" in route.methods else "GET")
            for route in there
            if route.methods
        }
    # Each path of a WebSocket has a plain route besides, which says that it is one.
    sockets = [route for route in app._routes.routes if isinstance(route, WebSocketRoute)]
    assert len(there) + len(sockets) == len(app._routes.routes)
    listed = {
        (path, method)
        for cell, method, _ in table("endpoint", "method", "is")
        for path in quoted(cell)
    }

    assert sorted(listed) == sorted(served)


def test_what_needs_no_key_is_named() -> None:
    """One sentence has all of it."""
    (sentence,) = re.findall(r"((?:`[^`]+`(?:, | and\s+))+`[^`]+`) need\s+no key", DOCUMENT)

    assert set(quoted(sentence)) == PUBLIC | {"/assets"}


def test_every_field_is_listed_and_no_other() -> None:
    """As the models have them that bodies are read with; `docs/help.py` writes the tables."""
    listed = {}
    for where, *cells in table("endpoint", "honoured", "taken", "refused"):
        (name,) = quoted(where)
        listed[name] = sorted(field for cell in cells for field in quoted(cell))

    assert listed == {
        name: sorted(rule.name for rule in rules_of(body)) for name, body in BODIES.items()
    }


@pytest.mark.parametrize("endpoint", LEAST)
def test_what_asks_for_nothing_is_taken_and_anything_else_refused_by_name(endpoint: str) -> None:
    """Of every field that cannot be honoured, with a reason."""
    kind, least = BODIES[endpoint], LEAST[endpoint]
    for rule in rules_of(kind):
        if rule.verdict != "refused":
            continue
        for value in (None, *rule.nothing):
            parse(kind, json.dumps(least | {rule.name: value}).encode())
        with pytest.raises(Refusal) as refused:
            parse(kind, json.dumps(least | {rule.name: ["surely", "not"]}).encode())

        assert (refused.value.status, refused.value.param) == (400, rule.name)
        assert rule.why, rule.name


@pytest.mark.parametrize("endpoint", LEAST)
def test_what_is_taken_may_be_anything_and_is_named(endpoint: str) -> None:
    """Of every field that changes nothing, with a reason."""
    kind, least = BODIES[endpoint], LEAST[endpoint]
    for rule in rules_of(kind):
        if rule.verdict == "taken":
            for value in ("any", 1, {"a": [True]}):
                data = json.dumps(least | {rule.name: value}).encode()
                assert rule.name in read(kind, data).taken
            assert rule.why, rule.name


# ---- headers ----


@pytest.mark.parametrize("heading", ["of a request", "of an answer"])
def test_every_header_is_one_that_the_code_knows(heading: str) -> None:
    """By its name in lower case, as ASGI has it; common ones in either."""
    names = [name for cell, _ in table(heading, "is") for name in quoted(cell)]
    unknown = [
        name for name in names if not re.search(f'b?"{re.escape(name)}"', SOURCES, re.IGNORECASE)
    ]

    assert len(names) >= 5
    assert unknown == []


def test_every_header_that_pages_may_read_is_listed() -> None:
    """`Access-Control-Expose-Headers` has all of ours."""
    listed = {name for cell, _ in table("of an answer", "is") for name in quoted(cell)}

    assert set(EXPOSED.split(", ")) <= listed
    assert f"1 to {MAX_REQUEST_ID_CHARACTERS} printable" in DOCUMENT


# ---- errors ----


def test_the_table_of_errors_is_the_codes() -> None:
    """Every word, with status, type and code."""
    listed = {
        word: (int(status), quoted(kind)[0], quoted(code)[0])
        for words, status, kind, code in table("punch's word", "status", "type", "code")
        for word in quoted(words)
    }

    assert listed == {word: (row.status, row.type, row.code) for word, row in TABLE.items()}


def test_every_refusal_of_the_gateways_own_is_listed() -> None:
    """Whatever code a `Refusal` is made with, somewhere in the room."""
    made_there = {
        *re.findall(r'\bcode="(\w+)"', SOURCES),
        *re.findall(r'"(\w+_not_allowed)"\)?', SOURCES),
        *CODES.values(),
        "unknown_path",
        "upgrade_required",
    }
    listed = {code for _, codes, _ in table("status", "code", "when") for code in quoted(codes)}
    of_table = {row.code for row in TABLE.values()}

    assert sorted(made_there - listed - of_table) == []
    assert sorted(listed - made_there) == []


# ---- settings and numbers ----


def test_every_option_is_listed_with_its_variable_and_default() -> None:
    """As ``--help`` has them."""
    options = [each for each in settings_of(GatewaySettings) if each.flag]
    own = {
        each.flag: each.default_text or "-"
        for each in options
        if each.flag and each.section != "listener"
    }
    rows = table("option", "variable", "default", "what")
    pairs = [
        pair
        for options, variables, _, _ in rows
        for pair in zip(quoted(options), quoted(variables), strict=True)
    ]
    defaults = {quoted(row[0])[0]: row[2] for row in rows}

    assert sorted(pairs) == sorted((each.flag, each.variable) for each in options)
    assert {flag: defaults.get(flag) for flag in own} == own


NUMBERS = [
    (quoted(name)[0], float(value), quoted(where)[0])
    for name, value, where, _ in table("constant", "value", "where", "what")
]


@pytest.mark.parametrize(("name", "value", "where"), NUMBERS)
def test_every_number_is_the_codes(name: str, value: float, where: str) -> None:
    """Read from the module that the table names; `Limits` has values of its own."""
    module = importlib.import_module("punch." + where.removesuffix(".py").replace("/", "."))
    holder = Limits() if name.startswith("Limits.") else module

    assert float(getattr(holder, name.removeprefix("Limits."))) == value


def test_every_limit_of_a_client_is_in_the_table() -> None:
    """All of `Limits`: two are made of constants."""
    listed = {name for name, _, _ in NUMBERS}
    behind = {"body": "DEFAULT_BODY_BYTES", "slowest": "DEFAULT_SLOWEST_SECONDS"}
    fields = [field.name for field in Limits.__attrs_attrs__]

    assert [f for f in fields if behind.get(f, f"Limits.{f}") not in listed] == []


# ---- metrics ----


async def test_every_metric_is_listed_with_its_labels(autojump_clock: MockClock) -> None:
    """As a gateway tells them that has seen something of each kind."""
    member = MemberUsage(machine=PeerId("machine"), name="desk", requests=1)
    metrics = Metrics(Watched(), served=lambda: (member,))
    for record in (records.easy(), records.continued()):
        for event in records.life(record):
            metrics.hear(event)
    metrics.hear(RequestRefused(at=0.0, status=401))
    text, _ = await metrics.exposition("")
    told: dict[str, set[str]] = {}
    for line in text.decode().splitlines():
        if not line.startswith(("#", "process_")):
            found = re.match(r"(\w+?)(?:_bucket|_sum|_count)?(?:\{(.*)\})? ", line)
            assert found is not None
            name, labels = found.groups()
            told.setdefault(name, set()).update(set(re.findall(r'(\w+)="', labels or "")) - {"le"})
    listed = {
        name: set(quoted(labels))
        for names, labels, _ in table("name", "labels", "what")
        for name in quoted(names)
    }

    assert listed == told


# ---- the whole ----


def test_the_document_is_short_enough_to_be_read() -> None:
    """And every section that a reader looks for is there."""
    heads = re.findall(r"^## (.*)$", DOCUMENT, re.MULTILINE)

    assert len(DOCUMENT.splitlines()) < 520
    assert {"Endpoints", "Headers", "Errors", "Settings", "Limits", "Security"} <= set(heads)
    assert set(re.findall(r"localhost:(\d+)", DOCUMENT)) == {str(DEFAULT_PORT)}
