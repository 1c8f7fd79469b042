"""What a key pays for: whoever hangs up, embeds, asks again, or is answered by a liar."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from gateway_client import Client, open_client
from trio.testing import MockClock

from punch.backends import Emit, Generation, MockBackend, MockScript
from punch.capability import ModelOffer
from punch.dialer import Attribution
from punch.events import Cost
from punch.gateway import KeyStore
from punch.gateway.keys._charging import (
    END_TOKENS,
    PART_TOKENS,
    TEMPLATE_TOKENS,
    UNFINISHED_BYTES,
    believed,
    cost_of,
    expected_tokens,
)
from punch.testing import ScriptedBackend
from punch.wire import (
    ChatMessage,
    CommandRequest,
    CommandResponse,
    Completion,
    Sampling,
    Timings,
    ToolCall,
    Usage,
)

CHAT = "/v1/chat/completions"


def mock(**script: Any) -> MockBackend:
    return MockBackend(MockScript(**({"decode_rate": 10.0} | script)))


def question(said: str = "tell me", **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": said}]} | fields


def cost(client: Client) -> tuple[int, int]:
    """What the last exchange has cost."""
    found = client.seen.last.cost
    return found.prompt, found.answer


@pytest.fixture
def keys(tmp_path: Path) -> Iterator[KeyStore]:
    with KeyStore(tmp_path / "keys") as store:
        yield store


# ---- hanging up ----


@pytest.mark.parametrize(("writes", "least"), [(0, 0), (5, 5), (20, 20)])
async def test_whoever_hangs_up_pays_for_the_prompt_and_what_was_made(
    writes: int, least: int, autojump_clock: MockClock
) -> None:
    """Before the first text, and in the middle: a token for each four bytes, and for each part."""
    async with open_client({"a": mock(delay=1.0)}) as client:
        body = question("word " * 800, stream=True, max_tokens=100)
        async with client.open("POST", CHAT, body) as connection:
            await trio.sleep(0.5)
            await connection.until(writes)
            connection.leave()
        prompt, answer = cost(client)
    assert client.seen.last.error_code == "disconnected"
    assert prompt == 1000
    assert least <= answer <= least + 2


async def test_hanging_up_is_no_way_around_the_tokens_of_a_minute(keys: KeyStore) -> None:
    """What was asked for counts at once, and what it has cost stays counted."""
    _, secret = keys.create("me", tokens_per_minute=1000)
    async with open_client({"a": mock(decode_rate=None)}, keys=keys) as client:
        statuses = []
        for number in range(4):
            body = question(f"word{number} " * 500, stream=True, max_tokens=200)
            send = client.open("POST", CHAT, body, authorization=f"Bearer {secret}")
            async with send as connection:
                await connection.until(1)
                statuses.append(connection.reply.status)
                connection.leave()
    assert statuses == [200, 429, 429, 429]


async def test_what_a_request_will_take_counts_while_it_is_under_way(keys: KeyStore) -> None:
    """Several at once are no way around it either: the second one's prompt is too much."""
    _, secret = keys.create("me", tokens_per_minute=3000)
    async with open_client({"a": mock(delay=0.2)}, keys=keys) as client:
        statuses: list[int] = []

        async def ask() -> None:
            body = question("word " * 2000, max_tokens=1)
            reply = await client.post(CHAT, body, authorization=f"Bearer {secret}")
            assert reply.status is not None
            statuses.append(reply.status)

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ask)
    assert sorted(statuses) == [200, 429, 429]


async def test_a_client_that_goes_before_anybody_was_asked_pays_nothing(
    autojump_clock: MockClock,
) -> None:
    """Nor one whose request nobody takes."""
    async with open_client({}) as client:
        async with client.open("POST", CHAT, question()) as connection:
            await trio.sleep(0.01)
            connection.leave()
        assert cost(client) == (0, 0)
        await client.post(CHAT, question(model="mock"))
        assert client.seen.last.error_code is not None
        assert cost(client) == (0, 0)


