"""``punch coordinator``: a listener whose model lies on several machines; ``punch plan``: the plan.

What this machine has and who may lend is found out by `_lenders`; the rest is done by
`punch.cluster.coordinator`.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial

from ..._logs import get_logger
from ...backends import Backend
from ...capability import PeerId
from ...cluster import open_borrower
from ...cluster.coordinator import Split, ask_build, open_split, plan_once
from ...events import Bus
from ...exceptions import BackendCrashed
from ...listener import Listener, RunningLane, open_listener
from ...machine import Machine
from ...network import parse_address
from ...peers import short_id
from ...placement import Plan, Solo, describe
from ...settings import data_folder
from .._exits import ExitCode
from .._identity import claim_identity
from .._listener import open_own_bootstrap
from .._namespace import open_membership_of, place_of
from .._output import plain
from .._run import Shutdown, run_program
from .._shared import bootstraps, known_peers, lan_of
from ._lenders import Lenders, Prepared, needs_workers, prepare, until_enough
from ._solos import find_solos
from ._split_settings import CoordinatorSettings, PlanSettings, SplitSettings

log = get_logger("punch.coordinator")

# Times that a split is opened which is lost while it is timed.
MAX_OPENINGS = 3

ABOUT = "Run a model that lies on several machines, and answer the dialers of a namespace."
PLAN_ABOUT = "Show how a model would be placed on the machines that lend now, and start nothing."


@asynccontextmanager
async def open_listener_without_lane(
    settings: SplitSettings,
    *,
    listen: Sequence[str] = (),
    announce: Sequence[str] = (),
    name: str | None = None,
    queue: int = 0,
    events: Bus | None = None,
) -> AsyncIterator[Listener]:
    """The listener of a coordinator, before it has anything to answer with."""
    network = settings.network
    places = bootstraps(network)
    place = place_of(network)
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        identity = stack.enter_context(claim_identity("listener", settings.identity))
        membership = await enter(open_membership_of(place, identity, network))
        for address in places:
            await enter(open_own_bootstrap(network, address))
        yield await enter(
            open_listener(
                bootstrap=places,
                namespace=place.name,
                queue_limit=queue,
                transport=network.transport,
                identity=identity,
                known=known_peers(network),
                lan=lan_of(network, is_closed=membership is not None),
                name=name or (membership.name or None if membership else None),
                membership=membership,
                machine=Machine(models_folder=data_folder()),
                events=events,
                listen=listen,
                announce=announce,
            )
        )


@asynccontextmanager
async def open_lenders(
    settings: SplitSettings, prepared: Prepared, listener: Listener
) -> AsyncIterator[Lenders]:
    """Who may lend, once the listener has joined and enough of them are known."""
    async with AsyncExitStack() as stack:
        directory = listener.directory
        borrower = None
        if needs_workers(settings):
            # Bootstraps list the members of a namespace to its dialers alone.
            stack.enter_context(directory.joined_as({"dialer"}, lambda: None))
        # Without a limit: the bootstrap may come up later than its listeners.
        await listener.wait_until_joined()
        if needs_workers(settings):
            borrower = await stack.enter_async_context(
                open_borrower(
                    listener.node,
                    namespace=listener.namespace,
                    membership=directory.membership,
                )
            )
        lenders = Lenders(settings, prepared, borrower, directory)
        await until_enough(lenders, settings.least, peer_id=listener.peer_id)
        yield lenders


@asynccontextmanager
async def open_coordinator_of(
    settings: CoordinatorSettings, *, events: Bus | None = None
) -> AsyncIterator[Listener]:
    """Open the listener whose lane is the split that *settings* describe.

    Raises:
      ConfigurationError: if a setting makes no sense, or there is no program.
      ModelFileError: if the model cannot be used.
      BackendCrashed: if there is no plan, or the head does not start.
      NetworkError: if the namespace does not let it in.

    """
    said = settings.said("listen")
    listen = [str(parse_address(text, setting=said)) for text in settings.listen]
    said = settings.said("announce")
    announce = [str(parse_address(text, setting=said)) for text in settings.announce]
    prepared = await prepare(settings)
    async with (
        open_listener_without_lane(
            settings,
            listen=listen,
            announce=announce,
            name=settings.name,
            queue=settings.queue,
            events=events,
        ) as listener,
        open_lenders(settings, prepared, listener) as lenders,
    ):
        solos = await find_solos(listener, prepared.offer, prepared.wants.mix)
        splits: list[Split] = []

        def changed() -> None:
            for split in splits:
                split.lenders_changed()

        with listener.directory.watched(changed):
            lane = await _added(
                listener,
                partial(
                    open_split,
                    program=prepared.program,
                    model_path=prepared.path,
                    offer=prepared.offer,
                    lenders=lenders,
                    planner=prepared.planner(solos),
                    slots=settings.slots,
                    context_tokens=prepared.context_tokens,
                    here=prepared.here,
                    threads=settings.threads,
                    is_forced=settings.force,
                    events=events,
                    told=_tell,
                    opened=splits.append,
                    lessons=prepared.lessons,
                ),
                splits,
                queue_limit=settings.queue,
                calibrate=settings.calibrate,
            )
            log.info(
                "listening",
                namespace=listener.namespace,
                peer=listener.peer_id,
                addresses=listener.addresses,
                models=[one.name for one in lane.backend.offers],
            )
            try:
                yield listener
            finally:
                # Before the borrower and the node: what was borrowed is given back over them.
                await listener.remove(lane)


async def _added(
    listener: Listener,
    make: Callable[[], AbstractAsyncContextManager[Backend]],
    opened: Sequence[Split],
    *,
    queue_limit: int,
    calibrate: bool,
) -> RunningLane:
    """The lane of a split. One that loses a worker while it is timed is opened anew.

    Args:
      listener: Gets the lane.
      make: Makes the split.
      opened: The splits that were begun, the last one at the end: one that was never ready, such as
        for want of a plan, is not tried again.
      queue_limit: Requests that may wait for a slot.
      calibrate: Time the split before it answers.

    """
    for tries_left in reversed(range(MAX_OPENINGS)):
        try:
            return await listener.add(
                make(), name="split", queue_limit=queue_limit, calibrate=calibrate
            )
        except BackendCrashed as error:
            if not tries_left or not opened or not opened[-1].was_ready:
                raise
            log.warning("the split did not last; it is planned anew", why=str(error))
    raise AssertionError("unreachable")


def _tell(found: Plan) -> None:
    print(plain(describe(found, called=_called)), flush=True)


def _called(name: str) -> str:
    """What to call a device or a worker: of an identity its end."""
    worker, slash, device = name.partition("/")
    # As every identity of Ed25519 begins; an address of a server is no identity.
    return f"{short_id(PeerId(worker))}{slash}{device}" if worker.startswith("12D3KooW") else name


async def coordinate(settings: CoordinatorSettings, shutdown: Shutdown) -> ExitCode:
    """Answer until told to stop."""
    async with open_coordinator_of(settings) as listener:
        shutdown.drains = True
        await shutdown.requested.wait()
        log.info("draining; interrupt again to stop at once")
        await listener.drain()
    log.info("stopped")
    return ExitCode.OK


async def show_plan(settings: PlanSettings, shutdown: Shutdown) -> ExitCode:
    """Print the plan for those who lend now."""
    prepared = await prepare(settings)
    build = await ask_build(prepared.program)
    async with AsyncExitStack() as stack:
        lenders = Lenders(settings, prepared, None, None)
        solos: Sequence[Solo] = ()
        if needs_workers(settings):
            listener = await stack.enter_async_context(open_listener_without_lane(settings))
            lenders = await stack.enter_async_context(open_lenders(settings, prepared, listener))
            solos = await find_solos(listener, prepared.offer, prepared.wants.mix)
        outlook = await plan_once(
            lenders(),
            prepared.planner(solos),
            here=prepared.here,
            build=build,
            is_forced=settings.force,
        )
    found, left_out = outlook.plan, dict(outlook.left_out)
    if settings.json:
        print(json.dumps({**found.as_dict(), "left_out_workers": left_out}, ensure_ascii=False))
    else:
        lines = [describe(found, called=_called)]
        lines += [f"left out: {_called(name)}: {why}" for name, why in left_out.items()]
        print(plain("\n".join(lines)))
    return ExitCode.OK if isinstance(found, Plan) else ExitCode.NO_PEER


def coordinator(arguments: Sequence[str]) -> int:
    """Run ``punch coordinator``; its exit code."""
    return run_program(
        "punch coordinator", ABOUT, CoordinatorSettings, coordinate, arguments, stays=True
    )


def plan_command(arguments: Sequence[str]) -> int:
    """Run ``punch plan``; its exit code."""
    return run_program("punch plan", PLAN_ABOUT, PlanSettings, show_plan, arguments)
