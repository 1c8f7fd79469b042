"""Closed namespaces on disk: creating, choosing by name, the root key, the chain of a process."""

from __future__ import annotations

import json
import multiprocessing
import stat
import time
from pathlib import Path

import pytest
import trio

from punch.access import ROOT_GRANT_SECONDS, SCOPES, Lock, Member, decode_chain, remove, renew_at
from punch.exceptions import ConfigurationError, NotPermitted
from punch.libp2p import load_key, verify
from punch.membership import (
    DiskMembership,
    Home,
    create_home,
    export_root,
    find_home,
    homes,
    import_root,
    open_membership,
)
from punch.membership._folder import Folder
from punch.membership._home import (
    MACHINE_KEY,
    ROOT_KEY,
    add_revocations,
    leave_home,
    read_revocations,
    renewed_by_root,
)

NOW = 1_800_000_000.0
HOUR = 3600.0


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return create_home("home", called="attic", now=NOW, parent=tmp_path)


def test_a_new_namespace_has_its_maker_as_an_admin_with_all_scopes(
    home: Home, tmp_path: Path
) -> None:
    """And is found again, under its name and fingerprint."""
    grant = home.grant
    assert (grant.kind, grant.scopes, grant.subject) == ("admin", SCOPES, home.machine)
    assert grant.ends == int(NOW) + ROOT_GRANT_SECONDS
    assert homes(tmp_path) == (home,)
    assert home.folder.path.name == f"home@{home.namespace.fingerprint}"
    lock = Lock(home.namespace, verify)
    member = lock.judge(home.machine, home.folder.read("chain"), NOW)
    assert isinstance(member, Member)
    assert member.is_admin


def test_no_one_else_reads_the_keys(home: Home) -> None:
    """Neither the files nor the folder."""
    for name in (MACHINE_KEY, ROOT_KEY, "chain", "namespace.json"):
        assert stat.S_IMODE((home.folder / name).stat().st_mode) == 0o600
    assert stat.S_IMODE(home.folder.path.stat().st_mode) == 0o700


def test_a_second_one_of_the_same_name_is_refused(home: Home, tmp_path: Path) -> None:
    """Its maker is in the first one."""
    with pytest.raises(ConfigurationError, match="already"):
        create_home("home", called="", now=NOW, parent=tmp_path)


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "a@b", "x" * 65, "a\nb", " a"])
def test_a_name_that_is_no_folder_is_refused(name: str, tmp_path: Path) -> None:
    """And nothing is left on disk."""
    with pytest.raises(ConfigurationError):
        create_home(name, called="", now=NOW, parent=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_name_means_the_closed_namespace_of_that_name(home: Home, tmp_path: Path) -> None:
    """With the fingerprint, without it, and without a word if there is one only."""
    full = str(home.namespace)
    assert find_home("home", tmp_path) == home
    assert find_home(full, tmp_path) == home
    assert find_home(full.upper().replace("HOME", "home"), tmp_path) == home
    assert find_home(None, tmp_path) == home


def test_another_name_means_an_open_namespace(home: Home, tmp_path: Path) -> None:
    """As does one with ``@open``, whatever is joined."""
    assert find_home("other", tmp_path) is None
    assert find_home("home@open", tmp_path) is None
    assert find_home(None, tmp_path / "empty") is None


def test_nothing_leads_from_a_closed_namespace_to_an_open_one_silently(
    home: Home, tmp_path: Path
) -> None:
    """Neither a wrong fingerprint nor a choice among several."""
    with pytest.raises(ConfigurationError, match="no member of home@aaaaaaaa"):
        find_home("home@aaaaaaaa", tmp_path)
    other = create_home("other", called="", now=NOW, parent=tmp_path)
    with pytest.raises(ConfigurationError, match="several"):
        find_home(None, tmp_path)
    elsewhere = create_home("home", called="", now=NOW, parent=tmp_path / "elsewhere")
    elsewhere.folder.path.rename(tmp_path / elsewhere.folder.path.name)
    with pytest.raises(ConfigurationError, match="several"):
        find_home("home", tmp_path)
    assert find_home("other", tmp_path) == other
    found = find_home(str(elsewhere.namespace), tmp_path)
    assert found is not None
    assert found.namespace == elsewhere.namespace


def test_the_root_key_goes_away_and_comes_back(home: Home, tmp_path: Path) -> None:
    """Another key does not, and no file is overwritten."""
    drawer = tmp_path / "drawer.key"
    export_root(home, drawer, keeps=False)
    assert home.root_key() is None
    assert stat.S_IMODE(drawer.stat().st_mode) == 0o600
    with pytest.raises(ConfigurationError, match="not on this machine"):
        export_root(home, tmp_path / "again.key", keeps=False)
    load_key(tmp_path / "wrong.key")
    with pytest.raises(ConfigurationError, match="another key"):
        import_root(home, tmp_path / "wrong.key")
    with pytest.raises(ConfigurationError, match="there is no file"):
        import_root(home, tmp_path / "nothing")
    import_root(home, drawer)
    key = home.root_key()
    assert key is not None
    assert key.peer_id == home.namespace.root
    with pytest.raises(ConfigurationError, match="there is a file"):
        export_root(home, drawer, keeps=True)


def test_leaving_takes_all_of_it_away(home: Home, tmp_path: Path) -> None:
    """The keys first of all."""
    leave_home(home)
    assert homes(tmp_path) == ()
    assert not list(tmp_path.rglob("*.key"))


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"name": 1}', b"\xff", b'{"name": "home"}'])
def test_a_damaged_file_is_told_and_never_an_open_namespace(
    damage: bytes, home: Home, tmp_path: Path
) -> None:
    """The text names it."""
    home.folder.write("namespace.json", damage)
    with pytest.raises(ConfigurationError, match="damaged"):
        find_home("home", tmp_path)


