"""At which members a program of a closed namespace meets: few, and not all on one machine."""

from __future__ import annotations

import time
from contextlib import ExitStack

from made_up_members import MadeUpNamespace

from punch.access import Member
from punch.capability import PeerId
from punch.discovery.attendance import MAX_MEETINGS, Attended
from punch.discovery.attendance._members import Rota


async def test_a_machine_with_many_keys_is_not_all_that_is_met() -> None:
    """It has found keys that go before all others by their hash; and it tells what it likes."""
    home = MadeUpNamespace()
    desk = home.admin("desk")
    ours = home.machine("ours", by=desk).membership()
    honest = [home.machine(f"honest{number}", by=desk) for number in range(4)]
    evil = home.machine("evil", by=desk)
    attended = Attended()
    rota = Rota(ours, PeerId("ours"), attended)
    keys = sorted((f"evil{number}" for number in range(300)), key=lambda k: rota._rank(PeerId(k)))
    programs = [home.process(key, on=evil, ends=int(time.time()) + 3600) for key in keys[:8]]
    for member in (*programs, *honest):
        assert isinstance(ours.lock.judge(member.peer_id, member.encoded, time.time()), Member)
        ours.extra_places += (f"/ip4/192.0.2.1/tcp/1/p2p/{member.peer_id}",)
    assert all(rota._rank(each.peer_id) < rota._rank(honest[0].peer_id) for each in programs[:5])
    with ExitStack() as stack:
        met: list[PeerId] = []
        for _ in range(MAX_MEETINGS):
            found = rota.next(0.0)
            assert found is not None
            met.append(found[0])
            stack.enter_context(attended.claimed(found[0]))
        print(f"met at {met}")
        assert {each.peer_id for each in honest} < set(met)
        assert sum(each.startswith("evil") for each in met) == 1
        assert not any(rota.has_better(each, 0.0) for each in met)


async def test_a_second_program_of_a_machine_is_left_for_another_machine() -> None:
    """Once there is one; and programs of one machine are met at while there is no other."""
    home = MadeUpNamespace()
    desk = home.admin("desk")
    ours = home.machine("ours", by=desk).membership()
    evil, other = home.machine("evil", by=desk), home.machine("other", by=desk)
    ends = int(time.time()) + 3600
    programs = [home.process(f"evil{number}", on=evil, ends=ends) for number in range(2)]
    attended = Attended()
    rota = Rota(ours, PeerId("ours"), attended)
    programs.sort(key=lambda each: rota._rank(each.peer_id))
    for member in programs:
        ours.lock.judge(member.peer_id, member.encoded, time.time())
        ours.extra_places += (f"/ip4/192.0.2.1/tcp/1/p2p/{member.peer_id}",)
    with ExitStack() as stack:
        for member in programs:
            found = rota.next(0.0)
            assert found is not None
            assert found[0] == member.peer_id
            stack.enter_context(attended.claimed(found[0]))
        assert not rota.has_better(programs[1].peer_id, 1000.0)
        ours.lock.judge(other.peer_id, other.encoded, time.time())
        ours.extra_places += (f"/ip4/192.0.2.2/tcp/1/p2p/{other.peer_id}",)
        assert rota.has_better(programs[1].peer_id, 1000.0)
        assert not rota.has_better(programs[0].peer_id, 1000.0)
