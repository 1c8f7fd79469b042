"""Records what the peers of one commit say to each other, as bytes that later ones must understand.

    git archive COMMIT | tar -x -C FOLDER
    cd FOLDER && PYTHONPATH=.:tests python .../tests/recorded/record.py .../tests/recorded/c554520

The peers are real ones of that commit (a bootstrap, listeners, dialers, a gateway) on its network
in memory, in virtual time; each file it writes is one story. It was run on c554520 and is kept to
show how its files came about: run on another commit, the files are that commit's.

A file has the frames in the order in which they were sent, and what the dialer's caller got.
"""

# mypy: ignore-errors
# ruff: noqa: I001
# Its imports are those of the commit that it records, not of this one.

from __future__ import annotations

import base64
import json
import sys
import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import attrs
import trio
import trio.testing
from gateway_client import Client

from punch.backends import Emit, Generation, MockBackend, MockScript
from punch.exceptions import PunchError
from punch.http import build_application
from punch.router import Router, chat_request
from punch.testing import ScriptedBackend, Swarm, open_swarm
from punch.testing import _memory as memory
from punch.wire import (
    ChatMessage,
    CommandRequest,
    CommandResponse,
    Completion,
    Sampling,
    Timings,
    Tool,
    Usage,
)

STEADY = MockScript(decode_rate=10.0)


class Tape:
    """Every frame that is sent on a network, in order."""

    def __init__(self) -> None:
        self.frames: list[dict[str, Any]] = []
        self._protocols: dict[int, str] = {}
        self._streams: dict[int, int] = {}
        self._parts: dict[int, bytearray] = {}
        self._pipes: list[Any] = []

    def begin(self) -> None:
        """Listen in on all networks that are made from now on."""
        connect, put = memory.MemoryNetwork.connect, memory._Pipe.put
        tape = self

        def tapped_connect(
            network: Any, dialer: Any, peer_id: Any, addresses: Any, protocol: str
        ) -> Any:
            near = connect(network, dialer, peer_id, addresses, protocol)
            number = len(tape._pipes) // 2
            for pipe in (near._incoming, near._outgoing):
                tape._pipes.append(pipe)
                tape._protocols[id(pipe)] = protocol
                tape._streams[id(pipe)] = number
                tape._parts[id(pipe)] = bytearray()
            return near

        def tapped_put(pipe: Any, data: bytes) -> None:
            put(pipe, data)
            tape._note(pipe, data)

        memory.MemoryNetwork.connect = tapped_connect
        memory._Pipe.put = tapped_put

    def _note(self, pipe: Any, data: bytes) -> None:
        parts = self._parts[id(pipe)]
        parts += data
        while len(parts) >= 4 and len(parts) >= 4 + (size := int.from_bytes(parts[:4], "big")):
            writer, reader = pipe._ends
            self.frames.append(
                {
                    "stream": self._streams[id(pipe)],
                    "protocol": self._protocols[id(pipe)],
                    "from": writer,
                    "to": reader,
                    "at": round(trio.current_time() - self.began, 6),
                    "frame": packed(bytes(parts[: 4 + size])),
                }
            )
            del parts[: 4 + size]

    began = 0.0


def packed(frame: bytes) -> str:
    """In hexadecimal, or compressed if it is long."""
    if len(frame) < 1000:
        return frame.hex()
    return "zlib:" + base64.b64encode(zlib.compress(frame)).decode()


def question(request_id: str, text: str = "tell me", **changes: Any) -> CommandRequest:
    """A chat of twelve tokens, under an id that is the same each time."""
    request = chat_request(text, sampling=Sampling(max_tokens=12), request_id=request_id)
    return attrs.evolve(request, **changes)


async def received(router: Router, request: CommandRequest) -> dict[str, Any]:
    """What the caller of a dialer got."""
    texts = []
    async with router.answer(request) as answer:
        while (text := await answer.receive()) is not None:
            texts.append(text)
        return {"request": plain(request), "texts": texts, "response": plain(answer.response)}


def plain(value: CommandRequest | CommandResponse) -> dict[str, Any]:
    """As JSON: what travels, and nothing of how the answer was found."""
    keep = attrs.asdict(
        value,
        filter=lambda field, found: (
            field.name not in ("decision", "attempts", "load", "capability") and found is not None
        ),
    )
    found: dict[str, Any] = json.loads(json.dumps(keep, default=list))
    return found


