"""Backend ``llama_cpp_python``: the Python binding of llama.cpp, in a process of ours.

For people who already have the binding, built for their hardware. It answers one request
at a time; the other llama.cpp backends batch. Decides when the process is started, cancelled
and killed; how an answer is made is left to `_binding_worker`.

* The process is started by `open_binding`, and again by the first request after a crash.
  A request that is running when it crashes gets `BackendCrashed`. After several crashes in
  a row the pauses grow, see `_restarts`.
* A process that makes nothing in the time that it may take for the prompt, or for a token, is
  stuck and is killed, see `_vigil`.
* A cancelled request stops within a few milliseconds on a CPU, where llama.cpp looks at the
  cancel between two operations. If the process has not confirmed after 100 ms (a GPU in the
  middle of a long prompt), it is killed, and the next request loads the model anew, after
  the pause that a crash would have; however often that happens, it is not given up.
"""

from __future__ import annotations

import collections
import importlib.util
import json
import math
import os
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import attrs
import psutil
import trio

from ..._background import open_background
from ..._logs import get_logger
from ...capability import Gpu, ModelOffer
from ...exceptions import (
    BackendCrashed,
    ConfigurationError,
    ContextTooLong,
    GenerationFailed,
    InvalidRequest,
    ModelFileError,
    PunchError,
)
from ...processes import Child, Restarts, describe_exit, start_child, tell_loading
from ...wire import CommandRequest, PromptCount
from .._base import Backend, Emit, Generation, Loading, say_while, with_continuation
from ..openai._written_tools import ask_in_writing, has_tools
from ._binding_lines import asked, check_schema, generation_of
from ._vigil import Pace

log = get_logger(__name__)

_MAX_LINE_BYTES: Final = 4 * 1024 * 1024  # From the worker; the longest is an embedding, 100 KB.
_RECEIVE_BYTES: Final = 64 * 1024  # Read at a time: the size of a pipe on Linux.
_CANCEL_SECONDS: Final = 0.1  # What `Backend.generate` promises.
_STOP_SECONDS: Final = 1.0  # The worker ends at once when its standard input closes.
_START_SECONDS: Final = 600.0  # A model of 100 GB from a slow disk takes minutes.
_PATIENCE_SECONDS: Final = 1.0  # A longer pause after a crash fails the request at once.
_TAIL_BYTES: Final = 4096  # Of what it printed last, for the message about a crash.
_DEFAULT_CONTEXT_TOKENS: Final = 8192  # Models claim 131072, whose cache fills a small machine.
_ERRORS: Final[dict[str, type[PunchError]]] = {
    error.code: error
    for error in (ConfigurationError, ContextTooLong, GenerationFailed, InvalidRequest)
} | {ModelFileError.code: ModelFileError}


@asynccontextmanager
async def open_binding(
    *,
    model_path: str | Path,
    offer: ModelOffer,
    threads: int | None = None,
    no_mmap: bool = False,
    context_tokens: int | None = None,
    gpu_layers: int = -1,
    batch: int | None = None,
    micro_batch: int | None = None,
) -> AsyncIterator[Backend]:
    """Run *model_path* with llama-cpp-python.

    Args:
      model_path: A GGUF file.
      offer: What to offer, as the model store describes the file; `context_tokens` is corrected
        to what was loaded.
      threads: Threads to compute with. `None`: one a physical core, as llama.cpp's programs do
        (the binding itself takes half of that).
      no_mmap: Read the file into memory instead of mapping it.
      context_tokens: Longest prompt plus answer. `None`: what the model was trained for, at
        most 8192, since the memory for it is reserved at once.
      gpu_layers: Layers to put on the GPU, -1 for all; without meaning if it was built without.
      batch: Tokens of a prompt that are taken at once. `None`: 512.
      micro_batch: Tokens of these that are computed at once. `None`: 512.

    Raises:
      ConfigurationError: if llama-cpp-python is not installed, or a number makes no sense.
      ModelFileError: if the binding cannot load the file.
      BackendCrashed: if the process dies while loading.

    """
    for name, value in (("threads", threads), ("context_tokens", context_tokens)):
        if value is not None and value < 1:
            raise ConfigurationError(f"{name} is {value}, but must be at least 1")
    if importlib.util.find_spec("llama_cpp") is None:
        raise ConfigurationError(
            "the backend llama_cpp_python needs llama-cpp-python, which is not installed: "
            "pip install 'punch-router[llama-cpp-python]' (it compiles for minutes and needs a "
            "C++ compiler; in a clone of punch: bins/setup --binding)"
        )
    settings = {
        "model_path": str(model_path),
        "threads": threads or psutil.cpu_count(logical=False) or 1,
        "no_mmap": no_mmap,
        "context_tokens": context_tokens
        or min(offer.context_tokens or _DEFAULT_CONTEXT_TOKENS, _DEFAULT_CONTEXT_TOKENS),
        "gpu_layers": gpu_layers,
        "batch": batch,
        "micro_batch": micro_batch,
        "embed": "embed" in offer.features,
    }
    backend = _Binding(settings, offer)
    try:
        await backend.start()
        yield backend
    finally:
        with trio.CancelScope(shield=True):
            await backend.stop()


