"""llama-server and xllamacpp, really: the model, the processes, and their ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import psutil
import pytest
import trio
from integration.programs import alive, free_port

from punch.backends import open_embedded, open_llama_server, open_openai
from punch.backends.llama._served import ServedBackend
from punch.backends.openai._backend import OpenAIBackend
from punch.capability import ModelOffer
from punch.exceptions import (
    BackendCrashed,
    ConfigurationError,
    ContextTooLong,
    InvalidRequest,
    PeerUnable,
    PunchError,
)
from punch.wire import ChatMessage, CommandRequest, PromptCount, Sampling, Tool

# Two busy cores load the model in 4 s instead of 0.5; what hangs, hangs longer than this.
LIMIT = 120

Open = Callable[..., AbstractAsyncContextManager[ServedBackend]]

GREEDY = Sampling(max_tokens=24, temperature=0.0, seed=1)
FOX = CommandRequest(
    request_id="fox",
    messages=(ChatMessage(role="user", content="Write a very long story about a fox."),),
    sampling=GREEDY,
)
TOOL = Tool(name="weather", description="Tells the weather.", parameters='{"type": "object"}')
LONG = attrs.evolve(FOX, sampling=Sampling(max_tokens=900, temperature=0.0))


async def ignore(text: str, tokens: int) -> None:
    """Take what is emitted."""


class Emitted:
    """Takes what is emitted and keeps it; an event tells of the first part."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.tokens = 0
        self.begun = trio.Event()

    async def __call__(self, text: str, tokens: int) -> None:
        """Keep *text*, unless it is none but what the prompt came to."""
        if isinstance(text, PromptCount):
            assert (text, tokens, self.parts) == ("", 0, [])
            return
        self.parts.append(text)
        self.tokens += tokens
        self.begun.set()


@pytest.fixture
def server(model_path: Path, llama_cpp_folder: Path) -> Open:
    """Opens llama-server with two slots of 1024 tokens."""
    return partial(
        open_llama_server,
        program=llama_cpp_folder / "llama-server",
        model_path=model_path,
        threads=1,
        no_mmap=True,
        slots=2,
        context_tokens=1024,
    )


@pytest.fixture
def embedded(model_path: Path) -> Open:
    """Opens the embedded engine with two slots of 1024 tokens."""
    return partial(
        open_embedded,
        model_path=model_path,
        threads=1,
        no_mmap=True,
        slots=2,
        context_tokens=1024,
    )


@pytest.fixture(params=["llama_cpp", "embedded"])
def either(request: pytest.FixtureRequest, server: Open, embedded: Open) -> Open:
    """One of the two, then the other."""
    return server if request.param == "llama_cpp" else embedded


async def slots(backend: ServedBackend) -> list[dict[str, Any]]:
    """What the server itself says of its slots."""
    listed: list[dict[str, Any]] = await backend._client.get_json("/slots", timeout=30)
    return listed


async def gone(pids: list[int], seconds: float = 10.0) -> None:
    """Return when none of *pids* is alive any more."""
    with trio.fail_after(seconds):
        while any(map(alive, pids)):
            await trio.sleep(0.02)


async def test_a_real_answer_streams_with_true_counts(either: Open) -> None:
    """Text comes in parts, and the numbers are the server's."""
    offer = ModelOffer(name="smol", digest="0" * 64, context_tokens=1024)
    with trio.fail_after(LIMIT):
        async with either(offer=offer) as backend:
            emitted = Emitted()
            generation = await backend.generate(FOX, emitted)
            again = await backend.generate(FOX, ignore)
            counted = await backend.generate(attrs.evolve(FOX, command="count"), ignore)
            plain = attrs.evolve(FOX, command="count", messages=(), prompt="A fox")
            of_text = await backend.generate(plain, ignore)
            told = await backend.generate(attrs.evolve(FOX, tools=(TOOL,)), ignore)
            with_tool = attrs.evolve(FOX, command="count", tools=(TOOL,))
            counted_too = await backend.generate(with_tool, ignore)
    assert "".join(emitted.parts) == generation.completion.text
    assert len(emitted.parts) > 10
    assert emitted.tokens <= 24
    assert generation.completion.finish_reason == "length"
    assert (generation.usage.prompt_tokens, generation.usage.completion_tokens) == (39, 24)
    assert generation.timings.prefill is not None
    assert generation.timings.prefill > 0
    assert generation.timings.decode is not None
    assert generation.timings.decode > 0
    assert not backend.simulated
    (offered,) = backend.offers
    # A server has more than the model itself.
    assert offered.features >= offer.features | {"tools", "json_schema", "logprobs", "embed"}
    assert attrs.evolve(offered, features=offer.features) == offer
    assert again.completion.text == generation.completion.text
    assert again.usage.prompt_tokens == 39
    # What the same words have when they are read, tools that punch itself writes out included.
    assert (counted.usage.prompt_tokens, of_text.usage.prompt_tokens) == (39, 2)
    assert "count" in offered.features
    assert counted_too.usage.prompt_tokens == told.usage.prompt_tokens
    assert counted.completion.text == ""


