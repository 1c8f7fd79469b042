"""Backend `llama_cpp` without a server: runs one llama.cpp process a request.

For machines that have ``llama-completion`` or ``llama-cli`` and no ``llama-server``. The backend
loads the model for every request, keeps no cache, takes one request at a time and one user
message with an optional system message. What it cannot do, it refuses by name. How a request is
put to the programs is decided by `_cli_question`; `_cli_run` runs one once, and `_cli_output` reads
what it prints.

The later ``llama-cli`` (it "talks") is itself a server and a client in one process, with an
open port on loopback while it answers. Prefer ``llama-completion``.
"""

from __future__ import annotations

import itertools
import re
import secrets
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

from ..._background import open_background
from ...capability import Gpu, ModelOffer
from ...exceptions import (
    BackendCrashed,
    BackendError,
    ConfigurationError,
    ContextTooLong,
    GenerationFailed,
)
from ...llama_cpp import Program, ask_program, find_completion, list_gpus
from ...processes import describe_exit, tell_loading
from ...wire import ChatMessage, CommandRequest, Completion, Sampling
from .._base import Emit, Generation, Loading
from .._stop import StopMatcher
from ._cli_output import ConversationOutput, Output, PlainOutput, read_perf, read_too_long
from ._cli_question import Question, read_question, sampling_flags
from ._cli_run import Run
from ._vigil import Pace

# As over HTTP: loading a model and reading a long prompt take minutes without a word.
SILENCE_SECONDS = 600.0

# Once it is known how long the program took to load: then the file was in the page cache, as a
# rule, and may not be next time.
LOADED_SECONDS = 60.0
_COLDER = 10.0

_QUOTED_LINES = 12

# The programs print and log from a thread, and exit without waiting for it (upstream issue
# 22142): the last words of an answer, or the reason of a failure, may be lost. Such a program is
# run again: once at any rate, and as often as this time allows.
_ASK_AGAIN_SECONDS = 2.0
_COMPLAINT = re.compile(r"[\d.]+ E |error|failed")


