"""Holds one loan for a split, and notices when it is lost.

A worker is lost when its loan has ended, or when a reply of it is outstanding for `REPLY_SECONDS`
and its own machine says that its server does not run, or has used no processor time meanwhile. It
is never asked by RPC: a server that has a borrower cannot answer. Its health says nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs
import trio

from ..._background import open_background
from ..._logs import get_logger
from ...exceptions import PunchError
from ...placement import Device
from ._lending import Lendable, Lender, Loan, LoanLook, within

log = get_logger(__name__)

# Between tokens a reply is there within milliseconds, and within a batch of a prompt in a second or
# two; what takes longer is looked at.
REPLY_SECONDS = 2.0

# Half a minute without a reply, and nobody can say how the server is.
BLIND_SECONDS = 30.0

# What a device other than a processor computes for is not seen in its process's time.
QUIET_SECONDS = 10.0

CHECK_SECONDS = 0.25

# Between two looks; a worker takes eight questions a second, and no more.
LOOK_PAUSE_SECONDS = 0.5

# Its machine answers from memory; one that says nothing for longer is as good as gone.
LOOK_SECONDS = 1.5

# Over so long it is seen whether a server computes. On a machine that is very busy, one that does
# gets little of a processor; one that hangs gets nothing at all, to the hundredth of a second in
# which systems count.
IDLE_SECONDS = 2.0
TICK_SECONDS = 0.01


class Held:
    """One loan while a split has it.

    Args:
      lender: Whose it is.
      lendable: What that had to lend.
      devices: The same, as the plan knows them.
      is_loading: Whether the head loads its model.

    """

    def __init__(
        self,
        lender: Lender,
        lendable: Lendable,
        devices: Sequence[Device],
        *,
        is_loading: Callable[[], bool],
    ) -> None:
        self.lender = lender
        self.lendable = lendable
        self.devices = tuple(devices)
        self.is_over = trio.Event()
        """Set when it is to be given back."""
        self.is_closed = trio.Event()
        """Set once it is."""
        self.is_lost = False
        """Whether it has ended by itself."""
        self.is_told = False
        """Whether that was said."""
        self.why = ""
        """Why it is lost."""
        self._loan: Loan | None = None
        self._is_loading = is_loading
        self._sent_before = 0

    @property
    def loan(self) -> Loan:
        """The loan itself."""
        assert self._loan is not None
        return self._loan

    @property
    def fault(self) -> str | None:
        """What its server did that a head does not survive, so that it counts once a head ended."""
        return None if self._loan is None else self._loan.fault

    @property
    def endpoint(self) -> tuple[str, list[str]]:
        """Where the head reaches its server, and the ids of the devices which that lists."""
        return self.loan.endpoint, [device.id for device in self.devices]

    @property
    def sent(self) -> int:
        """Bytes that were sent there since the head was started last."""
        return self.loan.bytes_up - self._sent_before

    async def run(
        self,
        lose: Callable[[Held, str], None],
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Borrow, and hold that until `is_over` is set.

        Args:
          lose: Called with the reason when it is lost.
          task_status: Told once it is borrowed.

        Raises:
          PunchError: if it cannot be borrowed.

        """
        try:
            async with self.lender.take() as loan, open_background() as nursery:
                self._loan = loan
                self.lendable = attrs.evolve(
                    self.lendable, link=loan.link or self.lendable.link, is_own=loan.is_own
                )
                if loan.memory is not None:
                    self.lendable = within(self.lendable, loan.memory)
                task_status.started()
                nursery.start_soon(self._watch_end, loan, lose)
                nursery.start_soon(self._watch_replies, loan, lose)
                await self.is_over.wait()
        except PunchError as error:
            if self._loan is None:
                raise
            lose(self, error.message)
        except Exception as error:
            # One lender's bug must not end the splits that have others.
            if self._loan is None:
                raise PunchError(f"borrowing has a bug: {type(error).__name__}") from error
            log.exception("a loan came to a bad end", worker=self.lender.name)
            lose(self, f"a bug in the loan ({type(error).__name__})")
        finally:
            self.is_closed.set()

    async def check(self) -> None:
        """Note if its server is known not to run; before the head is started with it once more."""
        if self.loan.lost.is_set() and not self.is_lost:
            self.is_lost, self.why = True, self.loan.why
        if not self.is_lost and self.fault is not None:
            self.is_lost, self.why = True, self.fault
        if not self.is_lost:
            look, why = await self._look()
            if why is not None or (look is not None and not look.is_alive):
                self.is_lost, self.why = True, why or "its server does not run"
        self._sent_before = self.loan.bytes_up

    async def _watch_end(self, loan: Loan, lose: Callable[[Held, str], None]) -> None:
        await loan.lost.wait()
        lose(self, loan.why)

    async def _watch_replies(self, loan: Loan, lose: Callable[[Held, str], None]) -> None:
        """See that replies come, and while the model is loaded, that it is received."""
        moved, since, before = -1, trio.current_time(), None
        while True:
            await trio.sleep(CHECK_SECONDS)
            now, sent = trio.current_time(), loan.bytes_up
            if sent != moved:
                moved, since = sent, now
            age = loan.oldest_reply_age
            if age is None:
                before = None
                if not (self._is_loading() and now - since >= REPLY_SECONDS):
                    continue
            elif age < REPLY_SECONDS / 2:
                before = None
                continue
            look, why = await self._look()
            if why is None:
                why, before = self._judge(look, before, age)
            if why is not None:
                lose(self, why)
                return
            if age is None:
                since = now  # It runs, and waits for the head.
            await trio.sleep(LOOK_PAUSE_SECONDS)

    async def _look(self) -> tuple[LoanLook | None, str | None]:
        """What its machine says of its server, and why it is lost if that says nothing."""
        try:
            with trio.fail_after(LOOK_SECONDS):
                return await self.loan.look(), None
        except trio.TooSlowError:
            return None, f"its machine says nothing of its server for {LOOK_SECONDS:g} s"
        except PunchError as error:
            return None, f"its machine does not say how its server is: {error.message}"

    def _judge(
        self,
        look: LoanLook | None,
        before: tuple[float, LoanLook] | None,
        age: float | None,
    ) -> tuple[str | None, tuple[float, LoanLook] | None]:
        """Why it is lost by what is seen, if it is, and what is to be compared the next time."""
        now = trio.current_time()
        if look is None:
            if age is not None and age >= BLIND_SECONDS:
                return f"a reply is outstanding for {age:.0f} s", None
            return None, None
        if not look.is_alive:
            return "its server does not run", None
        if age is None:
            return None, None  # It waits for the head, which may have to read from a disk.
        if before is None:
            return None, (now, look)
        began, first = before
        used, seconds = look.cpu_seconds - first.cpu_seconds, now - began
        if used >= TICK_SECONDS:
            return None, (now, look)
        if age < (REPLY_SECONDS if self._computes_itself else QUIET_SECONDS):
            return None, before
        if seconds < IDLE_SECONDS:
            return None, before
        return f"a reply is outstanding for {age:.1f} s, and its server does not compute", None

    @property
    def _computes_itself(self) -> bool:
        """Whether its server's processor time says whether it computes."""
        return all(device.name in ("", "CPU") for device in self.lendable.devices)