Story = Callable[[Swarm], Awaitable[list[dict[str, Any]]]]


async def streamed_chat(swarm: Swarm) -> list[dict[str, Any]]:
    """An answer of twelve tokens, as it is made; then the same question again."""
    await swarm.listener("listener", MockBackend(STEADY))
    async with swarm.router() as router:
        first = await received(router, question("streamed-1"))
        # A heartbeat, an advert and a renewal of the registration go by.
        await trio.sleep(11)
        return [first, await received(router, question("streamed-2", "tell me more"))]


async def whole_answers(swarm: Swarm) -> list[dict[str, Any]]:
    """A completion, a call of a tool, a JSON object and log-probabilities, each in one piece."""
    await swarm.listener("listener", MockBackend(STEADY))
    tool = Tool(
        name="weather",
        description="The weather of a place.",
        parameters='{"type":"object","properties":{"place":{"type":"string"}}}',
    )
    async with swarm.router() as router:
        return [
            await received(router, request)
            for request in (
                question("whole-1", stream=False),
                CommandRequest(request_id="whole-2", command="complete", prompt="once upon a time"),
                question("whole-3", tools=(tool,), tool_choice="required", stream=False),
                question("whole-4", response_schema='{"type":"object"}', stream=False),
                question("whole-5", logprobs=2, stream=False),
                question(
                    "whole-6",
                    messages=(
                        ChatMessage(role="system", content="be short"),
                        ChatMessage(role="user", content="grüß Gott 🌍"),
                    ),
                    sampling=Sampling(
                        max_tokens=5, temperature=0.5, top_p=0.9, seed=7, stop=("x",)
                    ),
                ),
            )
        ]


async def embed(swarm: Swarm) -> list[dict[str, Any]]:
    """Two texts as vectors."""
    await swarm.listener("listener", MockBackend(STEADY))
    async with swarm.router() as router:
        request = CommandRequest(
            request_id="embed-1", command="embed", inputs=("one", "two"), stream=False
        )
        return [await received(router, request)]


async def cancel(swarm: Swarm) -> list[dict[str, Any]]:
    """An answer that nobody wants any more after its third text."""
    await swarm.listener("listener", MockBackend(STEADY))
    async with swarm.router() as router:
        request = question("cancel-1", sampling=Sampling(max_tokens=200))
        async with router.answer(request) as answer:
            texts = [await answer.receive() for _ in range(3)]
        await trio.sleep(2)
        return [{"request": plain(request), "texts": texts, "response": None}]


async def refusal(swarm: Swarm) -> list[dict[str, Any]]:
    """The one listener there is refuses, and what its word was worth to the caller."""
    await swarm.listener("listener", MockBackend(attrs.evolve(STEADY, slots=1)), queue_limit=0)
    outcomes = []

    async def ask(router: Router, request_id: str) -> None:
        request = question(request_id, timeout=5.0)
        try:
            outcomes.append(await received(router, request))
        except PunchError as error:
            outcomes.append({"request": plain(request), "texts": [], "error": error.code})

    async with swarm.router("other") as other, swarm.router() as router:
        async with trio.open_nursery() as nursery:
            # A moment apart: no load could say yet that it is full.
            nursery.start_soon(ask, other, "refusal-1")
            await trio.sleep(0.001)
            nursery.start_soon(ask, router, "refusal-2")
    return outcomes


async def waiting(swarm: Swarm) -> list[dict[str, Any]]:
    """Two questions and one slot: the second one waits for longer than a report comes."""
    await swarm.listener("listener", MockBackend(attrs.evolve(STEADY, slots=1)))
    outcomes = []

    async def ask(request: CommandRequest) -> None:
        outcomes.append(await received(router, request))

    async with swarm.router() as router, trio.open_nursery() as nursery:
        nursery.start_soon(ask, question("waiting-1", sampling=Sampling(max_tokens=120)))
        await trio.sleep(0.5)
        nursery.start_soon(ask, question("waiting-2", timeout=60.0))
    return outcomes