async def test_a_text_longer_than_the_batch_is_the_limit_of_the_server(either: Open) -> None:
    """Which is well, embeds the next text, and says how many tokens there were."""

    def texts(*texts: str) -> CommandRequest:
        return attrs.evolve(FOX, command="embed", messages=(), inputs=texts)

    with trio.fail_after(LIMIT):
        async with either() as backend:
            with pytest.raises(PeerUnable, match=r"60[0-9] tokens.*split them"):
                await backend.generate(texts("short", " word" * 600), ignore)
            vectors = (await backend.generate(texts("short", "word"), ignore)).completion.embeddings
    assert len(vectors) == 2


async def test_an_answer_stops_where_the_caller_says(either: Open) -> None:
    """At a stop sequence, which is no part of it; or at the model's own end."""
    with trio.fail_after(LIMIT):
        async with either() as backend:
            whole = (await backend.generate(FOX, ignore)).completion.text
            stop = whole.split()[4]
            sampling = attrs.evolve(GREEDY, stop=(stop,))
            stopped = await backend.generate(attrs.evolve(FOX, sampling=sampling), ignore)
            question = (ChatMessage(role="user", content="What is 2+2? Say one number."),)
            # The likeliest tokens: drawn by lot, one answer of seven never comes to its end.
            sampling = Sampling(max_tokens=200, temperature=0.0)
            short = await backend.generate(
                attrs.evolve(FOX, messages=question, sampling=sampling), ignore
            )
    assert stopped.completion.text == whole[: whole.index(stop)]
    assert stopped.completion.finish_reason == "stop"
    assert short.completion.finish_reason == "stop"
    assert short.usage.completion_tokens is not None
    assert short.usage.completion_tokens < 200


async def test_a_raw_prompt_is_completed(either: Open) -> None:
    """No template is put around it."""
    request = attrs.evolve(FOX, command="complete", messages=(), prompt="The capital of France is")
    with trio.fail_after(LIMIT):
        async with either() as backend:
            generation = await backend.generate(request, ignore)
    assert "Paris" in generation.completion.text
    assert generation.usage.prompt_tokens == 5


async def test_the_same_seed_gives_the_same_answer(server: Open) -> None:
    """And another seed another one."""

    def seeded(seed: int) -> CommandRequest:
        return attrs.evolve(FOX, sampling=Sampling(max_tokens=24, temperature=1.0, seed=seed))

    with trio.fail_after(LIMIT):
        async with server() as backend:
            one, same, other = [
                (await backend.generate(seeded(seed), ignore)).completion.text for seed in (5, 5, 6)
            ]
    assert one == same
    assert one != other


async def test_every_sampling_parameter_reaches_the_server(server: Open) -> None:
    """As the server itself shows them while it answers."""
    sampling = Sampling(
        max_tokens=64, temperature=0.25, top_p=0.75, top_k=7, min_p=0.125, repeat_penalty=1.5,
        seed=42, stop=("never-seen",),
    )  # fmt: skip
    shown: dict[str, Any] = {}

    with trio.fail_after(LIMIT):
        async with server() as backend:

            async def look(text: str, tokens: int) -> None:
                if not shown:
                    (busy,) = [slot for slot in await slots(backend) if slot["is_processing"]]
                    shown.update(busy["params"])

            await backend.generate(attrs.evolve(FOX, sampling=sampling), look)
    assert {
        name: shown[name]
        for name in ("temperature", "top_p", "top_k", "min_p", "repeat_penalty", "seed")
    } == {
        "temperature": 0.25, "top_p": 0.75, "top_k": 7, "min_p": 0.125, "repeat_penalty": 1.5,
        "seed": 42,
    }  # fmt: skip
    assert shown.get("max_tokens", shown.get("n_predict")) == 64


