"""The backend `llama_cpp_python` with the real binding, process and model."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import psutil
import pytest
import trio

from punch.backends import Backend, open_binding
from punch.capability import ModelOffer
from punch.exceptions import (
    BackendCrashed,
    ConfigurationError,
    ContextTooLong,
    InvalidRequest,
    ModelFileError,
)
from punch.model_store import describe
from punch.wire import ChatMessage, CommandRequest, Sampling

LIMIT = 120.0  # Seconds for one test: forty times what they take on two idle cores.
COUNTING = "1, 2, 3, 4, 5, 6,"

Open = Callable[[], AbstractAsyncContextManager[Backend]]


@pytest.fixture
def offer(model_path: Path, tmp_path: Path) -> ModelOffer:
    """What the model offers."""
    return describe(model_path, cache_folder=tmp_path).offer


@pytest.fixture
def opened(model_path: Path, offer: ModelOffer) -> Open:
    """The backend, with a small context, under a time limit."""

    @asynccontextmanager
    async def open_limited() -> AsyncIterator[Backend]:
        with trio.fail_after(LIMIT):
            async with open_binding(
                model_path=model_path, offer=offer, threads=2, context_tokens=2048
            ) as backend:
                yield backend

    return open_limited


def complete(prompt: str = COUNTING, **sampling: Any) -> CommandRequest:
    """A request to go on from *prompt*."""
    chosen = attrs.evolve(Sampling(max_tokens=24, temperature=0.0), **sampling)
    return CommandRequest(request_id="r", command="complete", prompt=prompt, sampling=chosen)


async def nowhere(text: str, tokens: int) -> None:
    """An `emit` that forgets."""


def workers() -> list[psutil.Process]:
    """Our worker processes that are alive, without their guardians."""
    return [
        child
        for child in psutil.Process().children(recursive=True)
        if child.status() != psutil.STATUS_ZOMBIE
        and any("_binding_worker" in word for word in child.cmdline())
        and not any("_launch.py" in word for word in child.cmdline())
    ]


async def ended(pid: int) -> None:
    """Wait until there is no such process, or only its exit status."""

    def is_alive() -> bool:
        with contextlib.suppress(psutil.NoSuchProcess):
            return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
        return False

    while is_alive():  # A process that is not our child has no event to wait for.
        await trio.sleep(0.01)


async def test_an_answer_comes_in_parts_with_true_counts(opened: Open) -> None:
    """The parts are the whole, and their tokens add up."""
    parts: list[tuple[str, int]] = []

    async def emit(text: str, tokens: int) -> None:
        parts.append((text, tokens))

    async with opened() as backend:
        found = await backend.generate(complete(), emit)
    assert found.completion.text.startswith(" 7, 8, 9, 10")
    assert "".join(text for text, _ in parts) == found.completion.text
    assert len(parts) > 10
    assert sum(tokens for _, tokens in parts) == found.usage.completion_tokens == 24
    assert found.completion.finish_reason == "length"
    assert found.usage.prompt_tokens == 17  # Six numbers and commas, five spaces.
    assert found.usage.cached_tokens == 0
    assert found.timings.prefill is not None
    assert found.timings.decode is not None
    assert 0 < found.timings.prefill < LIMIT
    assert 0 < found.timings.decode < LIMIT


async def test_a_chat_goes_through_the_models_own_template(opened: Open) -> None:
    """The template's words are in the prompt, so it is much longer than the message."""
    request = CommandRequest(
        request_id="r",
        messages=(ChatMessage(role="user", content="Hi"),),
        sampling=Sampling(max_tokens=8, temperature=0.0),
    )
    async with opened() as backend:
        found = await backend.generate(request, nowhere)
    assert found.usage.prompt_tokens == 31
    assert found.completion.text != ""


async def test_the_same_prompt_is_found_in_the_cache(opened: Open) -> None:
    """All but the last token, which has to be computed for its successor."""
    async with opened() as backend:
        first = await backend.generate(complete(), nowhere)
        second = await backend.generate(complete(), nowhere)
    assert first.usage.prompt_tokens is not None
    assert second.usage.cached_tokens == first.usage.prompt_tokens - 1
    assert second.completion.text == first.completion.text


