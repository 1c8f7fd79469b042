"""Backend `llama_cpp` without a server: runs one llama.cpp process a request.

For machines that have ``llama-completion`` or ``llama-cli`` and no ``llama-server``. The backend
loads the model for every request, keeps no cache, takes one request at a time and one user
message with an optional system message. What it cannot do, it refuses by name. How a request is
put to the programs is decided by `_cli_question`, and what they print is read by `_cli_output`.

The later ``llama-cli`` (it "talks") is itself a server and a client in one process, with an
open port on loopback while it answers. Prefer ``llama-completion``.
"""

from __future__ import annotations

import codecs
import re
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

from ..._background import open_background
from ..._logs import get_logger
from ...capability import Gpu, ModelOffer
from ...exceptions import (
    BackendCrashed,
    BackendError,
    ConfigurationError,
    ContextTooLong,
    GenerationFailed,
)
from ...llama_cpp import Program, ask_program, find_completion, list_gpus
from ...processes import Child, LastLines, describe_exit, open_child, tell_loading
from ...wire import ChatMessage, CommandRequest, Completion, Sampling
from .._base import Emit, Generation, Loading
from .._stop import StopMatcher
from ._cli_output import ConversationOutput, Output, PlainOutput, read_perf, read_too_long
from ._cli_question import Question, read_question, sampling_flags
from ._vigil import Pace

log = get_logger(__name__)

# As over HTTP: loading a model and reading a long prompt take minutes without a word.
SILENCE_SECONDS = 600.0

# Once it is known how long the program took to load: then the file was in the page cache, as a
# rule, and may not be next time.
LOADED_SECONDS = 60.0
_COLDER = 10.0

# After a stop sequence the program is interrupted and prints its account; then it is killed.
_ACCOUNT_SECONDS = 1.0

_QUOTED_LINES = 12

# The programs print and log from a thread, and exit without waiting for it (upstream issue
# 22142). One that fails within milliseconds often takes its reason along, so it is asked
# again, within this time.
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
        plain = self._program.is_plain
        question = read_question(request, plain=plain)
        flags = sampling_flags(self._program, request.sampling, context_tokens=self._context_tokens)
        # Two loads of a large model at a time may be more than the machine's memory.
        async with self._lock:
            # A file, readable by this user only: arguments are for everybody to see, and a
            # prompt that begins with a dash would be one.
            try:
                with tempfile.TemporaryDirectory(prefix="punch-") as folder:
                    argv = [*self._command, *flags, *self._write(question, Path(folder))]
                    until = trio.current_time() + _ASK_AGAIN_SECONDS
                    while True:
                        stop = StopMatcher(request.sampling.stop)
                        run = _Run(
                            _output(question, plain),
                            stop,
                            emit,
                            first_seconds=self._first_seconds(question.prompt),
                        )
                        code, lines = await run.run(argv, interrupt=plain)
                        # An exit code above 0 with neither text nor a complaint: what it printed
                        # was lost (see `_ASK_AGAIN_SECONDS`).
                        told = code <= 0 or run.text or any(map(_COMPLAINT.search, lines))
                        if told or trio.current_time() > until:
                            break
            except OSError as error:
                raise BackendCrashed(f"{self._program.name} cannot be started: {error}") from error
        generation = self._result(run, code, lines, request.sampling)
        self._learn(run, generation)
        return generation

    def _first_seconds(self, prompt: str) -> float:
        """Seconds that the program may take to its first word, and then to any other."""
        if self._loaded_in is None:
            return SILENCE_SECONDS
        load = LOADED_SECONDS + _COLDER * self._loaded_in
        return min(SILENCE_SECONDS, load + self._pace.time_for(len(prompt)))

    def _learn(self, run: _Run, generation: Generation) -> None:
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

    def _result(self, run: _Run, code: int, lines: Sequence[str], sampling: Sampling) -> Generation:
        if not run.stopped:
            if (numbers := read_too_long(lines)) is not None:
                raise ContextTooLong.of(
                    f"the prompt has {numbers[0]} tokens and the context of a request is "
                    f"{numbers[1]} tokens; shorten the prompt",
                    *numbers,
                )
            if code != 0:
                why = f"{self._program.name} ended with {describe_exit(code)}{_quote(lines)}"
                # Below 0 it is a signal: the program did not end by itself.
                raise GenerationFailed(why) if code > 0 else BackendCrashed(why, engine_died=True)
        usage, timings = read_perf(lines)
        uncounted = not run.stopped and usage.completion_tokens is None
        if uncounted and self._program.is_plain and self._program.supports("--no-perf"):
            # Its account comes last, through the same queue: the end of the answer may be
            # lost as well, and a cut answer must not look like a short one.
            raise GenerationFailed(f"{self._program.name} exited before all was printed")
        if uncounted and not run.text:
            raise GenerationFailed(f"{self._program.name} gave no answer{_quote(lines)}")
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