class _Binding:
    """The backend; owns the worker process, if there is one."""

    name = "llama_cpp_python"
    simulated = False
    slots = 1
    gpus: tuple[Gpu, ...] = ()

    def __init__(self, settings: dict[str, Any], offer: ModelOffer) -> None:
        self._settings = settings
        self._offer = with_continuation(_with_features(offer))
        self._worker: _Worker | None = None
        self._lock = trio.Lock()
        self._restarts = Restarts()
        self._not_before = -math.inf
        self._number = 0
        self._pace = Pace(is_warm=False)
        self._starts = 0
        self._reason: str | None = None
        self._loaded_in = 1.0
        self.threads: int | None = settings["threads"]

    @property
    def offers(self) -> tuple[ModelOffer, ...]:
        """The one model, with the seconds until it is loaded while no worker runs.

        Empty while the worker is down because it crashed again and again.
        """
        if self._worker is not None and self._worker.is_running():
            return (self._offer,)
        pause = max(0.0, self._not_before - trio.current_time())
        if self._restarts.is_loop and pause > 0.0:
            return ()
        return (attrs.evolve(self._offer, load_seconds=pause + self._loaded_in),)

    @property
    def restarts(self) -> int:
        """How often the worker was started again."""
        return max(0, self._starts - 1)

    @property
    def why_restarted(self) -> str | None:
        """Why the worker ended last; `None` if it never has."""
        return self._reason

    @property
    def reason(self) -> str | None:
        """Why the model is not loaded; `None` if it is."""
        is_there = self._worker is not None and self._worker.is_running()
        return None if is_there else self._reason

    async def start(self) -> None:
        """Load the model, unless it is loaded.

        Raises:
          BackendCrashed: if the worker dies, or crashed so often that it is not started now.
          ModelFileError: if the model cannot be loaded.

        """
        if self._worker is not None and self._worker.is_running():
            return
        await self.stop()
        wait = self._not_before - trio.current_time()
        if wait > _PATIENCE_SECONDS:
            raise BackendCrashed(
                f"llama-cpp-python crashed {self._restarts.in_a_row} times in a row; "
                f"next try in {wait:.0f} s"
                if self._restarts.is_loop
                else f"llama-cpp-python crashed or was killed; next try in {wait:.0f} s",
                retry_after=wait,
            )
        await trio.sleep(max(0.0, wait))
        began = trio.current_time()
        self._starts += 1
        worker = self._worker = await _Worker.spawn()
        try:
            async with open_background() as nursery:
                size = self._offer.size_bytes
                nursery.start_soon(tell_loading, "llama-cpp-python", lambda: worker.child, size)
                facts = await worker.open(self._settings)
        except BackendCrashed:
            await self._crashed()
            raise
        except BaseException:
            await self.stop()
            raise
        self._loaded_in = trio.current_time() - began
        self._restarts.is_ready(trio.current_time())
        self.threads = facts["threads"]
        self._offer = attrs.evolve(self._offer, context_tokens=facts["context_tokens"])

    async def stop(self) -> None:
        """End the worker process, if there is one."""
        worker, self._worker = self._worker, None
        if worker is not None:
            await worker.end()

    async def ready(self, loading: Loading) -> None:
        """Return when the model is loaded; the worker is started if the last one has crashed.

        Raises:
          BackendCrashed: as `start`.

        """
        if self._worker is not None and self._worker.is_running():
            return
        began = trio.current_time()

        async def start() -> None:
            async with self._lock:
                await self.start()

        await say_while(
            start, lambda: loading(max(1.0, began + self._loaded_in - trio.current_time()))
        )

    async def generate(self, request: CommandRequest, emit: Emit) -> Generation:
        """Answer *request*, alone: further ones wait for their turn.

        Raises:
          PeerRefused: if a schema has what the binding would ignore.
          InvalidRequest: if the model's chat template or a grammar refuses it.
          ContextTooLong: if the prompt does not fit.
          GenerationFailed: if this answer failed but the worker lives.
          BackendCrashed: if the worker is gone; the text says how it ended.

        """
        if request.response_schema is not None:
            check_schema(request.response_schema)
        if has_tools(request):
            return await ask_in_writing(request, emit, self._generate)
        return await self._generate(request, emit)

    async def _generate(self, request: CommandRequest, emit: Emit) -> Generation:
        async with self._lock:
            await self.start()
            worker = self._worker
            assert worker is not None
            self._number += 1
            try:
                generation = await self._ask(worker, self._number, request, emit)
            except BackendCrashed as error:
                error.engine_died = True
                if self._worker is not None:  # It was not killed by us.
                    self._reason = "llama-cpp-python ended"
                    await self._crashed()
                raise
            self._restarts.served()
            self._pace.learn(generation.usage.computed_tokens, generation.timings.prefill)
            return generation

    async def _ask(
        self, worker: _Worker, number: int, request: CommandRequest, emit: Emit
    ) -> Generation:
        texts: list[str] = []
        vectors: list[tuple[float, ...]] = []
        ended = False
        tokens = sum(map(len, request.texts))
        try:
            await worker.send(asked(number, request))
            while True:
                seconds = self._pace.time_for(tokens)
                with trio.move_on_after(seconds) as patience:
                    line = await worker.receive()
                if patience.cancelled_caught:
                    why = f"it made nothing for {seconds:.0f} s"
                    await self._kill(why)
                    raise BackendCrashed(f"llama-cpp-python was killed: {why}")
                ended = "end" in line or "error" in line
                if "error" in line:
                    kind = _ERRORS.get(line["error"]["code"], GenerationFailed)
                    raise kind(line["error"]["message"])
                if "end" in line:
                    return generation_of(line["end"], "".join(texts), tuple(vectors))
                if "vector" in line:
                    vectors.append(tuple(line["vector"]))
                    continue
                tokens = 0
                if not texts and "prompt_tokens" in line:
                    await emit(PromptCount(line["prompt_tokens"]), 0)
                texts.append(line["text"])
                await emit(line["text"], line["tokens"])
        finally:
            # Cancelled, or `emit` failed: nobody wants the rest.
            if not ended and worker.is_running():
                with trio.CancelScope(shield=True):
                    if not await worker.cancel(number):
                        await self._kill("it was busy after a request was cancelled")

    async def _kill(self, why: str) -> None:
        log.warning("an engine is stuck and is killed", engine="llama-cpp-python", why=why)
        self._reason = f"llama-cpp-python was killed: {why}"
        self._not_before = trio.current_time() + self._restarts.killed()
        if self._worker is not None:
            self._worker.kill()
        await self.stop()

    async def _crashed(self) -> None:
        now = trio.current_time()
        self._not_before = now + self._restarts.crashed(now)
        with trio.CancelScope(shield=True):
            await self.stop()


