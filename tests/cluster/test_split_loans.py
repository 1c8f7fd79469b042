"""When a worker is lost: by its tunnel, and by replies that do not come. In virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from punch.cluster.coordinator import Lendable, LentDevice, LoanLook
from punch.cluster.coordinator import _held as held_module
from punch.cluster.coordinator._held import Held
from punch.cluster.coordinator._surveys import devices_of
from punch.exceptions import BackendError, PeerUnreachable
from punch.llama_cpp import RpcVersion
from punch.placement import Link

LENDABLE = Lendable(
    devices=(LentDevice(name="CPU", memory=1, bandwidth=1.0, compute=1.0),),
    version=RpcVersion(7, 0, 0),
    link=Link(rtt=0.001, rate=1e9),
)


class FakeLoan:
    """A loan that does what a test says."""

    endpoint = "127.0.0.1:1"
    devices = 1
    link = None
    is_own = True

    def __init__(self) -> None:
        self.lost = trio.Event()
        self.why = ""
        self.bytes_up = 0
        self.memory: int | None = None
        self.fault: str | None = None
        self.waits_since: float | None = None
        self.computes = 0.0
        """Share of a processor that its server uses."""
        self.is_alive = True
        self.is_blind = self.is_mute = False
        self.error: Exception | None = None
        self.looks = 0

    @property
    def oldest_reply_age(self) -> float | None:
        return None if self.waits_since is None else trio.current_time() - self.waits_since

    async def look(self) -> LoanLook | None:
        self.looks += 1
        if self.is_mute:
            await trio.sleep_forever()
        if self.error is not None:
            raise self.error
        if self.is_blind:
            return None
        return LoanLook(cpu_seconds=self.computes * trio.current_time(), is_alive=self.is_alive)


class FakeLender:
    """Lends one loan."""

    name = "anna"

    def __init__(self, loan: FakeLoan, *, refuses: bool = False) -> None:
        self.loan = loan
        self.refuses = refuses
        self.returned = 0

    async def survey(self) -> Lendable:
        return LENDABLE

    @asynccontextmanager
    async def take(self) -> AsyncIterator[FakeLoan]:
        if self.refuses:
            raise BackendError("it lends to somebody else")
        try:
            yield self.loan
        finally:
            self.returned += 1


async def lost_after(
    loan: FakeLoan, *, seconds: float = 100.0, is_loading: bool = False, gpu: bool = False
) -> tuple[float, str] | None:
    """After how long the loan is lost, and why; `None` if it is not."""
    devices = (LentDevice(name="CUDA0" if gpu else "CPU", memory=1, bandwidth=1.0, compute=1.0),)
    lendable = Lendable(devices=devices, version=LENDABLE.version, link=LENDABLE.link)
    lender = FakeLender(loan)
    held = Held(lender, lendable, devices_of("anna", lendable), is_loading=lambda: is_loading)
    found: list[tuple[float, str]] = []
    began = trio.current_time()

    def lose(lost: Held, why: str) -> None:
        found.append((trio.current_time() - began, why))
        lost.is_over.set()

    async with trio.open_nursery() as nursery:
        await nursery.start(held.run, lose)
        with trio.move_on_after(seconds):
            await held.is_over.wait()
        held.is_over.set()
    assert lender.returned == 1
    assert held.is_closed.is_set()
    return found[0] if found else None


async def test_a_loan_that_ends_is_lost_at_once(autojump_clock: MockClock) -> None:
    """By whatever the tunnel or the lease says."""
    loan = FakeLoan()
    loan.why = "the tunnel ended"
    loan.lost.set()
    assert await lost_after(loan) == (0.0, "the tunnel ended")


async def test_a_server_that_was_stopped_is_lost_when_a_reply_is_due(
    autojump_clock: MockClock,
) -> None:
    """Its machine says so, and nobody waits for the whole patience."""
    loan = FakeLoan()
    loan.waits_since, loan.is_alive = 0.0, False
    found = await lost_after(loan)
    assert found is not None
    assert found[0] < 1.5
    assert "does not run" in found[1]


async def test_a_server_that_does_not_compute_is_lost(autojump_clock: MockClock) -> None:
    """After a little more than two seconds without a reply."""
    loan = FakeLoan()
    loan.waits_since = 0.0
    found = await lost_after(loan)
    assert found is not None
    assert 2.0 <= found[0] <= 4.5
    assert "does not compute" in found[1]


async def test_a_server_that_computes_is_waited_for(autojump_clock: MockClock) -> None:
    """However long: a prompt takes its time on a machine that has much else to do."""
    loan = FakeLoan()
    loan.waits_since, loan.computes = 0.0, 0.02
    assert await lost_after(loan, seconds=300.0) is None
    # And a worker takes eight questions a second at most.
    assert loan.looks < 300.0 * 2


async def test_a_device_that_computes_unseen_gets_more_time(autojump_clock: MockClock) -> None:
    """The time of a graphics card is not in the process's."""
    loan = FakeLoan()
    loan.waits_since = 0.0
    found = await lost_after(loan, gpu=True)
    assert found is not None
    assert 10.0 <= found[0] <= 12.0


async def test_a_machine_that_says_nothing_of_its_server_is_lost(
    autojump_clock: MockClock,
) -> None:
    """Whether it is mute or cannot be reached."""
    mute, away = FakeLoan(), FakeLoan()
    mute.waits_since, mute.is_mute = 0.0, True
    found = await lost_after(mute)
    assert found is not None
    assert found[0] <= 1.0 + held_module.LOOK_SECONDS + 0.5
    away.waits_since, away.error = trio.current_time(), PeerUnreachable("the session ended")
    found = await lost_after(away)
    assert found is not None
    assert "the session ended" in found[1]


async def test_where_nobody_can_look_only_long_silence_counts(autojump_clock: MockClock) -> None:
    """A server of another user, say."""
    loan = FakeLoan()
    loan.waits_since, loan.is_blind = 0.0, True
    found = await lost_after(loan)
    assert found is not None
    assert 30.0 <= found[0] <= 31.5


async def test_a_stopped_server_is_found_while_the_model_is_loaded(
    autojump_clock: MockClock,
) -> None:
    """No reply is due then: the head cannot send on."""
    loan = FakeLoan()
    loan.is_alive = False
    found = await lost_after(loan, is_loading=True)
    assert found is not None
    assert found[0] <= 3.0
    assert await lost_after(loan, is_loading=False) is None


async def test_a_head_that_reads_from_a_slow_disk_loses_nobody(
    autojump_clock: MockClock,
) -> None:
    """The worker runs, and waits as we do."""
    assert await lost_after(FakeLoan(), is_loading=True, seconds=300.0) is None


async def test_who_does_not_lend_is_heard(autojump_clock: MockClock) -> None:
    """The words are those of the lender."""
    held = Held(
        FakeLender(FakeLoan(), refuses=True),
        LENDABLE,
        devices_of("anna", LENDABLE),
        is_loading=lambda: False,
    )
    async with trio.open_nursery() as nursery:
        with pytest.raises(BackendError, match="it lends to somebody else"):
            await nursery.start(held.run, lambda lost, why: None)
