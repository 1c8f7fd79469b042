"""What dialers are told of a listener and when, at times that the tests make up."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from punch.capability import Capability, Lane, Load, ModelOffer, PeerId
from punch.listener._news import RATES_SECONDS, VECTOR_SECONDS, News
from punch.wire import Advert, Encoded, LoadReport

OFFER = ModelOffer(name="m", id="1", lane="a")
VECTOR = Capability(
    lanes=(Lane(id="a", backend="b", simulated=False, load=Load(slots=4)),), models=(OFFER,)
)
BUSY = VECTOR.with_loads({"a": Load(slots=4, busy=1)})


class Dialer:
    """A session that notes what it is told."""

    peer_id = PeerId("dialer")
    is_own = False

    def __init__(self, minor: int = 1) -> None:
        self.minor = minor
        self.is_behind = False
        self.told: list[Any] = []

    def advertise(self, message: Encoded) -> bool:
        """As a session does it."""
        if not self.is_behind:
            self.told.append(message.message)
        return not self.is_behind


def pushed(
    *changes: tuple[Capability, float], dialers: tuple[Dialer, ...] | None = None
) -> list[type[Any]]:
    """The kinds of message that a dialer gets, after the first vector at 0 s."""
    dialers = dialers or (Dialer(),)
    news: Any = News(7)
    news.push(set(dialers), VECTOR, now=0.0)
    for dialer in dialers:
        dialer.told.clear()
    for capability, now in changes:
        news.push(set(dialers), capability, now=now)
    return [type(message) for message in dialers[0].told]


def test_a_change_of_load_is_a_load_report() -> None:
    """With the loads of all lanes, and a number above all before."""
    dialer = Dialer()
    assert pushed((BUSY, 0.1), (VECTOR, 0.2), dialers=(dialer,)) == [LoadReport, LoadReport]
    assert [report.loads for report in dialer.told] == [
        {"a": Load(slots=4, busy=1)},
        {"a": Load(slots=4)},
    ]
    assert [report.sequence for report in dialer.told] == [2, 3]


@pytest.mark.parametrize(
    "changed",
    [
        attrs.evolve(VECTOR, models=()),
        attrs.evolve(VECTOR, models=(attrs.evolve(OFFER, load_seconds=3.0),)),
        attrs.evolve(VECTOR, lanes=(attrs.evolve(VECTOR.lanes[0], state="resting"),)),
        VECTOR.with_loads({"a": Load(draining=True)}),
    ],
    ids=["model", "loading", "lane", "draining"],
)
def test_what_can_be_asked_is_told_at_once_and_whole(changed: Capability) -> None:
    """Nobody waits for the next vector to hear of a model."""
    assert pushed((changed, 0.1), (changed, 0.2)) == [Advert, LoadReport]


def test_rates_are_told_once_a_second() -> None:
    """They change with every answer."""
    faster = attrs.evolve(VECTOR, models=(attrs.evolve(OFFER, decode_rate=9.0),))
    assert pushed((faster, 0.5), (faster, RATES_SECONDS)) == [LoadReport, Advert]


def test_the_whole_vector_goes_out_now_and_then() -> None:
    """With what only it says of the machine."""
    hotter = attrs.evolve(VECTOR, cpu_usage=0.9)
    assert pushed((hotter, 1.0), (hotter, VECTOR_SECONDS), (hotter, 6.0)) == [
        LoadReport,
        Advert,
        LoadReport,
    ]


def test_a_peer_of_minor_0_gets_whole_vectors() -> None:
    """Whatever has changed, as it always did."""
    assert pushed((BUSY, 0.1), (BUSY, 1.1), dialers=(Dialer(0),)) == [Advert, Advert]


def test_what_many_are_told_is_one_message() -> None:
    """So that it is encoded once."""
    dialers = (Dialer(), Dialer(), Dialer(0), Dialer(0))
    pushed((BUSY, 0.1), dialers=dialers)
    assert dialers[0].told[0] is dialers[1].told[0]
    assert dialers[2].told[0] is dialers[3].told[0]


def test_who_missed_a_vector_gets_the_next_one_whole() -> None:
    """A load report would leave it with models that are gone."""
    behind = Dialer()
    news: Any = News(7)
    news.push({behind}, VECTOR, now=0.0)
    behind.told.clear()
    behind.is_behind = True
    gone = attrs.evolve(VECTOR, models=())
    news.push({behind}, gone, now=0.1)
    behind.is_behind = False
    news.push({behind}, gone, now=0.2)
    news.push({behind}, gone, now=0.3)
    assert [type(message) for message in behind.told] == [Advert, LoadReport]
    news.forget(behind)


def test_a_new_dialer_is_told_everything() -> None:
    """Or with the next push, if it does not read."""
    news: Any = News(7)
    new, deaf = Dialer(), Dialer()
    deaf.is_behind = True
    news.push(set(), VECTOR, now=0.0)
    for dialer in (new, deaf):
        news.greet(dialer, VECTOR)
    deaf.is_behind = False
    news.push({new, deaf}, VECTOR, now=0.1)
    assert [type(message) for message in new.told] == [Advert, LoadReport]
    assert [type(message) for message in deaf.told] == [Advert]
