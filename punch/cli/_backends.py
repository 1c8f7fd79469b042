"""Opens the backend that a listener's settings describe, and finds its model file.

Only these functions know the names in PUNCH_INFERENCE_BACKEND; there is no fallback from one
backend to another.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import attrs
import trio

from .._logs import get_logger
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
from ..llama_cpp import Named, ask_program, find_server, read_named
from ..model_store import KNOWN_MODELS, ModelFile, describe
from ..settings import BackendSettings, cache_folder, data_folder

log = get_logger(__name__)

# Tokens: enough for a long question and its answer. More takes memory, and must be asked for.
DEFAULT_CONTEXT_TOKENS = 4096

# Requests side by side: as many people as share a home.
DEFAULT_SLOTS = 4


class NamesModel(Protocol):
    """Settings that name a model file."""

    @property
    def model(self) -> str | None:
        """The file, or the name of a model that was pulled."""
        ...

    @property
    def context(self) -> int | None:
        """Tokens of one request; `None` for the usual number."""
        ...

    def said(self, name: str) -> str:
        """What set a value, for error texts."""
        ...


async def model_file(
    settings: NamesModel, *, any_types: bool = False
) -> tuple[ModelFile, ModelOffer]:
    """The model that *settings* name, and the offer that can be made with it.

    Raises:
      ConfigurationError: if they name no model, or ask for more context than it has.
      ModelFileError: if the file cannot be used.

    """
    if settings.model is None:
        raise ConfigurationError(
            "LLAMA_GGUF_PATH is not set: name a GGUF file with it or with --model; "
            "`punch models pull smollm2` fetches a small one, then --model smollm2 is enough"
        )
    path = find_model(settings.model)
    file = await trio.to_thread.run_sync(
        partial(
            describe,
            path,
            cache_folder=cache_folder(),
            any_types=any_types,
            setting=settings.said("model"),
        )
    )
    _warn_of(file)
    trained = file.offer.context_tokens
    context = settings.context or min(DEFAULT_CONTEXT_TOKENS, trained or DEFAULT_CONTEXT_TOKENS)
    if trained is not None and context > trained:
        raise ConfigurationError(
            f"{settings.said('context')} is {context}: {file.path.name} was trained for "
            f"{trained} tokens at most"
        )
    return file, attrs.evolve(file.offer, context_tokens=context)


def _warn_of(file: ModelFile) -> None:
    """Say what may surprise whoever runs this model."""
    header, name = file.header, file.path.name
    if header.unknown_types:
        log.warning(
            "weights of a type that punch does not know; the program may know it",
            file=name, types=sorted(header.unknown_types),
        )  # fmt: skip
    if header.context_tokens is None:
        log.warning(
            "the file does not say which context the model was trained for; set --context",
            file=name,
        )
    if "chat" not in header.features:
        log.warning(
            "the model embeds, and answers no chat"
            if "embed" in header.features
            else "the file has no chat template: the model continues texts, and answers no chat",
            file=name,
        )


def _threads(settings: BackendSettings) -> int:
    return settings.threads or os.cpu_count() or 1


def find_model(text: str) -> Path:
    """The file that *text* names: a path, or a model that was pulled."""
    pulled = KNOWN_MODELS.get(text)
    if pulled is not None and not Path(text).exists():
        return data_folder() / "models" / pulled.file_name
    return Path(text).expanduser()


@asynccontextmanager
async def _mock(settings: BackendSettings) -> AsyncIterator[Backend]:
    script = MockScript(
        decode_rate=settings.mock_decode_rate,
        prefill_rate=settings.mock_prefill_rate,
        delay=settings.mock_delay,
        fail_after=settings.mock_fail_after,
        model=settings.mock_model,
        thinks=settings.mock_thinks,
        sees=settings.mock_sees,
        slots=settings.slots or DEFAULT_SLOTS,
        context_tokens=settings.context or DEFAULT_CONTEXT_TOKENS,
    )
    async with open_mock(script) as backend:
        yield backend


@asynccontextmanager
async def _llama_cpp(settings: BackendSettings) -> AsyncIterator[Backend]:
    program = settings.program
    if program is None:
        raise ConfigurationError(
            "LLAMA_CPP_EXE is not set: it must be the path of llama-server, llama-cli or "
            "llama-completion; `punch engine list` says what there is and `punch engine install` "
            "builds them, or choose PUNCH_INFERENCE_BACKEND=embedded, which needs no program"
        )
    setting = settings.said("program")
    # A build of one's own may know types of weights that others do not.
    file, offer = await model_file(settings, any_types=True)
    named = _preferred(read_named(program, setting=setting))
    assert offer.context_tokens is not None
    common: dict[str, Any] = {
        "model_path": file.path,
        "threads": _threads(settings),
        "no_mmap": settings.no_mmap,
        "context_tokens": offer.context_tokens,
        "gpu_layers": settings.gpu_layers,
        "offer": offer,
        "extra_args": _batch_arguments(settings),
    }
    common |= {"arguments": named.arguments, "setting": setting}
    if (await ask_program(named.path, arguments=named.arguments, setting=setting)).is_server:
        async with open_llama_server(
            program=named.path, slots=settings.slots or DEFAULT_SLOTS, **common
        ) as backend:
            yield backend
    else:
        _one_slot(settings, f"{named.path.name} runs one request at a time")
        async with open_llama_cli(program=named.path, **common) as single:
            yield single


def _batch_arguments(settings: BackendSettings) -> list[str]:
    """What llama.cpp's programs are told of the sizes of batches; nothing that was not said."""
    said = {"--batch-size": settings.batch, "--ubatch-size": settings.micro_batch}
    return [text for flag, size in said.items() if size is not None for text in (flag, str(size))]


