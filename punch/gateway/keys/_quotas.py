"""Decides when a request may begin: what its key allows, and each key's fair share of the gateway.

* A key's requests and tokens a minute are buckets of a minute's content that fill evenly: a
  key that was quiet may send a minute's worth at once. In the worst minute that is twice the
  number, as it is with the windows that other gateways count in.
* A request for several answers, or with several prompts, is as many requests.
* Tokens are taken by the length that is predicted, so that a burst counts at once, and settled
  when the answer is over. One that was longer than predicted leaves a debt, which the next
  request waits off.
* What the gateway itself takes is limited too. Further requests wait in a bounded queue; the key
  that was served the fewest tokens lately goes first, and a full queue pushes out the last
  request of the greediest. That is `punch.admission`, with keys in the place of dialers.

Nothing in here reads a file, or any clock but trio's.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable

import attrs
import trio

from ...admission import NoRoom, Slots, Ticket
from ...exceptions import InvalidRequest, QuotaExceeded
from ._keys import MAX_KEYS, Key

# Requests that the gateway works on side by side: some for each of a hundred listeners.
DEFAULT_LIMIT = 1024

# Requests that may wait for that. Each holds a connection and its body in memory.
DEFAULT_QUEUE_LIMIT = 1024

# What a request takes before anything was measured, in tokens; and the weight of the newest one.
DEFAULT_TOKENS = 400.0
WEIGHT = 0.2

# When to ask again before it was measured how long a request takes, in seconds.
DEFAULT_RETRY_SECONDS = 1.0

# Asking again sooner only adds to the load.
MIN_RETRY_SECONDS = 0.1

# The claimant of every request, where no keys are needed.
NOBODY = ""


@attrs.frozen(kw_only=True)
class QuotaStatistics:
    """How full the gateway is."""

    running: int
    """Requests that are being answered."""

    waiting: int
    """Requests that wait for a place."""

    limit: int
    """Requests that may be answered at a time."""

    queue_limit: int
    """Requests that may wait."""


@attrs.frozen(kw_only=True)
class Left:
    """What a key may use now."""

    running: int
    """Requests that it has under way."""

    requests: int | None
    """Requests that are left of its minute; `None` for no limit."""

    tokens: int | None
    """Tokens that are left of its minute; `None` for no limit."""


NOTHING_LIMITED = Left(running=0, requests=None, tokens=None)
"""Of an idle key without limits."""


class Bucket:
    """A token bucket: a minute's worth of something, which fills evenly. No clock.

    Args:
      per_minute: How much is in it when it is full.
      now: The time, in seconds.

    """

    def __init__(self, per_minute: float, now: float) -> None:
        self.per_minute = per_minute
        self._level = per_minute
        self._at = now

    def level(self, now: float) -> float:
        """How much is left; negative after an answer that was longer than predicted."""
        if now > self._at:
            gained = (now - self._at) * self.per_minute / 60.0
            self._level, self._at = min(self.per_minute, self._level + gained), now
        return self._level

    def seconds_until(self, amount: float, now: float) -> float:
        """Seconds until *amount* can be consumed, 0 if it can be now.

        More than a minute's worth can be consumed when the bucket is full: else it never could.
        """
        missing = min(amount, self.per_minute) - self.level(now)
        # A billionth is rounding: a request that has waited must not wait again for it.
        return missing * 60.0 / self.per_minute if missing > 1e-9 * self.per_minute else 0.0

    def consume(self, amount: float, now: float) -> None:
        """Consume *amount*; a negative one is put back."""
        self._level = min(self.per_minute, self.level(now) - amount)


class _Account:
    """The requests that one key has under way, and the quotas it has left."""

    def __init__(self, key: Key, now: float) -> None:
        self.key = key
        self.running = 0
        self.usual_tokens = DEFAULT_TOKENS
        self.requests: Bucket | None = None
        self.tokens: Bucket | None = None
        self.apply_limits(key, now)

    def apply_limits(self, key: Key, now: float) -> None:
        """Adopt the limits of *key*, which may have changed; unchanged buckets keep their level."""
        self.key = key
        self.requests = _bucket(self.requests, key.requests_per_minute, now)
        self.tokens = _bucket(self.tokens, key.tokens_per_minute, now)

    def check(self, weight: int, tokens: float, now: float, *, usual_seconds: float) -> None:
        """Raise if *weight* requests of *tokens* together are too much, now or ever."""
        key = self.key
        if key.concurrency is not None and self.running + weight > key.concurrency:
            if weight > key.concurrency:
                raise InvalidRequest(
                    f"this asks for {weight} answers at once, and the API key {key.key_id} may "
                    f"have {key.concurrency} under way: ask for fewer"
                )
            raise _refusal(
                f"the API key {key.key_id} has {self.running} requests under way, "
                f"and may have {key.concurrency}" + (f"; this is {weight}" * (weight > 1)),
                usual_seconds,
            )
        for bucket, amount, what in (
            (self.requests, float(weight), "requests"),
            (self.tokens, tokens, "tokens"),
        ):
            if bucket is not None and (wait := bucket.seconds_until(amount, now)):
                raise _refusal(
                    f"the API key {key.key_id} may use {bucket.per_minute:.0f} {what} a minute, "
                    f"and has {_whole(bucket, now)} left; "
                    f"enough for this one in {math.ceil(wait)} s",
                    wait,
                )

    def begin(self, weight: int, tokens: float, now: float) -> None:
        """Count *weight* requests that were let in."""
        self.running += weight
        if self.requests is not None:
            self.requests.consume(weight, now)
        if self.tokens is not None:
            self.tokens.consume(tokens, now)

    def left(self, now: float) -> Left:
        """What may be used now; a debt is nothing."""
        return Left(
            running=self.running,
            requests=_whole(self.requests, now),
            tokens=_whole(self.tokens, now),
        )

    def refund(self, weight: int, now: float) -> None:
        """Give back the requests that got no place after all; `end` gives the tokens back."""
        if self.requests is not None:
            self.requests.consume(-weight, now)

    def end(self, weight: int, expected: float, used: float, now: float) -> None:
        """Settle requests that are over: *used* tokens in place of the *expected* ones."""
        self.running -= weight
        if self.tokens is not None:
            self.tokens.consume(used - expected, now)
        if used:
            self.usual_tokens += WEIGHT * (used - self.usual_tokens)


def _bucket(before: Bucket | None, per_minute: int | None, now: float) -> Bucket | None:
    if per_minute is None or before is None or before.per_minute != per_minute:
        return None if per_minute is None else Bucket(per_minute, now)
    return before


def _whole(bucket: Bucket | None, now: float) -> int | None:
    return None if bucket is None else max(0, math.floor(bucket.level(now)))


def _refusal(why: str, seconds: float) -> QuotaExceeded:
    return QuotaExceeded(why, retry_after=max(MIN_RETRY_SECONDS, seconds))


def _say_nothing(_ahead: int, _seconds: float | None) -> None:
    """Ignore a report of waiting."""


class Grant:
    """A request that was let in."""

    def __init__(self, model: str | None, expected: float) -> None:
        self.model = model
        """The model to ask for: the only one that the key may use, where any was asked for."""
        self.expected = expected
        """Tokens that were reserved."""
        self.used = 0
        """Tokens used so far, of prompt and answer."""

    def charge(self, tokens: int) -> None:
        """Set the *tokens* used in all; may be called again with more of them."""
        self.used = max(self.used, tokens)


class Admission:
    """Lets one request in for as long as its context lasts. Made by `Quotas.admit`.

    Apart from its grant, which its ticket reads: with a cycle, each request would wait for the
    collector.
    """

    def __init__(
        self,
        quotas: Quotas,
        account: _Account | None,
        grant: Grant,
        *,
        weight: int,
        timeout: float,
        waiting: Callable[[int, float | None], None],
    ) -> None:
        self._quotas = quotas
        self._account = account
        self._grant = grant
        self._weight = weight
        self._timeout = timeout
        self._waiting = waiting
        self._ticket = Ticket(
            claimant=NOBODY if account is None else account.key.key_id,
            output_tokens=max(1, round(grant.expected)),
            made=lambda: grant.used,
        )

    async def __aenter__(self) -> Grant:
        account, grant = self._account, self._grant
        if account is None:
            await self._quotas.acquire(self._ticket, self._timeout, self._waiting)
            return grant
        account.begin(self._weight, grant.expected, trio.current_time())
        try:
            await self._quotas.acquire(self._ticket, self._timeout, self._waiting)
        except QuotaExceeded:
            account.refund(self._weight, trio.current_time())
            self._settle(account)
            raise
        except BaseException:
            self._settle(account)
            raise
        return grant

    async def __aexit__(self, *_: object) -> None:
        self._quotas.release(self._ticket, self._grant.used)
        if self._account is not None:
            self._settle(self._account)

    def _settle(self, account: _Account) -> None:
        grant = self._grant
        account.end(self._weight, grant.expected, grant.used, trio.current_time())


class Quotas:
    """Lets requests in: at once, after a wait, or not at all.

    Args:
      limit: Requests that the gateway works on side by side.
      queue_limit: Requests that may wait for that.

    """

    def __init__(
        self, *, limit: int = DEFAULT_LIMIT, queue_limit: int = DEFAULT_QUEUE_LIMIT
    ) -> None:
        self._slots = Slots(limit, queue_limit)
        self._accounts: OrderedDict[str, _Account] = OrderedDict()

    def statistics(self) -> QuotaStatistics:
        """How full the gateway is."""
        slots = self._slots
        return QuotaStatistics(
            running=slots.busy,
            waiting=slots.queued,
            limit=slots.slots,
            queue_limit=slots.queue_limit,
        )

    def left_of_all(self) -> dict[str, Left]:
        """What the keys may use now of which an account is kept and something is limited."""
        now = trio.current_time()
        found = {key_id: account.left(now) for key_id, account in self._accounts.items()}
        return {key_id: left for key_id, left in found.items() if left != NOTHING_LIMITED}

    def left(self, key: Key) -> Left:
        """What *key* may use now; of an idle one no account is kept, and it has all."""
        now = trio.current_time()
        account = self._accounts.get(key.key_id)
        if account is None:
            return _Account(key, now).left(now)
        if account.key is not key:
            account.apply_limits(key, now)
        return account.left(now)

    def admit(
        self,
        key: Key | None,
        model: str | None,
        *,
        weight: int = 1,
        tokens: int | None = None,
        timeout: float = math.inf,
        waiting: Callable[[int, float | None], None] = _say_nothing,
    ) -> Admission:
        """Let a request in, for as long as the context lasts; or wait for that, or refuse it.

        Args:
          key: The API key; `None` where no keys are needed.
          model: What is asked for; `None` for any.
          weight: How many requests it counts as: its answers side by side.
          tokens: Tokens of prompt and answer (expected); by default what requests of this key
            usually take.
          timeout: Seconds that it may wait; a request that would wait longer is refused at once.
          waiting: Called at first and every 5 s while the request waits, with the number of
            requests before it and the seconds that these will take, if known.

        Raises:
          ModelForbidden: if the key may not use the model.
          InvalidRequest: if the key may never have so many requests under way.
          QuotaExceeded: if the key has had its share, or the gateway is full; `retry_after` says
            when to come again.

        """
        model = model if key is None else key.model_for(model)
        account = None
        expected = DEFAULT_TOKENS if tokens is None else float(tokens)
        if key is not None:
            now = trio.current_time()
            account = self._account(key, now)
            if tokens is None:
                expected = account.usual_tokens
            usual_seconds = self._slots.usual_seconds or DEFAULT_RETRY_SECONDS
            account.check(weight, expected, now, usual_seconds=usual_seconds)
        grant = Grant(model, expected)
        return Admission(self, account, grant, weight=weight, timeout=timeout, waiting=waiting)

    async def acquire(
        self, ticket: Ticket, timeout: float, waiting: Callable[[int, float | None], None]
    ) -> None:
        """Acquire one of the gateway's places, or wait for one up to *timeout* seconds."""
        slots = self._slots
        try:
            if slots.busy < slots.slots:
                # Where nothing is waited for, no time-out needs to be set up.
                await slots.acquire(ticket, waiting, limit=timeout, own_seconds=0.0)
            else:
                with trio.fail_after(timeout):
                    await slots.acquire(ticket, waiting, limit=timeout, own_seconds=0.0)
            return
        except NoRoom as full:
            seconds = full.retry_after or DEFAULT_RETRY_SECONDS
        except trio.TooSlowError:
            seconds = slots.wait_seconds(0) or DEFAULT_RETRY_SECONDS
        raise _refusal(
            f"the gateway is full: it works on {slots.busy} requests, and {slots.queued} wait",
            seconds,
        )

    def release(self, ticket: Ticket, used: int) -> None:
        """Give the place of *ticket* to the next one; its request took *used* tokens."""
        self._slots.release(ticket, output_tokens=used)

    def _account(self, key: Key, now: float) -> _Account:
        account = self._accounts.get(key.key_id)
        if account is None:
            account = self._accounts[key.key_id] = _Account(key, now)
            self._forget()
        elif account.key is not key:
            account.apply_limits(key, now)
        self._accounts.move_to_end(key.key_id)
        return account

    def _forget(self) -> None:
        """Drop the accounts that were idle for longest: deleted keys leave theirs behind."""
        while len(self._accounts) > MAX_KEYS:
            idle = next((i for i, a in self._accounts.items() if not a.running), None)
            if idle is None:
                return
            del self._accounts[idle]
