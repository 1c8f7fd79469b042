"""Responses that are referred to: by the id of an item, or by that of the whole response."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
from gateway_client import Client, open_client
from trio.testing import MockClock

from punch.backends import Emit, Generation
from punch.capability import ModelOffer
from punch.exceptions import GenerationFailed
from punch.gateway import GatewaySettings, KeyStore
from punch.gateway.openai._stored import ResponseStore
from punch.testing import ScriptedBackend
from punch.wire import ChatMessage, CommandRequest, Completion, Thought, Timings, ToolCall, Usage

PATH = "/v1/responses"
FEATURES = frozenset({"chat", "tools", "reasoning"})
TOOL = {"type": "function", "name": "look", "parameters": {"type": "object"}}
USER = {"role": "user", "content": "hi"}


def speaker(asked: list[CommandRequest]) -> ScriptedBackend:
    """Thinks, and calls a tool if it has one and has not called it, or says how often it spoke."""

    async def play(request: CommandRequest, emit: Emit) -> Generation:
        asked.append(request)
        await emit(Thought("hm"), 1)
        said: dict[str, Any] = {"text": "", "reasoning": "hm"}
        if request.tools and not any(message.tool_calls for message in request.messages):
            # Every call has the same id, as those of simple servers have.
            said["tool_calls"] = (ToolCall(id="c1", name="look", arguments='{"at": 1}'),)
        else:
            said["text"] = f"answer {len(asked)}"
            await emit(said["text"], 2)
        usage = Usage(prompt_tokens=3, completion_tokens=2)
        return Generation(completion=Completion(**said), usage=usage, timings=Timings())

    return ScriptedBackend(play, offers=(ModelOffer(name="model", features=FEATURES),))


async def respond(client: Client, said: Any, **fields: Any) -> dict[str, Any]:
    """The response to *said*."""
    reply = await client.post(PATH, {"model": "model", "input": said} | fields)
    assert reply.status == 200, reply.body
    found: dict[str, Any] = reply.events()[-1]["response"] if fields.get("stream") else reply.json()
    return found


def read(request: CommandRequest) -> list[tuple[str, str, str | None, int]]:
    """What the model has read: who, what, what was thought, and how many calls."""
    return [(m.role, m.content, m.reasoning, len(m.tool_calls)) for m in request.messages]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_reference_is_the_item_that_was_sent(
    stream: bool, autojump_clock: MockClock
) -> None:
    """Its text, its thought and its call, as if the client had sent the items themselves."""
    asked: list[CommandRequest] = []
    async with open_client({"a": speaker(asked)}) as client:
        called = await respond(client, "hi", tools=[TOOL], stream=stream)
        text = await respond(client, "hi", stream=stream)
        refer = [
            [{"type": "item_reference", "id": item["id"]} for item in response["output"]]
            for response in (called, text)
        ]
        # OpenAI's own description lets the type be left out.
        refer[1] = [{"id": each["id"]} for each in refer[1]]
        result = {"type": "function_call_output", "call_id": "c1", "output": "ok"}
        await respond(client, [USER, *refer[0], result, USER, *refer[1], USER])
        await respond(client, [USER, *called["output"], result, USER, *text["output"], USER])
    assert read(asked[2]) == [
        ("user", "hi", None, 0),
        ("assistant", "", "hm", 1),
        ("tool", "ok", None, 0),
        ("user", "hi", None, 0),
        ("assistant", "answer 2", "hm", 0),
        ("user", "hi", None, 0),
    ]
    assert asked[2].messages == asked[3].messages


async def test_items_of_two_responses_are_told_apart(autojump_clock: MockClock) -> None:
    """Though their calls have one id."""
    async with open_client({"a": speaker([])}) as client:
        found = [await respond(client, "hi", tools=[TOOL]) for _ in range(2)]
        ids = [item["id"] for response in found for item in response["output"]]
    assert len(set(ids)) == len(ids) == 4


@pytest.mark.parametrize("stream", [False, True])
async def test_a_response_goes_on_from_the_one_before(
    stream: bool, autojump_clock: MockClock
) -> None:
    """With all that was said until then, but for its instructions."""
    asked: list[CommandRequest] = []
    async with open_client({"a": speaker(asked)}) as client:
        first = await respond(client, "one", instructions="be brief", tools=[TOOL], stream=stream)
        result = {"type": "function_call_output", "call_id": "c1", "output": "ok"}
        second = await respond(
            client, [result], previous_response_id=first["id"], tools=[TOOL], stream=stream
        )
        third = await respond(
            client, "two", previous_response_id=second["id"], instructions="be long"
        )
        # Two may follow the same one.
        await respond(client, "three", previous_response_id=first["id"])
    assert (second["previous_response_id"], third["store"]) == (first["id"], True)
    assert read(asked[2]) == [
        ("system", "be long", None, 0),
        ("user", "one", None, 0),
        ("assistant", "", "hm", 1),
        ("tool", "ok", None, 0),
        ("assistant", "answer 2", "hm", 0),
        ("user", "two", None, 0),
    ]
    assert [each.content for each in asked[3].messages] == ["one", "", "three"]


async def not_found(client: Client, response: dict[str, Any], **headers: str) -> None:
    """Neither the response nor an item of it is there, and both errors say what to do."""
    item = {"type": "item_reference", "id": response["output"][-1]["id"]}
    for fields, code, param, remedy in (
        (
            {"input": "x", "previous_response_id": response["id"]},
            "previous_response_not_found",
            "previous_response_id",
            "send the conversation in input",
        ),
        ({"input": [USER, item]}, "item_not_found", "input[1].id", "store = false"),
    ):
        reply = await client.post(PATH, {"model": "model"} | fields, **headers)
        assert reply.status == 400, reply.body
        assert (reply.error["code"], reply.error["param"]) == (code, param)
        assert remedy in reply.error["message"]


async def test_what_is_not_to_be_stored_is_not(autojump_clock: MockClock) -> None:
    """Where the request says so, where the setting does, and where strangers may ask."""
    asked: list[CommandRequest] = []
    async with open_client({"a": speaker(asked)}) as client:
        response = await respond(client, "hi", store=False)
        assert response["store"] is False
        await not_found(client, response)
    for settings in (
        GatewaySettings(store_responses=0),
        GatewaySettings(host="0.0.0.0", open_to_all=True),
    ):
        async with open_client({"a": speaker(asked)}, settings=settings) as client:
            response = await respond(client, "hi", store=True)
            assert response["store"] is False
            await not_found(client, response)


async def test_an_answer_that_broke_is_not_kept(autojump_clock: MockClock) -> None:
    """There is nothing that it could go on from."""

    async def play(request: CommandRequest, emit: Emit) -> Generation:
        await emit("half", 1)
        raise GenerationFailed("the model broke")

    offers = (ModelOffer(name="model", features=FEATURES),)
    async with open_client({"a": ScriptedBackend(play, offers=offers)}) as client:
        ask = {"model": "model", "input": "hi", "stream": True}
        reply = await client.post(PATH, ask)
        first, last = reply.events()[0], reply.events()[-1]
        assert last["type"] == "error"
        ask = {"input": "x", "previous_response_id": first["response"]["id"]}
        assert (await client.post(PATH, ask)).error["code"] == "previous_response_not_found"


async def test_it_is_forgotten_an_hour_after_its_last_use(autojump_clock: MockClock) -> None:
    """Or what else was set. Whoever goes on with it keeps all that is before it."""
    assert GatewaySettings().store_responses == 3600
    # Heartbeats of sessions through hours of virtual time take ten seconds of the real one.
    settings = GatewaySettings(store_responses=60.0)
    async with open_client({"a": speaker([])}, settings=settings) as client:
        first = await respond(client, "one")
        other = await respond(client, "other")
        for _ in range(3):
            await trio.sleep(50)
            first = await respond(client, "more", previous_response_id=first["id"])
        await not_found(client, other)
        await trio.sleep(60.1)
        await not_found(client, first)


async def test_each_key_has_its_own(tmp_path: Path, autojump_clock: MockClock) -> None:
    """An id of another key's is not there."""
    with KeyStore(tmp_path / "keys") as keys:
        one, two = (f"Bearer {keys.create(name)[1]}" for name in ("one", "two"))
        async with open_client({"a": speaker([])}, keys=keys) as client:
            ask = {"model": "model", "input": "hi"}
            response = (await client.post(PATH, ask, authorization=one)).json()
            await not_found(client, response, authorization=two)
            ask |= {"previous_response_id": response["id"]}
            assert (await client.post(PATH, ask, authorization=one)).status == 200


