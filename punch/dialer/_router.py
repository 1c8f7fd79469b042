"""The dialer's side: `open_router()`."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from random import Random
from typing import Any, Literal

import attrs
import trio

from .._background import open_background
from .._version import __version__
from ..access import Membership
from ..capability import PeerId
from ..discovery import (
    DEFAULT_BOOTSTRAP,
    KnownPeers,
    LocalListener,
    SessionPool,
    SourceState,
    join_namespace,
    new_incarnation,
    own_identity,
    parse_bootstraps,
    usual_namespace,
)
from ..discovery.lan import Lan
from ..events import Bus
from ..exceptions import ConfigurationError, InvalidRequest, PunchError
from ..libp2p import open_node
from ..model_store import KNOWN_MODELS
from ..network import Address, Node
from ..peers import PeerRecord
from ..routing import POLICIES, Policy, Startable
from ..routing.names import NO_ALIASES, Aliases, ModelNames, PulledModel
from ..wire import (
    NO_HINTS,
    ChatMessage,
    CommandRequest,
    CommandResponse,
    Hints,
    Sampling,
    check_request,
)
from ._answer import Answer
from ._dispatch import Dispatch
from ._hedging import Hedge
from ._runs import Runs
from .starting import Start, Startables, Starter

_PULLED = {
    name: PulledModel(known.file_name, known.file_digest) for name, known in KNOWN_MODELS.items()
}

# Seeded by the system. An id is no secret: to ask for one each time would be a system call each.
_random = Random()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_random.seed)


def new_request_id() -> str:
    """A UUIDv7 (RFC 9562, section 5.7): sorts by time, and nobody else has it."""
    value = (time.time_ns() // 1_000_000) << 80 | _random.getrandbits(80)
    value = value & ~(0xF << 76) | 7 << 76
    value = value & ~(0x3 << 62) | 2 << 62
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def chat_request(
    text: str,
    *,
    history: Sequence[str | CommandResponse | ChatMessage] = (),
    system: str | None = None,
    model: str | None = None,
    max_tokens: int | None = None,
    temperature: float | None = None,
    sampling: Sampling | None = None,
    stream: bool = True,
    continuable: bool = True,
    strict: bool = False,
    timeout: float | None = None,
    request_id: str | None = None,
    hints: Hints = NO_HINTS,
) -> CommandRequest:
    """A request to answer *text*; what is not said here is in `CommandRequest`.

    Args:
      text: What the user says now.
      history: What was said before, in its order: a text is the user's, a response the model's,
        and a message says itself whose it is.
      system: The system message.
      model: The name of the model; any by default.
      max_tokens: Longest answer, in tokens; the backend's own limit by default.
      temperature: How freely the answer is chosen; the backend's own by default.
      sampling: All that there is to say of that, in the place of these two.
      stream: Whether the answer is wanted in parts.
      continuable: Whether another peer may finish it.
      strict: Real inference only.
      timeout: When to give up, in seconds.
      request_id: Names the request; a new UUIDv7 by default.
      hints: Which peers to ask first, last, or at all.

    Raises:
      InvalidRequest: if a response in *history* has no answer in it.

    """
    turns = [_turn(turn) for turn in history]
    turns.append(ChatMessage(role="user", content=text))
    if system is not None:
        turns.insert(0, ChatMessage(role="system", content=system))
    if sampling is None:
        sampling = Sampling(max_tokens=max_tokens, temperature=temperature)
    elif max_tokens is not None or temperature is not None:
        raise TypeError("give max_tokens and temperature, or a sampling that holds both")
    return CommandRequest(
        request_id=new_request_id() if request_id is None else request_id,
        model=model,
        messages=tuple(turns),
        sampling=sampling,
        stream=stream,
        continuable=continuable,
        strict=strict,
        timeout=timeout,
        hints=hints,
    )


def _turn(turn: str | CommandResponse | ChatMessage) -> ChatMessage:
    if isinstance(turn, str):
        return ChatMessage(role="user", content=turn)
    if isinstance(turn, ChatMessage):
        return turn
    if turn.result is None:
        raise InvalidRequest.about("history", "holds a response without an answer")
    return ChatMessage(
        role="assistant", content=turn.result.text, tool_calls=turn.result.tool_calls
    )


class Router:
    """Asks the best listener of a namespace. Made by `open_router`."""

    def __init__(self, dispatch: Dispatch, *, strict: bool) -> None:
        self.strict = strict
        self._dispatch = dispatch
        self._runs = Runs(dispatch)

    @property
    def peer_id(self) -> PeerId:
        """Our own identity, which a listener in this process has, too."""
        return self._dispatch.pool.peer_id

    @property
    def policy(self) -> Policy:
        """How it chooses; may be changed at any time."""
        return self._dispatch.policy

    @policy.setter
    def policy(self, policy: Policy) -> None:
        self._dispatch.policy = policy

    @property
    def aliases(self) -> Aliases:
        """Further names of models; may be changed at any time."""
        return self._dispatch.names.aliases

    @aliases.setter
    def aliases(self, aliases: Aliases) -> None:
        self._dispatch.names.aliases = aliases

    @property
    def names(self) -> ModelNames:
        """What the models are called that are on offer now."""
        self._dispatch.names.look(self._dispatch.known())
        return self._dispatch.names

    @property
    def peers(self) -> tuple[PeerRecord, ...]:
        """A snapshot of the listeners that are connected."""
        return self._dispatch.table.snapshot()

    @property
    def offering(self) -> tuple[PeerRecord, ...]:
        """The same, and behind them what could be started, each as the peer that it would be."""
        return tuple(self._dispatch.known())

    @property
    def startable(self) -> tuple[Startable, ...]:
        """What nobody runs and could be started, as it is now."""
        starter = self._dispatch.starter
        return () if starter is None else starter.look(now=trio.current_time())

    @property
    def unreachable(self) -> Mapping[PeerId, str]:
        """The listeners of the namespace that there is no session with, each with the reason."""
        return self._dispatch.pool.unreachable()

    @property
    def sessions(self) -> int:
        """How many sessions with listeners are open."""
        return self._dispatch.pool.sessions

    @property
    def minors(self) -> Mapping[PeerId, int]:
        """The minor version of the protocol that each listener and we both speak."""
        sessions = {peer.peer_id: self._dispatch.pool.session(peer.peer_id) for peer in self.peers}
        return {peer_id: one.minor for peer_id, one in sessions.items() if one is not None}

    @property
    def trouble(self) -> PunchError | None:
        """What keeps us out of the namespace, if something does."""
        return self._dispatch.membership.trouble

    @property
    def sources(self) -> tuple[SourceState, ...]:
        """How the members of the namespace are found, and how well that works."""
        return self._dispatch.membership.sources

    @property
    def workers(self) -> Mapping[PeerId, tuple[str, ...]]:
        """The workers of the namespace, and where each of them is; some are listeners too."""
        found = self._dispatch.membership.workers
        return {peer_id: member.addresses for peer_id, member in found.items()}

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person should know of the namespace, though everything works."""
        return self._dispatch.membership.warnings

    def answer(
        self,
        request: CommandRequest,
        *,
        keep: bool = True,
        scope: str = "",
        key_id: str | None = None,
    ) -> Answer:
        """Ask, and take the answer as it is made.

        ::

            async with router.answer(chat_request("why?")) as answer:
                async for text in answer:
                    print(text, end="")

        Leaving the context early cancels the request. A request with the id of one that is
        under way joins it from its start; one that was answered within the last two minutes
        gets that very answer.

        Args:
          request: What to ask.
          keep: Whether to keep the answer for whoever asks again with this id: of no use if
            nobody else knows it.
          scope: What else must be the same for two requests with one id to be the same.
          key_id: Whose request it is, for the decision log: a gateway's key. No peer is told.

        Raises:
          InvalidRequest: naming the value and the rule it breaks.

        """
        named: dict[str, Any] = {} if request.request_id else {"request_id": new_request_id()}
        if self.strict and not request.strict:
            named["strict"] = True
        if named:
            request = attrs.evolve(request, **named)
        check_request(request)
        return Answer(self._runs, request, keep=keep, scope=scope, key_id=key_id)

    async def ask(
        self,
        question: str | CommandRequest,
        *,
        history: Sequence[str | CommandResponse | ChatMessage] = (),
        system: str | None = None,
        model: str | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        sampling: Sampling | None = None,
        strict: bool = False,
        timeout: float | None = None,
        hints: Hints = NO_HINTS,
        keep: bool = False,
    ) -> CommandResponse:
        """Ask, and wait for the whole answer. Raises as `Answer.receive` does.

        ::

            first = await router.ask("Why is the sky blue?")
            second = await router.ask("And at night?", history=["Why is the sky blue?", first])

        Args:
          question: A text, or a request that says everything itself: then only *keep* is used.
          history: What was said before; see `chat_request`, as for all that follows.
          system: The system message.
          model: The name of the model.
          max_tokens: Longest answer, in tokens.
          temperature: How freely it is chosen.
          sampling: All that there is to say of that, in the place of these two.
          strict: Real inference only.
          timeout: When to give up, in seconds.
          hints: Which peers to ask first, last, or at all.
          keep: Whether to keep the answer, for a request that is asked again by its id.

        """
        request = (
            chat_request(
                question,
                history=history,
                system=system,
                model=model,
                max_tokens=max_tokens,
                temperature=temperature,
                sampling=sampling,
                strict=strict,
                timeout=timeout,
                hints=hints,
            )
            if isinstance(question, str)
            else question
        )
        async with self.answer(request, keep=keep) as answer:
            return await answer.complete()

    async def wait_for_peers(
        self, enough: Callable[[tuple[PeerRecord, ...]], bool] = bool
    ) -> tuple[PeerRecord, ...]:
        """Wait until `peers` is *enough* (by default: anybody), and return it."""
        while not enough(self.peers):
            await self._dispatch.pool.change()
        return self.peers

    async def wait_until_settled(self, *, quiet: float = 0.0) -> None:
        """Wait until each listener that is known has answered, or could not be reached.

        Args:
          quiet: Seconds in which nobody else must have come since: listeners that are there
            already become known one after the other.

        """
        while True:
            while not self._dispatch.pool.is_settled():
                await self._dispatch.pool.change()
            known = len(self.peers)
            with trio.move_on_after(quiet) as pause:
                await self.wait_for_peers(partial(_has_changed, known))
            if pause.cancelled_caught:
                return