async def test_a_value_that_the_server_rejects_is_the_callers_fault(server: Open) -> None:
    """With the server's words."""
    bad = attrs.evolve(FOX, messages=(ChatMessage(role="", content="x"),), sampling=Sampling())
    wrong = attrs.evolve(bad, messages=FOX.messages, sampling=Sampling(temperature="hot"))  # type: ignore[arg-type]  # what is tried
    with trio.fail_after(LIMIT):
        async with server() as backend:
            with pytest.raises(InvalidRequest, match="temperature"):
                await backend.generate(wrong, ignore)


async def test_a_prompt_that_does_not_fit_is_refused_with_both_numbers(either: Open) -> None:
    """No other peer with this context would do better."""
    message = ChatMessage(role="user", content="word " * 3000)
    with trio.fail_after(LIMIT):
        async with either() as backend:
            with pytest.raises(ContextTooLong, match=r"3031 tokens .* 1024 tokens"):
                await backend.generate(attrs.evolve(FOX, messages=(message,)), ignore)


async def test_a_cancelled_answer_frees_its_slot(either: Open) -> None:
    """Within 100 ms, as the server itself sees it."""
    with trio.fail_after(LIMIT):
        async with either() as backend:
            for _ in range(10):
                emitted = Emitted()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(backend.generate, LONG, emitted)
                    await emitted.begun.wait()
                    began = trio.current_time()
                    nursery.cancel_scope.cancel()
                while any(slot["is_processing"] for slot in await slots(backend)):
                    pass
                seconds = trio.current_time() - began
                # The promise is 100 ms, on a machine that has a core for it.
                if seconds < 0.1:
                    break
    assert seconds < 0.1


async def test_as_many_answers_as_slots_run_side_by_side(server: Open) -> None:
    """Four requests at a time, each with its own text and context."""
    texts: dict[int, str] = {}
    most = 0

    def about(number: int) -> CommandRequest:
        message = ChatMessage(role="user", content=f"Tell me a story about {number} foxes.")
        return attrs.evolve(FOX, messages=(message,))

    with trio.fail_after(LIMIT):
        async with server(slots=4) as backend:

            async def one(number: int) -> None:
                nonlocal most
                emitted = Emitted()
                texts[number] = (await backend.generate(about(number), emitted)).completion.text
                assert "".join(emitted.parts) == texts[number]

            async with trio.open_nursery() as nursery:
                for number in (10, 200, 3000, 40000):
                    nursery.start_soon(one, number)
                while len(texts) < 4:
                    most = max(most, sum(s["is_processing"] for s in await slots(backend)))
                    await trio.sleep(0.01)
            assert {slot["n_ctx"] for slot in await slots(backend)} == {1024}
    assert all(texts.values())
    assert most == 4


async def test_an_answer_that_another_peer_began_goes_on_where_it_stopped(either: Open) -> None:
    """Nothing is repeated, and with the likeliest tokens nothing is changed."""
    with trio.fail_after(LIMIT):
        async with either() as backend:
            emitted = Emitted()
            whole = (await backend.generate(FOX, emitted)).completion.text
            begun = "".join(emitted.parts[:12])
            rest = Sampling(max_tokens=12, temperature=0.0)
            request = attrs.evolve(FOX, continuation=begun, sampling=rest)
            generation = await backend.generate(request, ignore)
    assert begun + generation.completion.text == whole


async def test_an_answer_can_go_on_from_any_of_its_tokens(server: Open) -> None:
    """Each time the whole is the unbroken one, and every token is counted once."""
    chat = attrs.evolve(FOX, sampling=Sampling(max_tokens=40, temperature=0.0))
    raw = attrs.evolve(chat, command="complete", messages=(), prompt="Once upon a time, a fox")
    with trio.fail_after(2 * LIMIT):
        async with server() as backend:
            for request in (chat, raw):
                emitted = Emitted()
                whole = await backend.generate(request, emitted)
                assert emitted.tokens == whole.usage.completion_tokens == 40
                for cut in range(1, len(emitted.parts), 3):
                    said = "".join(emitted.parts[:cut])
                    rest = attrs.evolve(request.sampling, max_tokens=40 - cut)
                    asked = attrs.evolve(request, continuation=said, sampling=rest)
                    generation = await backend.generate(asked, ignore)
                    assert said + generation.completion.text == whole.completion.text
                    assert generation.usage.completion_tokens == 40 - cut


async def test_every_token_of_a_long_character_is_counted(server: Open) -> None:
    """Several tokens make one emoji, which comes in one event."""
    emoji = ChatMessage(
        role="user", content="Repeat exactly: \U0001f98a\U0001f409\U0001f984\U0001f427"
    )
    request = attrs.evolve(FOX, messages=(emoji,), sampling=Sampling(max_tokens=30, temperature=0))
    with trio.fail_after(LIMIT):
        async with server() as backend:
            emitted = Emitted()
            generation = await backend.generate(request, emitted)
    made = generation.usage.completion_tokens
    assert made is not None
    assert len(emitted.parts) < emitted.tokens
    # The token that ends a turn has no text.
    assert made - 1 <= emitted.tokens <= made