async def test_a_request_that_runs_out_of_time_at_work_is_paid_for(
    autojump_clock: MockClock,
) -> None:
    """A backend had begun, and read the prompt: a short time limit is no discount."""
    async with open_client({"a": mock(delay=100.0)}) as client:
        reply = await client.post(CHAT, question("word " * 80, punch={"timeout": 2.0}))
        assert reply.status == 504
        assert cost(client) == (100, 0)


async def test_what_is_expected_is_reserved(autojump_clock: MockClock) -> None:
    """The prompt, and as much of the answer as is usual, for each of several answers."""
    request = CommandRequest(
        request_id="r",
        messages=(ChatMessage(role="user", content="é" * 20),),
        sampling=Sampling(max_tokens=1 << 30),
    )
    short = CommandRequest(request_id="r", prompt="x" * 40, sampling=Sampling(max_tokens=3))
    embed = CommandRequest(request_id="r", command="embed", inputs=("x" * 400, "y" * 4))
    assert expected_tokens([request]) == 10 + 200
    assert expected_tokens([short, short]) == 2 * (10 + 3)
    assert expected_tokens([embed]) == 101
    assert expected_tokens([]) == 0


# ---- embeddings ----


@pytest.mark.parametrize(("counted", "paid"), [(700, 700), (None, 1000)])
async def test_embeddings_are_paid_for_by_their_texts(
    counted: int | None, paid: int, keys: KeyStore
) -> None:
    """As the server counts them, which says nothing of an answer; or else by their bytes."""

    async def play(request: CommandRequest, emit: Emit) -> Generation:
        vectors = tuple((0.5, 0.5) for _ in request.inputs)
        usage = Usage(prompt_tokens=counted)
        return Generation(completion=Completion(embeddings=vectors), usage=usage, timings=Timings())

    offer = ModelOffer(name="model", features=frozenset({"embed"}))
    backend = ScriptedBackend(play, offers=(offer,))
    _, secret = keys.create("me", tokens_per_minute=1000)
    async with open_client({"a": backend}, keys=keys) as client:
        statuses = []
        for _ in range(3):
            body = {"input": ["word " * 400, "word " * 400]}
            reply = await client.post("/v1/embeddings", body, authorization=f"Bearer {secret}")
            statuses.append(reply.status)
            if reply.status == 200:
                assert cost(client) == (paid, 0)
    assert statuses == [200, 429, 429]


# ---- liars ----


def told(answer: Any, usage: Usage, **result: Any) -> CommandResponse:
    response = CommandResponse(
        request_id="r", status="success", result=Completion(**result), usage=usage
    )
    return believed(response, answer)


def reader(tokens: int = 0, *, billed: Attribution | None = None, **fields: Any) -> Any:
    """As much of an `Answer` as is looked at."""
    request = CommandRequest(request_id="r", **fields)
    billed = Attribution(prompt=True, tokens=tokens) if billed is None else billed
    return SimpleNamespace(request=request, tokens=tokens, billed=billed)


def test_no_count_is_believed_beyond_what_there_can_be() -> None:
    """Of the prompt its bytes and a template; of the answer its bytes, parts, and the limit."""
    lie = Usage(prompt_tokens=2**53, completion_tokens=2**53, cached_tokens=2**53)
    chat = (ChatMessage(role="user", content="x" * 100),)
    most = 100 + TEMPLATE_TOKENS + PART_TOKENS

    found = told(reader(7, messages=chat), lie, text="é" * 10)
    assert found.usage == Usage(
        prompt_tokens=most, completion_tokens=20 + END_TOKENS, cached_tokens=most
    )
    # Thoughts have tokens and no text.
    assert told(reader(90, messages=chat), lie, text="x").usage.completion_tokens == 90
    limited = reader(90, messages=chat, sampling=Sampling(max_tokens=50))
    assert told(limited, lie, text="x" * 500).usage.completion_tokens == 50
    # A stop sequence that was hit at once, the limit, and half a character at the context's end.
    stopped = reader(messages=chat, sampling=Sampling(stop=("four", "\u00e9")))
    assert told(stopped, lie).usage.completion_tokens == 4 + END_TOKENS
    assert told(limited, lie, finish_reason="length").usage.completion_tokens == 50
    cut = told(reader(messages=chat), lie, finish_reason="length")
    assert cut.usage.completion_tokens == UNFINISHED_BYTES + END_TOKENS
    assert told(reader(), lie, reasoning="x" * 9).usage.completion_tokens == 9 + END_TOKENS
    call = ToolCall(id="1", name="f", arguments="{}")
    calls = told(reader(messages=chat), lie, tool_calls=(call,))
    assert calls.usage.completion_tokens == 3 + PART_TOKENS + END_TOKENS


