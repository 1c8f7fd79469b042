"""Greedy answers of llama.cpp alone and split over two workers, for models of several kinds."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from integration.programs import free_port, limit
from integration.test_layout_real import rpc_server

START_SECONDS = 60.0
PROMPTS = (
    "The capital of France is",
    "Once upon a time, there was a little",
    "def add(a, b):\n    return",
)
TOKENS = 16

SPLIT = ("--device", "RPC0,RPC1", "-ngl", "99", "--tensor-split", "12,19", "-cram", "0")


@contextlib.contextmanager
def server(folder: Path, model: Path, *arguments: str) -> Iterator[httpx.Client]:
    """A llama-server that is ready."""
    port = free_port()
    command: list[str | Path] = [folder / "llama-server", "-m", model, "-t", "1", "-fit", "off"]
    command += ["--host", "127.0.0.1", "--port", str(port), "-c", "512", "-np", "1", "-ub", "64"]
    with (
        subprocess.Popen(
            [*command, "--no-warmup", *arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"GGML_NO_BACKTRACE": "1"},
        ) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
    ):
        try:
            end = time.monotonic() + START_SECONDS
            while True:
                with contextlib.suppress(httpx.HTTPError):
                    if client.get("/health").status_code == 200:
                        break
                assert process.poll() is None, "llama-server ended"
                assert time.monotonic() < end, "llama-server is not ready"
                time.sleep(0.05)
            yield client
        finally:
            process.kill()


def answers(client: httpx.Client) -> list[str]:
    """What the model continues the prompts with, the likeliest token each time."""
    texts = []
    for prompt in PROMPTS:
        asked = {"prompt": prompt, "n_predict": TOKENS, "temperature": 0, "cache_prompt": False}
        texts.append(str(client.post("/completion", json=asked).json()["content"]))
    return texts


@pytest.mark.parametrize(
    ("kind", "matrix"),
    [("untied_model_path", r"^output\.weight=CPU"), ("smaller_model_path", "token_embd=CPU")],
)
@limit(240)
def test_other_kinds_of_models_answer_the_same_when_they_are_split(
    request: pytest.FixtureRequest, llama_cpp_folder: Path, kind: str, matrix: str
) -> None:
    """With an output of its own, and stored smaller; the output on the last worker and here.

    Alone, llama.cpp rearranges some types of weights for its processor and rounds differently; an
    RPC server cannot, so that what is compared does not either (``--no-repack``).
    """
    model: Path = request.getfixturevalue(kind)
    with server(llama_cpp_folder, model, "--no-repack") as alone:
        expected = answers(alone)
    with rpc_server(llama_cpp_folder) as first, rpc_server(llama_cpp_folder) as last:
        workers = ("--rpc", f"{first},{last}")
        with server(llama_cpp_folder, model, *workers, *SPLIT) as split:
            assert answers(split) == expected
        with server(llama_cpp_folder, model, *workers, *SPLIT, "-ot", matrix) as split:
            assert answers(split) == expected
    assert all(text.strip() for text in expected)


@limit(120)
def test_a_copied_matrix_changes_no_answer(
    model_path: Path, untied_model_path: Path, llama_cpp_folder: Path
) -> None:
    """So the model with an output of its own is the real one in another layout."""
    with server(llama_cpp_folder, model_path) as tied:
        expected = answers(tied)
    with server(llama_cpp_folder, untied_model_path) as untied:
        assert answers(untied) == expected