async def test_two_conversations_in_turns_keep_their_caches(either: Open) -> None:
    """Each comes back to its own slot, so that only what is new is read."""
    topics = ("a fox in the deep green forest", "a ship on the wide blue sea")
    talks = [[ChatMessage(role="user", content=f"Tell me of {topic}. " * 8)] for topic in topics]
    shares = []
    with trio.fail_after(LIMIT):
        async with either() as backend:
            for turn in range(3):
                for talk in talks:
                    request = attrs.evolve(FOX, messages=tuple(talk))
                    generation = await backend.generate(request, ignore)
                    answer = generation.completion.text
                    talk.append(ChatMessage(role="assistant", content=answer))
                    talk.append(ChatMessage(role="user", content="Go on."))
                    if turn:
                        usage = generation.usage
                        assert usage.cached_tokens is not None
                        assert usage.prompt_tokens is not None
                        shares.append(usage.cached_tokens / usage.prompt_tokens)
    assert min(shares) > 0.8


async def test_a_killed_server_comes_back(either: Open) -> None:
    """The answer in flight fails with the reason; the next request waits and works."""
    with trio.fail_after(LIMIT):
        async with either() as backend:
            emitted = Emitted()
            caught: list[PunchError] = []

            async def ask() -> None:
                try:
                    await backend.generate(LONG, emitted)
                except PunchError as error:
                    caught.append(error)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask)
                await emitted.begun.wait()
                first = backend.pid
                assert first is not None
                os.kill(first, signal.SIGKILL)
            generation = await backend.generate(FOX, ignore)
            assert backend.pid != first
            assert backend.statistics().starts == 2
    (error,) = caught
    assert isinstance(error, BackendCrashed)
    assert "SIGKILL" in str(error)
    assert generation.usage.completion_tokens == 24


async def test_nothing_is_left_behind(either: Open) -> None:
    """No process, no zombie, and the port is free."""
    with trio.fail_after(LIMIT):
        async with either() as backend:
            pid, url = backend.pid, backend.url
            assert pid is not None
        assert not psutil.pid_exists(pid)
        assert not [c for c in psutil.Process().children(recursive=True) if c.is_running()]
        with pytest.raises(OSError, match="connect"):
            await trio.open_tcp_stream("127.0.0.1", int(url.rpartition(":")[2]))


async def test_an_error_in_the_body_comes_out_bare(server: Open) -> None:
    """No exception group, and the server is ended all the same."""
    with trio.fail_after(LIMIT):
        with pytest.raises(ZeroDivisionError):
            async with server() as backend:
                pid = backend.pid
                raise ZeroDivisionError
    assert pid is not None
    assert not alive(pid)


async def test_the_key_is_not_in_the_list_of_processes(either: Open) -> None:
    """And without it the server answers nobody."""
    with trio.fail_after(LIMIT):
        async with either() as backend:
            key = backend._client._headers["Authorization"].removeprefix("Bearer ")
            tree = [*psutil.Process().children(recursive=True)]
            assert not [p for p in tree if key in " ".join(p.cmdline())]
            with pytest.raises(ConfigurationError, match="PUNCH_OPENAI_KEY"):
                async with open_openai(url=backend.url):
                    pass


async def test_a_bad_model_file_is_refused_in_the_programs_words(
    either: Open, tmp_path: Path
) -> None:
    """At the start, not at the first request, and without a loop of restarts."""
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"this is no model")
    with trio.fail_after(LIMIT):
        with pytest.raises(BackendCrashed, match="failed to load model"):
            async with either(model_path=bad):
                pass


async def test_a_bad_flag_is_refused_in_the_programs_words(server: Open) -> None:
    """llama.cpp names it."""
    with trio.fail_after(LIMIT):
        with pytest.raises(BackendCrashed, match="--no-such-flag"):
            async with server(extra_args=["--no-such-flag"]):
                pass


async def test_a_wrong_program_is_refused_by_the_name_of_its_setting(
    server: Open, tmp_path: Path
) -> None:
    """Missing, not executable, and not llama.cpp's."""
    text = tmp_path / "text"
    text.write_text("hello")
    with trio.fail_after(LIMIT):
        for program, words in (
            (tmp_path / "nothing", "does not exist"),
            (text, "not executable"),
            (Path(sys.executable), "not a program of llama.cpp"),
        ):
            with pytest.raises(ConfigurationError, match=f"LLAMA_CPP_EXE.*{words}"):
                async with server(program=program):
                    pass