def test_what_can_be_true_is_left_alone() -> None:
    """The very same response; nothing that nobody counted is made up in it."""
    response = CommandResponse(
        request_id="r", status="success", result=Completion(text="four words of text"),
        usage=Usage(prompt_tokens=30, completion_tokens=4),
    )  # fmt: skip
    answer = reader(4, prompt="x" * 40)
    assert believed(response, answer) is response
    assert told(answer, Usage(), text="x").usage == Usage()


def test_each_count_that_is_missing_is_estimated_by_itself() -> None:
    """The prompt by its bytes, the answer by its parts."""
    answer = reader(9, prompt="x" * 40)
    parts = [
        (Usage(), Cost(prompt=10, answer=9)),
        (Usage(prompt_tokens=12), Cost(prompt=12, answer=9)),
        (Usage(completion_tokens=8), Cost(prompt=10, answer=8)),
        (Usage(prompt_tokens=12, completion_tokens=8), Cost(prompt=12, answer=8)),
    ]
    for usage, paid in parts:
        assert cost_of(answer, told(answer, usage, text="x" * 40)) == paid
    assert cost_of(answer, None) == Cost(prompt=10, answer=9)


async def test_a_liar_costs_no_key_more_than_the_answer(keys: KeyStore) -> None:
    """What cannot be true is told to nobody, and the key pays for what there was."""

    async def play(request: CommandRequest, emit: Emit) -> Generation:
        await emit("some", 1)
        usage = Usage(prompt_tokens=1 << 20, completion_tokens=1 << 20)
        return Generation(completion=Completion(text="some"), usage=usage, timings=Timings())

    _, secret = keys.create("me", tokens_per_minute=3000)
    async with open_client({"a": ScriptedBackend(play)}, keys=keys) as client:
        for _ in range(2):
            reply = await client.post(CHAT, question(), authorization=f"Bearer {secret}")
            assert reply.status == 200
            assert reply.json()["usage"] is None
            assert 0 < sum(cost(client)) < 1200


# ---- several answers ----


async def test_several_answers_are_as_many_requests(keys: KeyStore) -> None:
    """Of those in a minute; more than may ever be under way are refused for good."""
    _, few = keys.create("few", concurrency=2)
    _, slow = keys.create("slow", requests_per_minute=4)
    async with open_client({"a": mock(slots=8)}, keys=keys) as client:

        async def ask(secret: str, **fields: Any) -> Any:
            body = question(max_tokens=2, **fields)
            return await client.post(CHAT, body, authorization=f"Bearer {secret}")

        refused = await ask(few, n=3)
        assert (refused.status, refused.error["code"]) == (400, "invalid_value")
        assert "3 answers at once" in refused.error["message"]
        assert [(await ask(few, n=2)).status, (await ask(few, n=2)).status] == [200, 200]
        assert [(await ask(slow, n=3)).status, (await ask(slow, n=3)).status] == [200, 429]
        assert (await ask(slow)).status == 200
        prompts = {"prompt": ["a", "b", "c"], "max_tokens": 2}
        listed = await client.post("/v1/completions", prompts, authorization=f"Bearer {few}")
        assert listed.status == 400