class _Run:
    """A single run of the program, read while it answers."""

    def __init__(
        self, output: Output, stop: StopMatcher, emit: Emit, *, first_seconds: float
    ) -> None:
        self.first_after: float | None = None
        """Seconds from its start to its first word."""
        self._silence = first_seconds
        self._output = output
        self._stop = stop
        self._emit = emit
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._parts: list[str] = []
        self.reason: str | None = None
        """Why the answer ended, if the program said so."""

    @property
    def text(self) -> str:
        """The answer so far."""
        return "".join(self._parts)

    @property
    def stop(self) -> str | None:
        """The stop sequence that ended the answer."""
        return self._stop.found

    @property
    def stopped(self) -> bool:
        """Whether a stop sequence ended the answer."""
        return self._stop.stopped

    async def run(self, argv: Sequence[str], *, interrupt: bool) -> tuple[int, tuple[str, ...]]:
        """Run *argv*; return its exit code and its last lines on standard error.

        After a stop sequence the program is killed; with *interrupt* it is first interrupted, so
        that it prints what it has counted.
        """
        lines = LastLines()
        # No grace: a cancelled answer must be gone within 100 ms, and there is nothing to save.
        async with open_child(argv, env={}, grace=0.0) as process, open_background() as nursery:
            assert process.stderr is not None
            logged = trio.Event()
            nursery.start_soon(_read_log, lines, process.stderr, logged)
            await self._read(process.stdout, Path(argv[0]).name)
            if not self.stopped:
                await process.wait()
            elif interrupt:
                with trio.move_on_after(_ACCOUNT_SECONDS):
                    await _interrupt(process)
                    await process.wait()
            if process.returncode is not None:
                with trio.move_on_after(_ACCOUNT_SECONDS):
                    await logged.wait()
            return process.returncode or 0, lines.lines

    async def _read(self, stdout: trio.abc.ReceiveStream, name: str) -> None:
        began = trio.current_time()
        while True:
            with trio.move_on_after(self._silence) as patience:
                data = await stdout.receive_some()
            if patience.cancelled_caught:
                # Leaving kills it, with all that it has started.
                why = f"printed nothing for {self._silence:.0f} s"
                log.warning("an engine is stuck and is killed", engine=name, why=why)
                raise BackendCrashed(f"{name} {why} and was killed", engine_died=True)
            if not data:
                break
            if self.first_after is None:
                self.first_after = trio.current_time() - began
            await self._pass(self._decode(self._output.feed(data)))
            if self.stopped:
                return
        rest, self.reason = self._output.finish()
        await self._pass(self._decode(rest, True))
        if not self.stopped:
            await self._deliver(self._stop.finish())

    async def _pass(self, text: str) -> None:
        if text:
            await self._deliver(self._stop.feed(text))

    async def _deliver(self, text: str) -> None:
        if text:
            self._parts.append(text)
            # The programs print token by token, and pipes keep that, more or less.
            await self._emit(text, 1)


async def _read_log(log: LastLines, stderr: trio.abc.ReceiveStream, done: trio.Event) -> None:
    await log.read(stderr)
    done.set()


async def _interrupt(process: Child) -> None:
    """Make the program stop and print what it has counted."""
    if sys.platform == "win32":
        return
    process.interrupt()
    async for _ in process.stdout:  # Or the program would block on a full pipe.
        pass


def _typed(question: Question, plain: bool) -> str:
    """The prompt as the program must get it: the one that talks drops another line end."""
    return question.prompt if plain else question.prompt + "\n"


def _output(question: Question, plain: bool) -> Output:
    return PlainOutput() if plain else ConversationOutput(_typed(question, plain))


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
        await _try(backend, features)
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


async def _try(backend: LlamaCliBackend, features: frozenset[str]) -> None:
    """Make a token, so that a wrong file or flag shows now and not at the first request."""

    async def ignore(text: str, tokens: int) -> None:
        pass

    one = Sampling(max_tokens=1)
    request = (
        CommandRequest(request_id="try", command="complete", prompt="a", sampling=one)
        if "complete" in features
        else CommandRequest(
            request_id="try", messages=(ChatMessage(role="user", content="a"),), sampling=one
        )
    )
    try:
        await backend.generate(request, ignore)
    except BackendError as error:
        raise BackendCrashed(str(error)) from error
