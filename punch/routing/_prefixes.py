# Which peer holds which beginning of a prompt, without keeping any prompt.
#
# Rule 1: text goes in, hashes stay. They are keyed with chance, so that not even a memory dump
# tells whether somebody asked a certain question.
#
# Rule 2: everything here is a guess about somebody else's memory. It is bounded, it expires,
# and what the backend itself counts as cached decides how far a peer's guesses are believed.
"""Which peer probably has which prompt prefix in its cache."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from hashlib import blake2b

import attrs

from ..capability import PeerId

# Bytes of a block: some 70 tokens, so that a shared system prompt of a few hundred counts. A
# server's own caches work with 16 to 512 tokens (vLLM, Mooncake).
BLOCK_BYTES = 256

# Blocks of one prompt that are looked at: half a mebibyte, more than most contexts hold.
MAX_BLOCKS = 2048

# Blocks remembered of all prompts; the ones not sent for longest go. About 10 MiB.
MAX_ENTRIES = 65_536

# Peers remembered for one block: the latest ones.
MAX_HOLDERS = 8

# Peers whose trust is remembered.
MAX_PEERS = 4096

# A backend that is used has overwritten what it was not asked for this long, in seconds.
LIFETIME = 600.0

# Weight of the newest observation in the trust in a peer: about the last five count.
TRUST_WEIGHT = 0.2

# A count of less than this share of what was expected says: it was not there.
GONE_SHARE = 0.5

HASH_BYTES = 8

Chain = Sequence[bytes]
"""The hash of each leading run of whole blocks of a prompt, shortest first."""


class _Holder:
    """One cache, until it is lost; leases point to it."""

    __slots__ = ("gone_until", "key", "trust")

    def __init__(self, key: str) -> None:
        self.key = key
        # Leases that end no later than this are void: the backend has dropped what they say.
        self.gone_until = -math.inf
        # Share of the predicted hits that came true.
        self.trust = 1.0


@attrs.frozen
class _Lease:
    """One sending, shared by all of its blocks: who holds them, and until when."""

    holder: _Holder
    until: float


class PrefixIndex:
    """Blocks of prompts and which caches hold them, by the id of the candidate that has each.

    Args:
      key: Secret of the hashes, up to 64 bytes.

    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        # By the time of the last sending, oldest first.
        self._leases: dict[bytes, tuple[_Lease, ...]] = {}
        self._holders: dict[str, _Holder] = {}

    def __len__(self) -> int:
        return len(self._leases)

    def chain(self, seed: bytes, text: bytes, *, after: Chain = ()) -> Chain:
        """Hash *text*, block by block; each hash covers everything before it as well.

        *seed* tells caches apart that share nothing, such as those of two models. The text may go
        on where a chain ends: *after* that, whose hashes come first.
        """
        key, size, found = self._key, BLOCK_BYTES, list(after)
        end = min(len(text), (MAX_BLOCKS - len(found)) * size)
        if end < size:
            return found
        last = found[-1] if found else blake2b(seed, digest_size=HASH_BYTES, key=key).digest()
        for start in range(0, end - size + 1, size):
            block = last + text[start : start + size]
            last = blake2b(block, digest_size=HASH_BYTES, key=key).digest()
            found.append(last)
        return found

    def hold(self, chain: Chain, key: str, *, now: float) -> None:
        """*key* has the blocks of *chain* from now on."""
        lease = _Lease(self._holder(key), now + LIFETIME)
        leases = self._leases
        for block in chain:
            before = leases.pop(block, None)
            if before is None:
                leases[block] = (lease,)
            else:
                others = [one for one in before if one.holder is not lease.holder]
                leases[block] = (lease, *_valid(others, now)[: MAX_HOLDERS - 1])
        while len(leases) > MAX_ENTRIES:
            del leases[next(iter(leases))]

    def release(self, chain: Chain, key: str, *, blocks: int) -> None:
        """*key* has no more than the first *blocks* of *chain*, whatever was sent there."""
        leases, holder = self._leases, self._holders.get(key)
        for block in chain[blocks:] if holder is not None else ():
            left = tuple([one for one in leases.get(block, ()) if one.holder is not holder])
            if left:
                leases[block] = left
            else:
                leases.pop(block, None)

    def held(self, chain: Chain, *, now: float) -> dict[str, int]:
        """How many leading blocks of *chain* each cache probably has; only those with any."""
        found: dict[str, int] = {}
        running: set[_Holder] | None = None
        for depth, block in enumerate(chain):
            here = {lease.holder for lease in _valid(self._leases.get(block, ()), now)}
            still = here if running is None else running & here
            if running is not None and len(still) != len(running):
                found |= {holder.key: depth for holder in running - still}
            running = still
            if not running:
                break
        found |= {holder.key: len(chain) for holder in running or ()}
        return found

    def trust(self, key: str) -> float:
        """Share of the hits predicted for this cache that came true, 0 to 1."""
        holder = self._holders.get(key)
        return 1.0 if holder is None else holder.trust

    def observed(self, key: str, *, predicted: float, actual: float) -> None:
        """The backend counted: *actual* of the prompt was cached where *predicted* was, 0 to 1."""
        if predicted <= 0:
            return
        holder = self._holder(key)
        came_true = min(1.0, max(0.0, actual / predicted))
        holder.trust += TRUST_WEIGHT * (came_true - holder.trust)

    def lease(self, chain: Chain, blocks: int, key: str) -> float:
        """When the lease of *key* on the last of the first *blocks* ends; see `missed`."""
        leases = self._leases.get(chain[blocks - 1], ()) if blocks else ()
        return next((one.until for one in leases if one.holder.key == key), -math.inf)

    def missed(self, key: str, lease: float) -> None:
        """What was under this *lease* was not there: nor is what was used there before it.

        Backends drop first what was used longest ago.
        """
        holder = self._holder(key)
        holder.gone_until = max(holder.gone_until, lease)

    def lost(self, peer_id: PeerId) -> None:
        """The caches of *peer_id* are gone, of all of its offers."""
        lost = [key for key in self._holders if key == peer_id or key.startswith(f"{peer_id}/")]
        for key in lost:
            self._forget(key)

    def _forget(self, key: str) -> None:
        self._holders.pop(key).gone_until = math.inf

    def _holder(self, key: str) -> _Holder:
        holder = self._holders.get(key)
        if holder is None:
            if len(self._holders) >= MAX_PEERS:
                self._forget(next(iter(self._holders)))
            holder = self._holders[key] = _Holder(key)
        return holder


def _valid(leases: Iterable[_Lease], now: float) -> list[_Lease]:
    return [one for one in leases if now < one.until > one.holder.gone_until]