def _preferred(named: Named) -> Named:
    """The program to run for *named*: itself, or the server that stands beside llama-cli."""
    if named.arguments or named.path.stem not in ("llama-cli", "llama-completion"):
        return named
    server = find_server(named.path)
    if server is None:
        return named
    log.info("llama-server is beside it and runs in its place", named=str(named.path))
    return Named(server)


@asynccontextmanager
async def _embedded(settings: BackendSettings) -> AsyncIterator[Backend]:
    file, offer = await model_file(settings)
    assert offer.context_tokens is not None
    async with open_embedded(
        model_path=file.path,
        threads=_threads(settings),
        no_mmap=settings.no_mmap,
        slots=settings.slots or DEFAULT_SLOTS,
        context_tokens=offer.context_tokens,
        gpu_layers=settings.gpu_layers,
        batch=settings.batch,
        micro_batch=settings.micro_batch,
        offer=offer,
    ) as backend:
        yield backend


@asynccontextmanager
async def _binding(settings: BackendSettings) -> AsyncIterator[Backend]:
    _one_slot(settings, "llama-cpp-python runs one request at a time")
    file, offer = await model_file(settings)
    async with open_binding(
        model_path=file.path,
        offer=offer,
        threads=_threads(settings),
        no_mmap=settings.no_mmap,
        context_tokens=offer.context_tokens,
        gpu_layers=-1 if settings.gpu_layers is None else settings.gpu_layers,
        batch=settings.batch,
        micro_batch=settings.micro_batch,
    ) as backend:
        yield backend


@asynccontextmanager
async def _openai(settings: BackendSettings) -> AsyncIterator[Backend]:
    url = settings.openai_url
    if url is None:
        raise ConfigurationError(
            "PUNCH_OPENAI_URL is not set: it must be the address of an OpenAI-compatible server, "
            "such as http://127.0.0.1:11434/v1 for Ollama"
        )
    async with open_openai(
        url=url,
        api_key=settings.openai_key,
        model=settings.openai_model,
        slots=settings.slots,
        context_tokens=settings.context,
        features=None if not settings.features else frozenset(settings.features),
    ) as backend:
        yield backend


def _one_slot(settings: BackendSettings, why: str) -> None:
    if (settings.slots or 1) > 1:
        raise ConfigurationError(
            f"{settings.said('slots')} is {settings.slots}: {why}; leave it out or give 1"
        )


OPENERS: Mapping[str, Callable[[BackendSettings], AbstractAsyncContextManager[Backend]]] = {
    "mock": _mock,
    "llama_cpp": _llama_cpp,
    "embedded": _embedded,
    "llama_cpp_python": _binding,
    "openai": _openai,
}
"""The values of PUNCH_INFERENCE_BACKEND, each with the function that opens the backend."""


def open_backend(settings: BackendSettings) -> AbstractAsyncContextManager[Backend]:
    """Open the backend that *settings* name.

    Raises:
      ConfigurationError: if a variable is missing or wrong; the text has its name and the remedy.

    """
    return OPENERS[settings.name](settings)
