"""Which backend, and its settings: read from the environment, refused by name."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import trio

from ..backends import (
    Backend,
    MockScript,
    open_binding,
    open_embedded,
    open_llama_cli,
    open_llama_server,
    open_mock,
    open_openai,
)
from ..capability import ModelOffer
from ..exceptions import ConfigurationError
from ..llama_cpp import find_server
from ..model_store import KNOWN_MODELS, ModelFile, describe
from ._identity import cache_folder, data_folder
from ._options import Convert, boolean, convert, count, positive

# Enough for a long question and its answer; more memory than this only when asked for.
USUAL_CONTEXT = 4096

# As many people as share a home.
USUAL_SLOTS = 4


@attrs.frozen(kw_only=True)
class BackendSettings:
    """What a listener was told about its backend."""

    model: str | None = None
    """A GGUF file, or the name of a model that was pulled."""

    slots: int | None = None
    """Requests side by side, if somebody said."""

    context_tokens: int | None = None
    """Tokens of one request, if somebody said."""

    environment: Mapping[str, str] = attrs.field(factory=lambda: os.environ)
    """Where the variables are."""

    def read(self, name: str, converter: Convert, default: Any = None) -> Any:
        """The value of a variable, or *default* if it is not set or empty."""
        text = self.environment.get(name, "").strip()
        if not text:
            return default
        return convert(converter, text, name)

    @property
    def threads(self) -> int:
        """Threads to compute with."""
        return int(self.read("LLAMA_THREADS", count(1), os.cpu_count() or 1))

    @property
    def no_mmap(self) -> bool:
        """Whether the model is read into memory instead of mapped."""
        return bool(self.read("LLAMA_NO_MMAP", boolean, True))

    async def model_file(self) -> tuple[ModelFile, ModelOffer]:
        """The model, and the offer that can be made with it."""
        if self.model is None:
            raise ConfigurationError(
                "LLAMA_GGUF_PATH is not set: name a GGUF file with it or with --model; "
                "`punch models pull smollm2` fetches a small one, then --model smollm2 is enough"
            )
        file = await trio.to_thread.run_sync(
            lambda: describe(
                find_model(self.model or ""), cache_folder=cache_folder(), setting="LLAMA_GGUF_PATH"
            )
        )
        trained = file.offer.context_tokens
        context = self.context_tokens or min(USUAL_CONTEXT, trained or USUAL_CONTEXT)
        if trained is not None and context > trained:
            raise ConfigurationError(
                f"--context is {context}: {file.path.name} was trained for {trained} tokens at most"
            )
        return file, attrs.evolve(file.offer, context_tokens=context)


def find_model(text: str) -> Path:
    """The file that *text* names: a path, or a model that was pulled."""
    pulled = KNOWN_MODELS.get(text)
    if pulled is not None and not Path(text).exists():
        return data_folder() / "models" / pulled.file_name
    return Path(text).expanduser()


@asynccontextmanager
async def _mock(settings: BackendSettings) -> AsyncIterator[Backend]:
    script = MockScript(
        decode_rate=settings.read("PUNCH_MOCK_DECODE_RATE", positive),
        prefill_rate=settings.read("PUNCH_MOCK_PREFILL_RATE", positive),
        delay=settings.read("PUNCH_MOCK_DELAY", positive, 0.0),
        fail_after=settings.read("PUNCH_MOCK_FAIL_AFTER", count(0)),
        model=settings.read("PUNCH_MOCK_MODEL", str, "mock"),
        slots=settings.slots or USUAL_SLOTS,
        context_tokens=settings.context_tokens or USUAL_CONTEXT,
    )
    async with open_mock(script) as backend:
        yield backend


@asynccontextmanager
async def _llama_cpp(settings: BackendSettings) -> AsyncIterator[Backend]:
    program = settings.read("LLAMA_CPP_EXE", str)
    if program is None:
        raise ConfigurationError(
            "LLAMA_CPP_EXE is not set: it must be the path of llama-server, llama-cli or "
            "llama-completion; `bins/llama-cpp` builds them and `bins/llama-cpp --path` says "
            "where, or choose PUNCH_INFERENCE_BACKEND=embedded, which needs no program"
        )
    file, offer = await settings.model_file()
    assert offer.context_tokens is not None
    common: dict[str, Any] = {
        "model_path": file.path,
        "threads": settings.threads,
        "no_mmap": settings.no_mmap,
        "context_tokens": offer.context_tokens,
        "gpu_layers": settings.read("LLAMA_GPU_LAYERS", count(0)),
        "offer": offer,
    }
    server = find_server(program)
    if server is not None:
        async with open_llama_server(
            program=server, slots=settings.slots or USUAL_SLOTS, **common
        ) as backend:
            yield backend
    else:
        _one_slot(settings, "llama-cli runs one request at a time")
        async with open_llama_cli(program=program, **common) as single:
            yield single


@asynccontextmanager
async def _embedded(settings: BackendSettings) -> AsyncIterator[Backend]:
    file, offer = await settings.model_file()
    assert offer.context_tokens is not None
    async with open_embedded(
        model_path=file.path,
        threads=settings.threads,
        no_mmap=settings.no_mmap,
        slots=settings.slots or USUAL_SLOTS,
        context_tokens=offer.context_tokens,
        gpu_layers=settings.read("LLAMA_GPU_LAYERS", count(0)),
        offer=offer,
    ) as backend:
        yield backend


@asynccontextmanager
async def _binding(settings: BackendSettings) -> AsyncIterator[Backend]:
    _one_slot(settings, "llama-cpp-python runs one request at a time")
    file, offer = await settings.model_file()
    async with open_binding(
        model_path=file.path,
        offer=offer,
        threads=settings.threads,
        no_mmap=settings.no_mmap,
        context_tokens=offer.context_tokens,
        gpu_layers=settings.read("LLAMA_GPU_LAYERS", count(0), -1),
    ) as backend:
        yield backend


@asynccontextmanager
async def _openai(settings: BackendSettings) -> AsyncIterator[Backend]:
    url = settings.read("PUNCH_OPENAI_URL", str)
    if url is None:
        raise ConfigurationError(
            "PUNCH_OPENAI_URL is not set: it must be the address of an OpenAI-compatible server, "
            "such as http://127.0.0.1:11434/v1 for Ollama"
        )
    async with open_openai(
        url=url,
        api_key=settings.read("PUNCH_OPENAI_KEY", str),
        model=settings.read("PUNCH_OPENAI_MODEL", str),
        slots=settings.slots or USUAL_SLOTS,
    ) as backend:
        yield backend


def _one_slot(settings: BackendSettings, why: str) -> None:
    if (settings.slots or 1) > 1:
        raise ConfigurationError(f"--slots is {settings.slots}: {why}; leave it out or give 1")


BACKENDS: Mapping[str, Callable[[BackendSettings], AbstractAsyncContextManager[Backend]]] = {
    "mock": _mock,
    "llama_cpp": _llama_cpp,
    "embedded": _embedded,
    "llama_cpp_python": _binding,
    "openai": _openai,
}
"""What PUNCH_INFERENCE_BACKEND may be."""


def open_backend(name: str, settings: BackendSettings) -> AbstractAsyncContextManager[Backend]:
    """The backend called *name*.

    Raises:
      ConfigurationError: naming the variable that is missing or wrong, and the remedy.

    """
    if name not in BACKENDS:
        raise ConfigurationError(
            f"PUNCH_INFERENCE_BACKEND is {name!r}: it must be one of {', '.join(BACKENDS)}"
        )
    return BACKENDS[name](settings)
