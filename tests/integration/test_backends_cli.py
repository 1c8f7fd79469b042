"""llama-completion and llama-cli, really: one process a request."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

import attrs
import psutil
import pytest
import trio

from punch.backends import open_llama_cli, open_llama_server
from punch.backends.llama._cli import LlamaCliBackend
from punch.capability import ModelOffer
from punch.exceptions import (
    BackendCrashed,
    ConfigurationError,
    ContextTooLong,
    GenerationFailed,
    PeerRefused,
)
from punch.llama_cpp import ask_program
from punch.wire import ChatMessage, CommandRequest, Completion, Sampling

LIMIT = 180

Open = Callable[..., AbstractAsyncContextManager[LlamaCliBackend]]


def asking(*turns: str) -> CommandRequest:
    """A chat of *turns*, the last of them the user's, before it the system's."""
    roles = ["system", "user"][-len(turns) :]
    return CommandRequest(
        request_id="r",
        messages=tuple(
            ChatMessage(role=role, content=turn) for role, turn in zip(roles, turns, strict=True)
        ),
        sampling=Sampling(max_tokens=16, temperature=0.0, seed=1),
    )


PARIS = asking("What is the capital of France? Answer briefly.")
FOX = asking("Write a very long story about a fox.")


async def ignore(text: str, tokens: int) -> None:
    """Take what is emitted."""


@pytest.fixture
def plain(model_path: Path, llama_cpp_folder: Path) -> Open:
    """Opens llama-completion."""
    return partial(
        open_llama_cli,
        program=llama_cpp_folder / "llama-completion",
        model_path=model_path,
        threads=1,
        no_mmap=False,
        context_tokens=1024,
    )


@pytest.fixture
def talking(plain: Open, llama_cpp_folder: Path, tmp_path: Path) -> Open:
    """Opens llama-cli, from a folder where no better program is beside it."""
    alone = tmp_path / "llama-cli"
    try:
        os.link(llama_cpp_folder / "llama-cli", alone)
    except OSError:  # Another file system.
        shutil.copy2(llama_cpp_folder / "llama-cli", alone)
    return partial(plain, program=alone)


@pytest.fixture(params=["llama-completion", "llama-cli"])
def either(request: pytest.FixtureRequest, plain: Open, talking: Open) -> Open:
    """One of the two, then the other."""
    return plain if request.param == "llama-completion" else talking


async def test_the_answer_is_clean_and_truly_counted(either: Open) -> None:
    """No banner, no echo, no ending; numbers from the program's own account."""
    parts: list[str] = []

    async def emit(text: str, tokens: int) -> None:
        parts.append(text)

    with trio.fail_after(LIMIT):
        async with either() as backend:
            generation = await backend.generate(PARIS, emit)
    assert generation.completion.text == "The capital of France is Paris."
    assert "".join(parts) == generation.completion.text
    assert len(parts) > 1
    assert generation.completion.finish_reason == "stop"
    assert (generation.usage.prompt_tokens, generation.usage.completion_tokens) == (40, 8)
    assert generation.timings.prefill is not None
    assert generation.timings.decode is not None
    assert (backend.name, backend.slots, backend.simulated) == ("llama_cpp", 1, False)


async def test_the_likeliest_answer_is_the_servers(
    either: Open, model_path: Path, llama_cpp_folder: Path
) -> None:
    """Template, prompt and sampling are the same in all of llama.cpp's programs."""
    with trio.fail_after(LIMIT):
        async with open_llama_server(
            program=llama_cpp_folder / "llama-server",
            model_path=model_path,
            threads=1,
            no_mmap=False,
            slots=1,
            context_tokens=1024,
        ) as server:
            expected = await server.generate(PARIS, ignore)
        async with either() as backend:
            generation = await backend.generate(PARIS, ignore)
    assert generation.completion == expected.completion
    assert generation.usage.prompt_tokens == expected.usage.prompt_tokens
    assert generation.usage.completion_tokens == expected.usage.completion_tokens


async def test_an_answer_ends_where_the_caller_says(either: Open) -> None:
    """After so many tokens, or before a stop sequence."""
    with trio.fail_after(LIMIT):
        async with either() as backend:
            cut = await backend.generate(FOX, ignore)
            sampling = attrs.evolve(FOX.sampling, max_tokens=100, stop=("named",))
            stopped = await backend.generate(attrs.evolve(FOX, sampling=sampling), ignore)
    assert cut.completion.finish_reason == "length"
    assert cut.usage.completion_tokens == 16
    assert stopped.completion.finish_reason == "stop"
    assert stopped.completion.text == cut.completion.text[: cut.completion.text.index("named")]


async def test_a_stopped_answer_is_still_counted(plain: Open) -> None:
    """The program is interrupted, not killed, and gives its account."""
    request = attrs.evolve(FOX, sampling=attrs.evolve(FOX.sampling, stop=("named",)))
    with trio.fail_after(LIMIT):
        async with plain() as backend:
            generation = await backend.generate(request, ignore)
    assert generation.usage.prompt_tokens == 39
    assert generation.usage.completion_tokens is not None
    assert 9 <= generation.usage.completion_tokens <= 16


