"""Decides whether a file is a model that can be offered, and computes and remembers its digest.

All of it blocks (reading 100 MB for the first digest takes 0.1 to 0.5 s): call it with
`trio.to_thread.run_sync`. The header itself is read by `punch.gguf`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any, Final

import attrs

from .._logs import get_logger
from ..capability import ModelOffer
from ..exceptions import ConfigurationError, ModelFileError
from ..gguf import GgufHeader, GgufPart, Layout, lay_out, read_part
from ..wire import clean_name

log = get_logger(__name__)

_REMEDY: Final = "`punch models pull smollm2` fetches a small one; `punch models list` shows all"
_SHARD: Final = re.compile(r"-(\d{5})-of-(\d{5})$")  # How gguf-split names its parts.
_LABEL_CHARACTERS: Final = 64  # As long as the wire takes a word, and as far as it counts numbers.
_EMBEDDING: Final = 1 << 24
_CACHE_NAME: Final = "digests.json"
_CACHE_ENTRIES: Final = 256  # Far more than a disk has models; about 60 KB.
_CACHE_BYTES: Final = 1024 * 1024  # A larger file is not ours.


@attrs.frozen(kw_only=True)
class ModelFile:
    """A model on this machine's disk."""

    path: Path
    """The file, absolute; of a model in several files, the first."""

    file_bytes: int
    """Size on disk, in bytes, of all its files."""

    header: GgufHeader
    """The header of the file; of a model in several files, that of the first."""

    offer: ModelOffer
    """What a backend that runs it can offer. `context_tokens` is what the model was trained for."""

    parts: tuple[GgufPart, ...] = attrs.field(repr=False)
    """What each of its files tells in front of its weights."""

    @property
    def layout(self) -> Layout:
        """What its layers and its ends take.

        Raises:
          ModelFileError: if the header does not tell the layers or their attention.

        """
        return lay_out(self.parts)


def describe(
    path: str | Path,
    *,
    cache_folder: Path,
    alias: str | None = None,
    any_types: bool = False,
    setting: str = "the model file",
) -> ModelFile:
    """Look at the GGUF file at *path*.

    The offer's name is *alias*, or else the file's name without ``.gguf`` (and without
    ``-00001-of-00003``). Not the name in the header: authors fill that in carelessly, and
    the file's name is the one a person has seen.

    The digest is the SHA-256 of the file. Of a model in several files it is the SHA-256 of
    their digests, in order, one a line.

    Args:
      path: The file. ``~`` is expanded.
      cache_folder: Where digests are remembered, in one small file.
      alias: The name to offer it under.
      any_types: Take weights of types that punch does not know: the engine may know them.
      setting: What the path was given with, such as ``LLAMA_GGUF_PATH``, for error messages.

    Raises:
      ConfigurationError: if there is no such file, or it is a folder, or it may not be read.
      ModelFileError: if it is not a whole GGUF model.

    """
    first = _absolute(path, setting)
    files = _read_files(first, setting, any_types)
    header = files[0].part.header
    digests = [digest(each.path, cache_folder=cache_folder) for each in files]
    whole = digests[0] if len(digests) == 1 else _sha256_of("\n".join(digests).encode())
    offer = ModelOffer(
        name=_name(alias or _SHARD.sub("", first.stem), first),
        digest=whole,
        context_tokens=header.context_tokens,
        features=header.features,
        parameters=sum(each.part.header.parameters for each in files),
        quantization=header.quantization,
        size_bytes=sum(each.part.header.weight_bytes for each in files),
        kv_bytes_per_token=header.kv_bytes_per_token(),
        chat_template=header.chat_template_digest,
        architecture=_label(header.architecture),
        embedding_length=header.embedding if 0 < (header.embedding or 0) <= _EMBEDDING else None,
    )
    return ModelFile(
        path=first,
        file_bytes=sum(each.file_bytes for each in files),
        header=header,
        offer=offer,
        parts=tuple(each.part for each in files),
    )


