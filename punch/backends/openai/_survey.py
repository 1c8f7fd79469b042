"""Asks a server that is not ours which models it has, and what it tells of them.

Which program the server is decides where it is asked: OpenAI's list is common to all, and beside it
Ollama, LM Studio, llama-server and SGLang have pages of their own. Nothing is asked that would make
a server load a model. What is then offered is decided by `_shelf`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import Any

import attrs
import trio

from ...exceptions import BackendCrashed, PunchError
from .._thinking import ThinkingWords
from ._client import HttpClient
from ._completions import Dialect
from ._facts import (
    CHATS,
    EMBEDS,
    Facts,
    facts_of,
    names_of,
    of_running,
    of_show,
    of_tag,
    offered_name,
    parse_json,
)
from ._probes import (
    Kind,
    probe_embeddings,
    probe_generation,
    probe_thinking,
    recognise,
    sees,
    writes_tools,
)

# A server has its list in memory; one that needs longer is not there, or computes meanwhile.
LIST_SECONDS = 5.0

# A page of its own is a help and no more.
PAGE_SECONDS = 2.0

# A request of one word, at a server that may compute for others.
TRIAL_SECONDS = 5.0

# One that computes for others all the time is not asked for ever.
MAX_TRIALS = 3

# More models than any server has that somebody uses; it bounds our capability vector, and what is
# asked about each.
MAX_MODELS = 256

# Rows that are read at all, of which those in memory come first.
MAX_ROWS = 1024

# Questions about single models in one look; the others are asked in the next one, at once.
MAX_QUESTIONS = 32

# Requests side by side, whatever a server says that it can: its batch is shared by its other users.
MAX_SLOTS = 32

# Ollama's first version that holds an answer to a schema.
_OLLAMA_SCHEMAS = (0, 5)


class Away(Exception):
    """The server did not give its list of models.

    Args:
      why: What is the matter, in our own words, which others may read.
      status: HTTP status of its answer; `None` if there was none.
      is_silent: Whether it took the question, and this once gave no answer.
      is_wrong: Whether waiting will hardly help: the key is wrong, or the address.

    """

    def __init__(
        self,
        why: str,
        *,
        status: int | None = None,
        is_silent: bool = False,
        is_wrong: bool = False,
    ) -> None:
        super().__init__(why)
        self.why = why
        self.status = status
        self.is_silent = is_silent
        self.is_wrong = is_wrong
        self.details = ""
        """What a library or the server says of it, for the log of the owner."""


@attrs.frozen(kw_only=True)
class Listed:
    """One model in a server's list."""

    name: str
    """The server's own name for it."""

    facts: Facts = attrs.field(factory=Facts)
    """What is told of it."""

    is_asked: bool = True
    """Whether everything was asked that can be; if not, it is not offered yet."""


@attrs.frozen(kw_only=True)
class Survey:
    """What one look at a server has found."""

    kind: Kind
    """Which program it is."""

    models: tuple[Listed, ...]
    """Its models, each name once; those in memory first."""

    features: frozenset[str] = frozenset()
    """What the program can do with each model that chats."""

    slots: int | None = None
    """Requests that it works at side by side, where it says so."""

    writes_tools: bool = True
    """Whether it writes tools into the prompt by itself."""

    repeated: int = 0
    """Rows with a name that another row has."""

    unread: int = 0
    """Models beyond those that are looked at."""

    @property
    def dialect(self) -> Dialect:
        """Which extensions of the interface the program understands."""
        return (
            "llama_cpp" if self.kind == "llama_cpp" else "vllm" if self.kind == "vllm" else "other"
        )

    @property
    def thinking(self) -> ThinkingWords:
        """In which words the program is told how much to think."""
        if self.kind == "llama_cpp":
            return "llama_cpp"
        return "template" if self.kind in ("vllm", "sglang") else "effort"

    @property
    def is_whole(self) -> bool:
        """Whether everything was asked about every model."""
        return all(model.is_asked for model in self.models)


@attrs.frozen(kw_only=True)
class _List:
    """What a body of ``/v1/models`` holds."""

    digest: bytes
    owners: frozenset[str]
    count: int
    repeated: int
    unread: int
    facts: Mapping[str, Facts]


