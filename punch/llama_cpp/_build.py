"""Builds llama.cpp's own programs, once on this machine, and keeps them in the user's cache.

The source is the one that llama-cpp-python ships: a package registry is all it takes, and the
programs match the Python binding. Its digest is compared before anything in it runs.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import tarfile
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import trio

from .._locks import try_lock
from ..exceptions import ConfigurationError
from ..processes import LastLines, open_child

VERSION: Final = "0.3.36"
ARCHIVE: Final = f"llama_cpp_python-{VERSION}.tar.gz"
SHA256: Final = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
PROGRAMS: Final = (
    "llama-server", "llama-cli", "llama-completion", "ggml-rpc-server", "llama-bench",
)  # fmt: skip

# Built with the others, and not missed in a folder that was built before it was among them.
FURTHER: Final = ("llama-quantize",)

FLAGS: Final = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DGGML_RPC=ON",
    # One file a program, and nothing to install: no shared libraries, no TLS, no web pages.
    "-DBUILD_SHARED_LIBS=OFF",
    "-DLLAMA_CURL=OFF",
    "-DLLAMA_OPENSSL=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_UI=OFF",
)

# Of a core of a server of 2024; what is asked for is only a hint of how long to wait.
CORE_MINUTES: Final = 10.0

Say = Callable[[str], None]


def programs_folder(cache_folder: Path) -> Path:
    """Where the programs of this version are, once they are built."""
    return cache_folder / "llama.cpp" / VERSION


def is_built(cache_folder: Path) -> bool:
    """Whether they are there."""
    folder = programs_folder(cache_folder)
    return all((folder / _file(program)).is_file() for program in PROGRAMS)


async def install_programs(cache_folder: Path, *, say: Say) -> Path:
    """Build the programs if they are not there; the folder that they are in.

    Takes five minutes on two cores. Whatever ends it in the middle leaves nothing to be taken for
    a build; another process that builds at the same time is waited for.

    Args:
      cache_folder: The user's cache.
      say: Called with a line about what is being done.

    Raises:
      ConfigurationError: if there is no compiler or another tool is missing, the source cannot be
        had or has another digest, or it does not compile. The text says which, and the remedy.

    """
    target = programs_folder(cache_folder)
    if is_built(cache_folder):
        say(f"already built: {target}")
        return target
    check_tools()
    target.parent.mkdir(parents=True, exist_ok=True)
    async with _alone(target.parent / f"{VERSION}.lock", say):
        if is_built(cache_folder):
            say(f"built in the meantime: {target}")
            return target
        # Beside the target, so that the rename at the end is one step; whatever an interrupted
        # build left behind is not ours any more, since we hold the lock.
        for left in target.parent.glob(".building-*"):
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=".building-", dir=target.parent) as name:
            folder = Path(name)
            made = await build(await download(folder, say=say), folder, say=say)
            done = folder / VERSION
            done.mkdir()
            for program in (*PROGRAMS, *FURTHER):
                shutil.move(made / _file(program), done / _file(program))
            shutil.rmtree(target, ignore_errors=True)
            done.rename(target)
    say(f"built: {target}")
    return target


def check_tools() -> None:
    """Raise a `ConfigurationError` that names what is missing for a build, if anything is."""
    for variable, names in (("CC", ("cc", "gcc", "clang")), ("CXX", ("c++", "g++", "clang++"))):
        if not os.environ.get(variable) and not any(map(shutil.which, names)):
            tried = f"{variable} is not set and none of {', '.join(names)} is on PATH"
            raise ConfigurationError(
                f"no compiler: {tried}; the releases of llama.cpp have llama-server and "
                "ggml-rpc-server too (name the former in LLAMA_CPP_EXE), or install a compiler: "
                "Debian, Ubuntu: apt install g++; macOS: xcode-select --install"
            )
    missing = [name for name in ("cmake", "ninja") if _find(name) is None]
    missing += [
        name.replace("_", "-")
        for name in ("pip", "scikit_build_core")
        if importlib.util.find_spec(name) is None
    ]
    if missing:
        remedy = "ensurepip" if "pip" in missing else "pip install " + " ".join(missing)
        raise ConfigurationError(
            f"what builds llama.cpp is not all there: {', '.join(missing)}; "
            f"run: {sys.executable} -m {remedy}"
        )


async def download(folder: Path, *, say: Say) -> Path:
    """Fetch the archive into *folder*, checked; its path."""
    say(f"downloading the source of llama-cpp-python {VERSION} (77 MB)")
    # pip asks a source distribution for its metadata, which runs build code of the archive. With
    # --require-hashes it compares the digest before it opens the archive; without isolation the
    # build code is that and the scikit-build-core that is installed.
    pinned = folder / "pinned.txt"
    pinned.write_text(f"llama-cpp-python=={VERSION} --hash=sha256:{SHA256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "-qq", "--disable-pip-version-check", "download"]
    command += ["--no-deps", "--no-build-isolation", "--no-binary=llama-cpp-python"]
    command += ["--require-hashes", "--dest", str(folder), "-r", str(pinned)]
    if (words := await _run(command, lambda line: None)) is not None:
        raise ConfigurationError(
            "pip could not download the source of llama.cpp, or it is not the archive that it "
            "should be; check the network and pip's index settings, and run this again. It "
            f"says:\n{words}"
        )
    return folder / ARCHIVE


async def build(archive: Path, folder: Path, *, say: Say) -> Path:
    """Compile in *folder*; the folder with the programs."""
    await trio.to_thread.run_sync(_extract, archive, folder)
    source = folder / ARCHIVE.removesuffix(".tar.gz") / "vendor" / "llama.cpp"
    made = folder / "build"
    jobs = os.cpu_count() or 1
    minutes = max(1, round(CORE_MINUTES / jobs))
    say(f"compiling with {jobs} jobs, which takes about {minutes} min on a machine that is idle")
    cmake, ninja = str(_find("cmake")), str(_find("ninja"))
    configure = [cmake, "-S", str(source), "-B", str(made), "-G", "Ninja", *FLAGS]
    configure += [f"-DCMAKE_MAKE_PROGRAM={ninja}"]
    compiling = [cmake, "--build", str(made), "-j", str(jobs), "--target", *PROGRAMS, *FURTHER]
    shown = -1

    def tell(line: str) -> None:
        nonlocal shown
        percent = line[1:].partition("%")[0].strip()
        if line.startswith("[") and percent.isdigit() and int(percent) // 10 > shown:
            shown = int(percent) // 10
            say(f"{shown * 10} %")

    for command in (configure, compiling):
        if (words := await _run(command, tell)) is not None:
            raise ConfigurationError(f"llama.cpp does not compile: {command[0]} failed:\n{words}")
    return made / "bin"


def _extract(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as opened:
        opened.extractall(folder, filter="data")


async def _run(command: list[str], on_line: Say) -> str | None:
    """Run *command*, which ends when we do; its last lines if it failed."""
    output = LastLines(on_line)
    async with open_child(command, env={"NINJA_STATUS": "[%p] "}) as child:
        assert child.stderr is not None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(output.read, child.stdout)
            nursery.start_soon(output.read, child.stderr)
        code = await child.wait()
    return None if code == 0 else "\n".join(output.lines[-40:])


def _find(tool: str) -> str | None:
    """The path of a build tool: the one on PATH, or the wheel's beside our Python."""
    return shutil.which(tool) or shutil.which(tool, path=str(Path(sys.executable).parent))


def _file(program: str) -> str:
    return program + (".exe" if sys.platform == "win32" else "")


@asynccontextmanager
async def _alone(path: Path, say: Say) -> AsyncIterator[None]:
    """Hold the lock file *path*; another process that has it is waited for."""
    with path.open("wb") as lock:
        if not try_lock(lock):
            say("another build is under way; waiting for it")
            while not try_lock(lock):  # noqa: ASYNC110 (a lock of another process has no event)
                await trio.sleep(1)
        yield
