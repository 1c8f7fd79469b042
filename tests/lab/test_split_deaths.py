"""Workers of a split whose machine is cut off, at every stage: by the cable, or by a firewall."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from integration.lost_workers import STAGES, Harm, Home, lose
from integration.programs import limit
from lab.machines import Machine, open_lab

pytestmark = pytest.mark.long

# Apart from the numbers of the other laboratories of one run.
NUMBER = 900


@pytest.fixture(scope="module")
def home(
    laboratory: None,
    llama_cpp_folder: Path,
    model_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Home]:
    """A coordinator and two workers, on a machine each."""
    with open_lab(tmp_path_factory.mktemp("deaths"), NUMBER) as lab:
        first, *places = [lab.machine(name) for name in ("first", "a", "b")]
        opened = Home(head=first, places=places, engine=llama_cpp_folder, model=model_path)
        opened.open()
        yield opened


def machine_of(home: Home, victim: int) -> Machine:
    """Where a worker runs."""
    place = home.places[victim]
    assert isinstance(place, Machine)
    return place


def unplug(home: Home, victim: int) -> None:
    """Pull its cable."""
    machine_of(home, victim).link("eth0", "down")


def drop(home: Home, victim: int) -> None:
    """Have a firewall drop each packet to it, of whatever connection."""
    machine_of(home, victim).silence()


CUTS: dict[str, Harm] = {"cable": unplug, "firewall": drop}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.parametrize("cut", CUTS)
@limit(240)
def test_a_request_outlives_a_worker_that_is_cut_off(
    cut: str, victim: int, stage: str, home: Home
) -> None:
    """It is answered, nothing is left running, and the next request works."""
    try:
        lose(home, CUTS[cut], victim, stage)
    finally:
        machine = machine_of(home, victim)
        machine.open()
        machine.link("eth0", "up")
        home.revive()


@limit(240)
def test_a_worker_that_is_cut_off_ends_its_server_by_itself(home: Home) -> None:
    """Nobody can tell it that its lease has ended; the lease has its time, and the tunnel its own.

    The coordinator, in the middle of an answer, is told by nobody either.
    """
    try:
        with home.coordinator() as coordinator:
            coordinator.wait_for("listening")
            unplug(home, 1)
            coordinator.wait_for("a worker is lost")
            home.until_idle(1)
    finally:
        machine_of(home, 1).link("eth0", "up")
        home.revive()
