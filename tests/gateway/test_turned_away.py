"""Whatever is wrong with a request, each dialect's clients read the error in their own shape."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from gateway_client import BY_NAME, Reply, open_client
from trio.testing import MockClock

from punch.backends import MockBackend, MockScript
from punch.gateway import GatewaySettings, KeyStore, Limits

TURN = {"role": "user", "content": "tell me"}
CHAT = {"model": "mock", "messages": [TURN], "max_tokens": 2}

# Each dialect's way to ask a question.
ASKED: Mapping[str, tuple[str, dict[str, Any]]] = {
    "openai": ("/v1/chat/completions", CHAT),
    "ollama": (
        "/api/chat",
        {"model": "mock", "messages": [TURN], "stream": False, "options": {"num_predict": 2}},
    ),
    "anthropic": ("/v1/messages", CHAT),
}

# By the status, as https://docs.claude.com/en/api/errors has them.
ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "request_too_large",
    415: "invalid_request_error",
    429: "rate_limit_error",
    503: "overloaded_error",
}


def mock() -> MockBackend:
    return MockBackend(MockScript())


def check(reply: Reply, dialect: str, status: int) -> str:
    """That *reply* is an error of this *status* in the shape of *dialect*; what it says."""
    assert reply.status == status, reply.body
    assert reply.headers["content-type"].startswith("application/json")
    found = reply.json()
    match dialect:
        case "ollama":
            assert found.keys() == {"error"}
            said = found["error"]
        case "anthropic":
            assert found.keys() == {"type", "error", "request_id"}
            assert (found["type"], found["error"].keys()) == ("error", {"type", "message"})
            assert found["error"]["type"] == ANTHROPIC_TYPES[status]
            assert found["request_id"]
            assert reply.headers["request-id"] == found["request_id"]
            said = found["error"]["message"]
        case _:
            assert found["error"].keys() == {"message", "type", "param", "code"}
            assert found["error"]["code"]
            said = found["error"]["message"]
    assert isinstance(said, str)
    assert said
    return said


@pytest.fixture(params=ASKED)
def dialect(request: pytest.FixtureRequest) -> str:
    """One after another."""
    return str(request.param)


@pytest.fixture
def keys(tmp_path: Path) -> Iterator[KeyStore]:
    with KeyStore(tmp_path / "keys") as store:
        yield store


# ---- keys ----


async def test_who_has_no_key_is_told_so_in_its_own_words(keys: KeyStore, dialect: str) -> None:
    """None, a wrong one, and one in the place of a password."""
    path, body = ASKED[dialect]
    keys.create("me")
    async with open_client({"a": mock()}, keys=keys) as client:
        for headers in (
            {},
            {"authorization": "Bearer pk-x-y"},
            {"x_api_key": "pk-x-y"},
            {"authorization": "Basic bWU6eA=="},
            {"authorization": "Bearer "},
        ):
            reply = await client.post(path, body, **headers)
            check(reply, dialect, 401)
            assert reply.headers["www-authenticate"].startswith("Bearer")


async def test_a_key_comes_in_either_header(keys: KeyStore, dialect: str) -> None:
    """Clients of one dialect are used for another, and some fill in both."""
    path, body = ASKED[dialect]
    _, secret = keys.create("me")
    async with open_client({"a": mock()}, keys=keys) as client:
        for headers in (
            {"authorization": f"Bearer {secret}"},
            {"authorization": f"bearer  {secret} "},
            {"x_api_key": secret},
            {"x_api_key": f" {secret}"},
            {"authorization": f"Bearer {secret}", "x_api_key": "dummy"},
            {"authorization": "Bearer dummy", "x_api_key": secret},
            {"authorization": "Basic bWU6eA==", "x_api_key": secret},
        ):
            assert (await client.post(path, body, **headers)).status == 200, headers


async def test_a_key_that_may_not_use_a_model_is_told_so(keys: KeyStore, dialect: str) -> None:
    """And which it may use, or that the model is none of its own."""
    path, body = ASKED[dialect]
    _, secret = keys.create("me", models=["other"])
    async with open_client({"a": mock()}, keys=keys) as client:
        reply = await client.post(path, body, x_api_key=secret)
    check(reply, dialect, 403)


async def test_a_key_over_its_quota_hears_when_to_come_again(keys: KeyStore, dialect: str) -> None:
    """In the header that every client's retries go by."""
    path, body = ASKED[dialect]
    _, secret = keys.create("me", requests_per_minute=1)
    async with open_client({"a": mock()}, keys=keys) as client:
        client.headers["x-api-key"] = secret
        first = await client.post(path, body)
        reply = first
        while reply.status == 200:
            reply = await client.post(path, body)
    assert first.status == 200
    check(reply, dialect, 429)
    assert 1 <= int(reply.headers["retry-after"]) <= 60


