"""What a dialer has learned that is not about one peer's speed."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from statistics import median_low
from typing import Any

import attrs

from ..capability import PeerId
from ..peers import PeerRecord, candidates_of
from ..wire import CommandRequest, Usage, tokens_of
from ._lengths import Lengths
from ._prefixes import BLOCK_BYTES, GONE_SHARE, Chain, PrefixIndex
from ._request import RouteRequest, route_request

# Requests whose prediction waits for the backend's count; far more than are in flight.
MAX_WAITING = 4096

# Chains kept so that one request is hashed once, not when it is routed, sent and answered.
MAX_CHAINS = 256

# Bytes that a character takes in UTF-8, at most.
MAX_CHARACTER_BYTES = 4

_KEY_BITS = 256
_GENERATING = ("chat", "complete")


@attrs.frozen(kw_only=True)
class _Prediction:
    """What was taken to be cached when a request was sent."""

    blocks: int
    share: float
    lease: float


class LearnedState:
    """How long answers are, and where which prompt prefix is cached.

    Args:
      rng: The key of the prompt hashes is drawn from it.

    """

    def __init__(self, rng: Random) -> None:
        self.lengths = Lengths()
        """Answer lengths of each model."""
        self.prefixes = PrefixIndex(rng.getrandbits(_KEY_BITS).to_bytes(_KEY_BITS // 8, "big"))
        """Who holds which prompt prefix."""
        # Request and candidate, by their ids, to what was taken to be cached there.
        self._predicted: dict[tuple[str, str], _Prediction] = {}
        # A request, by its id and the size of its texts, to its chain and the bytes it is made of.
        self._chains: dict[tuple[str, int], tuple[Chain, int]] = {}

    def route_request(self, request: CommandRequest, *, now: float, **known: Any) -> RouteRequest:
        """What routing needs to know of *request*, with what was learned.

        Args:
          request: What is asked.
          now: The current time, in seconds.
          known: Further fields of a `RouteRequest`.

        """
        output: int | None = None
        if request.command in _GENERATING:
            begun = tokens_of(request.continuation) if request.continuation else 0
            limit = request.sampling.max_tokens
            output = self.lengths.expect(request.model or "", limit=limit, begun=begun)
        return route_request(
            request,
            output_tokens=output,
            cached_tokens=self._hits(request, now=now),
            **known,
        )

    def guess_length(
        self, request: CommandRequest, peers: Sequence[PeerRecord], *, alike: str | None = None
    ) -> None:
        """Before the first answer of a model: take the peers' word for how long they are.

        Args:
          request: What is asked.
          peers: A snapshot of the peer table.
          alike: See `RouteRequest.alike`.

        """
        model = request.model or ""
        if self.lengths.knows(model):
            return
        claims = [
            tokens
            for candidate in candidates_of(peers, request.model, request.model_digest, alike=alike)
            if (tokens := candidate.offer.usual_tokens) is not None
        ]
        if claims:
            self.lengths.claim(model, median_low(claims))

    def sent(self, request: CommandRequest, candidate: str, *, now: float) -> None:
        """What was sent to a *candidate*, by its id, will be in its cache."""
        chain, _ = self._chain(request)
        if not chain:
            return
        prefixes = self.prefixes
        blocks = prefixes.held(chain, now=now).get(candidate, 0)
        if len(self._predicted) >= MAX_WAITING:
            del self._predicted[next(iter(self._predicted))]
        self._predicted[request.request_id, candidate] = _Prediction(
            blocks=blocks,
            share=blocks / len(chain),
            lease=prefixes.lease(chain, blocks, candidate),
        )
        prefixes.hold(chain, candidate, now=now)

    def refused(self, request: CommandRequest, candidate: str) -> None:
        """What was sent to a *candidate* was not read there: it is in no cache."""
        predicted = self._predicted.pop((request.request_id, candidate), None)
        chain, _ = self._chain(request)
        if chain and predicted is not None:
            self.prefixes.release(chain, candidate, blocks=predicted.blocks)

    def answered(
        self,
        request: CommandRequest,
        candidate: str,
        *,
        text: str,
        usage: Usage,
        cut: bool = False,
        now: float,
    ) -> None:
        """Learn from an answer: its length, what was cached, and that it is cached now.

        *text* and *usage* are what this peer made. For a request that goes on with an answer
        (`CommandRequest.continuation`) that is the rest; with what was there it makes the whole.
        One that its limit has *cut* says nothing of how long answers are.
        """
        predicted = self._predicted.pop((request.request_id, candidate), None)
        if request.command not in _GENERATING:
            return
        if usage.completion_tokens is not None and not cut:
            begun = tokens_of(request.continuation) if request.continuation else 0
            self.lengths.learn(request.model or "", usage.completion_tokens + begun)
        if (
            predicted is not None
            and predicted.blocks
            and usage.cached_tokens is not None
            and usage.prompt_tokens
        ):
            actual = usage.cached_tokens / usage.prompt_tokens
            self.prefixes.observed(candidate, predicted=predicted.share, actual=actual)
            if actual < GONE_SHARE * predicted.share:
                self.prefixes.missed(candidate, predicted.lease)
        # The next turn of the conversation begins with all of it.
        if request.size + MAX_CHARACTER_BYTES * len(text) < BLOCK_BYTES:
            return
        chain, _ = self._chain(request)
        rest = _spelled(request, text)[len(chain) * BLOCK_BYTES :]
        whole = self.prefixes.chain(_seed(request), rest, after=chain)
        if whole:
            self.prefixes.hold(whole, candidate, now=now)

    def lost(self, peer_id: PeerId) -> None:
        """The caches of a peer are gone: it was restarted, or it is not there any more."""
        self.prefixes.lost(peer_id)

    def _hits(self, request: CommandRequest, *, now: float) -> dict[str, int]:
        chain, size = self._chain(request)
        if not chain:
            return {}
        tokens = request.prompt_tokens
        # What fills no block at the end is never known to be cached.
        share, trust = tokens * BLOCK_BYTES / size, self.prefixes.trust
        return {
            holder: min(tokens, int(blocks * share * trust(holder)))
            for holder, blocks in self.prefixes.held(chain, now=now).items()
        }

    def _chain(self, request: CommandRequest) -> tuple[Chain, int]:
        """The hashes of its prompt, and its size in bytes; nothing for one without a prefix."""
        # Where the texts fill no block, what a template writes around them is not worth a look.
        if request.size < BLOCK_BYTES or request.command not in _GENERATING:
            return (), 0
        key = request.request_id, request.size
        found = self._chains.get(key)
        if found is None:
            if len(self._chains) >= MAX_CHAINS:
                del self._chains[next(iter(self._chains))]
            text = _spelled(request)
            found = self._chains[key] = self.prefixes.chain(_seed(request), text), len(text)
        return found


def _seed(request: CommandRequest) -> bytes:
    """What two requests must share for one to use the cache of the other."""
    # Not the digest: to go on with an answer, the one that began it is demanded.
    return f"{request.command}\n{request.model}".encode()


def _spelled(request: CommandRequest, answer: str | None = None) -> bytes:
    """The prompt as a backend would write it, roughly, so that a next turn begins with this one.

    How a template really writes a turn does not matter: what is equal here is equal there.
    """
    parts: list[str] = []
    for tool in request.tools:
        parts += (*tool.texts, "\n")
    for message in request.messages:
        parts += (message.role, "\n", *message.texts, "\n")
    parts.append(request.prompt or "")
    if request.continuation is not None or answer is not None:
        if request.command == "chat":
            parts.append("assistant\n")
        parts += (request.continuation or "", answer or "")
    # A text may hold half a surrogate pair, and must not end the request here.
    return "".join(parts).encode(errors="surrogatepass")
