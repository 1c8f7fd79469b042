"""Backend `openai`: uses a server that is not ours and speaks OpenAI's HTTP interface.

The server is neither started nor stopped. Every few seconds it is asked whether it is there and
which models it has: what it tells is read by `_survey`, what is offered of it decided by `_shelf`.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import attrs
import trio

from ..._background import open_background
from ..._logs import get_logger
from ...capability import Gpu, ModelOffer
from ...exceptions import BackendCrashed, ConfigurationError, OfferUnavailable
from ...wire import CommandRequest
from .._base import Emit, Generation, Loading
from .._thinking import Told
from ._address import Server, read_server
from ._client import HttpClient, open_http_client
from ._probes import Kind
from ._shelf import Shelf
from ._survey import MAX_SLOTS, Away, Survey, Surveyor
from ._written_tools import ask_in_writing, has_tools

if TYPE_CHECKING:
    import httpx

log = get_logger(__name__)

# Seconds between two looks at a server: a model that was pulled is offered within a few of them.
LOOK_SECONDS = 3.0

# A look takes at most this share of the time: a server whose list takes longer is asked less often.
LOOK_SHARE = 0.1
MAX_LOOK_SECONDS = 60.0

# Each pause is longer or shorter by up to this share, so that many listeners at one server do not
# ask it all at once.
JITTER = 0.2

# While it is away: a refused connection costs nothing, and whoever starts a server waits for it.
AWAY_SECONDS = 2.0

# After a change there may be another; a request that failed asks for a look at once.
MIN_LOOK_SECONDS = 0.25

# How long opening the backend waits for the first look: a server that is there answers sooner.
FIRST_LOOK_SECONDS = 5.0

# Looks in a row without a word, by a server that has nothing of ours to compute.
MAX_SILENT_LOOKS = 2

# What stays as it is is said again after this time, then after twice as long, and so on.
FIRST_REMINDER_SECONDS = 30.0

DEFAULT_SLOTS = 4

_COMMANDS = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "complete",
    "/v1/embeddings": "embed",
}


class OpenAIBackend:
    """Sends requests to a server that is not ours; a `Backend`. Made by `open_openai`."""

    def __init__(
        self,
        client: HttpClient,
        *,
        server: Server,
        surveyor: Surveyor,
        shelf: Shelf,
        slots: int | None,
        rng: random.Random,
    ) -> None:
        self._client = client
        self._server = server
        self._surveyor = surveyor
        self._shelf = shelf
        self._set_slots = slots
        self._told_slots: int | None = None
        self._rng = rng
        self._survey: Survey | None = None
        self._away: Away | None = None
        self._was_there = False
        self._silent = 0
        self._under_way = 0
        self._changed = trio.Event()
        self._wanted = trio.Event()
        self._looking = trio.Lock()
        self._reminder = _Reminder()
        client.rejected = self._rejected

    @property
    def name(self) -> str:
        """The word that selects this backend."""
        return "openai"

    @property
    def simulated(self) -> bool:
        """False: that a model answers is the server's word, which cannot be verified here."""
        return False

    @property
    def slots(self) -> int:
        """Requests at a time: as it was set, else as the server says, else 4."""
        return self._set_slots or self._told_slots or DEFAULT_SLOTS

    @property
    def threads(self) -> int | None:
        """`None`: the server does not say."""
        return None

    @property
    def offers(self) -> tuple[ModelOffer, ...]:
        """The models that the server has now and answers with; empty while it is away."""
        return self._shelf.offers

    @property
    def gpus(self) -> tuple[Gpu, ...]:
        """Empty: the server does not say."""
        return ()

    @property
    def state(self) -> str:
        """``ready``, ``starting`` until the server is first there, or ``resting``."""
        if self._away is not None:
            return "resting" if self._was_there and self._away.status != 503 else "starting"
        if self._survey is None:
            return "starting"
        return "ready" if self._shelf.offers else "resting"

    @property
    def reason(self) -> str | None:
        """Why nothing is offered; `None` if something is."""
        if self._away is not None:
            return self._away.why
        if self._survey is None:
            return "its server was not asked yet"
        return None if self._shelf.offers else self._shelf.why_empty(trio.current_time())

    @property
    def is_there(self) -> bool:
        """Whether its server gave a list of models when it was last asked."""
        return self._survey is not None

    @property
    def program(self) -> Kind | None:
        """Which program its server is; `None` while that is not known."""
        return self._surveyor.kind

    @property
    def changed(self) -> trio.Event:
        """Set at the next change of state, slots or offers; another one from then on."""
        return self._changed

    async def ready(self, loading: Loading) -> None:
        """Return at once: a server that is not ready says so when it is asked."""

    async def generate(self, request: CommandRequest, emit: Emit) -> Generation:
        """Answer *request* through the server.

        Raises:
          OfferUnavailable: if the model was withdrawn meanwhile.
          PunchError: as `HttpClient.generate`.

        """
        survey, model = self._survey, self._shelf.asked_as(request.model)
        if survey is None or model is None:
            raise OfferUnavailable(f"{request.model} is not offered any more")
        features = next((o.features for o in self.offers if request.model in (None, o.name)), None)
        ask = partial(
            self._client.generate,
            model=model,
            dialect=survey.dialect,
            told=Told(words=survey.thinking, features=features or frozenset()),
        )
        self._under_way += 1
        load = _Load(self._shelf, request.model, emit, self._tell)
        try:
            if has_tools(request) and _are_written(request, survey):
                generation = await ask_in_writing(request, load.emit, ask)
            else:
                generation = await ask(request, load.emit)
        except BackendCrashed:
            # Whether it was this one connection, or the server is gone, the next look tells.
            self._wanted.set()
            raise
        finally:
            self._under_way -= 1
            load.end()
        if request.model is not None:
            self._shelf.served(request.model)
        return load.timed(generation)

    async def loaded(self) -> tuple[str, ...]:
        """Names of the models on offer that the server has in memory, as it says now."""
        await self._look()
        return self._shelf.loaded()

    def rest(self, model: str) -> None:
        """Offer *model* no more for a while: it did not answer a short question of our own."""
        self._shelf.rest(model, trio.current_time(), "its server does not answer with it")
        self._tell()

    # ---- looking at the server ----

    async def watch(self, first: trio.Event) -> None:
        """Look at the server again and again, until cancelled; set *first* after the first time."""
        while True:
            self._wanted = trio.Event()
            pause = await self._look()
            first.set()
            pause *= self._rng.uniform(1 - JITTER, 1 + JITTER)
            pause = min(pause, self._shelf.next_tick(trio.current_time()))
            await trio.sleep(MIN_LOOK_SECONDS)
            with trio.move_on_after(max(0.0, pause - MIN_LOOK_SECONDS)):
                await self._wanted.wait()

    async def _look(self) -> float:
        """Look at the server now; seconds until it makes sense to do so again."""
        async with self._looking:
            before = (self.state, self.reason, self.slots, self.offers)
            began = trio.current_time()
            try:
                survey = await self._surveyor.look()
            except Away as away:
                pause = self._is_away(away)
            except Exception:
                # Whatever a server says, it must not end the listener.
                log.exception("a look at a server has a bug", url=self._server.url)
                pause = self._is_away(Away("its server does not give its list of models"))
            else:
                self._is_there(survey)
                took = trio.current_time() - began
                pause = min(MAX_LOOK_SECONDS, max(LOOK_SECONDS, took / LOOK_SHARE))
                pause = pause if survey.is_whole else 0.0
            self._shelf.tick(trio.current_time())
            if (self.state, self.reason, self.slots, self.offers) != before:
                self._tell()
            return pause

    def _is_away(self, away: Away) -> float:
        self._silent = self._silent + 1 if away.is_silent else 0
        # A server of one thread lists nothing while it computes for us.
        is_busy = self._under_way > 0 or self._silent < MAX_SILENT_LOOKS
        if away.status == 429 and self._survey is not None:
            return MAX_LOOK_SECONDS
        if away.is_silent and self._survey is not None and is_busy:
            return AWAY_SECONDS
        is_news = self._away is None or self._away.why != away.why
        self._away, self._survey = away, None
        self._shelf.clear()
        self._surveyor.forget()
        if self._reminder.is_due(is_news, trio.current_time()):
            log.warning(
                "waiting for a server of models",
                url=self._server.url,
                state=self.state,
                reason=away.why,
                details=away.details or None,
            )
        return AWAY_SECONDS

    def _is_there(self, survey: Survey) -> None:
        was_away = self._survey is None
        self._silent, self._away, self._survey, self._was_there = 0, None, survey, True
        self._told_slots = survey.slots
        self._shelf.take(survey, trio.current_time())
        if was_away and survey.is_whole:
            log.info(
                "a server of models is there",
                url=self._server.url,
                server=self._surveyor.server,
                models=[offer.name for offer in self.offers[:20]],
                count=len(self.offers),
            )
        if not self.offers and survey.is_whole:
            reason = self._shelf.why_empty(trio.current_time())
            if self._reminder.is_due(was_away, trio.current_time()):
                listed = [model.name[:80] for model in survey.models[:20]]
                log.warning(
                    "a server offers nothing", url=self._server.url, reason=reason, lists=listed
                )
        elif self.offers:
            self._reminder = _Reminder()

    def _tell(self) -> None:
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    # ---- what its answers tell ----

    def _rejected(self, model: str | None, path: str, size: int, status: int) -> None:
        """Take note of a request that got an error; *model* is the server's own name."""
        command = _COMMANDS.get(path)
        for offer in self.offers:
            if command is not None and self._shelf.asked_as(offer.name) == model:
                before = self.offers
                self._shelf.refused(offer.name, command, status, size, trio.current_time())
                if self.offers != before:
                    self._wanted.set()
                    self._tell()
                return