async def long_text(request: CommandRequest, emit: Emit) -> Generation:
    """More than may be sent ahead of what the dialer acknowledged, in few pieces."""
    pieces = [f"{number:04}" + "ä" * 1998 for number in range(25)]
    for piece in pieces:
        await emit(piece, 1)
    return Generation(
        completion=Completion(text="".join(pieces), finish_reason="stop"),
        usage=Usage(prompt_tokens=2, completion_tokens=len(pieces)),
        timings=Timings(),
    )


async def long_answer(swarm: Swarm) -> list[dict[str, Any]]:
    """A hundred thousand bytes as fast as the dialer takes them."""
    await swarm.listener("listener", ScriptedBackend(long_text))
    async with swarm.router() as router:
        return [await received(router, question("long-1", sampling=Sampling(max_tokens=1000)))]


async def continuation(swarm: Swarm) -> list[dict[str, Any]]:
    """An answer whose listener dies in the middle, and another goes on with it."""
    for name in ("first", "second"):
        await swarm.listener(name, MockBackend(STEADY))
    async with swarm.router() as router:
        request = question("continued-1", sampling=Sampling(max_tokens=30))
        texts = []
        async with router.answer(request) as answer:
            while (text := await answer.receive()) is not None:
                texts.append(text)
                if len(texts) == 8:
                    (name,) = (n for n, e in swarm.executors.items() if e.statistics().busy)
                    swarm.kill(name)
            response = plain(answer.response)
        return [{"request": plain(request), "texts": texts, "response": response}]


async def gateway(swarm: Swarm) -> list[dict[str, Any]]:
    """What a gateway asks for its HTTP clients, streamed and not."""
    await swarm.listener("listener", MockBackend(STEADY))
    found = []
    async with swarm.router() as router:
        app = build_application(router, None, wall=lambda: 1_700_000_000.0)
        client = Client(app, None, router, swarm)
        body = {"messages": [{"role": "user", "content": "tell me"}], "max_tokens": 6}
        for name, stream in (("gateway-1", True), ("gateway-2", False)):
            reply = await client.post(
                "/v1/chat/completions", body | {"stream": stream}, x_request_id=name
            )
            text = reply.text() if stream else reply.json()["choices"][0]["message"]["content"]
            found.append({"request": {"request_id": name}, "texts": [text], "response": None})
    return found


async def departure(swarm: Swarm) -> list[dict[str, Any]]:
    """A listener that comes after the dialer, and leaves again."""
    await swarm.listener("listener", MockBackend(STEADY))
    async with swarm.router() as router:
        await swarm.listener("late", MockBackend(STEADY))
        await router.wait_for_peers(lambda found: len(found) == 2)
        swarm._scopes.pop("late").cancel()
        await trio.sleep(2)
    return []


STORIES: tuple[Story, ...] = (
    streamed_chat,
    whole_answers,
    embed,
    cancel,
    refusal,
    waiting,
    long_answer,
    continuation,
    gateway,
    departure,
)


def record(story: Story) -> dict[str, Any]:
    """One story: its frames and what came of it."""
    tape = Tape()
    before = memory.MemoryNetwork.connect, memory._Pipe.put
    tape.begin()

    async def play() -> list[dict[str, Any]]:
        tape.began = trio.current_time()
        async with open_swarm(delay=0.01) as swarm:
            return await story(swarm)

    try:
        outcomes = trio.run(play, clock=trio.testing.MockClock(autojump_threshold=0))
    finally:
        memory.MemoryNetwork.connect, memory._Pipe.put = before
    about = (story.__doc__ or "").strip()
    return {"about": about, "outcomes": outcomes, "frames": tape.frames}


def main() -> None:
    """Write all stories into the folder that is named."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for story in STORIES:
        found = record(story)
        head = {name: found[name] for name in ("about", "outcomes")}
        lines = ",\n".join(f"  {json.dumps(frame)}" for frame in found["frames"])
        text = (
            json.dumps(head, indent=1, ensure_ascii=False)[:-2]
            + f',\n "frames": [\n{lines}\n ]\n}}\n'
        )
        (folder / f"{story.__name__}.json").write_text(text, encoding="utf-8")
        print(f"{story.__name__}: {len(found['frames'])} frames")


if __name__ == "__main__":
    main()
