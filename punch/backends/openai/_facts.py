"""Reads what servers tell of their models. No I/O.

Each program has fields of its own, and no two of them use one field for different things, so that
one reader takes all of them:

* OpenAI's ``/v1/models``, with what llama.cpp (``meta``, ``status``), vLLM and SGLang
  (``max_model_len``), Mistral, OpenRouter and others add to a row;
* LM Studio's ``/api/v0/models`` and ``/api/v1/models``;
* Ollama's ``/api/tags``, ``/api/ps`` and ``/api/show``.

What cannot be true, or would not pass to a peer, is not told. Names of models are looked at only
where the server says nothing of what a model is for.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from ...wire import clean_name

# What an offer may say, by the rules of the wire.
MAX_CONTEXT_TOKENS = 1 << 40
MAX_COUNT = 1 << 53
MAX_LABEL_CHARACTERS = 64
MAX_EMBEDDING_LENGTH = 1 << 24

# A number of more digits is none that anybody meant; to read it takes Python a long time.
_MAX_DIGITS = 40

CHATS = frozenset({"chat", "complete"})
EMBEDS = frozenset({"embed"})

# What a server calls the kind of a model, where that is not to chat.
_KINDS = {
    "embedding": EMBEDS,
    "embeddings": EMBEDS,
    **dict.fromkeys(
        (
            *("rerank", "reranker", "reranking", "classify", "classification", "reward", "score"),
            *("image", "images", "video", "audio", "speech", "tts", "stt", "asr"),
            *("transcription", "transcribe", "moderation", "diffusion", "ocr"),
        ),
        frozenset[str](),
    ),
}

# What a server calls an ability, and what it is to us.
_ABILITIES = {
    "completion": CHATS,
    "chat": CHATS,
    "completion_chat": CHATS,
    "chat_completion": CHATS,
    "generate": CHATS,
    "text-generation": CHATS,
    "embedding": EMBEDS,
    "embeddings": EMBEDS,
    "embed": EMBEDS,
    "tools": frozenset({"tools"}),
    "tool_use": frozenset({"tools"}),
    "trained_for_tool_use": frozenset({"tools"}),
    "function_calling": frozenset({"tools"}),
    "thinking": frozenset({"reasoning"}),
    "reasoning": frozenset({"reasoning"}),
    "vision": frozenset({"image"}),
    "structured_outputs": frozenset({"json_schema"}),
    "json_schema": frozenset({"json_schema"}),
}

# Architectures that only embed, as versions of Ollama have them that tell nothing else of it.
_EMBEDDERS = frozenset({"bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2"})

# Words in names of models that are for something else than a chat.
_NAME_WORDS = re.compile(
    r"(?:^|[^a-z])(embed(?:d(?:ing|ings|er))?|rerank(?:er)?|whisper|tts|dall-e|transcribe|"
    r"moderation|stable-diffusion|gpt-image)(?![a-z])"
)

_SHA256 = re.compile(r"(?:sha256[:-])?([0-9a-f]{64})")
_SIZE = re.compile(r"(\d{1,6}(?:\.\d{1,6})?)\s*([KMBT])", re.IGNORECASE)
_SIZES = {"K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
_NUM_CTX = re.compile(r"^\s*num_ctx\s+(\d{1,13})\s*$", re.MULTILINE)


def parse_json(data: bytes) -> Any:
    """The value in *data*, as far as it can be read: one bad name must not hide the others.

    Bytes that are no UTF-8 become U+FFFD, and numbers that nobody can have meant `None`.

    Raises:
      ValueError: if it is no JSON.

    """
    try:
        return json.loads(
            data.decode("utf-8", "replace").removeprefix("\ufeff"),
            parse_int=lambda text: int(text) if len(text) <= _MAX_DIGITS else None,
            parse_constant=lambda _: None,
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


@attrs.frozen(kw_only=True)
class Facts:
    """What a server tells of one model; `None` for what it does not."""

    can: frozenset[str] | None = None
    """What it can do, in the words of an offer's features; empty for nothing that we know."""

    loaded: bool | None = None
    """Whether it is in memory."""

    context_tokens: int | None = None
    """Tokens of one request: of the loaded model, else the most it can have."""

    digest: str | None = None
    """SHA-256, as the server has it."""

    parameters: int | None = None
    """Number of weights."""

    quantization: str | None = None
    """How they are stored."""

    size_bytes: int | None = None
    """Their size."""

    architecture: str | None = None
    """llama.cpp's word for the kind of network, where the server uses it."""

    embedding_length: int | None = None
    """Numbers in one embedding."""

    loaded_bytes: int | None = None
    """Memory that it takes while it is loaded."""

    gpu_bytes: int | None = None
    """How much of that is in GPUs."""

    odd: tuple[str, ...] = ()
    """Fields whose values cannot be true."""

    def and_then(self, other: Facts) -> Facts:
        """These facts, and what *other* tells, which counts more."""
        told = {
            field.name: value
            for field in attrs.fields(Facts)
            if (value := getattr(other, field.name)) not in (None, ())
        }
        return attrs.evolve(self, **told)


