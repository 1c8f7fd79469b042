"""A backend that answers as fast as a simulated machine would, with offers like a real one's."""

from __future__ import annotations

from functools import lru_cache
from random import Random

import trio

from ..backends import Emit, Generation, Loading
from ..capability import Gpu, ModelOffer, PeerId
from ..exceptions import BackendCrashed, GenerationFailed
from ..wire import ChatMessage, CommandRequest, Completion, Provenance, Sampling, Timings, Usage
from ._engine import Engine, Job, PrefixCache, job_of
from ._kinds import FRAGILE, RESTART_SECONDS, STUCK
from ._pool import PoolPeer
from ._traces import TraceRequest

MODEL = "simulated"
DIGEST = "5" * 64
CONTEXT_TOKENS = 1 << 20
PROVENANCE = Provenance(kind="simulated", backend="simulated", model=MODEL, model_digest=DIGEST)

# What routing takes for the size of a token, so that its estimates of prompts are fair ones.
PROMPT_BYTES_PER_TOKEN = 3.5

# One token of an answer. All the same: nobody reads them.
WORD = "word"

# After the first token, text is passed on this often. A real backend does it for each token; one
# message a second says the same about the routing at a tenth of the cost.
CHUNK_SECONDS = 1.0

# How often whoever waits for an engine to be there again is told so, as real backends do.
LOADING_SECONDS = 5.0