def layout_of(
    path: str | Path, *, any_types: bool = False, setting: str = "the model file"
) -> Layout:
    """What the layers and the ends of the GGUF model at *path* take, from all its files.

    Reads their headers and no weights: some milliseconds. The arguments are those of `describe`.

    Raises:
      ConfigurationError: if there is no such file, or one of several is missing; it names which.
      ModelFileError: if it is not a whole GGUF model that llama.cpp could run.

    """
    first = _absolute(path, setting)
    files = _read_files(first, setting, any_types)
    try:
        return lay_out([each.part for each in files])
    except ModelFileError as error:
        raise ModelFileError(f"{setting}={first}: {error}") from error


def _absolute(path: str | Path, setting: str) -> Path:
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError:
        raise ConfigurationError(f"{setting} is {str(path)!r}: nobody's home folder here") from None


def _name(text: str, path: Path) -> str:
    """The name to offer a model under: *text*, if peers accept that as a name."""
    name = clean_name(text) or "model"
    if name != text:
        log.warning("a model is offered under another name than its file's", name=name, path=path)
    return name


def _label(text: str | None) -> str | None:
    """*text* from a file, as peers accept it."""
    return (clean_name(text or "") or "")[:_LABEL_CHARACTERS] or None


def digest(path: Path, *, cache_folder: Path) -> str:
    """SHA-256 of the file at *path*, 64 hexadecimal digits.

    It is computed once and remembered in *cache_folder* for the same path, size and time of
    last change. A cache that cannot be read or written costs time and nothing else.

    Raises:
      ModelFileError: if the file cannot be read, or changes meanwhile.

    """
    path = path.absolute()
    try:
        with path.open("rb") as file:
            before = os.fstat(file.fileno())
            key = [str(path), before.st_size, before.st_mtime_ns]
            cache = _read_cache(cache_folder)
            for entry in cache:
                if entry[:3] == key:
                    return str(entry[3])
            found = hashlib.file_digest(file, "sha256").hexdigest()
            after = os.fstat(file.fileno())
    except OSError as error:
        raise ModelFileError(f"cannot read {path}: {error.strerror}") from error
    if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        raise ModelFileError(f"{path} changed while it was read; wait until it is complete")
    # Another entry with this path is of a file that is not there any more.
    others = [entry for entry in cache if entry[0] != key[0]]
    _write_cache(cache_folder, [*others, [*key, found]])
    return found


def _why_no_model(header: GgufHeader) -> str:
    """What a file holds that no request can be answered with, and what to give instead."""
    if header.is_reranker:
        return (
            "is a reranker: it scores texts, and neither answers nor embeds. Give a chat model or "
            "an embedding model"
        )
    kinds = {
        "adapter": "an adapter (LoRA), which changes a model: give a model that it was merged into",
        "mmproj": "a projector, which turns pictures into tokens: give the model that lies beside",
        "imatrix": "an importance matrix, for quantising: give the model's own file",
        "vocab": "a vocabulary without a model: give the model's own file",
    }
    what = kinds.get(header.kind, "nothing that answers: give the model's own file")
    return f"holds no model that answers: its type is {header.kind!r}, {what}"


@attrs.frozen(kw_only=True)
class _FileRead:
    path: Path
    part: GgufPart
    file_bytes: int


def _read_files(first: Path, setting: str, any_types: bool) -> list[_FileRead]:
    """The headers of all files of a model that answers, the first of which is at *first*."""
    files = [_read(first, setting, any_types)]
    header = files[0].part.header
    if not header.features:
        raise ModelFileError(f"{setting}={first} {_why_no_model(header)}; {_REMEDY}")
    if header.split_count > 1:
        others = _shards(first, header, setting)[1:]
        files += [_read_shard(other, header, setting, any_types) for other in others]
    return files


