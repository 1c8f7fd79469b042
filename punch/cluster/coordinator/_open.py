"""Opens a split as a backend, and finds out which protocol its head's program speaks."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

from ..._background import open_background
from ..._logs import get_logger
from ...backends import Backend, open_llama_server
from ...capability import ModelOffer
from ...events import Bus
from ...exceptions import PunchError
from ...llama_cpp import Program, RpcVersion, find_rpc_server, open_rpc_server
from ...placement import Device, Lessons, Plan, Refused
from ._lending import Lender
from ._planning import Planner, planned
from ._split import CLOSE_SECONDS, Split
from ._surveys import Surveys
from ._telling import Telling
from ._versions import HeadBuild

log = get_logger(__name__)

# More than a server has any use for; the smallest that starts at all is below.
_PROBE_BYTES = 4 << 30

_numbers = itertools.count(1)

# By the program's path and the time of its last change: a new build there is asked anew.
_versions: dict[tuple[str, int], RpcVersion] = {}


async def ask_build(program: Program) -> HeadBuild:
    """Which RPC protocol *program* speaks, by what the server of the same build says.

    llama-server itself does not say. Where no RPC server stands beside it the protocol is unknown,
    and workers are compared by their builds alone.
    """
    beside = find_rpc_server(program.path)
    version = None
    if beside is not None:
        key = (str(beside), beside.stat().st_mtime_ns)
        if key not in _versions:
            try:
                async with open_rpc_server(beside, threads=1, memory=_PROBE_BYTES) as server:
                    _versions[key] = server.version
            except PunchError as error:
                log.warning("the RPC server beside the head does not start", why=error.message)
        version = _versions.get(key)
    return HeadBuild(version=version, build=program.version or "")


@attrs.frozen(kw_only=True)
class Outlook:
    """What a split would be with whoever lends now."""

    plan: Plan | Refused
    """The plan, or why there is none."""

    left_out: Mapping[str, str] = attrs.field(factory=dict)
    """Who is not in it, and why."""

    is_own: bool = False
    """Whether all machines of the plan are of the head's own owner."""

    is_plain: bool = False
    """Whether a machine of the plan is reached by plain RPC, where nobody proves who it is."""


async def plan_once(
    lenders: Sequence[Lender],
    planner: Planner,
    *,
    build: HeadBuild,
    here: Sequence[Device] = (),
    is_forced: bool = False,
) -> Outlook:
    """What the plan would be with whoever lends now; nothing is borrowed.

    The arguments are as in `open_split`; *build* is the head's program.
    """
    surveys = Surveys(lenders, {}, head=build, is_forced=is_forced)
    await surveys.ask(lenders)
    plan = await planned(planner, [*here, *surveys.devices()])
    workers = plan.workers if isinstance(plan, Plan) else ()
    return Outlook(
        plan=plan,
        left_out=surveys.left_out,
        is_own=all(surveys.lendable[name].is_own for name in workers),
        is_plain=not all(surveys.lendable[name].is_authenticated for name in workers),
    )


@asynccontextmanager
async def open_split(
    *,
    program: Program,
    model_path: Path,
    offer: ModelOffer,
    lenders: Callable[[], Sequence[Lender]],
    planner: Planner,
    slots: int,
    context_tokens: int,
    here: Sequence[Device] = (),
    threads: int | None = None,
    no_mmap: bool = False,
    extra_args: Sequence[str] = (),
    setting: str = "LLAMA_CPP_EXE",
    is_forced: bool = False,
    events: Bus | None = None,
    told: Callable[[Plan], None] = lambda plan: None,
    opened: Callable[[Split], None] = lambda split: None,
    lessons: Lessons | None = None,
) -> AsyncIterator[Backend]:
    """Run a model over several machines; enter when it has made a token with all of its workers.

    A worker that is lost ends the head at once: requests under way end with `BackendCrashed`, whose
    `engine_restarts` has dialers ask again, and the head is started with whoever is left.

    Args:
      program: ``llama-server`` of a build with RPC.
      model_path: The GGUF file, which the head alone needs.
      offer: What to offer.
      lenders: Who may lend, asked before each plan.
      planner: Places the model on the devices it is given.
      slots: Requests at a time, of every plan.
      context_tokens: Longest prompt plus answer of one request, in tokens.
      here: The head's own devices that may hold layers.
      threads: Threads that the head computes with; `None` for the program's choice.
      no_mmap: Read the model into memory instead of mapping the file.
      extra_args: Further arguments for the program, at the end.
      setting: Name of the setting that *program* comes from, for error texts.
      is_forced: Take workers of other builds, if they speak the same protocol.
      events: Where it publishes what happens.
      told: Called with each plan that is another one than before.
      opened: Called with the split before it is planned first: whoever knows that a lender has come
        calls its `lenders_changed`, and its `plan` is there to read.
      lessons: Learn from what the head measures; their calibration is for *planner*.

    Raises:
      ConfigurationError: if the program cannot be a head.
      BackendCrashed: if there is no plan, or the head does not start; the text says why.

    """
    build = await ask_build(program)
    telling = Telling(split=f"split-{next(_numbers)}", model=offer.name, events=events, told=told)
    async with open_background() as nursery:
        split = Split(
            lenders=lenders,
            planner=planner,
            here=here,
            build=build,
            telling=telling,
            nursery=nursery,
            is_forced=is_forced,
            lessons=lessons,
        )
        opened(split)
        telling.started(tuple(lender.name for lender in lenders()))
        nursery.start_soon(split.run)
        try:
            async with open_llama_server(
                program=program.path,
                arguments=program.arguments,
                model_path=model_path,
                threads=threads,
                no_mmap=no_mmap,
                slots=slots,
                context_tokens=context_tokens,
                offer=attrs.evolve(offer, split=True),
                extra_args=extra_args,
                setting=setting,
                head=split,
            ) as backend:
                yield backend
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(CLOSE_SECONDS):
                await split.close()
