"""Backend `embedded`: starts llama.cpp's server from a wheel, with nothing to compile.

The server is a library (xllamacpp) and runs in a worker process, `_embedded_worker`. Requests are
sent by `_served`, as to any llama-server.
"""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from ..._background import open_background
from ...capability import Gpu, ModelOffer
from ...exceptions import ConfigurationError
from ...processes import open_supervised
from .._base import with_continuation
from ..openai._client import open_http_client
from ..openai._probes import is_ready, probe_count, probe_senses, probe_tools
from ._served import ServedBackend, with_features

_WORKER = __package__ + "._embedded_worker"


@asynccontextmanager
async def open_embedded(
    *,
    model_path: str | Path,
    threads: int | None,
    no_mmap: bool,
    slots: int,
    context_tokens: int,
    gpu_layers: int | None = None,
    batch: int | None = None,
    micro_batch: int | None = None,
    alias: str | None = None,
    digest: str | None = None,
    offer: ModelOffer | None = None,
) -> AsyncIterator[ServedBackend]:
    """Run xllamacpp's server in a worker process; enter when the model is loaded.

    Args:
      model_path: The GGUF file.
      threads: Threads to compute with; `None` for the library's choice.
      no_mmap: Read the model into memory instead of mapping the file.
      slots: Requests at a time.
      context_tokens: Longest prompt plus answer of one request, in tokens.
      gpu_layers: Layers to keep on GPUs; `None` for the library's choice.
      batch: Tokens of prompts that are taken at once; `None` for the library's choice.
      micro_batch: Tokens of these that are computed at once; `None` for the library's choice.
      alias: Name of the model, where no *offer* is given.
      digest: SHA-256 of the model file, where no *offer* is given.
      offer: What to offer; features of the server are added.

    Raises:
      ConfigurationError: if xllamacpp is not installed.
      BackendCrashed: if the worker does not start; the text has its last lines.

    """
    if importlib.util.find_spec("xllamacpp") is None:
        raise ConfigurationError(
            "backend 'embedded' needs the package xllamacpp, which is not installed. "
            "Install it with: pip install 'punch-router[engine]'"
        )
    model = Path(model_path)
    if offer is None:
        offer = ModelOffer(name=alias or model.stem, digest=digest, context_tokens=context_tokens)
    offer = with_continuation(offer)
    api_key = secrets.token_urlsafe(32)
    settings = {
        "model_path": str(model),
        "alias": offer.name,
        "api_key": api_key,
        "slots": slots,
        "context_tokens": context_tokens,
        "threads": threads,
        "gpu_layers": gpu_layers,
        "batch": batch,
        "micro_batch": micro_batch,
        "no_mmap": no_mmap,
        "embed": offer.features == frozenset({"embed"}),
    }
    report: dict[str, Any] = {}
    async with open_http_client(url="", slots=slots, api_key=api_key) as client:

        def command() -> list[str]:
            # A new process has a new port; until it reports, it is not ready.
            report.clear()
            return [sys.executable, "-m", _WORKER]

        def on_line(line: str) -> None:
            if line.startswith('{"punch_url"'):
                report.update(json.loads(line))
                client.url = report["punch_url"]

        async def ready() -> bool:
            return bool(report) and await is_ready(client)

        async with open_supervised(
            command,
            name="the embedded engine",
            ready=ready,
            # The worker must find this very punch, also from a checkout.
            env={"PYTHONPATH": _python_path()},
            stdin=json.dumps(settings).encode() + b"\n",
            on_line=on_line,
            model_bytes=offer.size_bytes,
        ) as supervised:
            backend = ServedBackend(
                name="embedded",
                client=client,
                supervised=supervised,
                slots=slots,
                threads=threads,
                offer=with_features(
                    offer,
                    can_embed=bool(report.get("embeds")),
                    can_count=await probe_count(client),
                    senses=await probe_senses(client),
                ),
                knows_tools=await probe_tools(client),
                gpus=tuple(Gpu(**gpu) for gpu in report["gpus"]),
            )
            async with open_background() as nursery:
                nursery.start_soon(backend.watch)
                yield backend


def _python_path() -> str:
    return os.pathsep.join(path for path in sys.path if path)