PARENT = """
import sys, trio
from punch.backends.llama._embedded import open_embedded
from punch.backends.llama._server import open_llama_server

async def main(model, program):
    same = dict(model_path=model, threads=1, no_mmap=False, slots=1, context_tokens=256)
    async with open_embedded(**same) as one, open_llama_server(program=program, **same) as two:
        print(one.pid, two.pid, flush=True)
        await trio.sleep_forever()

trio.run(main, *sys.argv[1:])
"""


async def test_children_do_not_outlive_a_killed_parent(
    model_path: Path, llama_cpp_folder: Path
) -> None:
    """SIGKILL leaves the parent no time to end them."""
    argv = [sys.executable, "-c", PARENT, str(model_path), str(llama_cpp_folder / "llama-server")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with trio.fail_after(LIMIT):
        parent = await trio.lowlevel.open_process(argv, stdout=subprocess.PIPE, env=env)
        assert parent.stdout is not None
        try:
            line = b""
            while not line.endswith(b"\n"):
                part = await parent.stdout.receive_some()
                assert part, "the parent ended early"
                line += part
            pids = [int(word) for word in line.split()]
            family = [p.pid for p in psutil.Process(parent.pid).children(recursive=True)]
            assert set(pids) <= set(family)
            assert all(map(alive, pids))
        finally:
            parent.kill()
            await parent.wait()
            await parent.stdout.aclose()
        await gone(family)


async def test_any_server_of_the_openai_kind_is_a_backend(server: Open) -> None:
    """Found with its models, with the right key, in every spelling of its address."""
    with trio.fail_after(LIMIT):
        async with server(alias="smol") as running:
            key = running._client._headers["Authorization"].removeprefix("Bearer ")
            for url in (running.url, running.url + "/v1/"):
                async with open_openai(url=url, api_key=key) as backend:
                    generation = await backend.generate(FOX, ignore)
            (offer,) = backend.offers
            async with open_openai(url=running.url, api_key=key, model="gpt-5") as none:
                assert (none.state, none.offers) == ("resting", ())
            with pytest.raises(ConfigurationError, match=r"PUNCH_OPENAI_KEY"):
                async with open_openai(url=running.url, api_key="wrong"):
                    pass
            with pytest.raises(ConfigurationError, match=r"PUNCH_OPENAI_URL"):
                async with open_openai(url=running.url + "/nothing/here", api_key=key):
                    pass
    assert (offer.name, offer.context_tokens, offer.parameters) == ("smol", 1024, 134515008)
    assert offer.digest is None
    assert generation.usage.completion_tokens == 24
    assert generation.timings.decode is not None
    with trio.fail_after(LIMIT):
        async with open_openai(url=running.url) as gone:
            assert (gone.state, gone.offers) == ("starting", ())


async def test_a_server_that_somebody_else_starts_stops_and_starts_again(
    model_path: Path, llama_cpp_folder: Path, tmp_path: Path
) -> None:
    """As people start it by hand: without a key, and later than us."""
    port = free_port()
    argv = [llama_cpp_folder / "llama-server", "-m", model_path, "--port", str(port), "-t", "1"]

    @asynccontextmanager
    async def running() -> AsyncIterator[None]:
        with (tmp_path / "log").open("wb") as log:
            process = await trio.lowlevel.open_process(
                [*map(str, argv), "-c", "512", "-np", "2"], stdout=log, stderr=log
            )
            try:
                yield
            finally:
                process.kill()
                await process.wait()

    async def wait_for(backend: OpenAIBackend, state: str) -> None:
        while backend.state != state:
            with trio.move_on_after(1):
                await backend.changed.wait()

    with trio.fail_after(LIMIT):
        async with open_openai(url=f"http://127.0.0.1:{port}") as backend:
            assert (backend.state, backend.offers) == ("starting", ())
            for _ in range(2):
                async with running():
                    await wait_for(backend, "ready")
                    (offer,) = backend.offers
                    generation = await backend.generate(FOX, ignore)
                with pytest.raises(PunchError):
                    await backend.generate(FOX, ignore)
                await wait_for(backend, "resting")
                assert backend.offers == ()
    assert generation.usage.completion_tokens == 24
    # Under the name of its file; the server calls it by the whole path.
    assert offer.name == model_path.stem
    assert (offer.context_tokens, backend.slots) == (256, 2)
