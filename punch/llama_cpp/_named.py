"""Reads the setting that names a program of llama.cpp: a path, or a program with arguments.

What is named is run, or refused with a remedy; what it is, its ``--help`` says (see `_program`).
"""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

import attrs

from ..exceptions import ConfigurationError

# Flags that punch sets itself, each with the setting that a person has for it.
_OURS = {
    "--model": "LLAMA_GGUF_PATH (--model)",
    "-m": "LLAMA_GGUF_PATH (--model)",
    "--ctx-size": "--context",
    "-c": "--context",
    "--parallel": "--slots",
    "-np": "--slots",
    "--host": "nothing: the program listens on loopback only",
    "--port": "nothing: the program gets a free port",
    "--api-key": "nothing: the program gets a random key",
    "--api-key-file": "nothing: the program gets a random key",
    "--alias": "nothing: the model is offered under its file's name",
    "-a": "nothing: the model is offered under its file's name",
}

# How a file begins, and what it then is.
_KINDS = (
    (b"GGUF", "a model: LLAMA_GGUF_PATH is the setting for that"),
    (b"\x7fELF", "a program for Linux or another Unix, for another kind of processor"),
    (b"MZ", "a program for Windows"),
    (b"\xcf\xfa\xed\xfe", "a program for macOS"),
    (b"\xca\xfe\xba\xbe", "a program for macOS"),
    (b"PK\x03\x04", "an archive: unpack it first"),
    (b"\x1f\x8b", "an archive: unpack it first"),
    (b"<", "a page of HTML, not a program: the download went wrong"),
)


@attrs.frozen
class Named:
    """A program as a person named it."""

    path: Path
    """The program's file, absolute."""

    arguments: tuple[str, ...] = ()
    """What stands behind it."""


def read_named(text: str, *, setting: str = "LLAMA_CPP_EXE") -> Named:
    """The program that *text* names, which exists and is no folder.

    It is the whole text if there is such a file, also with spaces in its path. Otherwise it is
    split as a shell does: a program and its arguments. A name without a slash is looked up here and
    then on PATH.

    Raises:
      ConfigurationError: if there is no such program, or an argument is punch's own to set.

    """
    whole = _find(text)
    if whole is not None:
        return Named(_checked(whole, setting))
    try:
        words = shlex.split(text, posix=sys.platform != "win32")
    except ValueError:
        raise ConfigurationError(
            f"{setting}={text} does not exist, and its quotes do not match; give the path of "
            "llama-server, in quotes if it has spaces, and then its arguments"
        ) from None
    if sys.platform == "win32":
        words = [word.strip('"') for word in words]
    found = _find(words[0]) if words else None
    if found is None:
        first = f" (nor does {words[0]}, its first word)" if len(words) > 1 else ""
        raise ConfigurationError(
            f"{setting}={text} does not exist{first}. It must be a program of llama.cpp, such as "
            "/path/to/llama-server, in quotes if its path has spaces, with arguments of its own "
            "behind it if you like; unset it to use another backend"
        )
    for word in words[1:]:
        if (ours := _OURS.get(word.partition("=")[0])) is not None:
            raise ConfigurationError(
                f"{setting}={text} has the argument {word}, which punch sets itself; leave it out "
                f"and use {ours}"
            )
    return Named(_checked(found, setting), tuple(words[1:]))


def _find(word: str) -> Path | None:
    try:
        path = Path(word).expanduser().absolute()
        if path.exists():
            return path
    except (OSError, ValueError, RuntimeError):  # Too long; a NUL; `~` of nobody.
        return None
    on_path = shutil.which(word) if Path(word).name == word else None
    return None if on_path is None else Path(on_path).absolute()


def _checked(path: Path, setting: str) -> Path:
    if path.is_dir():
        inside = [name for name in ("llama-server", "llama-server.exe") if (path / name).is_file()]
        raise ConfigurationError(
            f"{setting}={path} is a folder; name the program in it, such as "
            f"{path / (inside[0] if inside else 'llama-server')}"
        )
    return path


def what_is(path: Path) -> str | None:
    """What a file is that the system does not run, by its first bytes; `None` if nobody knows."""
    try:
        with path.open("rb") as file:
            head = file.read(256)
    except OSError:
        return None
    if not head:
        return "the file is empty"
    if head.startswith(b"#!"):
        words = head[2:].split(b"\n")[0].decode("utf-8", "replace").split()
        if words and Path(words[0]).exists():
            return None
        return f"its first line names {words[0] if words else 'no program'}, which is not there"
    kinds = [kind for magic, kind in _KINDS if head.startswith(magic)]
    return f"it is {kinds[0]}" if kinds else "a script needs a first line such as #!/bin/sh"