async def test_a_stream_over_the_quota_is_an_error_and_no_stream(
    keys: KeyStore, dialect: str
) -> None:
    """With its status: retries go by that."""
    path, body = ASKED[dialect]
    _, secret = keys.create("me", requests_per_minute=1)
    async with open_client({"a": mock()}, keys=keys) as client:
        client.headers["x-api-key"] = secret
        reply = await client.post(path, body | {"stream": True})
        while reply.status == 200:
            reply = await client.post(path, body | {"stream": True})
    check(reply, dialect, 429)


# ---- models and paths ----


async def test_a_model_that_nobody_has_is_a_404(dialect: str, autojump_clock: MockClock) -> None:
    """Ollama's clients look for the words."""
    path, body = ASKED[dialect]
    async with open_client({"a": mock()}, settings=BY_NAME) as client:
        reply = await client.post(path, body | {"model": "nobody-has-it"})
    said = check(reply, dialect, 404)
    assert "nobody-has-it" in said
    assert dialect != "ollama" or "not found" in said


async def test_without_a_listener_it_is_a_503_to_be_asked_again(
    dialect: str, autojump_clock: MockClock
) -> None:
    """Official clients try again after what the header says."""
    path, body = ASKED[dialect]
    async with open_client({}) as client:
        reply = await client.post(path, body | {"model": "auto"})
    check(reply, dialect, 503)
    assert int(reply.headers["retry-after"]) >= 1


@pytest.mark.parametrize(
    ("path", "headers", "dialect"),
    [
        ("/v1/nothing", {}, "openai"),
        ("/nothing", {}, "openai"),
        ("/api/nothing", {}, "ollama"),
        ("/v1/messages/nothing", {}, "anthropic"),
        ("/v1/nothing", {"anthropic_version": "2023-06-01"}, "anthropic"),
        ("/v1/models/nobody-has-it", {}, "openai"),
        ("/v1/models/nobody-has-it", {"anthropic_version": "2023-06-01"}, "anthropic"),
    ],
)
async def test_a_path_with_nothing_at_it_is_a_404(
    path: str, headers: dict[str, str], dialect: str, autojump_clock: MockClock
) -> None:
    """In the shape of whose path it is, or of whose client asks."""
    async with open_client({"a": mock()}, settings=BY_NAME) as client:
        for method in ("GET", "POST") if "models" not in path else ("GET",):
            reply = await client.request(method, path, **headers)
            check(reply, dialect, 404)


async def test_another_method_is_a_405_with_those_that_do(
    dialect: str, autojump_clock: MockClock
) -> None:
    """RFC 9110, section 15.5.6: the answer says which."""
    path, _ = ASKED[dialect]
    async with open_client({"a": mock()}) as client:
        for method in ("GET", "PUT", "PATCH", "DELETE"):
            reply = await client.request(method, path)
            check(reply, dialect, 405)
            assert reply.headers["allow"] == "OPTIONS, POST"


async def test_a_list_is_no_place_to_post_to(autojump_clock: MockClock) -> None:
    """The same rule where one reads."""
    async with open_client({"a": mock()}) as client:
        for path, name in (("/v1/models", "openai"), ("/api/tags", "ollama")):
            reply = await client.post(path, {})
            check(reply, name, 405)
            assert reply.headers["allow"] == "GET, HEAD, OPTIONS"


async def test_a_look_without_the_body_says_what_it_would_be(autojump_clock: MockClock) -> None:
    """Ollama's own command asks HEAD / before anything else."""
    async with open_client({"a": mock()}) as client:
        for path in ("/", "/api/tags", "/api/version", "/api/ps", "/v1/models"):
            bare, whole = await client.request("HEAD", path), await client.get(path)
            assert (bare.status, whole.status) == (200, 200)
            assert bare.headers["content-type"] == whole.headers["content-type"]


# ---- addresses as programs put them together ----


async def test_an_address_may_be_put_together_carelessly(
    dialect: str, autojump_clock: MockClock
) -> None:
    """A base that ends with a slash or with the version, before a path that begins with it."""
    path, body = ASKED[dialect]
    forms = ["{}/", "/{}", "{}//", "//{}", "{}?beta=true", "{}?"]
    if dialect != "ollama":
        forms += ["/v1{}", "/v1/{}/"]
    async with open_client({"a": mock()}) as client:
        for form in forms:
            address, _, query = form.format(path).partition("?")
            reply = await client.request("POST", address, body, query=query)
            assert reply.status == 200, form


async def test_lists_are_found_as_carelessly(autojump_clock: MockClock) -> None:
    """The same rule where one reads."""
    async with open_client({"a": mock()}) as client:
        for path in ("/v1/models/", "//v1/models", "/api//tags", "/v1//models/mock/", "/models/"):
            assert (await client.get(path)).status == 200, path


async def test_no_careless_address_passes_the_door(keys: KeyStore) -> None:
    """What needs a key needs it however it is spelled."""
    keys.create("me")
    async with open_client({"a": mock()}, keys=keys) as client:
        for path in (
            "/v1/models/",
            "//v1/models",
            "///",
            "/assets/../v1/models",
            "//assets//../v1/models",
            "/health/../v1/models",
            "//api/dashboard/snapshot/",
            "/metrics/",
        ):
            reply = await client.get(path)
            assert reply.status in (401, 404) or path == "///", path


