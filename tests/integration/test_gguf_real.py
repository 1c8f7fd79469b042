"""The header of a real file, and llama.cpp's own opinion of it."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from punch.exceptions import ModelFileError
from punch.gguf import GgufHeader, read_header


class Damaged(io.BytesIO):
    """The beginning of a file, which says that it is as long as the whole."""

    def __init__(self, data: bytes, size: int) -> None:
        super().__init__(data)
        self._size = size

    def seek(self, offset: int, whence: int = 0) -> int:
        """As `BytesIO.seek`, but the end is far away."""
        return self._size if (offset, whence) == (0, 2) else super().seek(offset, whence)


def header_of(path: Path) -> GgufHeader:
    """Read the header of *path*."""
    with path.open("rb") as file:
        return read_header(file)


@pytest.fixture(scope="module")
def beginning(model_path: Path) -> bytes:
    """The header of the real file, and a little more."""
    with model_path.open("rb") as file:
        return file.read(1_900_000)


def test_llama_bench_counts_the_same(model_path: Path, llama_cpp_folder: Path) -> None:
    """Parameters and bytes, to the last one, from the program that loads the model."""
    done = subprocess.run(
        [
            *(llama_cpp_folder / "llama-bench", "-m", model_path, "-o", "json"),
            *("-p", "8", "-n", "0", "-r", "1", "--no-warmup"),
        ],
        capture_output=True,
        timeout=120,
        check=True,
    )
    (result,) = json.loads(done.stdout)
    header = header_of(model_path)
    assert (header.parameters, header.weight_bytes) == (
        result["model_n_params"],
        result["model_size"],
    )


def test_llama_server_allocates_the_cache_that_was_counted(
    model_path: Path, llama_cpp_folder: Path
) -> None:
    """Of what llama.cpp logs: cells, layers and MiB."""
    done = subprocess.run(
        [
            *(llama_cpp_folder / "llama-completion", "-m", model_path, "-c", "1024", "-v"),
            *("-no-cnv", "-p", "Hello", "-n", "1"),
        ],
        capture_output=True,
        timeout=120,
        check=True,
        stdin=subprocess.DEVNULL,
    )
    lines = [line for line in done.stderr.decode().splitlines() if "llama_kv_cache: size" in line]
    per_token = header_of(model_path).kv_bytes_per_token()
    assert per_token is not None
    # llama_kv_cache: size =   22.50 MiB (  1024 cells,  30 layers, ...
    assert f"size = {per_token * 1024 / 2**20:7.2f} MiB (  1024 cells" in lines[0]


@settings(
    max_examples=60,
    deadline=None,
    # The real header does not change between examples.
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_a_damaged_real_header_raises_nothing_else(
    beginning: bytes, model_path: Path, data: st.DataObject
) -> None:
    """Some bytes changed, or the rest missing."""
    damaged = bytearray(beginning)
    for _ in range(data.draw(st.integers(1, 5))):
        # Half of them where the keys are, not in the middle of the tokens.
        at = data.draw(st.integers(0, 4000) | st.integers(0, len(damaged) - 1))
        damaged[at] = data.draw(st.integers(0, 255))
    length = data.draw(st.just(len(damaged)) | st.integers(0, len(damaged)))
    with contextlib.suppress(ModelFileError):
        read_header(Damaged(bytes(damaged[:length]), model_path.stat().st_size))


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.5, 0.999])
def test_a_download_that_broke_off_is_found(model_path: Path, tmp_path: Path, share: float) -> None:
    """Without reading the weights."""
    with model_path.open("rb") as source:
        data = source.read(int(model_path.stat().st_size * share))
    part = tmp_path / "part.gguf"
    part.write_bytes(data)
    with pytest.raises(ModelFileError):
        header_of(part)
