"""What a machine keeps of other members, and whom the removal of an admin leaves."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from punch.access import Chain, Issuer, Lock, Member, Refusal, encode_chain
from punch.libp2p import load_key, verify
from punch.membership import DiskMembership, create_home, read_members, read_removals, remove_member
from punch.wire import Registration


@pytest.mark.parametrize("keep", [True, False])
async def test_whom_a_removed_admin_let_in_stays_unless_asked(keep: bool, tmp_path: Path) -> None:
    """Known from what each has shown to a program of the machine that removes."""
    now = time.time()
    home = create_home("home", called="attic", now=now, parent=tmp_path / "namespaces")
    root, desk, lamp = (home.root_key(), load_key(tmp_path / "desk"), load_key(tmp_path / "lamp"))
    assert root is not None
    lock = Lock(home.namespace, verify)
    first = Issuer(key=root.peer_id, sign=root.sign).issue(
        lock, desk.peer_id, now=now, kind="admin", scopes={"dial", "listen", "admin"}
    )
    second: Chain = Issuer(key=desk.peer_id, sign=desk.sign, chain=first).issue(
        lock, lamp.peer_id, now=now
    )
    membership = DiskMembership(home, tmp_path / "process")
    for key, chain in ((desk, first), (lamp, second)):
        found = membership.lock.judge(key.peer_id, encode_chain(chain), now)
        assert isinstance(found, Member)
        heard = Registration(
            peer_id=key.peer_id,
            namespace="home",
            roles=frozenset({"listener"}),
            incarnation=1,
            sequence=1,
            lifetime=60.0,
        )
        membership.remember([heard])
    membership.flush()
    assert {desk.peer_id, lamp.peer_id} <= read_members(home.folder).keys()
    remove_member(home, desk.peer_id, keep=keep)
    after = read_removals(home)
    assert isinstance(after.judge(desk.peer_id, encode_chain(first), now), Refusal)
    stays = isinstance(after.judge(lamp.peer_id, encode_chain(second), now), Member)
    assert stays is keep