# ---- bodies ----


# Nothing, a piece of something, and what is JSON and no object.
NO_OBJECTS = (
    *(b"", b" ", b"{", b"no", b'{"model": "mock",}', b"\xff\xfe"),
    *(b"null", b"[]", b'"text"', b"7"),
)
NO_JSON = ("text/plain", "application/xml", "multipart/form-data; boundary=x")
JSON = (
    "application/json; charset=utf-8",
    "application/json;charset=UTF-8",
    "APPLICATION/JSON",
    "application/vnd.api+json",
    "",
)


async def test_a_body_that_is_no_object_is_a_400(dialect: str, autojump_clock: MockClock) -> None:
    """Whatever else it is."""
    path, _ = ASKED[dialect]
    async with open_client({"a": mock()}) as client:
        for body in NO_OBJECTS:
            check(await client.post(path, [body]), dialect, 400)


async def test_a_body_that_is_said_to_be_no_json(dialect: str, autojump_clock: MockClock) -> None:
    """Ollama reads what it gets, whatever that is called: curl says that it is a form."""
    path, body = ASKED[dialect]
    async with open_client({"a": mock()}) as client:
        for kind in NO_JSON:
            reply = await client.post(path, body, content_type=kind)
            if dialect == "ollama":
                assert reply.status == 200
            else:
                assert "application/json" in check(reply, dialect, 415)


async def test_a_body_may_say_how_it_is_written(dialect: str, autojump_clock: MockClock) -> None:
    """JSON is UTF-8, said or not."""
    path, body = ASKED[dialect]
    async with open_client({"a": mock()}) as client:
        for kind in JSON:
            assert (await client.post(path, body, content_type=kind)).status == 200, kind
        marked = codecs.BOM_UTF8 + json.dumps(body).encode()
        assert (await client.post(path, [marked])).status == 200


async def test_a_packed_body_is_refused_with_what_is_taken(
    dialect: str, autojump_clock: MockClock
) -> None:
    """RFC 9110, section 12.5.3: a client that hears it sends the next one plain."""
    path, body = ASKED[dialect]
    async with open_client({"a": mock()}) as client:
        packed = await client.post(path, body, content_encoding="gzip")
        plain = await client.post(path, body, content_encoding="identity")
    check(packed, dialect, 415)
    assert packed.headers["accept-encoding"] == "identity"
    assert plain.status == 200


@pytest.mark.parametrize("is_announced", [True, False])
async def test_a_body_that_is_too_long_is_a_413(
    is_announced: bool, dialect: str, autojump_clock: MockClock
) -> None:
    """Said before, or found out."""
    path, body = ASKED[dialect]
    settings = GatewaySettings(limits=Limits(body=1000))
    body = body | {"messages": [{"role": "user", "content": "x" * 2000}]}
    async with open_client({"a": mock()}, settings=settings) as client:
        headers = {} if is_announced else {"content_length": "", "transfer_encoding": "chunked"}
        reply = await client.post(path, body, **headers)
    assert "1000 bytes" in check(reply, dialect, 413)
    assert reply.headers["connection"] == "close"


# ---- pages from elsewhere ----


async def test_a_browser_may_ask_what_the_official_clients_send(
    dialect: str, autojump_clock: MockClock
) -> None:
    """OpenAI's and Anthropic's clients for browsers send a dozen headers of their own."""
    path, body = ASKED[dialect]
    wanted = (
        "anthropic-dangerous-direct-browser-access,anthropic-version,authorization,content-type,"
        "x-api-key,x-stainless-arch,x-stainless-lang,x-stainless-os,x-stainless-package-version,"
        "x-stainless-retry-count,x-stainless-runtime,x-stainless-runtime-version"
    )
    settings = GatewaySettings(origins=("https://example.org",))
    async with open_client({"a": mock()}, settings=settings) as client:
        client.headers["origin"] = "https://example.org"
        before = await client.request(
            "OPTIONS",
            path,
            access_control_request_method="POST",
            access_control_request_headers=wanted,
        )
        reply = await client.post(path, body)
        wrong = await client.post(path, [b"no"])
    assert before.status == 204
    assert before.headers["access-control-allow-headers"] == wanted
    assert "POST" in before.headers["access-control-allow-methods"]
    assert reply.status == 200
    for answer in (before, reply, wrong):
        # Without it the page's script would see no status and no words.
        assert answer.headers["access-control-allow-origin"] == "https://example.org"
    check(wrong, dialect, 400)


async def test_a_page_that_was_not_allowed_hears_why(
    dialect: str, autojump_clock: MockClock
) -> None:
    """In the log of the program, if not in the page."""
    path, body = ASKED[dialect]
    async with open_client({"a": mock()}) as client:
        reply = await client.post(path, body, origin="https://example.org")
    assert "--allow-origin" in check(reply, dialect, 403)