def facts_of(row: Mapping[str, Any]) -> Facts:
    """What one map of a server says of one model."""
    numbers = _Numbers()
    meta, details, info = _map(row, "meta"), _map(row, "details"), _map(row, "model_info")
    instances = [each for each in _list(row, "loaded_instances") if isinstance(each, dict)]
    running = _map(instances[0], "config") if instances else {}
    provider = _map(row, "top_provider")
    context = numbers.first(
        MAX_CONTEXT_TOKENS,
        # llama.cpp says what one slot has (`n_ctx`), older builds only what the model was
        # trained for. What runs counts more than what might.
        (meta, "n_ctx"),
        (running, "context_length"),
        (row, "loaded_context_length"),
        (row, "max_model_len"),
        (row, "num_ctx"),
        (meta, "n_ctx_train"),
        (row, "context_length"),
        (row, "max_context_length"),
        (row, "context_window"),
        (provider, "context_length"),
        (info, f"{info.get('general.architecture')}.context_length"),
    )
    quantization = row.get("quantization")
    if isinstance(quantization, dict):
        quantization = quantization.get("name")
    return Facts(
        can=_abilities(row),
        loaded=_loaded(row),
        context_tokens=context,
        digest=_digest(row.get("digest")),
        parameters=numbers.first(MAX_COUNT, (meta, "n_params"), (info, "general.parameter_count"))
        or _size(details.get("parameter_size"))
        or _size(row.get("params_string")),
        quantization=_label(meta.get("ftype") or quantization or details.get("quantization_level")),
        size_bytes=numbers.first(MAX_COUNT, (meta, "size"), (row, "size_bytes"), (row, "size")),
        architecture=_label(
            info.get("general.architecture")
            or details.get("family")
            or row.get("arch")
            or row.get("architecture")
        ),
        embedding_length=numbers.first(
            MAX_EMBEDDING_LENGTH,
            (meta, "n_embd"),
            (info, f"{info.get('general.architecture')}.embedding_length"),
        ),
        odd=tuple(numbers.odd),
    )


def num_ctx(parameters: Any) -> int | None:
    """The context that the text in Ollama's ``parameters`` sets."""
    found = _NUM_CTX.search(parameters) if isinstance(parameters, str) else None
    return int(found[1]) if found is not None and 0 < int(found[1]) <= MAX_CONTEXT_TOKENS else None


def of_tag(row: Mapping[str, Any]) -> Facts:
    """What a row of Ollama's ``/api/tags`` tells."""
    facts = facts_of(row)
    details = row.get("details")
    family = details.get("family") if isinstance(details, dict) else None
    return attrs.evolve(facts, can=EMBEDS) if facts.can is None and family in _EMBEDDERS else facts


def of_running(row: Mapping[str, Any]) -> Facts:
    """What a row of ``/api/ps`` tells; on a machine without GPUs `size_vram` is 0."""
    numbers = _Numbers()
    return Facts(
        loaded=True,
        context_tokens=facts_of(row).context_tokens,
        loaded_bytes=numbers.first(MAX_COUNT, (row, "size")),
        gpu_bytes=numbers.first(MAX_COUNT, (row, "size_vram")),
        odd=tuple(numbers.odd),
    )


def of_show(shown: Mapping[str, Any]) -> Facts:
    """What ``/api/show`` tells; versions before 0.6.4 have no capabilities there."""
    facts = facts_of(shown)
    template = shown.get("template")
    if facts.can is None and isinstance(template, str) and ".Tools" in template:
        facts = attrs.evolve(facts, can=CHATS | {"tools"})
    # What the model was made with here, in place of what it was trained for.
    context = num_ctx(shown.get("parameters"))
    return facts if context is None else attrs.evolve(facts, context_tokens=context)


def guessed_from(name: str) -> str | None:
    """The word in *name* that says it is no model to chat with; `None` if there is none."""
    found = _NAME_WORDS.search(name.lower())
    return None if found is None else found[1]