def _list_in(value: Any, digest: bytes, only: str | None) -> _List:
    rows = list(_rows_in(value))
    named: dict[str, Mapping[str, Any]] = {}
    for row in rows:
        name = next(names_of(row), None)
        if name is not None:
            named.setdefault(name, row)
    repeated = len(rows) - len(named)
    if only is not None:
        named = {name: row for name, row in named.items() if is_meant(only, name)}
    return _List(
        digest=digest,
        owners=frozenset(str(row.get("owned_by"))[:80] for row in rows[:MAX_MODELS]),
        count=len(rows),
        repeated=repeated,
        unread=max(0, len(named) - MAX_ROWS),
        facts={name: facts_of(row) for name, row in list(named.items())[:MAX_ROWS]},
    )


class Surveyor:
    """Looks at one server again and again, and asks only for what may have changed.

    Args:
      client: A client of the server.
      only: A name of the one model to look at; `None` for all.
      gateways: Whether the server may be a gateway of punch.

    """

    def __init__(
        self, client: HttpClient, *, only: str | None = None, gateways: bool = True
    ) -> None:
        self._client = client
        self._only = only
        self._gateways = gateways
        self._kind: Kind | None = None
        self._version: str | None = None
        self._page = ""
        self._features = frozenset[str]()
        self._listed: _List | None = None
        self._owners = frozenset[str]()
        self._own: Facts | None = None
        self._slots: int | None = None
        self._trials = 0
        self._shown: dict[tuple[str, str | None], Facts] = {}

    def forget(self) -> None:
        """Take whatever answers next for another server."""
        self._kind = self._version = self._own = None
        self._features = frozenset()
        self._shown.clear()
        self._slots, self._trials = None, 0

    @property
    def kind(self) -> Kind | None:
        """The program; `None` while it is not known."""
        return self._kind

    @property
    def server(self) -> str:
        """The program, and its version where that is known, for a log."""
        return f"{self._kind or 'unknown'} {self._version or ''}".strip()

    async def look(self) -> Survey:
        """Ask the server for its models.

        Raises:
          Away: if it does not give its list.

        """
        listed = await self._list()
        if listed.owners != self._owners and listed.count:
            # Another program may be there since the last look, which saw none of its absence.
            self.forget()
            self._owners = listed.owners
        if self._kind is None:
            self._kind = await self._recognise(listed)
        kind = self._kind or "other"
        facts = dict(listed.facts)
        slots, writes, native = None, True, {}
        if kind in ("ollama", "lm_studio"):
            native = await self._native(kind)
            facts = {name: told.and_then(native.get(name, Facts())) for name, told in facts.items()}
        elif kind == "llama_cpp":
            props = await self._json("/props")
            slots = _slots(props, "total_slots")
            writes = writes_tools(props)
            facts = await self._of_llama(facts, props)
        elif kind == "sglang":
            slots, own = await self._of_sglang()
            facts = {name: told.and_then(own) for name, told in facts.items()}
        elif kind == "vllm":
            own = await self._of_vllm(next(iter(facts), None))
            facts = {name: told.and_then(own) for name, told in facts.items()}
        if kind in ("llama_cpp", "vllm", "sglang"):
            # What these list they have in memory, unless they say otherwise.
            facts = {name: Facts(loaded=True).and_then(told) for name, told in facts.items()}
        elif kind == "other" and listed.count == 1:
            # A server of one model that loads it later is rarer than one that has it.
            facts = {name: Facts(loaded=True).and_then(told) for name, told in facts.items()}
        order = sorted(facts, key=lambda name: facts[name].loaded is not True)
        models = [Listed(name=name, facts=facts[name]) for name in order[:MAX_MODELS]]
        if kind == "ollama":
            models = await self._shown_by_ollama(models)
        return Survey(
            kind=kind,
            models=tuple(models),
            features=_features_of(kind, self._version) | self._features,
            slots=slots,
            writes_tools=writes,
            repeated=listed.repeated,
            unread=max(0, listed.unread + len(facts) - MAX_MODELS),
        )

    # ---- the list ----

    async def _list(self) -> _List:
        try:
            status, data = await self._client.fetch("/v1/models", timeout=LIST_SECONDS)
        except trio.TooSlowError:
            raise Away(
                f"its server does not answer within {LIST_SECONDS:g} s", is_silent=True
            ) from None
        except BackendCrashed as error:
            away = Away("its server cannot be reached")
            away.details = str(error)
            raise away from error
        except PunchError as error:
            # Every connection is in use, or the list has no end.
            away = Away("its server does not give its list of models", is_silent=True)
            away.details = str(error)
            raise away from error
        if status != 200:
            raise _refused(status)
        # Nearly always the very bytes of the last look.
        digest = blake2b(data, digest_size=16).digest()
        if self._listed is None or self._listed.digest != digest:
            try:
                self._listed = _list_in(parse_json(data), digest, self._only)
            except ValueError:
                raise Away("what answers there is no server of models", is_wrong=True) from None
        return self._listed

    async def _json(self, path: str, body: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
        """The map that the server says at *path*; an empty one if it says none."""
        try:
            status, data = await self._client.fetch(path, body, timeout=PAGE_SECONDS)
            value = parse_json(data) if status == 200 else None
        except (PunchError, trio.TooSlowError, ValueError):
            return {}
        return value if isinstance(value, dict) else {}

    async def _recognise(self, found: _List) -> Kind | None:
        """Which program the server is; `None` if that cannot be told before it has a model.

        Raises:
          Away: if it is a gateway of punch, and must not be.

        """
        told = await recognise(self._json, found.owners)
        if told.is_gateway and not self._gateways:
            # What is asked of it may come back to us, and be asked of it again.
            raise Away("a gateway of punch answers there", is_wrong=True)
        self._version, self._page = told.version or self._version, told.page or self._page
        return told.kind or ("other" if found.count else None)

    # ---- what the programs tell ----

    async def _native(self, kind: Kind) -> dict[str, Facts]:
        """What Ollama or LM Studio tells of each of its models, by any name that it has."""
        if kind == "lm_studio":
            listed = _rows_in(await self._json(self._page))
            return {name: facts_of(row) for row in listed for name in names_of(row)}
        tags = list(_rows_in(await self._json("/api/tags")))
        running = await self._json("/api/ps")
        found = {name: of_tag(row) for row in tags for name in names_of(row)}
        if isinstance(running.get("models"), list):
            found = {name: attrs.evolve(told, loaded=False) for name, told in found.items()}
            for row in _rows_in(running):
                for name in names_of(row):
                    found[name] = found.get(name, Facts()).and_then(of_running(row))
        return found

    async def _shown_by_ollama(self, models: list[Listed]) -> list[Listed]:
        """*models* with what Ollama shows of each, which is asked once for each digest."""
        keys = {(model.name, model.facts.digest) for model in models}
        self._shown = {key: told for key, told in self._shown.items() if key in keys}
        asked, found = 0, []
        for model in models:
            key = (model.name, model.facts.digest)
            if key not in self._shown and asked < MAX_QUESTIONS:
                asked += 1
                self._shown[key] = of_show(await self._json("/api/show", {"model": model.name}))
            told = self._shown.get(key)
            if told is None:
                found.append(attrs.evolve(model, is_asked=False))
                continue
            facts = model.facts.and_then(told)
            if model.facts.loaded and model.facts.context_tokens is not None:
                # What runs counts more than what might.
                facts = attrs.evolve(facts, context_tokens=model.facts.context_tokens)
            found.append(attrs.evolve(model, facts=facts))
        return found

    async def _of_llama(
        self, facts: dict[str, Facts], props: Mapping[str, Any]
    ) -> dict[str, Facts]:
        """*facts* with whether a llama-server embeds, which it does only if started for it."""
        settings = props.get("default_generation_settings")
        context = (
            facts_of({"meta": settings}).context_tokens if isinstance(settings, dict) else None
        )
        if props.get("is_sleeping") is True:
            return {name: told.and_then(Facts(loaded=False)) for name, told in facts.items()}
        # One with several models would load each of them for the question.
        if len(facts) != 1 or any(told.loaded is False for told in facts.values()):
            return facts
        if self._own is None and self._trials < MAX_TRIALS:
            self._trials += 1
            self._own = await self._tried()
            if self._own is not None and self._own.can and self._own.can & CHATS:
                thinks = await probe_thinking(self._json, props)
                self._own = attrs.evolve(self._own, can=self._own.can | thinks)
        own = Facts(context_tokens=context).and_then(self._own or Facts())
        if own.can is not None and own.can & CHATS and sees(props):
            own = attrs.evolve(own, can=own.can | {"image"})
        return {name: told.and_then(own) for name, told in facts.items()}

    async def _tried(self) -> Facts | None:
        with trio.move_on_after(TRIAL_SECONDS):
            if not await probe_embeddings(self._client):
                return Facts(can=CHATS)
            # Older builds embed only, if they embed.
            return Facts(can=EMBEDS | CHATS if await probe_generation(self._client) else EMBEDS)
        return None

    async def _of_vllm(self, model: str | None) -> Facts:
        """Whether vLLM was started to embed: it does that, or makes text, and never both."""
        if self._own is None and model is not None:
            self._version = str((await self._json("/version")).get("version") or "")[:40]
            vectors = await self._json("/v1/embeddings", {"model": model, "input": ["a"]})
            self._own = Facts(can=EMBEDS) if "data" in vectors else Facts()
        return self._own or Facts()

    async def _of_sglang(self) -> tuple[int | None, Facts]:
        if self._own is None:
            model = await self._json("/get_model_info") or await self._json("/model_info")
            server = await self._json("/get_server_info") or await self._json("/server_info")
            generates = model.get("is_generation")
            features = set[str]()
            if server:
                self._version = str(server.get("version") or "")[:40]
                if server.get("tool_call_parser"):
                    features.add("tools")
                if server.get("grammar_backend", "xgrammar") not in (None, "none"):
                    features.add("json_schema")
                if server.get("reasoning_parser"):
                    features.add("reasoning")
            if model.get("has_image_understanding") is True:
                features.add("image")
            self._features = frozenset(features)
            self._slots = _slots(server, "max_running_requests")
            self._own = Facts(
                can=None if not isinstance(generates, bool) else CHATS if generates else EMBEDS
            )
        return self._slots, self._own


def _features_of(kind: Kind, version: str | None) -> frozenset[str]:
    """What programs of this kind do with any model that chats.

    Nothing is claimed for an unknown kind: many servers ignore what they do not know without a
    word, and the answer would not be what was asked for.
    """
    if kind in ("llama_cpp", "vllm"):
        return frozenset({"tools", "json_schema", "logprobs"})
    is_able = kind == "lm_studio" or (kind == "ollama" and _at_least(version, _OLLAMA_SCHEMAS))
    return frozenset({"json_schema"} if is_able else ())


def is_meant(wanted: str, name: str) -> bool:
    """Whether *wanted* means the model that a server calls *name*."""
    return wanted in (name, offered_name(name)) or f"{wanted}:latest" == name


def _refused(status: int) -> Away:
    if status in (401, 403):
        return Away("its server rejects our key", status=status, is_wrong=True)
    if status == 503:
        return Away("its server is loading", status=status)
    # A redirect is not followed: the key would go wherever it leads.
    is_wrong = status in (404, 405, 410) or 300 <= status < 400
    why = f"its server does not list its models (status {status})"
    # Too many questions, or a fault of the moment: once says nothing of the models.
    is_silent = status == 429 or status >= 500
    return Away(why, status=status, is_wrong=is_wrong, is_silent=is_silent)


def _rows_in(value: Any) -> Iterator[Mapping[str, Any]]:
    """The rows of a list of models, wherever a server puts it."""
    if isinstance(value, dict):
        value = value.get("data") if isinstance(value.get("data"), list) else value.get("models")
    for row in value if isinstance(value, list) else ():
        if isinstance(row, dict):
            yield row


def _slots(values: Mapping[str, Any], name: str) -> int | None:
    value = values.get(name)
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return min(value, MAX_SLOTS)
    return None


def _at_least(version: str | None, least: tuple[int, int]) -> bool:
    """Whether *version* is *least* or later; a version that cannot be read is a late one."""
    parts = (version or "").split(".")[:2]
    if len(parts) < 2 or not all(part.isdecimal() for part in parts):
        return True
    # A build from the sources calls itself 0.0.0.
    return tuple(map(int, parts)) == (0, 0) or tuple(map(int, parts)) >= least
