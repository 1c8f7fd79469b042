"""A backend whose engine is an HTTP server in a supervised child process.

Sends requests to the server, chooses the slot that has the conversation in its cache, and has
the server watched. How it is started is decided by `_server` and `_embedded`; when it is started
again, by `punch.processes`.
"""

from __future__ import annotations

import math
import secrets
import socket
from functools import partial
from typing import Any

import attrs
import psutil

from ...capability import Gpu, ModelOffer
from ...exceptions import BackendCrashed, OfferUnavailable
from ...processes import Supervised, SupervisorStatistics
from ...wire import MAX_REASON_CHARACTERS, CommandRequest
from .._base import Emit, Generation, Loading, say_while
from .._thinking import Told
from ..openai._client import HttpClient
from ..openai._probes import find_slots
from ..openai._written_tools import ask_in_writing, has_tools, written_out
from ._head import Head
from ._pins import Pins, conversation
from ._vigil import Look, Vigil

# Tokens that a chat template writes around the messages. A guess on the high side.
_TEMPLATE_TOKENS = 64

# English has four, Chinese one to two. Too few only make the vigil more patient.
_CHARACTERS_PER_TOKEN = 2


class ServedBackend:
    """Sends requests to a server that is restarted when it crashes; a `Backend`.

    Args:
      name: The word that selects the backend.
      client: A client of the server; its `url` follows the restarts.
      supervised: The server's process.
      slots: Requests that the server works at side by side.
      threads: Threads that it computes with, where they were set.
      offer: Its one model.
      gpus: GPUs that it can use.
      knows_tools: Whether its chat template writes tools; if not, punch writes them itself.
      head: What is around a server whose model lies on several machines. It hears of answers, and
        says, once the server has ended, whether that was for want of another machine, so that no
        request can be why; and whether all machines are of this one's owner.

    """

    def __init__(
        self,
        *,
        name: str,
        client: HttpClient,
        supervised: Supervised,
        slots: int,
        threads: int | None,
        offer: ModelOffer,
        gpus: tuple[Gpu, ...] = (),
        knows_tools: bool = False,
        head: Head | None = None,
    ) -> None:
        self._head = head
        self._knows_tools = knows_tools
        self._name = name
        self._client = client
        self._supervised = supervised
        self._slots = slots
        self._threads = threads
        self._offer = offer
        self._gpus = gpus
        self._pins = Pins(slots, key=secrets.token_bytes(16))
        self._vigil = Vigil(ask=self._look, kill=supervised.kill, cpu_seconds=self._cpu_seconds)

    @property
    def name(self) -> str:
        """The word that selects this backend."""
        return self._name

    @property
    def simulated(self) -> bool:
        """False: a real model answers."""
        return False

    @property
    def slots(self) -> int:
        """Requests that the server works at side by side."""
        return self._slots

    @property
    def threads(self) -> int | None:
        """Threads that the server computes with; `None` if the choice was left to it."""
        return self._threads

    @property
    def offers(self) -> tuple[ModelOffer, ...]:
        """The one model, with the seconds until it is loaded while the server restarts.

        Empty once the server is down for good.
        """
        supervised = self._supervised
        if supervised.state == "failed":
            return ()
        offer = self._offer
        if self._head is not None:
            offer = attrs.evolve(
                offer,
                own_workers=self._head.is_own,
                plain_rpc=self._head.is_plain,
                machines=self._head.machines,
            )
        if supervised.state in ("starting", "restarting"):
            return (attrs.evolve(offer, load_seconds=supervised.load_seconds),)
        return (offer,)

    @property
    def _is_own(self) -> bool:
        return self._head is not None and self._head.is_own

    @property
    def gpus(self) -> tuple[Gpu, ...]:
        """The devices that the program itself lists, without the CPU."""
        return self._gpus

    @property
    def pid(self) -> int | None:
        """Process id of the server, while it runs."""
        return self._supervised.pid

    @property
    def url(self) -> str:
        """Where the server listens on loopback; another port after a restart."""
        return self._client.url

    @property
    def restarts(self) -> int:
        """How often the server was started again."""
        return max(0, self._supervised.statistics().starts - 1)

    @property
    def why_restarted(self) -> str | None:
        """Why the server ended last; `None` if it never has."""
        return self._supervised.statistics().reason

    @property
    def reason(self) -> str | None:
        """Why the server is not ready, in words that every peer may read; `None` if it is."""
        return in_one_line(self._supervised.trouble)

    def statistics(self) -> SupervisorStatistics:
        """State of the server's process, its starts and its last crash."""
        return self._supervised.statistics()

    async def watch(self) -> None:
        """Have the server killed and started again whenever it is stuck; until cancelled."""
        await self._vigil.run()

    async def _look(self) -> Look:
        slots = await find_slots(self._client)
        if slots is None:
            return Look()
        busy = [one for one in slots if isinstance(one, dict) and one.get("is_processing") is True]
        return Look(busy=len(busy), work=tuple(map(_counts, busy)))

    def _cpu_seconds(self) -> float | None:
        """Processor time of the server and what it has started; a wrapper script uses none."""
        pid = self._supervised.pid
        if pid is None:
            return None
        try:
            process = psutil.Process(pid)
            times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
        except psutil.Error:
            return None
        return float(sum(time.user + time.system for time in times))

    async def ready(self, loading: Loading) -> None:
        """Return when the server answers, and call *loading* every 5 s until then.

        Raises:
          BackendCrashed: if the server is down for good; the text has its last lines.

        """
        supervised = self._supervised
        if supervised.state != "ready":
            await say_while(
                lambda: supervised.wait_ready(math.inf),
                lambda: loading(supervised.load_seconds),
            )

    async def generate(self, request: CommandRequest, emit: Emit) -> Generation:
        """Answer *request*; waits for up to 20 s while the server restarts.

        Raises:
          InvalidRequest: if a parameter cannot be honoured; the text names it.
          ContextTooLong: if the prompt does not fit.
          GenerationFailed: if this answer failed but the server lives.
          BackendCrashed: if the server is gone; the text says how it ended.
          OfferUnavailable: if its machines were all this one's owner's, and are not any more.

        """
        was_own = self._is_own
        await self._supervised.wait_ready()
        if was_own and not self._is_own:
            raise OfferUnavailable("the model lies on machines of other owners, too, by now")
        if request.command == "embed":
            return await self._ask(request, emit, None)
        if request.command == "count":
            return await self._count(request, emit)
        text = conversation(request)
        slot = self._pins.acquire(text)
        try:
            generation = await self._ask(request, emit, slot)
            text += generation.completion.text
        finally:
            # After a failure the slot holds the prompt at most; to remember more would be a guess.
            if slot is not None:
                self._pins.release(slot, text)
        return generation

    async def _ask(self, request: CommandRequest, emit: Emit, slot: int | None) -> Generation:
        if has_tools(request) and not self._knows_tools:
            return await ask_in_writing(request, emit, partial(self._ask_server, slot=slot))
        return await self._ask_server(request, emit, slot=slot)

    async def _count(self, request: CommandRequest, emit: Emit) -> Generation:
        """Count the tokens of what a model would read; no slot is taken for it."""
        if has_tools(request) and not self._knows_tools:
            request = written_out(request)
        return await self._client.generate(
            request, emit, model=self._offer.name, dialect="llama_cpp"
        )

    async def _ask_server(
        self, request: CommandRequest, emit: Emit, *, slot: int | None
    ) -> Generation:
        async def pass_on(text: str, tokens: int) -> None:
            watched.sign()
            with watched.delivering():
                await emit(text, tokens)

        has_grammar = request.response_schema is not None or has_tools(request)
        with self._vigil.request(_most_tokens(request), has_grammar=has_grammar) as watched:
            try:
                generation = await self._client.generate(
                    request,
                    pass_on,
                    model=self._offer.name,
                    dialect="llama_cpp",
                    slot=slot,
                    told=Told(words="llama_cpp", features=self._offer.features),
                )
            except BackendCrashed as error:
                # The caches went with the process; the next one starts with empty slots.
                self._pins.clear()
                # A broken connection says little: what the process said as it died says more.
                crash = await self._supervised.explain(error)
                if crash.engine_died:
                    head = self._head
                    crash.engine_restarts = head is not None and await head.has_lost_machine()
                    crash.engine_died = not crash.engine_restarts and (
                        self._vigil.may_have_killed(watched)
                    )
                raise crash from error
        self._supervised.note_served()
        self._vigil.learn(generation.usage.computed_tokens, generation.timings.prefill)
        if self._head is not None and (tokens := generation.usage.completion_tokens):
            guessed, right = generation.guesses
            self._head.note_answer(tokens=tokens, guessed=guessed, right=right)
            if watched.is_alone:
                self._head.note_times(generation.usage, generation.timings)
        return generation