def _read(path: Path, setting: str, any_types: bool) -> _FileRead:
    named = f"{setting}={path}"
    try:
        if path.is_dir():
            raise ConfigurationError(
                f"{named} is a folder; give the path of one .gguf file. {_REMEDY}"
            )
        # A pipe or a device would block for ever, or never end.
        if path.exists() and not path.is_file():
            raise ConfigurationError(f"{named} is not a regular file; give a .gguf file")
        with path.open("rb") as file:
            part = read_part(file, any_types=any_types)
            return _FileRead(path=path, part=part, file_bytes=os.fstat(file.fileno()).st_size)
    except FileNotFoundError:
        raise ConfigurationError(
            f"{named} does not exist; give the path of a .gguf file. {_REMEDY}"
        ) from None
    except PermissionError:
        raise ConfigurationError(
            f"{named} may not be read by this user; change its permissions (chmod +r)"
        ) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the path.
        raise ConfigurationError(f"{named} cannot be read: {error}") from error
    except ModelFileError as error:
        raise ModelFileError(f"{named}: {error}. {_REMEDY}") from error


def _shards(first: Path, header: GgufHeader, setting: str) -> list[Path]:
    match = _SHARD.search(first.stem)
    count = header.split_count
    stem = first.stem if match is None else first.stem[: match.start()]
    name = f"-00001-of-{count:05}.gguf"
    if header.split_number != 0:
        raise ModelFileError(
            f"{setting}={first} is file {header.split_number + 1} of {count} of a model; "
            f"give the first, whose name ends in {name}"
            + ("" if match is None else f": {first.with_name(stem + name)}")
        )
    if match is None or (int(match[1]), int(match[2])) != (1, count):
        # Its own name may be anything by now; the others may have theirs still.
        others = sorted(first.parent.glob(f"*-?????-of-{count:05}.gguf"))
        stems = [_SHARD.sub("", other.stem) for other in others if other != first]
        raise ModelFileError(
            f"{setting}={first} is the first of {count} files of a model, under another name: "
            "llama.cpp finds the others by its name. Rename it to "
            f"{(stems[0] if stems else stem) + name}, beside the others"
        )
    return [first.with_name(f"{stem}-{i:05}-of-{count:05}.gguf") for i in range(1, count + 1)]


def _read_shard(path: Path, first: GgufHeader, setting: str, any_types: bool) -> _FileRead:
    """One of the other files of a model in several."""
    if not path.exists():
        raise ConfigurationError(
            f"{setting}: the model has {first.split_count} files, and {path} does not exist: "
            "download it too, beside the first"
        )
    read = _read(path, setting, any_types)
    shard = read.part.header
    if shard.split_count != first.split_count or not 1 <= shard.split_number < first.split_count:
        raise ModelFileError(
            f"{setting}: {path} is not one of the {first.split_count} files of this model: its "
            f"header says file {shard.split_number + 1} of {shard.split_count}. Download it again"
        )
    return read


def _sha256_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _read_cache(folder: Path) -> list[list[Any]]:
    """The remembered digests, oldest first, as [path, size, time in ns, digest].

    Empty if the file is damaged or not there: the cache saves time, and nothing relies on it.
    """
    try:
        path = folder / _CACHE_NAME
        if path.stat().st_size > _CACHE_BYTES:
            return []
        entries = json.loads(path.read_bytes())["digests"]
        return [list(entry) for entry in entries if _is_entry(entry)]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []


def _is_entry(entry: object) -> bool:
    return (
        isinstance(entry, list)
        and [type(part) for part in entry] == [str, int, int, str]
        and re.fullmatch("[0-9a-f]{64}", entry[3]) is not None
    )


def _write_cache(folder: Path, entries: list[list[Any]]) -> None:
    """Replace the remembered digests in one step: a reader sees the old file or the new one."""
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"digests": entries[-_CACHE_ENTRIES:]}, indent=0)
        handle, name = tempfile.mkstemp(dir=folder)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            Path(name).replace(folder / _CACHE_NAME)
        except OSError:
            # A full disk has room for the name of a file, and for nothing in it.
            Path(name).unlink()