class _Worker:
    """The worker process and its two pipes, spoken to in lines of JSON."""

    def __init__(self, child: Child, tail: collections.deque[bytes]) -> None:
        assert child.stdin is not None
        self.child = child
        self._stdin = child.stdin
        self._stdout = child.stdout
        self._buffer = bytearray()
        self._searched = 0
        self._tail = tail
        self._sending = False

    @classmethod
    async def spawn(cls) -> _Worker:
        """Start a worker process, which then needs `open`."""
        reading, writing = os.pipe()
        tail: collections.deque[bytes] = collections.deque(maxlen=_TAIL_BYTES // 64)
        try:
            child = await start_child(
                [sys.executable, "-m", "punch.backends.llama._binding_worker"],
                # The worker must find this very punch, also from a checkout.
                env={"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                has_stdin=True,
                stderr=writing,
                grace=_STOP_SECONDS,
            )
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        # A thread, not a task: a thread needs no nursery, and ends when the pipe does.
        threading.Thread(target=_keep_tail, args=(reading, tail), daemon=True).start()
        return cls(child, tail)

    def is_running(self) -> bool:
        """Whether the process lives and no line is half written to it."""
        return self.child.is_running and not self._sending

    async def open(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Load the model; return what the worker says of it.

        Raises:
          ConfigurationError: if the binding cannot be imported.
          ModelFileError: if it cannot load the file.
          BackendCrashed: if the process dies, or is not ready after `_START_SECONDS`.

        """
        with trio.move_on_after(_START_SECONDS):
            await self.send({"open": settings})
            line = await self.receive()
            if "failed" in line:
                raise _ERRORS[line["failed"]["code"]](line["failed"]["message"])
            return dict(line["ready"])
        raise BackendCrashed(f"llama-cpp-python did not load the model in {_START_SECONDS:.0f} s")

    async def send(self, line: dict[str, Any]) -> None:
        """Write one line. A cancel half-way leaves the process of no more use."""
        self._sending = True
        try:
            await self._stdin.send_all(json.dumps(line).encode() + b"\n")
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise await self._crash() from error
        self._sending = False

    async def receive(self) -> dict[str, Any]:
        """Read one line.

        Raises:
          BackendCrashed: if the process ends, or sends a line that is too long.

        """
        while True:
            end = self._buffer.find(b"\n", self._searched)
            if end >= 0:
                line = bytes(self._buffer[:end])
                del self._buffer[: end + 1]
                self._searched = 0
                return dict(json.loads(line))
            self._searched = len(self._buffer)
            if self._searched > _MAX_LINE_BYTES:
                self.kill()
                raise BackendCrashed(f"llama-cpp-python sent a line above {_MAX_LINE_BYTES} bytes")
            try:
                data = await self._stdout.receive_some(_RECEIVE_BYTES)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise await self._crash() from error
            if not data:
                raise await self._crash()
            self._buffer += data

    async def cancel(self, number: int) -> bool:
        """Stop request *number*; whether the worker confirmed that in time."""
        confirmed = False
        with suppress(BackendCrashed), trio.move_on_after(_CANCEL_SECONDS):
            await self.send({"cancel": number})
            while not confirmed:
                line = await self.receive()
                confirmed = "end" in line or "error" in line
        return confirmed

    def kill(self) -> None:
        """Kill the process, with all that it has started."""
        self.child.kill()

    async def end(self) -> None:
        """End the process and wait until it is gone."""
        # A worker in the middle of a line may be lost in native code, and hears nothing.
        await self.child.end(0.0 if self._sending or self._buffer else _STOP_SECONDS)

    async def _crash(self) -> BackendCrashed:
        """The error for a process whose pipe broke."""
        with trio.move_on_after(_STOP_SECONDS):
            await self.child.wait()
        code = self.child.returncode
        how = "closed its output" if code is None else f"ended with {describe_exit(code)}"
        words = b"".join(self._tail)[-_TAIL_BYTES:].decode("utf-8", "replace").strip()
        return BackendCrashed(
            f"the process of llama-cpp-python {how}" + (f"; it said:\n{words}" if words else "")
        )


def _with_features(offer: ModelOffer) -> ModelOffer:
    """*offer* with what a grammar can do; log-probabilities would need every token's logits."""
    features = set(offer.features)
    if features & {"chat", "complete"}:
        features.add("json_schema")
    if "chat" in features:
        features.add("tools")
    return attrs.evolve(offer, features=frozenset(features))


def _keep_tail(descriptor: int, tail: collections.deque[bytes]) -> None:
    with os.fdopen(descriptor, "rb", buffering=0) as pipe:
        while piece := pipe.read(_TAIL_BYTES):
            for at in range(0, len(piece), 64):
                tail.append(piece[at : at + 64])
