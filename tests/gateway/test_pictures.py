"""Pictures: in each dialect's words, to models that take them, checked before anybody is asked."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from gateway_client import open_client
from trio.testing import MockClock

from punch.backends import Emit, Generation
from punch.capability import ModelOffer
from punch.testing import ScriptedBackend
from punch.wire import CommandRequest, Completion, ContentPart, Timings, Usage

CHAT = "/v1/chat/completions"
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJg"
    "gg=="
)
JPEG = b"\xff\xd8\xff\xe0" + bytes(20)
TEXT = base64.b64encode(PNG).decode()
DATA = f"data:image/png;base64,{TEXT}"
PICTURE = ContentPart(type="image", media_type="image/png", data=PNG)
WORDS = ContentPart(type="text", text="What is it?")


def seeing(asked: list[CommandRequest], name: str = "eye", *, sees: bool = True) -> ScriptedBackend:
    async def play(request: CommandRequest, emit: Emit) -> Generation:
        asked.append(request)
        await emit("a cat", 1)
        return Generation(completion=Completion(text="a cat"), usage=Usage(), timings=Timings())

    features = frozenset({"chat", "image"} if sees else {"chat"})
    return ScriptedBackend(play, offers=(ModelOffer(name=name, features=features),))


def chat(url: Any, model: str = "eye") -> dict[str, Any]:
    parts = [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": url if isinstance(url, str) else {"url": url[0]}},
    ]
    return {"model": model, "messages": [{"role": "user", "content": parts}]}


OLLAMA = {
    "model": "eye",
    "stream": False,
    "messages": [{"role": "user", "content": "What is it?", "images": [TEXT]}],
}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, chat([DATA])),
        (CHAT, chat(DATA)),
        (CHAT, chat([f"data:image/jpeg;charset=x;base64,{TEXT}"])),
        (
            "/v1/responses",
            {
                "model": "eye",
                "input": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "input_text", "text": "What is it?"},
                            {"type": "input_image", "image_url": DATA, "detail": "auto"},
                        ],
                    }
                ],
            },
        ),
        ("/api/chat", OLLAMA),
        (
            "/api/generate",
            {"model": "eye", "prompt": "What is it?", "images": [DATA], "stream": False},
        ),
        (
            "/v1/messages",
            {
                "model": "eye",
                "max_tokens": 9,
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "text", "text": "What is it?"},
                            {
                                "type": "image",
                                "source": {
                                    "type": "base64",
                                    "media_type": "image/png",
                                    "data": TEXT,
                                },
                            },
                        ],
                    }
                ],
            },
        ),
    ],
    ids=["chat", "a bare address", "a wrong type", "responses", "ollama", "generate", "anthropic"],
)
async def test_a_picture_reaches_the_model_in_every_dialect(
    path: str, body: dict[str, Any], autojump_clock: MockClock
) -> None:
    """Whatever it is called: its own first bytes say what it is."""
    asked: list[CommandRequest] = []
    async with open_client({"a": seeing(asked)}) as client:
        reply = await client.post(path, body)
    assert reply.status == 200
    (request,) = asked
    assert set(request.messages[-1].parts) == {PICTURE, WORDS}
    assert request.messages[-1].content == "What is it?"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("https://example.org/cat.png", "https addresses are not fetched; send the picture itself"),
        ("file:///etc/passwd", "file addresses are not fetched"),
        ("data:image/png;base64,!!", "it is not base64"),
        ("data:image/png,abc", "must be in base64"),
        (
            f"data:image/png;base64,{base64.b64encode(b'no picture').decode()}",
            "no picture of a kind",
        ),
        ("cat.png", "must be an address data:image"),
    ],
)
async def test_what_is_no_picture_here_is_refused_with_its_place(
    url: str, words: str, autojump_clock: MockClock
) -> None:
    """Nothing is fetched, and nobody is asked."""
    asked: list[CommandRequest] = []
    async with open_client({"a": seeing(asked)}) as client:
        reply = await client.post(CHAT, chat([url]))
    assert (reply.status, asked) == (400, [])
    assert words in reply.error["message"]
    assert reply.error["param"] == "messages[0].content[1].image_url.url"


@pytest.mark.parametrize("kind", ["input_audio", "file", "video_url"])
async def test_parts_of_other_kinds_are_refused_by_name(
    kind: str, autojump_clock: MockClock
) -> None:
    """With what to do."""
    parts = [{"type": kind, kind: {"data": "x"}}]
    body = {"model": "eye", "messages": [{"role": "user", "content": parts}]}
    async with open_client({"a": seeing([])}) as client:
        reply = await client.post(CHAT, body)
    assert reply.status == 400
    assert reply.error["param"] == "messages[0].content[0].type"
    assert "say in text what is in it" in reply.error["message"]


async def test_pictures_of_more_than_five_mebibytes_are_too_large(
    autojump_clock: MockClock,
) -> None:
    """All of a request together; the error says the limit."""
    asked: list[CommandRequest] = []
    half = base64.b64encode(JPEG + bytes((5 << 19) - len(JPEG))).decode()
    body = {**OLLAMA, "messages": [{"role": "user", "content": "?", "images": [half, half]}]}
    more = {**OLLAMA, "messages": [{"role": "user", "content": "?", "images": [half, half, TEXT]}]}
    async with open_client({"a": seeing(asked)}) as client:
        assert (await client.post("/api/chat", body)).status == 200
        reply = await client.post("/api/chat", more)
    assert (reply.status, len(asked)) == (413, 1)
    assert "at most 5242880 (5 MiB)" in reply.json()["error"]


async def test_a_model_that_takes_no_pictures_names_those_that_do(
    autojump_clock: MockClock,
) -> None:
    """And any model is one that does."""
    asked: list[CommandRequest] = []
    blind: list[CommandRequest] = []
    backends = {"a": seeing(asked), "b": seeing(blind, "mole", sees=False)}
    async with open_client(backends) as client:
        reply = await client.post(CHAT, chat([DATA], "mole"))
        for _ in range(4):
            assert (await client.post(CHAT, chat([DATA], "auto"))).status == 200
        models = (await client.get("/v1/models")).json()["data"]
        anthropic = await client.post(
            "/v1/messages",
            {
                "model": "mole",
                "max_tokens": 9,
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {
                                "type": "image",
                                "source": {
                                    "type": "base64",
                                    "media_type": "image/png",
                                    "data": TEXT,
                                },
                            }
                        ],
                    }
                ],
            },
        )
    assert reply.status == anthropic.status == 400
    words = "'mole' does not take pictures; these on offer do: eye"
    assert words in reply.error["message"]
    assert words in anthropic.json()["error"]["message"]
    assert (len(asked), blind) == (4, [])
    assert {m["id"] for m in models if "image" in m.get("punch", {}).get("features", ())} == {"eye"}


async def test_where_no_model_takes_pictures_that_is_said(autojump_clock: MockClock) -> None:
    """Of a model by its name, and of any."""
    async with open_client({"a": seeing([], sees=False)}) as client:
        named = await client.post(CHAT, chat([DATA]))
        any_ = await client.post(CHAT, chat([DATA], "auto"))
    assert (named.status, any_.status) == (400, 400)
    assert "no other model on offer does" in named.error["message"]
    assert any_.error["message"] == "no model on offer takes pictures"
