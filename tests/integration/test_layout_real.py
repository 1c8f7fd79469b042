"""The layout of a real model beside what llama-server says that it allocates, whole and split."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from integration.programs import free_port, limit
from integration.tiny_models import MODELS

from punch.gguf import Layout
from punch.model_store import layout_of

START_SECONDS = 60.0

# load_tensors: RPC0[127.0.0.1:21811] model buffer size =    21.14 MiB
# llama_kv_cache: RPC0[127.0.0.1:21812] KV buffer size =    30.00 MiB
BUFFER = re.compile(r"(\S+?)\s+(model|KV|RS) buffer size =\s+([\d.]+) MiB")

# It prints two digits behind the point; a model with windows has two caches.
PRINTED = 0.006 * 1024 * 1024


@contextlib.contextmanager
def rpc_server(folder: Path) -> Iterator[str]:
    """An RPC server on loopback; yields its address."""
    port = free_port()
    with subprocess.Popen(
        [folder / "ggml-rpc-server", "-H", "127.0.0.1", "-p", str(port), "-t", "1"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            end = time.monotonic() + START_SECONDS
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    break
                assert time.monotonic() < end, "the RPC server does not listen"
                time.sleep(0.05)
            yield f"127.0.0.1:{port}"
        finally:
            process.kill()


Buffers = dict[tuple[str, str], float]


def buffers(folder: Path, model: Path, *arguments: str) -> Buffers:
    """The bytes that llama-server logs to allocate, by kind and by the name of the buffer."""
    found: Buffers = {}
    command: list[str | Path] = [
        folder / "llama-server",
        "-m",
        model,
        "-lv",
        "4",
        "-t",
        "1",
        "-fit",
        "off",
    ]
    command += ["--host", "127.0.0.1", "--port", str(free_port()), "--no-warmup", *arguments]
    with subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"GGML_NO_BACKTRACE": "1"},
    ) as process:
        try:
            assert process.stderr is not None
            for line in process.stderr:
                match = BUFFER.search(line)
                if match:
                    key = match[2], match[1]
                    found[key] = found.get(key, 0.0) + float(match[3]) * 1024 * 1024
                if "server is listening" in line or "model loaded" in line:
                    break
        finally:
            process.kill()
    return found


def printed(sizes: dict[tuple[str, str], int], caches: int = 1) -> object:
    """What equals *sizes*, as far as llama.cpp prints them."""
    return pytest.approx({key: float(size) for key, size in sizes.items()}, abs=caches * PRINTED)


@pytest.fixture(scope="module")
def layout(model_path: Path) -> Layout:
    """What the header of the real model says."""
    return layout_of(model_path)


@limit(120)
def test_llama_server_allocates_what_was_laid_out(
    model_path: Path, llama_cpp_folder: Path, layout: Layout
) -> None:
    """On one machine: no copy of the tied matrix, and a cache for all layers."""
    arguments = ("-c", "1024", "-np", "1", "--load-mode", "none")
    found = buffers(llama_cpp_folder, model_path, *arguments)
    assert layout.is_tied
    assert layout.kv_exact
    assert found == printed(
        {("model", "CPU"): layout.weights, ("KV", "CPU"): sum(layout.kv_bytes(1024))}
    )


@pytest.mark.parametrize("cache", ["f16", "q8_0"])
@limit(120)
def test_two_workers_get_the_layers_that_were_counted(
    model_path: Path, llama_cpp_folder: Path, layout: Layout, cache: str
) -> None:
    """The last one holds the output too, with the copy of the matrix; the head the embeddings."""
    with rpc_server(llama_cpp_folder) as first, rpc_server(llama_cpp_folder) as last:
        found = buffers(
            llama_cpp_folder,
            model_path,
            *("--rpc", f"{first},{last}", "--device", "RPC0,RPC1", "-ngl", "99"),
            *("--tensor-split", "10,21", "-c", "2100", "-np", "3", "-cram", "0"),
            *("-ctk", cache, "-ctv", cache, "-fa", "on"),
        )
    kv = layout.kv_bytes(2100, cache, cache, slots=3)
    weights = [layer.weights for layer in layout.layers]
    one, other = f"RPC0[{first}]", f"RPC0[{last}]"
    assert found == printed(
        {
            ("model", "CPU_Mapped"): layout.embeddings,
            ("model", one): sum(weights[:10]),
            ("model", other): sum(weights[10:]) + layout.output,
            ("KV", one): sum(kv[:10]),
            ("KV", other): sum(kv[10:]),
        }
    )


@limit(120)
def test_an_output_on_the_head_leaves_its_copy_there(
    model_path: Path, llama_cpp_folder: Path, layout: Layout
) -> None:
    """With ``-ot token_embd=CPU`` the worker holds its layers and the last norm."""
    with rpc_server(llama_cpp_folder) as only:
        found = buffers(
            llama_cpp_folder,
            model_path,
            *("--rpc", only, "--device", "RPC0", "-ngl", "99", "-cram", "0"),
            *("-ot", "token_embd=CPU", "-c", "512", "-np", "1"),
        )
    on_worker = layout.layer_weights + layout.output - layout.tied_matrix
    assert found["model", f"RPC0[{only}]"] == pytest.approx(on_worker, abs=PRINTED)


@limit(120)
def test_an_untied_output_is_one_matrix_more_and_no_copy(
    untied_model_path: Path, llama_cpp_folder: Path, layout: Layout
) -> None:
    """It goes to the last worker, or with ``-ot ^output.weight=CPU`` stays on the head."""
    untied = layout_of(untied_model_path)
    assert not untied.is_tied
    assert untied.weights == layout.weights + layout.tied_matrix
    arguments = ("--device", "RPC0", "-ngl", "99", "-cram", "0", "-c", "512", "-np", "1")
    with rpc_server(llama_cpp_folder) as only:
        there = buffers(llama_cpp_folder, untied_model_path, "--rpc", only, *arguments)
    assert there["model", f"RPC0[{only}]"] == pytest.approx(
        untied.layer_weights + untied.output, abs=PRINTED
    )
    with rpc_server(llama_cpp_folder) as only:
        here = buffers(
            llama_cpp_folder,
            untied_model_path,
            *("--rpc", only, *arguments, "-ot", r"^output\.weight=CPU"),
        )
    assert here["model", f"RPC0[{only}]"] == pytest.approx(
        untied.layer_weights + untied.output - layout.tied_matrix, abs=PRINTED
    )


@limit(120)
def test_a_smaller_quantisation_is_laid_out_by_its_own_types(
    smaller_model_path: Path, llama_cpp_folder: Path, layout: Layout
) -> None:
    """Q4_0 where Q4_1 was; what llama.cpp keeps larger is counted as it is."""
    smaller = layout_of(smaller_model_path)
    assert smaller.is_tied
    assert smaller.layer_weights < 0.95 * layout.layer_weights
    with rpc_server(llama_cpp_folder) as only:
        found = buffers(
            llama_cpp_folder,
            smaller_model_path,
            *("--rpc", only, "--device", "RPC0", "-ngl", "99", "-cram", "0", "-c", "512"),
        )
    assert found["model", f"RPC0[{only}]"] == pytest.approx(
        smaller.layer_weights + smaller.output, abs=PRINTED
    )


@pytest.mark.parametrize("write", MODELS, ids=lambda write: write.__name__)
@limit(120)
def test_layouts_of_many_kinds_are_what_llama_server_allocates(
    tmp_path: Path, llama_cpp_folder: Path, write: Callable[[Path], Path]
) -> None:
    """Windows, shared caches, latents, experts, states: all layers and the output on a worker."""
    model = write(tmp_path / "tiny.gguf")
    layout = layout_of(model)
    assert layout.kv_exact
    with rpc_server(llama_cpp_folder) as only:
        found = buffers(
            llama_cpp_folder,
            model,
            *("--rpc", only, "--device", "RPC0", "-ngl", "99", "-cram", "0"),
            *("-c", "16384", "-np", "16", "-ub", "64"),
        )
    worker = f"RPC0[{only}]"
    states = 16 * sum(layer.state for layer in layout.layers)
    caches = sum(layout.kv_bytes(16384, slots=16, micro_batch=64)) - states
    expected = {
        ("model", "CPU_Mapped"): layout.embeddings,
        ("model", worker): layout.layer_weights + layout.output,
    }
    expected |= {("KV", worker): caches} if caches else {}
    expected |= {("RS", worker): states} if states else {}
    assert found == printed(expected, caches=2)