def test_each_process_has_a_grant_of_its_own_for_a_day(home: Home, tmp_path: Path) -> None:
    """Signed by the machine's key, and made anew when half of it is over."""
    now = [NOW]
    membership = DiskMembership(home, tmp_path / "process.key", now=lambda: now[0])
    first = membership.chain()
    link = decode_chain(first)[-1].grant
    assert (link.kind, link.subject, link.issuer) == ("process", membership.process, home.machine)
    assert link.ends == NOW + 24 * HOUR
    told = []
    with membership.watch(lambda: told.append(membership.chain())):
        now[0] += 11 * HOUR
        membership.look()
        assert told == []
        now[0] += 2 * HOUR
        membership.look()
    assert told == [membership.chain()]
    assert membership.chain() != first
    assert isinstance(membership.lock.judge(membership.process, membership.chain(), now[0]), Member)


def test_no_process_outlives_its_machines_grant(home: Home, tmp_path: Path) -> None:
    """The end of the last one is the machine's; and then nothing is let in."""
    now = [home.grant.ends - 60.0]
    membership = DiskMembership(home, tmp_path / "process.key", now=lambda: now[0])
    assert decode_chain(membership.chain())[-1].grant.ends == home.grant.ends
    membership.look()
    now[0] += 3600
    with pytest.raises(NotPermitted, match="punch join"):
        membership.check()


async def test_what_another_process_writes_is_seen_at_once(tmp_path: Path) -> None:
    """Here a grant that the root has renewed, which it does in the last month only."""
    now = time.time()
    home = create_home("old", called="attic", now=now - ROOT_GRANT_SECONDS + 1e6, parent=tmp_path)
    before = home.grant
    due = renew_at(before)
    assert due is not None
    assert not renewed_by_root(home, now=due - 1)
    # Where the root's key is, a program that starts renews by itself.
    export_root(home, tmp_path / "root.key", keeps=False)
    async with open_membership("old", identity=tmp_path / "one.key", folder=tmp_path) as one:
        changed = trio.Event()
        with one.watch(changed.set), trio.fail_after(5):
            import_root(home, tmp_path / "root.key")
            assert renewed_by_root(home, now=now)
            await changed.wait()
        assert decode_chain(one.chain())[:-1] == home.chain()
        assert one.grant.ends > before.ends


async def test_a_removal_by_another_process_is_known_at_once(tmp_path: Path) -> None:
    """And kept for the next start, whoever of the two has heard of it."""
    home = create_home("home", called="attic", now=time.time(), parent=tmp_path)
    removed = load_key(tmp_path / "removed.key").peer_id
    async with open_membership("home", identity=tmp_path / "one.key", folder=tmp_path) as one:
        changed = trio.Event()
        with one.watch(changed.set), trio.fail_after(5):
            lock = Lock(home.namespace, verify)
            word = remove(
                lock, removed, issuer=home.machine, sign=home.key().sign, chain=home.chain()
            )
            add_revocations(home, [word, b"no revocation"])
            await changed.wait()
        assert one.lock.removed_up_to(removed) == 1
        left = remove(
            lock, home.machine, issuer=home.machine, sign=home.key().sign, chain=home.chain()
        )
        one.add_revocations([left])
    assert set(read_revocations(home)) == {word, left}
    with pytest.raises(NotPermitted, match="punch join"):
        DiskMembership(home, tmp_path / "one.key").check()


async def test_who_is_no_member_is_told_what_to_do(tmp_path: Path) -> None:
    """Nothing is opened, and nothing becomes an open namespace."""
    with pytest.raises(ConfigurationError, match="punch join"):
        async with open_membership("home", identity=tmp_path / "k", folder=tmp_path):
            raise AssertionError


def _add(path: str, name: str) -> None:
    folder = Folder(Path(path))
    for _ in range(50):
        with folder.locked():
            found = json.loads(folder.read("n") or b"0")
            folder.write("n", json.dumps(found + 1).encode())
    del name


def test_two_processes_that_change_a_file_both_count(tmp_path: Path) -> None:
    """Under the folder's lock."""
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_add, args=(str(tmp_path), name)) for name in "ab"]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert json.loads((tmp_path / "n").read_bytes()) == 100
    assert not [path for path in tmp_path.iterdir() if path.name not in {"n", ".lock"}]
