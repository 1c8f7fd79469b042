"""A closed namespace on real nodes, with real keys."""

from __future__ import annotations

from pathlib import Path

import trio
from answers import text_of
from made_up_members import FakeMembership, MadeUpMember, MadeUpNamespace, RealKeys

from punch import open_listener, open_router
from punch.backends import MockBackend, MockScript
from punch.libp2p import _identity


async def test_members_meet_at_each_other_and_a_removed_one_is_out(tmp_path: Path) -> None:
    """Three machines without a bootstrap; the removal is told over the session."""
    keys = RealKeys()
    home = MadeUpNamespace("home", keys=keys)
    desk = home.admin("desk")

    def member(name: str) -> tuple[MadeUpMember, FakeMembership]:
        found = home.machine(keys.adopt(_identity.load_or_create(tmp_path / name)), by=desk)
        return found, found.membership()

    (_, ours), (out, theirs), (_, asker) = member("a"), member("b"), member("c")
    with trio.fail_after(30):
        async with open_listener(
            MockBackend(MockScript()),
            bootstrap=None,
            namespace="home",
            identity=tmp_path / "a",
            membership=ours,
            calibrate=False,
        ) as first:
            theirs.extra_places = first.addresses
            async with open_listener(
                MockBackend(MockScript()),
                bootstrap=None,
                namespace="home",
                identity=tmp_path / "b",
                membership=theirs,
                calibrate=False,
            ) as second:
                asker.extra_places = second.addresses
                async with open_router(
                    bootstrap=None, namespace="home", identity=tmp_path / "c", membership=asker
                ) as router:
                    await router.wait_for_peers(lambda found: len(found) == 2)
                    assert text_of(await router.ask("hello"))
                    ours.add_revocations([home.remove(out, by=desk)])
                    with trio.fail_after(2):
                        while len(router.peers) == 2:
                            await trio.sleep(0.01)
                    assert [peer.peer_id for peer in router.peers] == [first.peer_id]
                    while second.trouble is None:
                        await trio.sleep(0.05)
                    assert "removed" in str(second.trouble)
