"""Decides which models of a server that is not ours are offered, and under which names. No I/O.

* A model that neither chats nor embeds is left out, and so is one whose name no peer could ask for;
  each is said once.
* A model that its server refused to answer with is withdrawn: until the server tells something else
  of it, or was away, or some time has passed. The time doubles until an answer succeeds.
* What a setting says of features and context counts more than what the server tells.
* A model that a request has its server load is offered with the seconds that are left of that: who
  waits for it may be served sooner than by another server that loads it, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import attrs

from ...capability import ModelOffer
from ...wire import clean_name, tell_apart
from ._facts import CHATS, EMBEDS, Facts, guessed_from, offered_name
from ._survey import MAX_MODELS, Survey

# Seconds until a model that was refused is offered again. What was restarted is there again in the
# first; a key that was taken back is not asked with all the time.
FIRST_REST_SECONDS = 5.0
MAX_REST_SECONDS = 300.0

# A request of fewer bytes is too large for no server that works.
SMALL_BODY_BYTES = 64 * 1024

# What a usual solid-state disk gives. A guess is better than none: dialers prefer a peer that has
# the model in memory, and are patient with one that has not.
LOAD_BYTES_PER_SECOND = 500e6
DEFAULT_LOAD_SECONDS = 10.0
MAX_LOAD_SECONDS = 600.0

# What is left of a load that takes longer than was guessed, as a share of the guess.
LEAST_LEFT = 0.1

# What is said of single models; of ten thousand bad names the owner needs no ten thousand lines.
MAX_SAID = 20

MAX_NAME_CHARACTERS = 256

Say = Callable[[str, str], None]
"""``say(model, why)`` tells the owner something about a model."""


@attrs.define
class _Rest:
    """How long a model, or the whole server, is not asked."""

    until: float
    seconds: float
    why: str


@attrs.frozen
class _Placed:
    """A model on the shelf."""

    asked_as: str
    offer: ModelOffer
    loaded: bool | None
    is_asked: bool
    facts: Facts


class Loads:
    """The models that requests have their server load now."""

    def __init__(self) -> None:
        # Since when, and for how many requests.
        self._under_way: dict[str, tuple[float, int]] = {}

    def begin(self, name: str, now: float) -> None:
        """Take note of a request for a model that is not in memory."""
        since, count = self._under_way.get(name, (now, 0))
        self._under_way[name] = (since, count + 1)

    def end(self, name: str) -> None:
        """Take note that such a request is over before it got a word."""
        since, count = self._under_way.pop(name, (0.0, 0))
        if count > 1:
            self._under_way[name] = (since, count - 1)

    def keep(self, names: Iterable[str]) -> None:
        """Forget all models but *names*: the others are in memory, or gone."""
        kept = set(names)
        self._under_way = {name: one for name, one in self._under_way.items() if name in kept}

    def told(self, offer: ModelOffer, now: float) -> ModelOffer:
        """*offer* with the seconds that are left until it can answer."""
        if offer.name not in self._under_way:
            return offer
        whole, passed = offer.load_seconds, now - self._under_way[offer.name][0]
        return attrs.evolve(offer, load_seconds=max(LEAST_LEFT * whole, whole - passed))


class Shelf:
    """The offers of one server.

    Args:
      say: Tells the owner about a model that is not offered, or otherwise than its server has it.
      features: What the models can do, in place of what the server tells.
      context: Tokens of one request, in place of what the server tells.
      only: Whether the owner has chosen one model.

    """

    def __init__(
        self,
        say: Say,
        *,
        features: frozenset[str] | None = None,
        context: int | None = None,
        only: bool = False,
    ) -> None:
        self.offers: tuple[ModelOffer, ...] = ()
        """The offers that stand."""
        self.loads = Loads()
        self._say = say
        self._features = features
        self._context = context
        self._only = only
        self._placed: dict[str, _Placed] = {}
        self._rests: dict[str, _Rest] = {}
        self._whole: _Rest | None = None
        self._lost: dict[str, frozenset[str]] = {}
        self._said: set[tuple[str, str]] = set()

    # ---- what the server tells ----

    def take(self, survey: Survey, now: float) -> None:
        """Offer what *survey* has found, and nothing else."""
        placed: dict[str, _Placed] = {}
        with self._sayings() as say:
            for listed in survey.models:
                name = self._name_of(listed.name, placed, say)
                if name is None:
                    continue
                features = self._features_of(listed.facts, survey, listed.name)
                if not features:
                    say(name, self._why_not(listed.facts, listed.name))
                    continue
                for field in listed.facts.odd:
                    say(name, f"what its server tells as {field} cannot be true")
                offer = self._offer(name, listed.facts, features)
                placed[name] = _Placed(
                    listed.name, offer, listed.facts.loaded, listed.is_asked, listed.facts
                )
            if survey.repeated:
                say("", f"{survey.repeated} rows of the list repeat a name, and are passed over")
            if survey.unread:
                say("", f"the list is too long: {survey.unread} models beyond {MAX_MODELS}")
        for name in [*self._rests, *self._lost]:
            before, after = self._placed.get(name), placed.get(name)
            if after is None or (before is not None and before.facts != after.facts):
                self._forgive(name)
        self._placed = placed
        self.loads.keep(name for name, each in placed.items() if each.loaded is False)
        self._stand(now)

    def clear(self) -> None:
        """Offer nothing: the server is away. What comes back is asked as if for the first time."""
        self._placed, self._rests, self._lost, self._whole = {}, {}, {}, None
        self.offers, self.loads = (), Loads()

    def asked_as(self, name: str | None) -> str | None:
        """The server's own name for the model *name*, or for any that stands if that is `None`.

        `None` if it does not stand any more.
        """
        for offer in self.offers:
            if name in (None, offer.name):
                return self._placed[offer.name].asked_as
        return None

    def loaded(self) -> tuple[str, ...]:
        """Names of the models on offer that are in memory for certain."""
        return tuple(offer.name for offer in self.offers if self._placed[offer.name].loaded)

    # ---- what its answers tell ----

    def must_load(self, name: str) -> bool:
        """Whether the server has the model *name* not in memory, as it said last."""
        return name in self._placed and self._placed[name].loaded is False

    def has_loaded(self, name: str, now: float) -> None:
        """Take note that the model *name* has begun to answer."""
        if self.must_load(name):
            placed = self._placed[name]
            offer = attrs.evolve(placed.offer, load_seconds=0.0)
            self._placed[name] = attrs.evolve(placed, offer=offer, loaded=True)
            self.loads.keep(each for each in self._placed if each != name)
            self._stand(now)

    def refused(self, name: str, command: str, status: int, size: int, now: float) -> None:
        """Take note that the server answered with *status* to a request of *size* bytes.

        What is said of one request only is no reason to withdraw anything.
        """
        if name not in self._placed:
            return
        if status in (401, 402, 403):
            self._whole = _longer(self._whole, "its server refuses our requests", status, now)
        elif status in (404, 405, 410, 501):
            can = self._placed[name].offer.features & (CHATS | EMBEDS)
            if command != "chat" and can - {command}:
                # Many servers chat, and know no other path.
                self._lost[name] = self._lost.get(name, frozenset()) | {command}
            else:
                self.rest(name, now, f"its server does not answer with it (status {status})")
        elif status == 413 and size < SMALL_BODY_BYTES:
            self.rest(name, now, "its server takes no requests of usual size (status 413)")
        self._stand(now)

    def rest(self, name: str, now: float, why: str) -> None:
        """Withdraw the model *name* for a while."""
        before = self._rests.get(name)
        if before is not None and before.until > now:
            # Several requests were under way when the first was refused.
            return
        seconds = FIRST_REST_SECONDS if before is None else 2 * before.seconds
        seconds = min(MAX_REST_SECONDS, seconds)
        self._rests[name] = _Rest(now + seconds, seconds, why)
        with self._sayings() as say:
            say(name, why)
        self._stand(now)

    def served(self, name: str) -> None:
        """Take note that the model *name* gave an answer."""
        self._rests.pop(name, None)
        self._whole = None

    # ---- what stands ----

    def tick(self, now: float) -> bool:
        """Offer again what has rested long enough; whether anything changed."""
        before = self.offers
        self._stand(now)
        return self.offers != before

    def next_tick(self, now: float) -> float:
        """Seconds until a rest ends."""
        rests = [*self._rests.values(), *([self._whole] if self._whole else [])]
        return min((r.until - now for r in rests if r.until > now), default=float("inf"))

    def why_empty(self, now: float) -> str:
        """Why nothing is offered, in words that others may read."""
        if self._whole is not None and self._whole.until > now:
            return self._whole.why
        if any(not placed.is_asked for placed in self._placed.values()):
            return "its server is asked about its models"
        if self._placed:
            return "its server refuses to answer with its models"
        if self._only:
            return "its server does not have the model"
        return "its server has no model that can be offered"

    def _stand(self, now: float) -> None:
        if self._whole is not None and self._whole.until > now:
            self.offers = ()
            return
        standing = []
        for name, placed in self._placed.items():
            rest = self._rests.get(name)
            if not placed.is_asked or (rest is not None and rest.until > now):
                continue
            offer = placed.offer
            if name in self._lost:
                offer = attrs.evolve(offer, features=offer.features - self._lost[name])
            standing.append(self.loads.told(offer, now))
        # Whoever asks for any model wants one that chats, and soon.
        standing.sort(key=lambda offer: not offer.features & CHATS)
        self.offers = tuple(standing)

    def _forgive(self, name: str) -> None:
        self._rests.pop(name, None)
        self._lost.pop(name, None)

    # ---- what is offered of it ----

    def _name_of(self, name: str, placed: dict[str, _Placed], say: Say) -> str | None:
        offered = offered_name(name)
        if offered is None:
            say(clean_name(name) or "", "its name cannot be asked for")
            return None
        if offered in placed:
            apart = tell_apart(name)
            offered = f"{offered[: MAX_NAME_CHARACTERS - len(apart) - 1]}-{apart}"
        if offered != name:
            say(offered, "its server's name for it is another, which peers would not accept")
        return offered

    def _features_of(self, facts: Facts, survey: Survey, name: str) -> frozenset[str]:
        """What the model can do; empty if it is to be left out."""
        can = facts.can
        if can is None:
            is_guess = survey.kind in ("other", "lm_studio") and guessed_from(name) is not None
            can = frozenset() if is_guess else CHATS
        if self._features is not None and (self._only or can & CHATS):
            # Of several models, the setting means those that chat: an embedder stays one.
            return self._features
        return can | survey.features if can & CHATS else can & EMBEDS

    def _why_not(self, facts: Facts, name: str) -> str:
        word = None if facts.can is not None else guessed_from(name)
        if word is None:
            return "its server says that it neither chats nor embeds"
        return (
            f"its name has {word!r} in it and its server says nothing of what it is for; set "
            "PUNCH_OPENAI_MODEL to it and PUNCH_FEATURES to what it can do"
        )

    def _offer(self, name: str, facts: Facts, features: frozenset[str]) -> ModelOffer:
        return ModelOffer(
            name=name,
            digest=facts.digest,
            context_tokens=self._context or facts.context_tokens,
            features=features,
            parameters=facts.parameters,
            quantization=facts.quantization,
            size_bytes=facts.size_bytes,
            architecture=facts.architecture,
            embedding_length=facts.embedding_length,
            loaded_bytes=facts.loaded_bytes,
            gpu_bytes=facts.gpu_bytes,
            load_seconds=_load_seconds(facts),
        )

    @contextmanager
    def _sayings(self) -> Iterator[Say]:
        """Gives what says a thing once, and at most `MAX_SAID` things together."""
        fresh: list[tuple[str, str]] = []

        def say(model: str, why: str) -> None:
            if (model, why) not in self._said:
                fresh.append((model, why))

        yield say
        # Bounded: a server that has new names all the time fills no memory.
        if len(self._said) > 100 * MAX_MODELS:
            self._said.clear()
        self._said.update(fresh)
        for model, why in fresh[:MAX_SAID]:
            self._say(model, why)
        if len(fresh) > MAX_SAID:
            self._say("", f"the same, or something alike, of {len(fresh) - MAX_SAID} more models")


def _load_seconds(facts: Facts) -> float:
    """Seconds until the model can answer: a server loads it when it is first asked."""
    if facts.loaded is not False:
        return 0.0
    if facts.size_bytes is None:
        return DEFAULT_LOAD_SECONDS
    return min(MAX_LOAD_SECONDS, max(1.0, facts.size_bytes / LOAD_BYTES_PER_SECOND))


def _longer(before: _Rest | None, why: str, status: int, now: float) -> _Rest:
    seconds = FIRST_REST_SECONDS if before is None else 2 * before.seconds
    if before is not None and before.until > now:
        # Several requests were under way when the first was refused.
        return before
    seconds = min(MAX_REST_SECONDS, seconds)
    return _Rest(now + seconds, seconds, f"{why} (status {status})")