def names_of(row: Mapping[str, Any]) -> Iterator[str]:
    """The names that a server may mean the model of *row* by, its own first."""
    instances = (
        each.get("id") for each in _list(row, "loaded_instances") if isinstance(each, dict)
    )
    for name in (*(row.get(each) for each in ("id", "key", "name", "model")), *instances):
        if isinstance(name, str) and name:
            yield name


def offered_name(name: str) -> str | None:
    """The name that the server's *name* is offered under; `None` if it cannot be asked for."""
    # A request for it could not spell it: what was no UTF-8 is lost.
    if "\ufffd" in name or any("\ud800" <= c <= "\udfff" for c in name):
        return None
    # llama-server's name for a model without an alias is the path of its file, which is nobody's
    # business; a person knows the file's own name.
    if name.endswith(".gguf") and (name.startswith(("/", "./", "~")) or name[1:3] in (":\\", ":/")):
        name = re.split(r"[/\\]", name)[-1].removesuffix(".gguf") or name
    return clean_name(name)


class _Numbers:
    """Reads numbers, and notes the fields that have something else."""

    def __init__(self) -> None:
        self.odd: list[str] = []

    def first(self, most: int, *places: tuple[Mapping[str, Any], str]) -> int | None:
        """The first of *places* with a number from 1 to *most*."""
        for values, name in places:
            value = values.get(name)
            if value is None or value == "" or value == 0:
                continue
            number = _number(value)
            if number is not None and 1 <= number <= most:
                return number
            self.odd.append(name)
        return None


def _number(value: Any) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        return int(value) if math.isfinite(value) and value.is_integer() else None
    return value if isinstance(value, int) else None


def _map(row: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = row.get(name)
    return value if isinstance(value, dict) else {}


def _list(row: Mapping[str, Any], name: str) -> list[Any]:
    value = row.get(name)
    return value if isinstance(value, list) else []


def _digest(value: Any) -> str | None:
    found = _SHA256.fullmatch(value.lower()) if isinstance(value, str) else None
    return None if found is None else found[1]


def _label(value: Any) -> str | None:
    text = clean_name(value) if isinstance(value, str) else None
    return None if text is None else text[:MAX_LABEL_CHARACTERS]


def _size(value: Any) -> int | None:
    """The number of weights in a text such as ``3.2B``."""
    found = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    return None if found is None else int(float(found[1]) * _SIZES[found[2].upper()]) or None


def _loaded(row: Mapping[str, Any]) -> bool | None:
    if isinstance(row.get("loaded_instances"), list):
        return bool(row["loaded_instances"])
    status = row.get("status")
    word = status.get("value") if isinstance(status, dict) else row.get("state", status)
    if not isinstance(word, str):
        return None
    return {"loaded": True, "running": True, "ready": True}.get(
        word, False if word in ("not-loaded", "unloaded", "loading", "sleeping", "failed") else None
    )


def _abilities(row: Mapping[str, Any]) -> frozenset[str] | None:
    """What the model can do; `None` if the row does not say whether it chats."""
    said = _words(row.get("capabilities")) | _words(row.get("supported_parameters"))
    found = frozenset[str]().union(*(_ABILITIES.get(word, frozenset()) for word in said))
    kind = next(
        (
            kind
            for name in ("type", "model_type", "task", "mode")
            if isinstance(kind := row.get(name), str) and kind.lower() in _KINDS
        ),
        None,
    )
    if kind is not None:
        return _KINDS[kind.lower()]
    if isinstance(row.get("type"), str) and row["type"].lower() in ("llm", "vlm", "chat"):
        return CHATS | found | ({"image"} if row["type"].lower() == "vlm" else frozenset())
    inputs = _words(_map(row, "architecture").get("input_modalities"))
    found |= {"image"} if "image" in inputs else frozenset()
    made = _words(_map(row, "architecture").get("output_modalities"))
    if made:
        return CHATS | found if "text" in made else frozenset()
    if found & (CHATS | EMBEDS):
        return found
    if _map(row, "capabilities").get("completion_chat") is False:
        return frozenset()
    kinds = [_KINDS[word] for word in said if word in _KINDS]
    if kinds:
        return frozenset[str]().union(*kinds)
    return CHATS | found if found else None


def _words(value: Any) -> set[str]:
    """The words of a list, or those that a map says are true."""
    if isinstance(value, dict):
        return {name for name, is_so in value.items() if is_so is True}
    if isinstance(value, list):
        return {word.lower() for word in value[:64] if isinstance(word, str)}
    return set()