async def test_each_of_several_answers_pays_for_the_prompt(autojump_clock: MockClock) -> None:
    """A peer reads it for each; `usage` has it once, as OpenAI's has."""
    async with open_client({"a": mock(slots=8)}) as client:
        reply = await client.post(CHAT, question("one two three", n=3, max_tokens=2))
        usage = reply.json()["usage"]
        assert cost(client) == (3 * usage["prompt_tokens"], usage["completion_tokens"])
    assert usage == {"prompt_tokens": 3, "completion_tokens": 6, "total_tokens": 9}


# ---- exactly once ----


async def test_what_is_replayed_costs_no_tokens(keys: KeyStore) -> None:
    """It is a request like any other, and nobody was asked."""
    _, secret = keys.create("me", requests_per_minute=3)
    async with open_client({"a": mock(decode_rate=None)}, keys=keys) as client:
        paid, statuses = [], []
        for _ in range(4):
            reply = await client.post(
                CHAT, question(max_tokens=5), x_request_id="tea", authorization=f"Bearer {secret}"
            )
            statuses.append(reply.status)
            paid.append(cost(client))
    assert paid == [(2, 5), (0, 0), (0, 0), (0, 0)]
    assert statuses == [200, 200, 200, 429]


async def test_who_joins_pays_nothing_while_the_first_is_there(autojump_clock: MockClock) -> None:
    """One answer is paid for once."""
    async with open_client({"a": mock()}) as client:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                body = question(max_tokens=20, stream=True)
                nursery.start_soon(partial(client.post, CHAT, body, x_request_id="tea"))
                await trio.sleep(0.3)
        ended = [exchange for word, exchange in client.seen.told if word == "ended"]
    assert sorted((each.cost.prompt, each.cost.answer) for each in ended) == [
        (0, 0),
        (0, 0),
        (2, 20),
    ]


async def test_who_joins_pays_for_the_rest_when_the_first_has_left(
    autojump_clock: MockClock,
) -> None:
    """Else two connections would be an answer for nothing."""
    async with open_client({"a": mock()}) as client:
        body = question(max_tokens=20, stream=True)
        async with client.open("POST", CHAT, body, x_request_id="tea") as first:
            await first.until(5)
            async with client.open("POST", CHAT, body, x_request_id="tea") as second:
                await second.until(1)
                first.leave()
        ended = [exchange for word, exchange in client.seen.told if word == "ended"]
        one, two = (each.cost for each in ended)
    assert second.reply.events()[-1] == "[DONE]"
    assert (one.prompt, two.prompt) == (2, 0)
    assert one.answer >= 5
    assert one.answer + two.answer == 20


async def test_the_same_id_for_other_answers_is_a_conflict(autojump_clock: MockClock) -> None:
    """More or fewer of them, or at another endpoint."""
    async with open_client({"a": mock(slots=8, decode_rate=None)}) as client:

        async def ask(path: str, name: str, **body: Any) -> int | None:
            return (await client.post(path, body, x_request_id=name)).status

        tell: Any = question()
        text: Any = {"input": "tell me"}
        chat: Any = tell | {"model": "mock", "stream": False}
        assert await ask(CHAT, "two", **tell, n=2) == 200
        assert await ask(CHAT, "two", **tell, n=2) == 200
        for answers in (1, 3):
            assert await ask(CHAT, "two", **tell, n=answers) == 409
        assert await ask(CHAT, "one", **tell) == 200
        assert await ask("/api/chat", "one", **chat) == 409
        assert await ask("/v1/responses", "one", **text) == 409
        assert await ask(CHAT, "one", **tell, n=2) == 409
        assert await ask(CHAT, "one", **tell, stream=True) == 200


async def test_others_traffic_pushes_no_answer_out(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is asked with no id of one's own is not kept: nobody will ask for it."""
    monkeypatch.setattr("punch.dialer._runs.MAX_STORED", 2)
    async with open_client({"a": mock(decode_rate=None)}) as client:
        first = await client.post(CHAT, question(), x_request_id="tea")
        for _ in range(5):
            await client.post(CHAT, question())
        assert len(client.router._runs) == 1
        again = await client.post(CHAT, question(), x_request_id="tea")
        assert again.headers["x-punch-decision"] == "replayed"
        assert again.json() == first.json()