@asynccontextmanager
async def open_router(
    *,
    bootstrap: str | Address | Sequence[str | Address] | None = DEFAULT_BOOTSTRAP,
    namespace: str | None = None,
    policy: Policy | str = "completion-time",
    strict: bool = False,
    transport: Literal["tcp", "quic", "dual"] = "tcp",
    identity: str | os.PathLike[str] | None = None,
    known: KnownPeers | None = None,
    lan: Lan | None = None,
    node: Node | None = None,
    listener: LocalListener | None = None,
    incarnation: int | None = None,
    rng: Random | None = None,
    hedge: Hedge | None = None,
    events: Bus | None = None,
    aliases: Aliases = NO_ALIASES,
    membership: Membership | None = None,
    startable: Startables = (),
    start: Start | None = None,
) -> AsyncIterator[Router]:
    """A router, for as long as the context lasts: it joins a namespace and asks its listeners.

    Args:
      bootstrap: Where the namespace meets: a multiaddress, ``HOST:PORT`` or a name, or several
        that stand in for each other; `None` for none but the members of a closed one. Without
        ``/p2p/PEER_ID`` it is trusted on first use, see *known*.
      namespace: Which one; by default that of *membership*, or else ``simple-chat``.
      policy: How to choose: a `Policy`, or the name of one in `POLICIES`.
      strict: Take real inference only, whatever a request says.
      transport: What to dial with.
      identity: File with our key, made if it is not there; by default that of *membership*, or a
        fresh identity.
      known: Who was at the bootstrap before; by default nobody, and it is not kept.
      lan: Find listeners on the LANs of this machine by mDNS too; by default not.
      node: Use this node, which stays open, instead of one of our own.
      listener: A listener of this process: the router has its node and its place in the
        namespace, asks it without a network, and asks the others as usual. Then *bootstrap*,
        *namespace*, *transport*, *identity*, *known*, *lan*, *node*, *incarnation* and
        *membership* are the listener's.
      incarnation: Grows each time we start; by default the time.
      rng: Draws among equals.
      hedge: Ask a second peer when the first is late; by default never.
      events: Where it is published what is decided, tried and answered, and which listeners come
        and go, such as for `open_decision_log`.
      aliases: Further names of models; by default none.
      membership: Our membership of a closed namespace, of `open_membership`: only its members are
        asked, and they are met at too.
      startable: Models that nobody runs and that could be started, such as splits over several
        machines: values, or something that returns them as they are now, without waiting.
      start: Starts one of these; returns when it can answer, and it is offered by its peer from
        then on, or raises a `PunchError` that says why not. Called once, however many requests
        wait for it.

    Raises:
      ConfigurationError: if an argument makes no sense; the text names it.

    """
    if not trio.lowlevel.in_trio_run():
        raise ConfigurationError(
            "punch runs on trio, and this program does not: use trio.run(main), or "
            "punch.blocking.open_router() from asyncio and from blocking programs"
        )
    policy = _policy(policy)
    if start is None and startable:
        raise ConfigurationError("startable is given, and no start: give open_router both")
    places = [
        place.reached_by(transport, setting="bootstrap")
        for place in (() if bootstrap is None else parse_bootstraps(bootstrap))
    ]
    async with AsyncExitStack() as stack:
        if listener is not None:
            node, namespace, incarnation = listener.node, listener.namespace, listener.incarnation
            membership = listener.directory.membership
        elif node is None:
            node = await stack.enter_async_context(
                open_node(identity=identity or own_identity(membership), transport=transport)
            )
        if namespace is None:
            namespace = usual_namespace(membership)
        if membership is not None and listener is None:
            await stack.enter_async_context(membership.kept_up(node, serves=False))
        incarnation = incarnation if incarnation is not None else new_incarnation()
        events = events or Bus()
        pool = SessionPool(
            node,
            namespace=namespace,
            incarnation=incarnation,
            version=__version__,
            events=events,
            membership=membership,
        )
        nursery = await stack.enter_async_context(open_background())
        if listener is not None:
            directory = listener.directory
            pool.attach(listener)
            stack.enter_context(directory.joined_as({"dialer"}, pool.listeners_changed))
        else:
            directory = await stack.enter_async_context(
                join_namespace(
                    node,
                    places,
                    lan=lan,
                    known=known,
                    namespace=namespace,
                    roles={"dialer"},
                    incarnation=incarnation,
                    changed=pool.listeners_changed,
                    membership=membership,
                )
            )
        nursery.start_soon(pool.run, directory)
        dispatch = Dispatch(
            pool,
            directory,
            policy=policy,
            rng=rng or Random(),
            nursery=nursery,
            names=ModelNames(aliases, pulled=_PULLED),
            hedge=hedge,
            events=events,
            starter=None
            if start is None
            else Starter(startable, start, table=pool.table, nursery=nursery),
        )
        yield Router(dispatch, strict=strict)


def _policy(policy: Policy | str) -> Policy:
    if isinstance(policy, Policy):
        return policy
    if policy not in POLICIES:
        raise ConfigurationError(f"policy is {policy!r}; there are {', '.join(POLICIES)}")
    return POLICIES[policy]


def _has_changed(known: int, peers: tuple[PeerRecord, ...]) -> bool:
    return len(peers) != known