@lru_cache(maxsize=1 << 16)
def _block_text(block: int, tokens: int) -> str:
    size = max(1, round(tokens * PROMPT_BYTES_PER_TOKEN))
    unit = f"{block:x} "
    return (unit * (size // len(unit) + 1))[:size]


def command_request(
    key: str, request: TraceRequest, *, timeout: float, limited: bool = False
) -> CommandRequest:
    """The request that a dialer sends: equal blocks are equal texts.

    Only if *limited* it says how long the answer may be, which is how long it will be.
    """
    text = "".join([_block_text(block, tokens) for block, tokens in request.block_lengths()])
    return CommandRequest(
        request_id=key,
        model=MODEL,
        messages=(ChatMessage(role="user", content=text),),
        sampling=Sampling(max_tokens=request.output_tokens if limited else None),
        timeout=timeout,
    )


def offer_of(peer: PoolPeer, *, speed: float = 1.0, load_seconds: float = 0.0) -> ModelOffer:
    """What a machine offers that says that it is *speed* times as fast as it is."""
    return ModelOffer(
        name=MODEL,
        digest=DIGEST,
        context_tokens=CONTEXT_TOKENS,
        features=frozenset({"chat"}),
        chat_template=DIGEST,
        continues=True,
        load_seconds=load_seconds,
        prefill_rate=peer.prefill_rate * speed,
        decode_rate=peer.decode_rate * speed,
        split=bool(peer.workers),
    )


class World:
    """The truth of a simulation, which only machines and the oracle may look at."""

    def __init__(self) -> None:
        self.requests: dict[str, TraceRequest] = {}
        """Request id to the request as the trace has it."""
        self.machines: dict[PeerId, SimulatedBackend] = {}
        """The machines that are up."""
        self.cold: dict[PeerId, tuple[PoolPeer, float | None]] = {}
        """Those that would have to be started, each with the time at which it will be up, if its
        start is under way."""
        self.waiting: dict[PeerId, dict[str, Job]] = {}
        """Requests that a peer was chosen for and has not begun, in order; the oracle fills it."""
        self.worked: dict[str, float] = {}
        """Slot-seconds worked by machines that have left."""

    def forget(self, key: str) -> None:
        """Note that a request waits no longer."""
        for jobs in self.waiting.values():
            jobs.pop(key, None)

    def truth(self, request: CommandRequest) -> TraceRequest:
        """The request with the true length of its answer; one not in the trace has its limit."""
        found = self.requests.get(request.request_id)
        if found is not None:
            return found
        size = sum(len(message.content) for message in request.messages)
        tokens = max(1, round(size / PROMPT_BYTES_PER_TOKEN))
        return TraceRequest(
            arrival=0.0,
            input_tokens=tokens,
            output_tokens=request.sampling.max_tokens or 1,
            blocks=(-1 - len(self.requests),),
            block_tokens=tokens,
            conversation=-1,
        )


class SimulatedBackend:
    """Implements `punch.backends.Backend` with an `Engine` on trio's clock.

    Args:
      peer: The machine.
      world: What is true.
      rng: Draws which requests fail, where the machine fails some.

    """

    name = "simulated"
    simulated = True
    threads: int | None = None
    gpus: tuple[Gpu, ...] = ()

    def __init__(self, peer: PoolPeer, world: World, rng: Random) -> None:
        self.peer = peer
        self.slots = peer.slots
        self.engine = Engine(peer)
        self.engine.now = trio.current_time()
        self.cache = PrefixCache(peer.cache_tokens)
        self._world = world
        self._rng = rng
        self._scopes: dict[Job, trio.CancelScope] = {}
        self._spoken: dict[Job, float] = {}
        self._deaths = 0
        self._back_at = 0.0
        self._kind = peer.kind
        self._claims = peer.claims
        self._speed = 1.0

    def mend(self) -> None:
        """Do from now on what a machine should, and be as fast as it claims."""
        self.engine.speed_up(self._claims, trio.current_time())
        self._speed, self._kind, self._claims = self._claims, "", 1.0
        self._retime()

    @property
    def offers(self) -> tuple[ModelOffer, ...]:
        """The one model, with the rates that timing a short request would have found."""
        loads = 0.0 if self.engine.active else self.peer.load_seconds
        return (
            offer_of(
                self.peer,
                speed=self._speed * self._claims,
                load_seconds=max(loads, self._back_at - trio.current_time()),
            ),
        )

    async def ready(self, loading: Loading) -> None:
        """Return once an engine that died is there again: loading is part of the first answer."""
        while (left := self._back_at - trio.current_time()) > 0:
            loading(left)
            await trio.sleep(min(left, LOADING_SECONDS))

    async def generate(self, request: CommandRequest, emit: Emit) -> Generation:
        """Take as long as the machine would."""
        truth = self._world.truth(request)
        self._world.forget(request.request_id)
        kills = self._kind == FRAGILE and truth.input_tokens >= self.peer.dies_of_tokens
        fails = self._rng.random() < self.peer.failing
        delivered = len(request.continuation or "") // len(WORD)
        job = job_of(request.request_id, truth, self.cache, delivered=delivered)
        begun_at = trio.current_time()
        self.engine.begin(job, begun_at)
        try:
            if self._kind == STUCK:
                await trio.sleep_forever()
            await self._work(job, truth, emit, fails=fails, kills=kills)
        finally:
            self.engine.end(job, trio.current_time())
            self._scopes.pop(job, None)
            self._spoken.pop(job, None)
            self._retime()
        assert job.first_at is not None
        assert job.ended_at is not None
        total = max(job.ended_at - begun_at, 1e-9)
        reason = "stop" if request.sampling.max_tokens is None else "length"
        return Generation(
            completion=Completion(text=WORD * job.output_tokens, finish_reason=reason),
            usage=Usage(
                prompt_tokens=job.prompt_tokens,
                completion_tokens=job.output_tokens,
                cached_tokens=job.cached_tokens,
            ),
            timings=Timings(
                prefill=self.engine.reading_seconds(job) / self._claims,
                decode=(job.ended_at - job.first_at) / self._claims,
                batch=max(1.0, job.batch_seconds / total),
            ),
        )

    async def _work(
        self, job: Job, truth: TraceRequest, emit: Emit, *, fails: bool, kills: bool
    ) -> None:
        sent, deaths = 0, self._deaths
        self._retime()
        while sent < job.output_tokens:
            with trio.CancelScope(deadline=self._due(job)) as scope:
                self._scopes[job] = scope
                await trio.sleep_forever()
            if self._deaths != deaths:
                raise BackendCrashed("the engine died under another request", engine_died=True)
            now = trio.current_time()
            self.engine.advance(now)
            if job.first_at is None:
                continue
            if kills:
                self._die(now)
                raise BackendCrashed("the engine died of this request", engine_died=True)
            if fails:
                raise GenerationFailed("the machine was told to fail")
            if not sent:
                self.cache.add(truth)
            done = job.output_tokens if job.ended_at is not None else int(job.made + 1e-6)
            self._spoken[job] = now
            self._retime()
            if done > sent:
                tokens, sent = done - sent, done
                await emit(WORD * tokens, tokens)

    def _die(self, now: float) -> None:
        """Lose the engine, and with it every answer under way and the cache."""
        self._deaths += 1
        self._back_at = now + RESTART_SECONDS
        self.cache = PrefixCache(self.peer.cache_tokens)
        for scope in self._scopes.values():
            scope.cancel()

    def _due(self, job: Job) -> float:
        """When the task of a job should look again, in seconds."""
        if job.ended_at is not None:
            return trio.current_time()
        milestone = self.engine.milestone(job)
        spoken = self._spoken.get(job)
        return milestone if spoken is None else min(milestone, spoken + CHUNK_SECONDS)

    def _retime(self) -> None:
        """Have all tasks look again: with other rates, what was due later may be due now."""
        for job, scope in self._scopes.items():
            scope.deadline = self._due(job)
