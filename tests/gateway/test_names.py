"""A model is reachable under every name that a person would try, on every endpoint."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from gateway_client import BY_NAME, Client, Reply, open_client
from trio.testing import MockClock

from punch.backends import MockBackend, MockScript
from punch.capability import ModelOffer
from punch.gateway import GatewaySettings, KeyStore
from punch.routing.names import Alias, Aliases
from punch.testing import ScriptedBackend

ASKED: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "x"}], "max_tokens": 1},
    "/v1/completions": {"prompt": "x", "max_tokens": 1},
    "/v1/responses": {"input": "x", "max_output_tokens": 1},
    "/v1/embeddings": {"input": "x"},
    "/api/chat": {"messages": [{"role": "user", "content": "x"}], "stream": False},
    "/api/generate": {"prompt": "x", "stream": False},
    "/api/embed": {"input": "x"},
    "/api/embeddings": {"prompt": "x"},
    "/api/show": {},
}

TWO = ("SmolLM2-135M-Instruct.Q4_1", "llama3.2:latest")


def model(name: str = "mock") -> MockBackend:
    """A model of this name."""
    return MockBackend(MockScript(model=name))


def embedder(name: str) -> ScriptedBackend:
    """A model of this name that embeds and does nothing else."""
    return ScriptedBackend(offers=(ModelOffer(name=name, features=frozenset({"embed"})),))


def several(*names: str) -> dict[str, Any]:
    """A listener for each of these models."""
    return {f"l{number}": model(name) for number, name in enumerate(names)}


async def ask(client: Client, said: str, path: str = "/v1/chat/completions", **more: str) -> Reply:
    """Ask for the model *said* at this endpoint."""
    return await client.post(path, ASKED[path] | {"model": said}, **more)


@pytest.mark.parametrize("path", ASKED)
async def test_every_endpoint_takes_every_name(path: str, autojump_clock: MockClock) -> None:
    """The offered one, the file's, what Ollama's clients make of it, what it is pulled by."""
    names = ["smollm2", "SmolLM2-135M-Instruct", "smollm2-135m-instruct.q4_1.gguf", *TWO]
    names += ["llama3.2", "Llama3.2", "llama3.2.gguf", "auto", "auto:latest", "x/llama3.2"]
    async with open_client(several(*TWO)) as client:
        found = {said: (await ask(client, said, path)).status for said in names}
    assert found == dict.fromkeys(names, 200)


@pytest.mark.parametrize("path", [path for path in ASKED if path != "/api/show"])
async def test_a_name_that_may_be_several_is_refused_with_them(
    path: str, autojump_clock: MockClock
) -> None:
    """It is no such model, and those that it may be are named, whoever is asked."""
    async with open_client(several("llama3.2:1b", "llama3.2:3b")) as client:
        reply = await ask(client, "llama3.2", path)
        unknown = await ask(client, "qwen3", path)
    assert [reply.status, unknown.status] == [404, 404]
    assert b"'llama3.2' may mean several models; name one: llama3.2:1b, llama3.2:3b" in reply.body
    assert b"no listener offers 'qwen3'; on offer: llama3.2:1b, llama3.2:3b" in unknown.body


async def test_a_model_is_shown_by_every_name(autojump_clock: MockClock) -> None:
    """By its own name; `auto` is itself."""
    async with open_client(several("org/llama3.2:latest", "b")) as client:
        found = [
            (await client.get(f"/v1/models/{said}")).json()["id"]
            for said in ("org/llama3.2:latest", "org/llama3.2", "llama3.2", "LLAMA3.2.gguf", "auto")
        ]
        nobody = await client.get("/v1/models/other")
        several_ = await client.post("/api/show", {"model": "llama3"})
    assert found == [*["org/llama3.2:latest"] * 4, "auto"]
    assert [nobody.status, several_.status] == [404, 404]
    assert nobody.error["code"] == "model_not_found"


async def test_the_answer_names_the_model_that_made_it(autojump_clock: MockClock) -> None:
    """In the body, and in a header where it was called otherwise; that pages may read it, too."""
    async with open_client(several("llama3.2:latest", "b")) as client:
        reply = await ask(client, "llama3.2")
        same = await ask(client, "b")
        streamed = await client.chat(model="llama3.2", stream=True, max_tokens=2)
    assert reply.json()["model"] == "llama3.2:latest"
    assert reply.headers["x-punch-model"] == "llama3.2:latest"
    assert "x-punch-model" not in same.headers
    assert streamed.headers["x-punch-model"] == "llama3.2:latest"
    assert streamed.events()[0]["model"] == "llama3.2:latest"


# ---- one model on offer ----


@pytest.mark.parametrize("path", ASKED)
async def test_any_name_means_the_only_model(path: str, autojump_clock: MockClock) -> None:
    """Demos say test."""
    async with open_client({"a": model("tiny")}) as client:
        replies = [await ask(client, said, path) for said in ("test", "gpt-4o", "any:7b")]
    assert [reply.status for reply in replies] == [200, 200, 200]
    if path != "/api/show":
        assert [reply.headers["x-punch-model"] for reply in replies] == ["tiny"] * 3


async def test_a_model_that_chats_and_one_that_embeds_are_one_each(
    autojump_clock: MockClock,
) -> None:
    """Any name means the one that can do what is asked."""
    async with open_client({"a": model("tiny"), "b": embedder("nomic")}) as client:
        chat = await ask(client, "test")
    assert chat.status == 200
    assert chat.headers["x-punch-model"] == "tiny"


async def test_with_two_models_a_name_is_meant(autojump_clock: MockClock) -> None:
    """And so it is where the setting is off."""
    async with open_client(several("a", "b")) as client:
        of_two = await ask(client, "test")
    async with open_client({"a": model("a")}, settings=BY_NAME) as client:
        off = await ask(client, "test")
        shown = await client.get("/v1/models/test")
    assert [of_two.status, off.status, shown.status] == [404, 404, 404]


async def test_a_name_that_came_before_any_listener_means_the_first(
    autojump_clock: MockClock,
) -> None:
    """A program and its listener may be started at the same moment."""
    async with open_client({}) as client:
        async with client.open(
            "POST", "/v1/chat/completions", ASKED["/v1/chat/completions"] | {"model": "test"}
        ) as connection:
            await client.swarm.listener("late", model("tiny"))
    assert connection.reply.status == 200
    assert connection.reply.headers["x-punch-model"] == "tiny"


# ---- aliases ----


async def test_an_alias_is_a_name_on_every_endpoint(autojump_clock: MockClock) -> None:
    """From the moment on that it is set."""
    async with open_client(several("llama3.2:latest", "b"), settings=BY_NAME) as client:
        before = await ask(client, "gpt-4o-mini")
        client.router.aliases = Aliases(map(Alias.of, ("gpt-*=llama3.2", "b=llama3.2")))
        replies = [await ask(client, "gpt-4o-mini", path) for path in ASKED]
        other = await ask(client, "b")
        shown = await client.get("/v1/models/gpt-4o-mini")
        client.router.aliases = Aliases(map(Alias.of, ("a=b", "any=auto", "gpt-*=b", "x=gone")))
        listed = (await client.get("/v1/models")).json()["data"]
    assert [each["id"] for each in listed] == ["auto", "b", "llama3.2:latest", "a", "any"]
    assert [each["punch"]["alias_of"] for each in listed[3:]] == ["b", "auto"]
    assert before.status == 404
    assert {reply.status for reply in replies} == {200}
    assert other.headers["x-punch-model"] == "llama3.2:latest"
    assert shown.json()["id"] == "llama3.2:latest"


# ---- one file, several names ----

DIGEST = "d" * 64


async def test_peers_with_one_file_answer_for_each_other_by_any_of_its_names(
    autojump_clock: MockClock,
) -> None:
    """Each is asked by its own name, and says it."""
    backends = {
        name: ScriptedBackend(
            simulated=False, slots=1, offers=(ModelOffer(name=name, digest=DIGEST),)
        )
        for name in ("llama3.2:latest", "Llama-3.2-3B-Q4_K_M")
    }
    listeners = {f"l{number}": backend for number, backend in enumerate(backends.values())}
    async with open_client(listeners) as client:
        replies = [await ask(client, "llama3.2") for _ in range(40)]
    assert {reply.status for reply in replies} == {200}
    assert {reply.json()["model"] for reply in replies} == set(backends)


# ---- keys ----


@pytest.fixture
def keys(tmp_path: Path) -> Iterator[KeyStore]:
    """An empty file of keys."""
    with KeyStore(tmp_path / "keys.sqlite3") as store:
        yield store


async def test_a_key_is_for_models_by_any_spelling_and_by_no_alias(
    keys: KeyStore, autojump_clock: MockClock
) -> None:
    """Who sets an alias, or offers another model, does not change what a key may use."""
    _, secret = keys.create("k", models=["SMOLLM2.gguf"])
    headers = {"authorization": f"Bearer {secret}"}
    aliases = Aliases(map(Alias.of, ("smollm2=big", "gpt=smollm2", "*=big")))
    async with open_client(several("smollm2:latest", "big"), keys=keys) as client:
        client.router.aliases = aliases
        found = {}
        for said in ("smollm2", "SmolLM2", "smollm2:latest", "gpt", "auto", "big", "other"):
            reply = await ask(client, said, **headers)
            found[said] = reply.json()["model"] if reply.status == 200 else reply.status
    assert found == {
        **dict.fromkeys(("smollm2", "SmolLM2", "smollm2:latest", "auto"), "smollm2:latest"),
        # To the key an alias is nothing; to the gateway it is a model that the key may use.
        "gpt": "smollm2:latest",
        "big": 403,
        "other": 403,
    }


async def test_a_key_whose_model_is_gone_gets_no_other(
    keys: KeyStore, autojump_clock: MockClock
) -> None:
    """Neither by a pattern, nor as the only model, nor by what is left out of a name."""
    _, secret = keys.create("k", models=["smollm2"])
    headers = {"authorization": f"Bearer {secret}"}
    settings = GatewaySettings(any_name=True)
    async with open_client({"a": model("smollm2:70b")}, keys=keys, settings=settings) as client:
        client.router.aliases = Aliases(
            [Alias("*", "smollm2:70b"), Alias("smollm2", "smollm2:70b")]
        )
        found = [(await ask(client, said, **headers)).status for said in ("smollm2", "auto", "x")]
    assert found == [403, 404, 403]


async def test_with_keys_any_name_means_nothing_unless_it_is_set(
    keys: KeyStore, autojump_clock: MockClock
) -> None:
    """Then only what the key may use."""
    _, all_ = keys.create("all")
    _, one = keys.create("one", models=["tiny"])
    _, other = keys.create("other", models=["big"])
    found = []
    for settings in (GatewaySettings(), GatewaySettings(any_name=True)):
        async with open_client({"a": model("tiny")}, keys=keys, settings=settings) as client:
            for secret in (all_, one, other):
                reply = await ask(client, "test", authorization=f"Bearer {secret}")
                found.append(reply.status)
    assert found == [404, 403, 403, 200, 200, 403]


async def test_of_several_that_a_name_may_mean_a_key_may_use_one(
    keys: KeyStore, autojump_clock: MockClock
) -> None:
    """So that one is meant."""
    _, secret = keys.create("k", models=["llama3.2:1b"])
    async with open_client(several("llama3.2:1b", "llama3.2:3b"), keys=keys) as client:
        reply = await ask(client, "llama3.2", authorization=f"Bearer {secret}")
    assert reply.json()["model"] == "llama3.2:1b"


async def test_a_record_says_what_was_said_and_what_that_means(autojump_clock: MockClock) -> None:
    """For the log, the metrics and the dashboard."""
    async with open_client(several("llama3.2:latest", "b")) as client:
        await ask(client, "llama3.2")
        record = client.seen.last
    assert (record.said, record.model) == ("llama3.2", "llama3.2:latest")
    assert attrs.asdict(record, recurse=False)["status"] == 200
