"""A worker with an older llama.cpp, whose RPC is another: refused before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from integration.programs import Programs, limit
from integration.test_layout_real import rpc_server

from punch.llama_cpp import RpcVersion, _build, rpc_hello
from punch.settings import cache_folder

OLDER = "0.3.35"
SHA256 = "1139dbb54509074b70893fab8554e3b079aa9f4d312058ce4018ef0019e3de12"


@pytest.fixture(scope="module")
def older() -> Iterator[Path]:
    """Its server, built once for this user; that takes minutes."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(_build, "VERSION", OLDER)
        patched.setattr(_build, "ARCHIVE", f"llama_cpp_python-{OLDER}.tar.gz")
        patched.setattr(_build, "SHA256", SHA256)
        patched.setattr(_build, "PROGRAMS", ("ggml-rpc-server",))
        patched.setattr(_build, "FURTHER", ())

        async def install() -> Path:
            # Apart from those that are looked for on this machine.
            return await _build.install_programs(cache_folder() / "tests", say=print)

        yield trio.run(install)


@pytest.mark.long
@limit(900)
def test_an_older_llama_cpp_is_refused_in_words_that_name_both(
    older: Path, programs: Programs, llama_cpp_folder: Path, model_path: Path
) -> None:
    """In the plan, and by a coordinator, which does not start a head."""
    with rpc_server(older) as address:
        facts = trio.run(rpc_hello, "127.0.0.1", int(address.split(":")[1]))
        assert facts.version == RpcVersion(5, 0, 0)
        options = ("--model", str(model_path), "--workers", address, "--min-workers", "1")
        variables = {"LLAMA_CPP_EXE": str(llama_cpp_folder / "llama-server")}
        both = f"{address} speaks RPC 5.0.0, and the head RPC 7.0.0"

        planned = programs.start_punch("plan", *options, **variables).wait(60)
        assert planned.code != 0
        assert both in planned.out

        programs.bootstrap()
        coordinator = programs.start_punch("coordinator", *options, "--force", **variables)
        ended = coordinator.wait(60)
        assert ended.code != 0
        assert both in ended.err
        assert not coordinator.events("a split is planned")
