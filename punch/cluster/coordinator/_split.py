"""Runs a model over several machines: the head here, and layers on what workers lend.

Before each start of the head it is planned anew who holds what, with whoever lends then; a worker
that is lost ends the head at once, and so leads to the next plan. A worker that comes back is used
then, not by restarting a head that is well. What makes a good plan is decided by `punch.placement`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial

import trio

from ...events import SplitLoading
from ...exceptions import PeerRefused, PunchError
from ...llama_cpp import RPC_ENV, Program
from ...placement import Device, Lessons, Plan, Refused
from ...processes import Supervised
from ...wire import Timings, Usage
from ._arguments import split_arguments
from ._guessing import Guessing
from ._held import Held
from ._learning import Learning
from ._lending import Lendable, Lender
from ._planning import Planner, planned
from ._surveys import Surveys
from ._telling import Telling
from ._versions import HeadBuild

# With a new server on the other machine, and a tunnel.
TAKE_SECONDS = 20.0

PROGRESS_SECONDS = 0.25

# From the end of a head until its worker's machine has said that it is why.
WORD_SECONDS = 1.0

# What a closing lease gets to be ended at its worker.
CLOSE_SECONDS = 3.0

# The same of one that is lost, since requests wait: a worker that is well has ended it by itself,
# and one that is mute would take all the time that it is given.
LOST_CLOSE_SECONDS = 0.5

# What llama-server prints as the child of a router of its own; internal to it, and may be gone.
_STATE = "cmd_child_to_router:state:"

ENV: Mapping[str, str] = {
    **RPC_ENV,
    # Without this it calls a debugger when it aborts, which takes half a second.
    "GGML_NO_BACKTRACE": "1",
    # It tells its progress then, and ends when its standard input does; an older build ignores it.
    "LLAMA_SERVER_ROUTER_PORT": "1",
}


class Split:
    """A model over several machines; a `Head`. Made by `open_split`.

    Args:
      lenders: Who may lend, asked before each plan.
      planner: Places the model.
      here: The head's own devices.
      build: The head's program.
      telling: Publishes what happens.
      nursery: Where loans are held.
      is_forced: Take workers of other builds, too.
      lessons: Learn from what the head measures; the planner reads them. `None`: nobody learns.

    """

    def __init__(
        self,
        *,
        lenders: Callable[[], Sequence[Lender]],
        planner: Planner,
        here: Sequence[Device],
        build: HeadBuild,
        telling: Telling,
        nursery: trio.Nursery,
        is_forced: bool = False,
        lessons: Lessons | None = None,
    ) -> None:
        self._lenders = lenders
        self._learning = Learning(lessons)
        self._planner = planner
        self._here, self._build = tuple(here), build
        self._telling = telling
        self._nursery = nursery
        self._is_forced = is_forced
        self._held: dict[str, Held] = {}
        self._lost_at: dict[str, float] = {}
        self._lost = trio.Event()
        self._supervised: Supervised | None = None
        self._begun_at = 0.0
        self._progress: float | None = None
        self._guessing = Guessing(telling.model)
        self.plan: Plan | None = None
        """What lies where, of the last start."""
        self.machines: int | None = None
        self.is_own = self.is_plain = False
        """As `Head` has them, of that plan."""
        self.is_loading = False
        """True from a plan on until a token was made."""
        self.was_ready = False
        """Whether a token was ever made with all workers of a plan."""

    # ---- what the head asks ----

    @property
    def env(self) -> Mapping[str, str]:
        """Variables of the head."""
        return ENV

    async def prepare(self, supervised: Supervised) -> None:
        """Plan with who lends now, and borrow what the plan needs.

        Raises:
          PeerRefused: if there is no plan; the text has the planner's reason, and that of each
            lender which is left out.

        """
        self._supervised = supervised
        self._begun_at, self._progress = trio.current_time(), None
        await self._drop_lost()
        surveys = Surveys(
            self._lenders(),
            {name: held.lendable for name, held in self._held.items()},
            head=self._build,
            is_forced=self._is_forced,
        )
        await surveys.ask(surveys.rested(self._lost_at))
        plan = await self._borrow(surveys)
        if isinstance(plan, Refused) and (tired := surveys.not_asked()):
            await surveys.ask(tired)
            plan = await self._borrow(surveys)
        if isinstance(plan, Refused):
            raise PeerRefused("; ".join([plan.reason, *map(": ".join, surveys.left_out.items())]))
        # Whoever was lost until now is in no plan, and so no reason to end this head.
        self._lost = trio.Event()
        for name in [name for name in self._held if name not in plan.workers]:
            await self._release(name)
        plan = self._guessing.judged(plan)
        self._telling.planned(plan, before=self.plan, left_out=surveys.left_out)
        self.plan, self.is_loading, self.machines = plan, True, len(plan.workers) + 1
        self._learning.begin(plan, [*self._here, *surveys.devices()])
        self.is_own, self.is_plain = _whose([self._held[one].lendable for one in plan.workers])

    def arguments(self, program: Program) -> Sequence[str]:
        """The head's arguments for the plan."""
        assert self.plan is not None
        endpoints = [self._held[name].endpoint for name in self.plan.workers]
        return split_arguments(program, self.plan, endpoints)

    def note_line(self, line: str) -> None:
        """Hear the head's own account of its progress, where it gives one."""
        if line.startswith(_STATE):
            with suppress(ValueError, TypeError, KeyError, AttributeError):
                self._progress = float(json.loads(line[len(_STATE) :])["payload"]["value"])

    def note_token(self) -> bool:
        """Hear that the head made a token; False, and the head is killed, if a worker had no part.

        A head of RPC 5 goes on without a worker of another version, with all layers to itself.
        """
        idle = [held for held in self._held.values() if held.sent <= 0]
        for held in idle:
            self._lose(held, "the head makes tokens without it")
        assert self._supervised is not None
        if self._lost.is_set() and not idle:
            # Whoever was lost when there was no head yet could not end it.
            self._supervised.kill("a worker was lost before it began", loading_too=True)
        if idle or self._lost.is_set() or self.plan is None:
            return False
        self._learning.ready()
        self.is_loading, self.was_ready = False, True
        self._telling.ready(
            self.plan,
            {name: held.sent for name, held in self._held.items()},
            seconds=trio.current_time() - self._begun_at,
            starts=self._supervised.statistics().starts,
        )
        return True

    def note_answer(self, *, tokens: int, guessed: int, right: int) -> None:
        """Hear what the head's guesses came to; the next plan goes by that."""
        self._guessing.note_answer(self.plan, tokens=tokens, guessed=guessed, right=right)

    def note_times(self, usage: Usage, timings: Timings) -> None:
        """Learn from what the head measured, for the next plan."""
        self._learning.answered(usage, timings)

    async def has_lost_machine(self) -> bool:
        """Whether a worker of this plan was lost; waits a moment for the word of it."""
        # The head ends within milliseconds of its worker; that, and what it did, is known later.
        lost = self._lost
        with trio.move_on_after(WORD_SECONDS):
            await lost.wait()
        for held in [each for each in self._held.values() if each.fault is not None]:
            self._lose(held, held.fault or "")
        return lost.is_set()

    # ---- who lends ----

    async def _drop_lost(self) -> None:
        """Let go of the loans that were lost, and of those whose server does not run any more."""
        async with trio.open_nursery() as nursery:
            for held in self._held.values():
                nursery.start_soon(held.check)
        for name, held in tuple(self._held.items()):
            if held.is_lost:
                self._note_loss(held, held.why)
                await self._release(name)

    async def _borrow(self, surveys: Surveys) -> Plan | Refused:
        """Plan, and borrow of the workers of the plan; again without each that does not lend."""
        while True:
            for name in [name for name, held in self._held.items() if held.is_lost]:
                surveys.leave_out(name, self._held[name].why)
                await self._release(name)
            plan = await planned(self._planner, [*self._here, *surveys.devices()])
            if isinstance(plan, Refused):
                return plan
            missing = [name for name in plan.workers if name not in self._held]
            async with trio.open_nursery() as nursery:
                for name in missing:
                    nursery.start_soon(self._take, name, surveys)
            measured = {name: held.lendable for name, held in self._held.items()}
            is_known = all(surveys.lendable.get(each) == one for each, one in measured.items())
            surveys.lendable |= measured
            # With what a tunnel was measured to be, another plan may be the better one.
            is_held = all(name in self._held for name in missing)
            if is_known and is_held and not any(held.is_lost for held in self._held.values()):
                return plan

    async def _take(self, name: str, surveys: Surveys) -> None:
        why = f"it lent nothing within {TAKE_SECONDS:g} s"
        with trio.move_on_after(TAKE_SECONDS):
            try:
                held = Held(*surveys.asked(name), is_loading=lambda: self.is_loading)
                await self._nursery.start(held.run, self._lose)
            except PunchError as error:
                why = error.message
            else:
                self._held[name] = held
                self._telling.taken(held)
                return
        surveys.leave_out(name, why)

    async def _release(self, name: str) -> None:
        held = self._held.pop(name)
        held.is_over.set()
        with trio.move_on_after(LOST_CLOSE_SECONDS if held.is_lost else CLOSE_SECONDS):
            await held.is_closed.wait()
        self._telling.ended(name, held.why or "the plan has no need of it")

    def _lose(self, held: Held, why: str) -> None:
        """End the head at once, since it waits for a worker that is gone."""
        name = held.lender.name
        if self._held.get(name) is not held or held.is_lost:
            return
        held.is_lost, held.why = True, why
        self._note_loss(held, why)
        if self._supervised is not None:
            self._supervised.kill(f"worker {name} was lost: {why}", loading_too=True)
        # The head that waits there ends by this too, where it could not be killed.
        held.is_over.set()

    def lenders_changed(self) -> None:
        """Plan at once if there is no head for want of lenders; one that is well is left alone."""
        if self._supervised is not None:
            self._supervised.start_now()

    def _note_loss(self, held: Held, why: str) -> None:
        self._lost.set()
        if not held.is_told:
            held.is_told = True
            self._lost_at[held.lender.name] = trio.current_time()
            self._telling.lost(held.lender.name, why)

    # ---- what goes on meanwhile ----

    async def run(self) -> None:
        """Tell how far the head is with loading, and if it fails, until cancelled."""
        told = math.nan
        while True:
            await trio.sleep(PROGRESS_SECONDS)
            self._telling.look(self._supervised)
            if self.is_loading and (share := self.progress()) != told:
                told = share
                self._telling.publish(partial(SplitLoading, progress=share))

    def progress(self) -> float:
        """How much of what the workers are to hold was sent to them, 0 to 1."""
        if self.plan is None or not self.is_loading:
            return 0.0 if self.plan is None else 1.0
        share = share_sent(self.plan, {name: held.sent for name, held in self._held.items()})
        return min(1.0, max(0.0, self._progress or 0.0)) if share is None else share

    async def close(self) -> None:
        """Give back all that was borrowed."""
        self._telling.look(self._supervised)  # One that has never worked ends the split at once.
        for held in self._held.values():
            held.is_over.set()
        for name in tuple(self._held):
            await self._release(name)


def share_sent(plan: Plan, sent: Mapping[str, int]) -> float | None:
    """How much of what the workers of *plan* are to hold is there, 0 to 1, by the bytes *sent*.

    `None` if they are to hold nothing.
    """
    planned: dict[str, int] = {}
    for share in plan.shares:
        if share.is_remote:
            planned[share.holder] = planned.get(share.holder, 0) + share.weights
    whole = sum(planned.values())
    received = sum(min(count, planned[name]) for name, count in sent.items() if name in planned)
    return received / whole if whole else None


def _whose(found: Sequence[Lendable]) -> tuple[bool, bool]:
    """Whether all that lend are the head's own, and whether any of them is not authenticated."""
    return all(one.is_own for one in found), not all(one.is_authenticated for one in found)