class _Load:
    """Follows one request whose model its server must load first, if that is so.

    Args:
      shelf: Has the model.
      model: The model.
      emit: Gets the text.
      tell: Called when the offers have changed.

    """

    def __init__(
        self, shelf: Shelf, model: str | None, emit: Emit, tell: Callable[[], None]
    ) -> None:
        self._shelf, self._model, self._emit, self._tell = shelf, model or "", emit, tell
        self._was_needed = self._is_on = shelf.must_load(self._model)
        if self._is_on:
            shelf.loads.begin(self._model, trio.current_time())

    async def emit(self, text: str, tokens: int) -> None:
        """Pass text on; the first says that the model is there."""
        if self._is_on:
            self._is_on = False
            self._shelf.has_loaded(self._model, trio.current_time())
            self._tell()
        await self._emit(text, tokens)

    def end(self) -> None:
        """Take note that the request is over."""
        if self._is_on:
            self._is_on = False
            self._shelf.loads.end(self._model)

    def timed(self, generation: Generation) -> Generation:
        """*generation* without a time for reading the prompt that may be one for loading."""
        if not self._was_needed:
            return generation
        return attrs.evolve(generation, timings=attrs.evolve(generation.timings, prefill=None))


class _Reminder:
    """Says when it is time to say once more that nothing has changed."""

    def __init__(self) -> None:
        self._next: float | None = None
        self._pause = FIRST_REMINDER_SECONDS

    def is_due(self, is_news: bool, now: float) -> bool:
        """Whether to say it at *now*: the first time, and then at doubling intervals."""
        if is_news or self._next is None:
            self._pause = FIRST_REMINDER_SECONDS
        elif now < self._next:
            return False
        else:
            self._pause *= 2
        self._next = now + self._pause
        return True


