"""Decides what of SynapticLlamas' settings becomes a setting of punch, and why the rest does not.

Its files are JSON: ``.synapticllamas.json`` with its settings, and ``.synapticllamas_nodes.json``
with the servers that it balances. They are read here and never written.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import attrs

from ...exceptions import ConfigurationError
from .._adopting import ADOPT
from .._asking import GATEWAY_TIMEOUT, MODEL_NAME, TIMEOUT
from .._setting import Setting
from .._splitting import RPC_BACKEND

# Its file has two kilobytes with a dozen servers.
MAX_IMPORT_BYTES = 256 * 1024

# Servers that are taken from one file: more than anybody has at home.
MAX_SERVERS = 64

_AGENTS = (
    "a feature of another program: agents that talk to each other stand before punch, and ask it "
    "as they ask Ollama"
)
_REDIS = "punch tells what happens over WebSockets (`/ws/logs`) and `punch logs`, and has no Redis"
_ALWAYS = "punch has no modes: each request goes to whoever answers it first, always"
_SPLITS = (
    "nothing is switched on: `punch settings set gateway.split FILE` names a model whose split is "
    "started where a request is worth it"
)
_DASHBOARD = "the dashboard of punch says what it has, without this"

_LEFT: Mapping[str, str] = {
    "mode": _ALWAYS,
    "strategy": _ALWAYS,
    "task_distribution_enabled": _ALWAYS,
    "model_sharding_enabled": _SPLITS,
    "distributed_inference_enabled": _SPLITS,
    "collaborative_mode": _AGENTS,
    "refinement_rounds": _AGENTS,
    "synthesis_model": _AGENTS,
    "ast_voting_enabled": _AGENTS,
    "quality_threshold": _AGENTS,
    "max_quality_retries": _AGENTS,
    "flockparser_enabled": (
        "a feature of another program: FlockParser finds documents, and asks punch as it asks "
        "Ollama"
    ),
    "dashboard_verbose": _DASHBOARD,
    "dashboard_enable_dask": _DASHBOARD,
    "redis_logging_enabled": _REDIS,
    "redis_host": _REDIS,
    "redis_port": _REDIS,
    "redis_db": _REDIS,
    "redis_password": _REDIS,
}


@attrs.frozen(kw_only=True)
class Taken:
    """A setting of punch that one of theirs becomes."""

    key: str
    """What they call it."""

    setting: Setting[object]
    """Ours."""

    texts: tuple[str, ...]
    """Its values."""

    note: str = ""
    """What else must be known of it."""


@attrs.frozen(kw_only=True)
class Left:
    """A setting of theirs that becomes none of punch."""

    key: str
    """What they call it."""

    why: str
    """Why not, and what does it here."""


@attrs.frozen(kw_only=True)
class Import:
    """What a file becomes."""

    taken: tuple[Taken, ...]
    """What is taken."""

    left: tuple[Left, ...]
    """What is not."""


def read_import(path: Path) -> Import:
    """What SynapticLlamas' file at *path* becomes.

    Raises:
      ConfigurationError: if it cannot be read, with the line and what to do.

    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_IMPORT_BYTES + 1)
    except (OSError, ValueError) as error:
        problem = error.strerror if isinstance(error, OSError) else "there is a NUL in its name"
        raise ConfigurationError(f"{path} cannot be read: {problem}; name another file") from None
    if len(data) > MAX_IMPORT_BYTES:
        raise ConfigurationError(
            f"{path} has more than {MAX_IMPORT_BYTES} bytes, and is no settings file of "
            "SynapticLlamas"
        )
    try:
        said = json.loads(data.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        raise ConfigurationError(
            f"{path}:{error.lineno}: it is no JSON: {error.msg}; mend that line and import it "
            "again: nothing was taken"
        ) from None
    except (UnicodeDecodeError, ValueError, RecursionError):
        raise ConfigurationError(f"{path} is no JSON that can be read; nothing was taken") from None
    if not isinstance(said, dict):
        raise ConfigurationError(
            f"{path} is no settings file of SynapticLlamas, which is one JSON object: name "
            "~/.synapticllamas.json or ~/.synapticllamas_nodes.json"
        )
    return import_of(said)


def import_of(said: Mapping[str, object]) -> Import:
    """What the settings in *said* become; one that is null is as good as not there."""
    taken: list[Taken] = []
    left: list[Left] = []
    for key, value in said.items():
        if value is None:
            continue
        for one in _each(key, value):
            if isinstance(one, Taken):
                taken.append(one)
            else:
                left.append(one)
    return Import(taken=tuple(taken), left=tuple(left))


def _each(key: str, value: object) -> Iterator[Taken | Left]:
    match key:
        case "model":
            yield _checked(key, MODEL_NAME, [value])
        case "agent_timeout":
            yield _checked(key, TIMEOUT, [value])
            yield _checked(key, GATEWAY_TIMEOUT, [value])
        case "rpc_backends":
            note = (
                "no split uses them before plain RPC is allowed: `punch settings set "
                "rpc.allow_plain true`; `punch worker` there needs none of that"
            )
            yield from _servers(key, RPC_BACKEND, value, _rpc_place, note)
        case "coordinator_url":
            yield _checked(key, ADOPT, [value], "`punch up` adopts it, and waits for it")
        case "nodes":
            yield from _servers(key, ADOPT, value, _url, "`punch up` adopts them")
        case _ if key in _LEFT:
            yield Left(key=key, why=_LEFT[key])
        case _:
            yield Left(key=key[:80], why="SynapticLlamas' own documents do not name it")


def _servers(
    key: str, setting: Setting[object], value: object, place: object, note: str
) -> Iterator[Taken | Left]:
    assert callable(place)
    if not isinstance(value, list) or len(value) > MAX_SERVERS:
        yield Left(key=key, why=f"it is no list of {MAX_SERVERS} servers at most")
        return
    found: list[str] = []
    for number, one in enumerate(value):
        checked = _checked(f"{key}[{number}]", setting, [place(one)])
        if isinstance(checked, Left):
            yield checked
        else:
            found += checked.texts
    if found:
        yield Taken(key=key, setting=setting, texts=tuple(dict.fromkeys(found)), note=note)


def _rpc_place(one: object) -> object:
    if not isinstance(one, dict):
        return one
    host, port = one.get("host"), one.get("port", 50052)
    return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"


def _url(one: object) -> object:
    return one.get("url") if isinstance(one, dict) else one


def _checked(
    key: str, setting: Setting[object], values: list[object], note: str = ""
) -> Taken | Left:
    """What *values* are as *setting*, or why they are not."""
    texts = [str(value) for value in values]
    for value, text in zip(values, texts, strict=True):
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            return Left(key=key, why="it is neither a text nor a number")
        try:
            setting.rule.value(text)
        except ValueError as error:
            return Left(key=key, why=f"{setting.name} cannot be {text[:80]!r}: {error}")
    return Taken(key=key, setting=setting, texts=tuple(texts), note=note)