def in_one_line(text: str | None) -> str | None:
    """*text* as a lane may give it for a reason: the name of a program may be anything."""
    if not text:
        return None
    return "".join(mark if mark.isprintable() else " " for mark in text)[:MAX_REASON_CHARACTERS]


def _counts(slot: dict[str, Any]) -> tuple[int, ...]:
    """How many tokens were read and made for the request in *slot*, if it says so."""
    # A list of one in newer builds, a map in older ones, and before that beside the rest.
    inner = slot.get("next_token")
    inner = inner[0] if isinstance(inner, list) and inner else inner
    found = {**slot, **inner} if isinstance(inner, dict) else slot
    counts = (found.get(name) for name in ("n_prompt_tokens_processed", "n_past", "n_decoded"))
    return tuple(count for count in counts if type(count) is int and count > 0)


def _most_tokens(request: CommandRequest) -> int:
    """Tokens that the prompt of *request* has, rather too many than too few."""
    return _TEMPLATE_TOKENS + sum(map(len, request.texts)) // _CHARACTERS_PER_TOKEN


def with_features(
    offer: ModelOffer,
    *,
    can_embed: bool,
    can_count: bool = False,
    senses: frozenset[str] = frozenset(),
) -> ModelOffer:
    """*offer* with what llama.cpp's server can do with any model that generates text.

    Args:
      offer: What the model file says.
      can_embed: Whether the server embeds besides answering.
      can_count: Whether it counts tokens without an answer.
      senses: What it can do of thinking and seeing; see `probe_senses`.

    """
    features = set(offer.features)
    if features & {"chat", "complete"}:
        features |= {"json_schema", "logprobs"}
        if can_embed:
            features.add("embed")
    if "chat" in features:
        features |= {"tools"} | senses
        if can_count:
            features.add("count")
    return attrs.evolve(offer, features=frozenset(features))


def free_port() -> int:
    """A TCP port that is free on loopback now.

    Another program may use it before ours does, so a start that fails for it is tried again.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
