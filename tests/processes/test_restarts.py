"""When a crashed program is started again, as a plain function of time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from punch.processes import Restarts
from punch.processes._restarts import (
    HEALTHY_SECONDS,
    MAX_CRASHES_IN_A_ROW,
    MAX_LOOP_PAUSE_SECONDS,
    MAX_PAUSE_SECONDS,
    MIN_LOOP_PAUSE_SECONDS,
)


def test_pauses_double_until_it_is_a_loop() -> None:
    """Half a second, one, two, four; then the loop is called a loop, and tried ever more rarely."""
    restarts = Restarts()
    assert [restarts.crashed(t) for t in range(4)] == [0.5, 1.0, 2.0, 4.0]
    assert not restarts.is_loop
    assert [restarts.crashed(t) for t in range(6)] == [60.0, 120.0, 240.0, 480.0, 600.0, 600.0]
    assert restarts.is_loop


def test_what_a_program_died_of_may_pass() -> None:
    """It answers a request, and all is forgiven."""
    restarts = Restarts()
    for t in range(20):
        restarts.crashed(t)
    restarts.served()
    assert not restarts.is_loop
    assert restarts.crashed(20) == 0.5


def test_an_answer_forgives_earlier_crashes() -> None:
    """A program that serves and crashes is of more use than one that is down."""
    restarts = Restarts()
    for t in range(20):
        restarts.served()
        assert restarts.crashed(t) == 0.5


def test_a_minute_of_health_forgives_earlier_crashes() -> None:
    """One crash a day is no loop, also if nobody asks anything."""
    restarts = Restarts()
    for day in range(10):
        restarts.is_ready(day * 1000.0)
        assert restarts.crashed(day * 1000.0 + HEALTHY_SECONDS) == 0.5


def test_being_ready_for_a_moment_forgives_nothing() -> None:
    """Loading the model and dying is a loop, however long the loading takes."""
    restarts = Restarts()
    pauses = []
    for t in range(5):
        restarts.is_ready(t * 1000.0)
        pauses.append(restarts.crashed(t * 1000.0 + 1))
    assert restarts.is_loop
    assert pauses[-1] == MIN_LOOP_PAUSE_SECONDS


def test_a_program_that_we_kill_is_in_no_loop() -> None:
    """Requests made it hang; else anybody could take it away with five of them."""
    restarts = Restarts()
    pauses = [restarts.killed() for _ in range(3000)]
    assert pauses[:4] == [0.5, 1.0, 2.0, 4.0]
    assert pauses[-1] == MAX_PAUSE_SECONDS
    restarts.served()
    assert restarts.killed() == 0.5
    assert restarts.crashed(0.0) == 0.5


@given(st.lists(st.sampled_from(["ready", "served", "crashed"]), max_size=40))
def test_it_is_a_loop_only_after_a_row_of_crashes(history: list[str]) -> None:
    """Every pause is bounded, and a loop takes five crashes without use in between."""
    restarts = Restarts()
    row, now = 0, 0.0
    for what in history:
        now += 1.0
        if what == "ready":
            restarts.is_ready(now)
        elif what == "served":
            restarts.served()
            row = 0
        else:
            row += 1
            pause = restarts.crashed(now)
            assert restarts.is_loop == (row >= MAX_CRASHES_IN_A_ROW)
            most = MAX_LOOP_PAUSE_SECONDS if restarts.is_loop else MAX_PAUSE_SECONDS
            assert 0 < pause <= most
