"""The process that runs xllamacpp, llama.cpp's server as a library.

    python -m punch.backends.llama._embedded_worker

One line of JSON comes in on standard input: the settings, with the API key, which an
argument would show to everybody. One line of JSON goes out: where the server listens.
When standard input ends, so does the process: its parent is gone or wants it to be.

A process of its own, because a crash in the C++ code (SIGABRT, out of memory) must not
take the listener along, and because its threads would compete with trio's for the GIL.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import Any


def main() -> None:
    """Serve until standard input ends."""
    settings = json.loads(sys.stdin.buffer.readline(65536))
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = settings["model_path"]
    params.model_alias = {settings["alias"]}
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [settings["api_key"]]
    params.ui = False
    params.offline = True
    # What answers at /slots is the computing thread itself: the vigil asks there.
    params.endpoint_slots = True
    params.n_parallel = settings["slots"]
    # As for llama-server: the size of all slots together, in equal parts.
    params.n_ctx = settings["slots"] * settings["context_tokens"]
    params.kv_unified = False
    params.embedding = True
    if not settings["embed"]:
        # A model that generates has no way of its own to make one vector out of many.
        params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    if settings["threads"] is not None:
        params.cpuparams.n_threads = settings["threads"]
        params.cpuparams_batch.n_threads = settings["threads"]
    if settings["gpu_layers"] is not None:
        params.n_gpu_layers = settings["gpu_layers"]
    if settings["batch"] is not None:
        params.n_batch = settings["batch"]
    if settings["micro_batch"] is not None:
        params.n_ubatch = settings["micro_batch"]
    if settings["no_mmap"]:
        _no_mmap(xllamacpp, params)
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as error:
        # llama.cpp has printed the reason; a traceback would push it out of sight.
        sys.exit(str(error))
    report = {"punch_url": server.listening_address, "gpus": _gpus(xllamacpp), "embeds": True}
    print(json.dumps(report), flush=True)  # noqa: T201 - this is the parent's answer
    with contextlib.suppress(OSError):
        while os.read(0, 1024):
            pass
    # Not `sys.exit`: the destructor of the server waits for running answers.
    os._exit(0)


def _no_mmap(xllamacpp: Any, params: Any) -> None:
    if hasattr(xllamacpp, "llama_load_mode"):
        params.load_mode = xllamacpp.llama_load_mode.LLAMA_LOAD_MODE_NONE
    else:  # Before llama.cpp had load modes.
        params.use_mmap = False


def _gpus(xllamacpp: Any) -> list[dict[str, Any]]:
    return [
        {
            "name": device["description"],
            "total_bytes": device["memory_total"],
            "free_bytes": device["memory_free"],
        }
        for device in xllamacpp.get_device_info()
        if "GPU" in getattr(device["type"], "name", str(device["type"])).rpartition("TYPE_")[2]
    ]


if __name__ == "__main__":
    main()