class LlamaCliBackend:
    """Runs a program for every request; a `Backend`. Made by `open_llama_cli`."""

    def __init__(
        self,
        program: Program,
        *,
        model_path: Path,
        threads: int | None,
        no_mmap: bool,
        context_tokens: int,
        offer: ModelOffer,
        gpus: tuple[Gpu, ...],
        more_args: Sequence[str],
    ) -> None:
        self._program = program
        self._threads = threads
        self._context_tokens = context_tokens
        self._offer = offer
        self._gpus = gpus
        self._lock = trio.Lock()
        self._pace = Pace(is_warm=False)
        self._loaded_in: float | None = None
        command = [*program.command, "--model", str(model_path)]
        command += ["--ctx-size", str(context_tokens)]
        if threads is not None and not program.is_given("--threads", "-t"):
            command += ["--threads", str(threads)]
        command += program.mmap_flags(no_mmap)
        command += program.known(
            "--simple-io", "--no-display-prompt", "--no-warmup", "--offline", "--perf",
            # Or "\\n" in a prompt would become a line end.
            "--no-escape", "--no-context-shift",
        )  # fmt: skip
        self._command = [*command, *more_args]

    @property
    def name(self) -> str:
        """The word that selects this backend."""
        return "llama_cpp"

    @property
    def simulated(self) -> bool:
        """False: a real model answers."""
        return False

    @property
    def slots(self) -> int:
        """Always 1: every request loads the whole model."""
        return 1

    @property
    def threads(self) -> int | None:
        """Threads that the program computes with; `None` if the choice was left to it."""
        return self._threads

    @property
    def offers(self) -> tuple[ModelOffer, ...]:
        """The one model, with the features that the program has."""
        return (self._offer,)

    @property
    def gpus(self) -> tuple[Gpu, ...]:
        """The devices that the program itself lists, without the CPU."""
        return self._gpus

    async def ready(self, loading: Loading) -> None:
        """Return at once: every answer starts a program of its own."""

    async def generate(self, request: CommandRequest, emit: Emit) -> Generation:
        """Answer *request*; cancelling it kills the program.

        Raises:
          InvalidRequest: if a parameter cannot be honoured; the text names it.
          PeerRefused: if the program has no way to do what is asked; another backend may.
          ContextTooLong: if the prompt does not fit.
          GenerationFailed: if the program says that it failed.
          BackendCrashed: if the program died of a signal, or cannot be started.

        """
        run = await self._answer(request, emit)
        generation = self._result(run, request.sampling)
        self._learn(run, generation)
        return generation

    async def try_out(self) -> None:
        """Make a token, so that a wrong file or flag shows now and not at the first request.

        Raises:
          BackendCrashed: if the program fails. Nobody reads its words here, so they may be lost.

        """

        async def ignore(text: str, tokens: int) -> None:
            pass

        request = CommandRequest(request_id="try", sampling=Sampling(max_tokens=1))
        if "complete" in self._offer.features:
            request = attrs.evolve(request, command="complete", prompt="a")
        else:
            request = attrs.evolve(request, messages=(ChatMessage(role="user", content="a"),))
        try:
            _check_exit(self._program, await self._answer(request, ignore))
        except BackendError as error:
            raise BackendCrashed(str(error)) from error

    async def _answer(self, request: CommandRequest, emit: Emit) -> Run:
        """Run the program for *request*, and again where the end of what it printed was lost."""
        plain = self._program.is_plain
        question = read_question(request, plain=plain)
        sampling = request.sampling
        if sampling.seed is None and self._program.supports("--seed"):
            # So that a second run says the same; -1, all 32 bits, would be any seed.
            sampling = attrs.evolve(sampling, seed=secrets.randbits(31))
        flags = sampling_flags(self._program, sampling, context_tokens=self._context_tokens)
        # Two loads of a large model at a time may be more than the machine's memory.
        async with self._lock:
            # A file, readable by this user only: arguments are for everybody to see, and a
            # prompt that begins with a dash would be one.
            try:
                with tempfile.TemporaryDirectory(prefix="punch-") as folder:
                    argv = [*self._command, *flags, *self._write(question, Path(folder))]
                    until = trio.current_time() + _ASK_AGAIN_SECONDS
                    passed = ""
                    for runs in itertools.count(1):
                        run = Run(
                            _output(question, plain),
                            StopMatcher(sampling.stop),
                            emit,
                            first_seconds=self._first_seconds(question.prompt),
                            passed=passed,
                        )
                        await run.run(argv, interrupt=plain)
                        spent = runs > 1 and trio.current_time() > until
                        if spent or not self._was_cut(run):
                            break
                        passed = max(passed, run.text, key=len)
                    await run.finish()
            except OSError as error:
                raise BackendCrashed(f"{self._program.name} cannot be started: {error}") from error
        return run

    def _was_cut(self, run: Run) -> bool:
        """Whether the end of what the program printed was lost (see `_ASK_AGAIN_SECONDS`)."""
        if run.stopped or run.code < 0:
            return False
        if run.code > 0:
            return not run.text and not any(map(_COMPLAINT.search, run.lines))
        if read_perf(run.lines)[0].completion_tokens is not None:
            return False
        # The account of the plain program comes last, through the same queue as the answer.
        accounts = self._program.is_plain and self._program.supports("--no-perf")
        return accounts or not run.text

    def _first_seconds(self, prompt: str) -> float:
        """Seconds that the program may take to its first word, and then to any other."""
        if self._loaded_in is None:
            return SILENCE_SECONDS
        load = LOADED_SECONDS + _COLDER * self._loaded_in
        return min(SILENCE_SECONDS, load + self._pace.time_for(len(prompt)))

    def _learn(self, run: Run, generation: Generation) -> None:
        prefill = generation.timings.prefill
        self._pace.learn(generation.usage.computed_tokens, prefill)
        if run.first_after is not None:
            load = max(0.0, run.first_after - (prefill or 0.0))
            self._loaded_in = max(self._loaded_in or 0.0, load)

    def _write(self, question: Question, folder: Path) -> list[str]:
        plain = self._program.is_plain
        prompt = _typed(question, plain)
        # The program drops one line end at the end of a file.
        arguments = ["--file", _private(folder / "prompt", prompt + "\n")]
        if not question.chat:
            return [*arguments, "-no-cnv"]
        arguments += ["--single-turn", *self._program.known("--jinja")]
        arguments += ["-cnv"] if plain else ["--no-show-timings", "--log-verbosity", "3"]
        if question.system:
            arguments += [
                "--system-prompt-file",
                _private(folder / "system", question.system + "\n"),
            ]
        return arguments

    def _result(self, run: Run, sampling: Sampling) -> Generation:
        _check_exit(self._program, run)
        if self._was_cut(run) or run.unsaid:
            # A cut answer must not look like a short one.
            why = "exited before all was printed" if run.text else "gave no answer"
            raise GenerationFailed(f"{self._program.name} {why}{_quote(run.lines)}")
        usage, timings = read_perf(run.lines)
        reason = "stop" if run.stopped else run.reason
        if reason is None:
            # The talking llama-cli does not say; its count of tokens does.
            full = usage.completion_tokens == sampling.max_tokens is not None
            reason = "length" if full else "stop"
        return Generation(
            completion=Completion(text=run.text, finish_reason=reason, stopped_by=run.stop),
            usage=usage,
            timings=timings,
        )