async def test_a_raw_prompt_is_completed(plain: Open) -> None:
    """By the plain program only; its line ends are kept as they are."""
    request = attrs.evolve(
        PARIS, command="complete", messages=(), prompt="The capital of France is"
    )
    line = attrs.evolve(request, prompt="1\n2\n3\n4\n")
    with trio.fail_after(LIMIT):
        async with plain() as backend:
            generation = await backend.generate(request, ignore)
            counted = await backend.generate(line, ignore)
    assert "Paris" in generation.completion.text
    assert generation.usage.prompt_tokens == 5
    # Four digits and four line ends, the last one too.
    assert counted.usage.prompt_tokens == 8


async def test_the_talking_program_refuses_a_raw_prompt(talking: Open) -> None:
    """It offers no such thing either."""
    with trio.fail_after(LIMIT):
        async with talking() as backend:
            assert backend.offers[0].features == {"chat"}
            with pytest.raises(PeerRefused, match="complete"):
                await backend.generate(
                    CommandRequest(request_id="r", command="complete", prompt="a"), ignore
                )


@pytest.mark.parametrize("text", ["-m --help", "a\\nb", "> x\n> y", "x" * 600, "é\n"])
async def test_a_prompt_is_never_taken_for_anything_else(either: Open, text: str) -> None:
    """Not for flags, escapes, echoes or endings."""
    with trio.fail_after(LIMIT):
        async with either() as backend:
            generation = await backend.generate(asking(text), ignore)
    assert generation.usage.prompt_tokens is not None
    assert not generation.completion.text.startswith("\n> ")
    assert "Exiting..." not in generation.completion.text
    assert "[end of text]" not in generation.completion.text


async def test_a_system_message_is_heard(either: Open) -> None:
    """It takes the place of the template's own."""
    with trio.fail_after(LIMIT):
        async with either() as backend:
            without = await backend.generate(asking("Hi"), ignore)
            generation = await backend.generate(asking("You are a pirate.", "Hi"), ignore)
    assert without.usage.prompt_tokens == 31
    assert generation.usage.prompt_tokens == 20


async def test_a_prompt_that_does_not_fit_is_refused_with_both_numbers(either: Open) -> None:
    """The plain program keeps four tokens for itself."""
    with trio.fail_after(LIMIT):
        async with either() as backend:
            with pytest.raises(ContextTooLong, match=r"3031 tokens .* 102[04] tokens"):
                await backend.generate(asking("word " * 3000), ignore)


async def test_a_cancelled_answer_kills_its_program(either: Open) -> None:
    """Within 100 ms, and nothing of the prompt is left or ever shown."""
    secret = "a very secret story"
    request = attrs.evolve(
        asking(f"Write {secret} about a fox."), sampling=Sampling(max_tokens=900)
    )
    with trio.fail_after(LIMIT):
        async with either() as backend:
            begun = trio.Event()
            children: list[psutil.Process] = []

            async def emit(text: str, tokens: int) -> None:
                children.extend(psutil.Process().children(recursive=True))
                begun.set()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(backend.generate, request, emit)
                await begun.wait()
                lines = [" ".join(child.cmdline()) for child in children]
                began = trio.current_time()
                nursery.cancel_scope.cancel()
            seconds = trio.current_time() - began
    assert seconds < 0.1
    assert children
    assert not [child for child in children if child.is_running()]
    assert not [line for line in lines if secret in line]
    folders = {word for line in lines for word in line.split() if "/punch-" in word}
    assert folders
    assert not [folder for folder in folders if await trio.Path(folder).exists()]


async def test_conversations_are_refused_by_name(plain: Open) -> None:
    """The remedy is in the text."""
    turns = [ChatMessage(role=role, content="x") for role in ("user", "assistant", "user")]
    with trio.fail_after(LIMIT):
        async with plain() as backend:
            with pytest.raises(PeerRefused, match=r"messages .* llama-server"):
                await backend.generate(attrs.evolve(PARIS, messages=tuple(turns)), ignore)


async def test_a_bad_model_file_is_refused_in_the_programs_words(
    either: Open, tmp_path: Path
) -> None:
    """When the backend is opened. llama-completion may lose its words on a busy machine."""
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"this is no model")
    with trio.fail_after(LIMIT):
        with pytest.raises(BackendCrashed, match=r"failed to load model|said nothing"):
            async with either(model_path=bad):
                pass


async def test_a_server_is_no_program_that_answers_and_ends(
    plain: Open, llama_cpp_folder: Path, tmp_path: Path
) -> None:
    """It has a better backend of its own."""
    alone = tmp_path / "llama-server"
    alone.symlink_to(llama_cpp_folder / "llama-server")
    with trio.fail_after(LIMIT):
        with pytest.raises(ConfigurationError, match="LLAMA_CPP_EXE"):
            async with plain(program=alone):
                pass