async def test_a_continuation_goes_on_where_the_text_ends(opened: Open) -> None:
    """Delivered text is not delivered again."""
    async with opened() as backend:
        whole = await backend.generate(complete(), nowhere)
        rest = await backend.generate(
            attrs.evolve(complete(), continuation=whole.completion.text[:12]), nowhere
        )
    assert whole.completion.text.startswith(whole.completion.text[:12] + rest.completion.text[:12])


async def test_an_answer_ends_before_a_stop_sequence(opened: Open) -> None:
    """Also when the sequence is made of several tokens."""
    async with opened() as backend:
        found = await backend.generate(complete(max_tokens=64, stop=("11, 12",)), nowhere)
    assert found.completion.text == " 7, 8, 9, 10, "
    assert found.completion.finish_reason == "stop"


async def test_a_seed_repeats_an_answer_and_no_seed_does_not(opened: Open) -> None:
    """Whatever was computed in between."""
    hot = {"temperature": 1.5, "max_tokens": 20, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
    async with opened() as backend:
        first = await backend.generate(complete("Once", seed=7, **hot), nowhere)
        other = await backend.generate(complete("Once", **hot), nowhere)
        again = await backend.generate(complete("Once", seed=7, **hot), nowhere)
    assert first.completion.text == again.completion.text != other.completion.text


async def test_a_repeat_penalty_and_top_k_change_the_answer(opened: Open) -> None:
    """They reach the sampler."""
    async with opened() as backend:
        plain = await backend.generate(complete("la la la la la la", max_tokens=12), nowhere)
        varied = await backend.generate(
            complete("la la la la la la", max_tokens=12, repeat_penalty=2.0), nowhere
        )
        greedy = await backend.generate(complete(temperature=1.5, top_k=1), nowhere)
        coldest = await backend.generate(complete(), nowhere)
    assert plain.completion.text != varied.completion.text
    assert greedy.completion.text == coldest.completion.text


async def test_without_a_limit_the_context_is_the_limit(opened: Open) -> None:
    """Then it ends as if the limit had been given; the context is never overrun."""
    prompt = "1 " * 1000
    async with opened() as backend:
        found = await backend.generate(complete(prompt, max_tokens=None), nowhere)
    assert found.usage.prompt_tokens is not None
    assert found.usage.completion_tokens is not None
    assert found.usage.prompt_tokens + found.usage.completion_tokens <= 2048


async def test_a_prompt_that_does_not_fit_is_refused_with_both_numbers(opened: Open) -> None:
    """And the backend goes on."""
    async with opened() as backend:
        with pytest.raises(ContextTooLong, match=r"3001 tokens and the context 2048"):
            await backend.generate(complete("dog " * 3000), nowhere)
        assert (await backend.generate(complete(), nowhere)).completion.text != ""


async def test_an_empty_prompt_is_refused(opened: Open) -> None:
    """There is nothing to go on from."""
    async with opened() as backend:
        with pytest.raises(InvalidRequest, match="empty"):
            await backend.generate(complete(""), nowhere)


@pytest.mark.parametrize(
    ("prompt", "during"), [("dog " * 1900, "the prompt"), (COUNTING, "the answer")]
)
async def test_a_cancel_is_obeyed_within_a_tenth_of_a_second(
    opened: Open, prompt: str, during: str
) -> None:
    """In the middle of the prompt as in the middle of the answer; the worker lives on."""
    async with opened() as backend:
        (before,) = workers()
        with trio.move_on_after(0.5) as scope:
            await backend.generate(complete(prompt, max_tokens=1800), nowhere)
        late = trio.current_time() - scope.deadline
        assert scope.cancelled_caught, during
        assert late < 0.15
        # Killing it is the way out when it does not answer in time, as on a busy machine.
        if late < 0.09:
            assert workers() == [before]
        assert (await backend.generate(complete(), nowhere)).completion.text.startswith(" 7, 8")


async def test_a_slow_reader_slows_the_worker_down(opened: Open) -> None:
    """Nothing is lost and little is kept: the pipe holds the worker back."""
    taken: list[str] = []

    async def slowly(text: str, tokens: int) -> None:
        taken.append(text)
        await trio.sleep(0.02)

    async with opened() as backend:
        found = await backend.generate(complete(), slowly)
    assert "".join(taken) == found.completion.text


async def test_a_reader_that_fails_frees_the_worker(opened: Open) -> None:
    """Its error comes out as it is."""

    async def fail(text: str, tokens: int) -> None:
        raise LookupError

    async with opened() as backend:
        with pytest.raises(LookupError):
            await backend.generate(complete(max_tokens=1000), fail)
        assert (await backend.generate(complete(), nowhere)).completion.text != ""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT])