def _typed(question: Question, plain: bool) -> str:
    """The prompt as the program must get it: the one that talks drops another line end."""
    return question.prompt if plain else question.prompt + "\n"


def _output(question: Question, plain: bool) -> Output:
    return PlainOutput() if plain else ConversationOutput(_typed(question, plain))


def _check_exit(program: Program, run: Run) -> None:
    """Raise what a program's failure means; a stopped one was killed, and did not fail."""
    if run.stopped:
        return
    if (numbers := read_too_long(run.lines)) is not None:
        raise ContextTooLong.of(
            f"the prompt has {numbers[0]} tokens and the context of a request is "
            f"{numbers[1]} tokens; shorten the prompt",
            *numbers,
        )
    if run.code != 0:
        why = f"{program.name} ended with {describe_exit(run.code)}{_quote(run.lines)}"
        # Below 0 it is a signal: the program did not end by itself.
        raise GenerationFailed(why) if run.code > 0 else BackendCrashed(why, engine_died=True)


def _private(path: Path, text: str) -> str:
    path.touch(mode=0o600)
    # Bytes, so that line ends stay what they are on Windows, too.
    path.write_bytes(text.encode("utf-8", "replace"))
    return str(path)


def _quote(lines: Sequence[str]) -> str:
    last = lines[-_QUOTED_LINES:]
    return (
        "; its last lines:\n  " + "\n  ".join(last)
        if last
        else "; it said nothing (try it by hand)"
    )


@asynccontextmanager
async def open_llama_cli(
    *,
    program: str | Path,
    model_path: str | Path,
    threads: int | None,
    no_mmap: bool,
    context_tokens: int,
    gpu_layers: int | None = None,
    alias: str | None = None,
    digest: str | None = None,
    offer: ModelOffer | None = None,
    arguments: Sequence[str] = (),
    extra_args: Sequence[str] = (),
    setting: str = "LLAMA_CPP_EXE",
) -> AsyncIterator[LlamaCliBackend]:
    """Answer with one process a request; enter when the model has answered once.

    Args:
      program: Path of ``llama-completion`` or ``llama-cli``. Beside one that is called
        ``llama-cli``, a ``llama-completion`` is preferred.
      model_path: The GGUF file.
      threads: Threads to compute with; `None` for the program's choice.
      no_mmap: Read the model into memory instead of mapping the file.
      context_tokens: Longest prompt plus answer of one request, in tokens.
      gpu_layers: Layers to keep on GPUs; `None` for the program's choice.
      alias: Name of the model, where no *offer* is given.
      digest: SHA-256 of the model file, where no *offer* is given.
      offer: What to offer; features that the program lacks are taken out.
      arguments: Arguments that the program always gets, in front of all others.
      extra_args: Further arguments for the program.
      setting: Name of the setting that *program* comes from, for error texts.

    Raises:
      ConfigurationError: if *program* is not a llama.cpp program that can do this.
      BackendCrashed: if the program cannot answer; the text has its last lines.

    """
    if not arguments:
        program = _preferred(Path(program))
    known = await ask_program(program, arguments=arguments, setting=setting)
    features = _features(known)
    if known.is_server or not known.supports("--file") or not features:
        raise ConfigurationError(
            f"{setting}={program} is no program that answers and ends: set it to "
            "llama-completion, or to llama-server for the better backend"
        )
    model = Path(model_path)
    if offer is None:
        offer = ModelOffer(name=alias or model.stem, digest=digest, context_tokens=context_tokens)
    offer = attrs.evolve(offer, features=offer.features & features)
    gpu_args = [] if gpu_layers is None else ["--n-gpu-layers", str(gpu_layers)]
    backend = LlamaCliBackend(
        known,
        model_path=model,
        threads=threads,
        no_mmap=no_mmap,
        context_tokens=context_tokens,
        offer=offer,
        gpus=await list_gpus(known, setting=setting),
        more_args=[*gpu_args, *extra_args],
    )
    async with open_background() as nursery:
        # Each run is another process, and loads it all: only the seconds are told.
        nursery.start_soon(tell_loading, known.name, lambda: None, None)
        await backend.try_out()
    yield backend


def _preferred(path: Path) -> Path:
    """The llama-completion beside a llama-cli, or the program itself: what is named must be."""
    if path.stem != "llama-cli" or not path.is_file():
        return path
    return find_completion(path) or path


def _features(program: Program) -> frozenset[str]:
    chat = program.supports("--single-turn") and program.supports("--system-prompt-file")
    if program.is_plain:
        return frozenset({"complete", "chat"} if chat else {"complete"})
    return frozenset({"chat"} if chat and program.supports("--no-show-timings") else ())
