"""Who may come in: keys, pages from elsewhere, names that are none of ours."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gateway_client import open_client
from prometheus_text import told
from trio.testing import MockClock

from punch.backends import MockBackend, MockScript
from punch.exceptions import ConfigurationError
from punch.gateway import GatewayParts, GatewaySettings, KeyStore, open_gateway, open_metrics
from punch.gateway._app import Door
from punch.testing import open_swarm

CHAT = "/v1/chat/completions"
QUESTION = {"messages": [{"role": "user", "content": "tell me"}], "max_tokens": 2}


def mock(**script: Any) -> MockBackend:
    return MockBackend(MockScript(**script))


# ---- keys ----


@pytest.fixture
def keys(tmp_path: Path) -> Iterator[KeyStore]:
    with KeyStore(tmp_path / "keys") as store:
        yield store


async def test_with_keys_on_nobody_asks_without_one(keys: KeyStore) -> None:
    """401, and what to do about it."""
    _, secret = keys.create("me")
    async with open_client({"a": mock()}, keys=keys) as client:
        none = await client.post(CHAT, QUESTION)
        wrong = await client.post(CHAT, QUESTION, authorization="Bearer pk-x-y")
        right = await client.post(CHAT, QUESTION, authorization=f"Bearer {secret}")
        other = await client.post(CHAT, QUESTION, x_api_key=secret)
        listed = await client.get("/v1/models")
        ollama = await client.post("/api/chat", {"model": "mock"})
    assert [none.status, wrong.status, right.status, other.status] == [401, 401, 200, 200]
    assert none.error["code"] == "invalid_api_key"
    assert none.headers["www-authenticate"].startswith("Bearer")
    assert listed.status == 401
    assert ollama.status == 401
    assert ollama.json().keys() == {"error"}


async def test_what_says_nothing_of_anybody_needs_no_key(keys: KeyStore) -> None:
    """Whoever watches the process has none."""
    async with open_client({"a": mock()}, keys=keys) as client:
        paths = ("/", "/health", "/ready", "/openapi.json", "/api/version")
        statuses = [(await client.get(path)).status for path in paths]
        secret = await client.get("/v1/models")
    assert statuses == [200] * 5
    assert secret.status == 401


async def test_a_key_gets_its_models_only(keys: KeyStore) -> None:
    """403 for another one; any model is its only one."""
    _, secret = keys.create("me", models=["one"])
    async with open_client({"a": mock(model="one"), "b": mock(model="two")}, keys=keys) as client:
        client.headers["authorization"] = f"Bearer {secret}"
        other = await client.post(CHAT, QUESTION | {"model": "two"})
        any_model = await client.post(CHAT, QUESTION)
    assert other.status == 403
    assert other.error["code"] == "model_not_allowed"
    assert any_model.json()["model"] == "one"
    assert client.seen.last.key_id == keys.list()[0].key_id


async def test_a_key_over_its_quota_is_told_when_to_come_again(keys: KeyStore) -> None:
    """429 with Retry-After."""
    _, secret = keys.create("me", requests_per_minute=1)
    async with open_client({"a": mock()}, keys=keys) as client:
        client.headers["authorization"] = f"Bearer {secret}"
        statuses = [(await client.post(CHAT, QUESTION)).status for _ in range(4)]
        last = await client.post(CHAT, QUESTION)
    assert statuses[0] == 200
    assert last.status == 429
    assert int(last.headers["retry-after"]) >= 1
    assert client.seen.last.error_code == "quota"


async def test_an_answer_is_for_the_key_that_asked_for_it(keys: KeyStore) -> None:
    """The same id of another key is another request, and says so."""
    secrets = [keys.create(name)[1] for name in ("ada", "bob")]
    async with open_client({"a": mock()}, keys=keys) as client:
        replies = [
            await client.post(CHAT, QUESTION, authorization=f"Bearer {secret}", x_request_id="one")
            for secret in (*secrets, secrets[0])
        ]
    ids = [reply.headers["x-request-id"] for reply in replies]
    ada, bob = (f"one@{key.key_id}" for key in sorted(keys.list(), key=lambda key: key.name))
    assert ids == [ada, bob, ada]
    assert [reply.headers["x-punch-decision"] == "replayed" for reply in replies] == [
        False,
        False,
        True,
    ]


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::"])
async def test_strangers_need_keys_or_the_operators_word(
    host: str, autojump_clock: MockClock
) -> None:
    """Another interface than loopback is not opened by accident."""
    parts = GatewayParts(settings=GatewaySettings(host=host, port=0))
    async with open_swarm() as swarm, swarm.router() as router:
        with pytest.raises(ConfigurationError, match="--open-to-all"):
            async with open_gateway(router, parts):
                pass


# ---- pages from elsewhere ----


async def test_a_page_from_elsewhere_may_not_ask(autojump_clock: MockClock) -> None:
    """A browser would send it along with whatever the page says."""
    async with open_client({"a": mock()}) as client:
        foreign = await client.post(CHAT, QUESTION, origin="https://example.org")
        own = await client.post(CHAT, QUESTION, origin="http://localhost")
    assert foreign.status == 403
    assert foreign.error["code"] == "origin_not_allowed"
    assert own.status == 200


async def test_a_page_that_was_allowed_may(autojump_clock: MockClock) -> None:
    """And its browser is told so, before and with the answer."""
    settings = GatewaySettings(origins=("https://example.org",))
    async with open_client({"a": mock()}, settings=settings) as client:
        before = await client.request(
            "OPTIONS",
            CHAT,
            origin="https://example.org",
            access_control_request_method="POST",
            access_control_request_headers="authorization, x-request-id",
        )
        reply = await client.post(CHAT, QUESTION, origin="https://example.org")
        other = await client.post(CHAT, QUESTION, origin="https://example.com")
    assert before.status == 204
    assert before.headers["access-control-allow-origin"] == "https://example.org"
    assert before.headers["access-control-allow-headers"] == "authorization, x-request-id"
    assert "POST" in before.headers["access-control-allow-methods"]
    assert reply.status == 200
    assert reply.headers["access-control-allow-origin"] == "https://example.org"
    assert "X-Punch-Peer" in reply.headers["access-control-expose-headers"]
    assert other.status == 403


async def test_by_default_no_page_is_told_that_it_may(autojump_clock: MockClock) -> None:
    """No header of the kind."""
    async with open_client({"a": mock()}) as client:
        reply = await client.request(
            "OPTIONS", CHAT, origin="https://example.org", access_control_request_method="POST"
        )
    assert not [name for name in reply.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:11435", 200),
        ("127.0.0.1:11435", 200),
        ("[::1]:11435", 200),
        ("host.docker.internal", 200),
        ("example.org", 403),
        ("127.0.0.1.example.org", 403),
        ("localhost.example.org", 403),
    ],
)
async def test_a_name_that_was_made_to_point_here_is_refused(
    host: str, status: int, autojump_clock: MockClock
) -> None:
    """A page of that name would count as one of ours (DNS rebinding)."""
    async with open_client({"a": mock()}) as client:
        reply = await client.get("/v1/models", host=host)
    assert reply.status == status


async def test_a_browser_asks_what_it_may_send_before_it_has_a_key(keys: KeyStore) -> None:
    """A preflight carries none, and the request after it does."""
    _, secret = keys.create("me")
    settings = GatewaySettings(origins=("https://example.org",))
    async with open_client({"a": mock()}, keys=keys, settings=settings) as client:
        before = await client.request(
            "OPTIONS",
            CHAT,
            origin="https://example.org",
            access_control_request_method="POST",
            access_control_request_headers="authorization",
        )
        bare = await client.post(CHAT, QUESTION, origin="https://example.org")
        reply = await client.post(
            CHAT, QUESTION, origin="https://example.org", authorization=f"Bearer {secret}"
        )
    assert before.status == 204
    assert before.headers["access-control-allow-headers"] == "authorization"
    assert (bare.status, reply.status) == (401, 200)
    for answer in (before, bare, reply):
        assert answer.headers["access-control-allow-origin"] == "https://example.org"


@pytest.mark.parametrize(
    "said",
    [
        "https://example.org/",
        "https://EXAMPLE.org",
        "HTTPS://example.org",
        "https://example.org:443",
    ],
)
def test_an_origin_is_taken_as_browsers_write_it(said: str) -> None:
    """However it was typed."""
    assert Door(origins=(said,)).cors.allows("https://example.org")


@pytest.mark.parametrize(
    "said", ["example.org", "https://example.org/app", "https://", "http://[", "https://me@x.org"]
)
def test_what_is_no_origin_is_refused_at_the_start(said: str) -> None:
    """It would never match, and nobody would know why."""
    with pytest.raises(ConfigurationError, match="is no origin"):
        Door(origins=(said,))


async def test_an_origin_that_is_none_is_a_stranger(autojump_clock: MockClock) -> None:
    """Not a bug."""
    async with open_client({"a": mock()}) as client:
        reply = await client.post(CHAT, QUESTION, origin="http://[")
    assert reply.status == 403
    assert reply.error["code"] == "origin_not_allowed"


async def test_who_is_sent_away_is_counted(keys: KeyStore) -> None:
    """Bad keys, paths that are none, wrong methods: nobody else would know of them."""
    async with open_client({"a": mock()}, keys=keys) as client:
        async with open_metrics(client.router, events=client.app.service.live.events) as metrics:
            await client.post(CHAT, QUESTION)
            await client.get("/v1/models", authorization="Bearer pk-x-y")
            await client.post("/health", {})
            found = await told(metrics)
    assert found["punch_refused_total", "401"] == 2
    assert found["punch_refused_total", "405"] == 1
    assert not [name for name in found if name[0] == "punch_requests_total"]


# ---- what there is ----


async def test_options_say_what_may_be_done(autojump_clock: MockClock) -> None:
    """And nothing is there for an unknown path."""
    async with open_client({"a": mock()}) as client:
        known = await client.request("OPTIONS", CHAT)
        unknown = await client.request("OPTIONS", "/nothing")
    assert known.status == 204
    assert known.headers["allow"] == "OPTIONS, POST"
    assert unknown.status == 404


async def test_health_is_for_the_process_and_ready_for_the_network(
    autojump_clock: MockClock,
) -> None:
    """A gateway with nobody behind it lives, and is not ready."""
    async with open_client({}) as client:
        health = await client.get("/health")
        ready = await client.get("/ready")
        await client.swarm.listener("late", mock())
        await client.router.wait_for_peers()
        later = await client.get("/ready")
    assert health.status == 200
    assert ready.status == 503
    assert ready.error["message"] == "no listener is known yet"
    assert later.json() == {"ready": True, "peers": 1}


async def test_the_description_names_every_route_and_every_field(autojump_clock: MockClock) -> None:
    """It is made from the models that the bodies are checked with."""
    async with open_client({}) as client:
        described = (await client.get("/openapi.json")).json()
        known = {route.path for route in client.app._routes.routes}
    paths = set(described["paths"])
    assert {path.replace(":path", "") for path in known} - paths == {"/"}
    chat = described["components"]["schemas"]["ChatBody"]
    assert chat["additionalProperties"] == {"type": "null"}
    assert {"tools", "response_format", "logprobs", "punch"} <= chat["properties"].keys()
    for path in paths - {"/openapi.json"}:
        for operation in described["paths"][path].values():
            assert {"200", "400", "500"} <= operation["responses"].keys()