async def test_a_crash_ends_one_request_and_no_more(opened: Open, number: int) -> None:
    """The next request starts the worker again."""

    async def murder(text: str, tokens: int) -> None:
        # What it said before the blow is still told.
        for worker in workers():
            os.kill(worker.pid, number)

    async with opened() as backend:
        with pytest.raises(BackendCrashed, match=signal.Signals(number).name):
            await backend.generate(complete(max_tokens=1000), murder)
        assert (await backend.generate(complete(), nowhere)).completion.text != ""


async def test_a_death_between_requests_is_not_noticed_by_anybody(opened: Open) -> None:
    """It is started again before the next request."""
    async with opened() as backend:
        child = backend._worker.child  # type: ignore[attr-defined]  # of one room
        child.kill()
        await child.wait()  # A zombie may still have threads, and be no exit status yet.
        assert (await backend.generate(complete(), nowhere)).completion.text != ""


async def test_nothing_is_left_behind(opened: Open) -> None:
    """Neither after a request nor in the middle of one."""
    async with opened() as backend:
        await backend.generate(complete(), nowhere)
        assert len(workers()) == 1
    assert workers() == []
    async with opened() as backend:
        with trio.move_on_after(0.3):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(backend.generate, complete(max_tokens=1800), nowhere)
    assert workers() == []


async def test_the_worker_ends_when_its_parent_is_gone(model_path: Path) -> None:
    """Its standard input closes; nobody needs to tell it."""
    program = (
        "import os, sys, trio\n"
        "from pathlib import Path\n"
        "from punch.backends.llama._binding import open_binding\n"
        "from punch.capability import ModelOffer\n"
        "async def main():\n"
        "    offer = ModelOffer(name='m')\n"
        f"    async with open_binding(model_path={str(model_path)!r}, offer=offer) as backend:\n"
        "        print(backend._worker.child.pid, flush=True)\n"
        "        await trio.sleep_forever()\n"
        "trio.run(main)\n"
    )
    with trio.fail_after(LIMIT):
        parent = await trio.lowlevel.open_process(
            [sys.executable, "-c", program],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        assert parent.stdout is not None
        pid = int(await parent.stdout.receive_some())
        parent.kill()
        await parent.wait()
        await parent.stdout.aclose()
        await ended(pid)


async def test_the_offer_says_what_was_loaded(opened: Open, offer: ModelOffer) -> None:
    """The context is the one in memory, not the one the model was trained for."""
    async with opened() as backend:
        able = offer.features | {"tools", "json_schema"}
        assert backend.offers == (
            attrs.evolve(offer, context_tokens=2048, continues=True, features=able),
        )
        assert (backend.name, backend.simulated, backend.slots) == ("llama_cpp_python", False, 1)
        assert backend.threads == 2


async def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    """With llama.cpp's own opinion, should the header have looked right."""
    path = tmp_path / "wrong.gguf"
    path.write_bytes(b"GGUF and nothing else")
    with trio.fail_after(LIMIT), pytest.raises(ModelFileError, match="cannot load"):
        async with open_binding(model_path=path, offer=ModelOffer(name="x")):
            pass
    assert workers() == []


async def test_without_a_map_the_file_is_read(model_path: Path, offer: ModelOffer) -> None:
    """The worker does not map it."""
    with trio.fail_after(LIMIT):
        for no_mmap in (True, False):
            async with open_binding(
                model_path=model_path, offer=offer, no_mmap=no_mmap, context_tokens=256
            ):
                (worker,) = workers()
                mapped = [each.path for each in worker.memory_maps()]
                assert (str(model_path) in mapped) == (not no_mmap)


async def test_numbers_that_make_no_sense_are_refused(offer: ModelOffer) -> None:
    """Before anything is started."""
    with pytest.raises(ConfigurationError, match="threads is 0"):
        async with open_binding(model_path="x", offer=offer, threads=0):
            pass