# Says of itself what llama-completion does; as an answer it prints what its seed says, or the first
# time only the beginning of it.
FAILING = """#!/bin/sh
case "$*" in
*--help*) echo "--model --ctx-size --file --simple-io --perf --no-perf --seed -no-cnv"; exit 0 ;;
*--version*) echo "version: 1 (fake)"; exit 0 ;;
esac
seed=${{*##*--seed }}; seed=${{seed%% *}}
echo "$seed" >> "{log}"
[ "$(wc -l < "{log}")" -gt 1 ] || {{ printf '{first}'; exit {code}; }}
printf '{second}'
echo "eval time = 5.00 ms / 2 runs" >&2
"""

PROMPT = CommandRequest(request_id="r", command="complete", prompt="p")


class Failing:
    """A backend whose program fails the first time; made by the fixture `failing`."""

    def __init__(self, program: Path) -> None:
        self.program = program
        self._log = program.with_name("log")
        self.texts: list[str] = []

    @property
    def seeds(self) -> list[str]:
        """The seed of each run."""
        return self._log.read_text().splitlines()

    async def emit(self, text: str, tokens: int) -> None:
        """Keep what is passed on."""
        self.texts.append(text)
        await trio.lowlevel.checkpoint()

    async def ask(
        self, first: str, second: str, *, code: int, request: CommandRequest = PROMPT
    ) -> Completion:
        """Ask a program that prints *first* and ends with *code*, and the next time *second*."""
        self.write(first, second, code=code)
        backend = LlamaCliBackend(
            await ask_program(self.program, setting="LLAMA_CPP_EXE"),
            model_path=self.program.with_name("model.gguf"),
            threads=None,
            no_mmap=False,
            context_tokens=1024,
            offer=ModelOffer(name="m", features=frozenset({"complete"})),
            gpus=(),
            more_args=(),
        )
        with trio.fail_after(LIMIT):
            return (await backend.generate(request, self.emit)).completion

    def write(self, first: str, second: str, *, code: int) -> None:
        """Write the program."""
        script = FAILING.format(log=self._log, first=first, second=second, code=code)
        self.program.write_text(script)
        self.program.chmod(0o700)


@pytest.fixture
def failing(tmp_path: Path) -> Failing:
    """A program that is yet to be written."""
    return Failing(tmp_path / "llama-completion")


async def test_a_program_that_failed_with_some_of_an_answer_is_not_run_again(
    failing: Failing,
) -> None:
    """Although it would print all of it the second time."""
    with pytest.raises(GenerationFailed):
        await failing.ask("one two ", "one two three\\n\\n", code=1)
    assert ("".join(failing.texts), len(failing.seeds)) == ("one two ", 1)


@pytest.mark.parametrize(
    ("code", "first"),
    [(1, ""), (0, ""), (0, "d\\303\\251j"), (0, "d\\303"), (0, "d\\303\\251j\\303\\240 vu \\n")],
)
async def test_what_was_lost_when_a_program_exited_is_said_by_a_second_run(
    code: int, first: str, failing: Failing
) -> None:
    """With the same seed, and only what was not passed on is."""
    answer = await failing.ask(first, "d\\303\\251j\\303\\240 vu \\n\\n", code=code)
    assert "".join(failing.texts) == answer.text == "d\u00e9j\u00e0 vu "
    assert len(failing.seeds) == 2
    assert failing.seeds[0] == failing.seeds[1]


@pytest.mark.parametrize("second", ["one ten", "one\\n\\n"])
async def test_a_second_run_that_says_something_else_fails(second: str, failing: Failing) -> None:
    """What was passed on is no part of its answer."""
    with pytest.raises(GenerationFailed):
        await failing.ask("one two ", second, code=0)
    assert failing.texts == ["one two"]


async def test_the_seed_of_a_request_is_kept(failing: Failing) -> None:
    """Only a request without one gets one by chance."""
    request = attrs.evolve(PROMPT, sampling=Sampling(seed=7))
    await failing.ask("", "one two\\n\\n", code=0, request=request)
    assert failing.seeds == ["7", "7"]


async def test_a_program_that_loses_its_words_can_be_opened(
    failing: Failing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody reads those of the first token; that the program did not fail is enough."""
    monkeypatch.setattr("punch.backends.llama._cli._ASK_AGAIN_SECONDS", 0.0)
    failing.write("a", "a", code=0)
    failing.program.write_text(failing.program.read_text().replace("-gt 1", "-gt 99"))
    with trio.fail_after(LIMIT):
        async with open_llama_cli(
            program=failing.program,
            model_path=failing.program.with_name("model.gguf"),
            threads=None,
            no_mmap=False,
            context_tokens=1024,
        ) as backend:
            with pytest.raises(GenerationFailed, match="before all was printed"):
                await backend.generate(PROMPT, failing.emit)