# ---- bounds ----


def keep(store: ResponseStore, name: str, *, key: str | None = None, size: int = 0) -> None:
    """Keep a response whose text has *size* characters."""
    answer = ChatMessage(role="assistant", content="x" * size)
    store.keep(key, name, asked=(), answered={f"msg_{name}": answer}, before=None, now=0.0)


def is_there(store: ResponseStore, name: str, key: str | None = None) -> bool:
    """Whether a response is kept, and its item."""
    try:
        store.conversation(key, name, 0.0)
        store.item(key, f"msg_{name}", 0.0)
    except KeyError:
        return False
    return True


def test_the_one_that_was_used_longest_ago_goes_first() -> None:
    """Of more than are kept."""
    store = ResponseStore(most=2)
    keep(store, "a")
    keep(store, "b")
    assert is_there(store, "a")
    keep(store, "c")
    assert [is_there(store, name) for name in "abc"] == [True, False, True]
    assert len(store) == 2


def test_their_bytes_are_bounded() -> None:
    """Of a text with wide characters by what it takes in memory."""
    store = ResponseStore(most_bytes=10_000)
    keep(store, "a", size=6_000)
    keep(store, "b", size=6_000)
    assert [is_there(store, name) for name in "ab"] == [False, True]
    keep(store, "c", size=20_000)
    assert (len(store), store.size) == (0, 0)


def test_of_several_keys_the_one_with_the_most_loses() -> None:
    """One key crowds out nobody else."""
    store = ResponseStore(most_bytes=20_000)
    keep(store, "mine", key="one", size=100)
    for number in range(50):
        keep(store, f"r{number}", key="two", size=4_000)
    assert is_there(store, "mine", "one")
    assert store.size <= 20_000


def test_a_response_that_is_kept_again_is_there_once() -> None:
    """A replay of an answer changes nothing."""
    store = ResponseStore()
    keep(store, "a", size=10)
    size = store.size
    keep(store, "a", size=10)
    assert (len(store), store.size) == (1, size)


def test_a_circle_of_responses_is_not_there() -> None:
    """Callers choose ids, and may choose one twice."""
    store = ResponseStore()
    for name, before in (("a", None), ("b", "a"), ("a", "b")):
        store.keep(None, name, asked=(), answered={}, before=before, now=0.0)
    with pytest.raises(KeyError):
        store.conversation(None, "b", 0.0)