def _are_written(request: CommandRequest, survey: Survey) -> bool:
    """Whether the tools of *request* are for us to write into the conversation."""
    choice = request.tool_choice
    if survey.kind == "llama_cpp":
        # A template without tools leaves them out of the prompt, without a word.
        return not survey.writes_tools
    if survey.kind == "ollama":
        # It passes over `tool_choice`, without a word.
        return choice not in (None, "auto")
    return survey.kind == "lm_studio" and choice is not None and choice.startswith("function:")


@asynccontextmanager
async def open_openai(
    *,
    url: str,
    api_key: str | None = None,
    model: str | None = None,
    slots: int | None = None,
    context_tokens: int | None = None,
    features: frozenset[str] | None = None,
    gateways: bool = True,
    url_setting: str = "PUNCH_OPENAI_URL",
    key_setting: str = "PUNCH_OPENAI_KEY",
    transport: httpx.AsyncBaseTransport | None = None,
    rng: random.Random | None = None,
) -> AsyncIterator[OpenAIBackend]:
    """Use the server at *url*, with every model it lists or with *model* only.

    The server may come later, and go: nothing is offered while it is away. What it tells of a model
    (context, digest, size, what the model can do) is asked for.

    Args:
      url: Its address, with or without ``/v1``. A user and a password in it are sent as Basic
        authentication.
      api_key: Sent as a bearer token.
      model: Offer this one only.
      slots: Requests at a time; by default what the server says, or 4.
      context_tokens: Tokens of one request, in place of what the server tells.
      features: What models that chat can do, in place of what the server tells; of a *model* that
        is named, whatever it is.
      gateways: Whether the server may be a gateway of punch, of another namespace. Of one that
        is, nothing is offered otherwise.
      url_setting: Name of the setting that *url* comes from, for error texts.
      key_setting: Name of the setting that *api_key* comes from.
      transport: In place of the network, for tests.
      rng: Where the jitter comes from.

    Raises:
      ConfigurationError: if the address or the key is wrong.

    """
    server = read_server(url, api_key, url_setting=url_setting, key_setting=key_setting)

    def say(name: str, why: str) -> None:
        log.warning("about a model of a server", url=server.url, model=name or None, why=why)

    async with open_http_client(
        url=server.url,
        slots=max(slots or 0, MAX_SLOTS),
        authorization=server.authorization,
        key_setting=key_setting,
        secrets=server.secrets,
        transport=transport,
    ) as client:
        backend = OpenAIBackend(
            client,
            server=server,
            surveyor=Surveyor(client, only=model, gateways=gateways),
            shelf=Shelf(say, features=features, context=context_tokens, only=model is not None),
            slots=slots,
            rng=rng or random.Random(),
        )
        async with open_background() as nursery:
            first = trio.Event()
            nursery.start_soon(backend.watch, first)
            with trio.move_on_after(FIRST_LOOK_SECONDS):
                await first.wait()
            away = backend._away
            if away is not None and away.is_wrong:
                remedy = (
                    f"set {key_setting} to a key that it accepts"
                    if away.status in (401, 403)
                    else f"{url_setting} must be the address of a server with OpenAI's interface"
                )
                raise ConfigurationError(f"{url_setting}={server.url}: {away.why}; {remedy}")
            yield backend
