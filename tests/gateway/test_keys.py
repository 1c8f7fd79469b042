"""API keys: who gets in, who does not, and what is on the disk."""

from __future__ import annotations

import hashlib
import hmac
import re
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from punch.exceptions import ConfigurationError, ModelForbidden, Unauthorized
from punch.gateway import Key, KeyStore, open_keys
from punch.gateway.keys import _keys
from punch.gateway.keys._database import SCHEMA_VERSION, Database
from punch.gateway.keys._keys import CHECK_SECONDS, base62

NOW = 1_800_000_000.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "punch" / "gateway.sqlite3"


@pytest.fixture
def store(path: Path) -> Iterator[KeyStore]:
    with KeyStore(path, wall=lambda: NOW) as store:
        yield store


async def test_the_secret_that_was_shown_gets_in_as_its_key(store: KeyStore) -> None:
    """With all that was said when it was made."""
    key, secret = store.create(
        "ada", models=["a", "b", "a"], requests_per_minute=3, tokens_per_minute=4, concurrency=5
    )

    assert await store.authenticate(secret) == key
    assert key == Key(
        key_id=key.key_id,
        name="ada",
        models=("a", "b"),
        requests_per_minute=3,
        tokens_per_minute=4,
        concurrency=5,
        created_at=NOW,
    )
    assert re.fullmatch(rf"pk-{key.key_id}-[0-9A-Za-z]{{43}}", secret)


def test_two_keys_share_nothing(store: KeyStore) -> None:
    """Neither the id nor the secret."""
    (one, first), (two, second) = store.create("a"), store.create("a")

    assert one.key_id != two.key_id
    assert first.split("-")[2] != second.split("-")[2]


@pytest.mark.parametrize("length", [0, 1, 10, 43])
def test_base_62_has_the_digits_that_were_asked_for(length: int) -> None:
    """And spells the number, from the left."""
    assert base62((62 + 10).to_bytes(2), 3) == "01A"
    assert len(base62(b"\xff" * 32, length)) == length
    assert base62(b"\xff" * 32, 44).startswith("0")


async def test_whoever_has_no_key_is_refused_and_learns_nothing(store: KeyStore) -> None:
    """Nothing, half of one, another's, one with a letter changed: the same words."""
    key, secret = store.create("ada")
    other, _ = store.create("bob")
    wrong = [
        "x", "-", "pk-", "pk--", f"pk-{key.key_id}", f"pk-{key.key_id}-", f"{secret}x", secret[:-1],
        secret.replace(key.key_id, other.key_id), f"pk-nobody-{secret.split('-')[2]}",
        secret.upper(), f" {secret}", "pk-\udcff-\x00", "é" * 10_000, "\0" * 32,
    ]  # fmt: skip
    said = set()
    for text in wrong:
        with pytest.raises(Unauthorized) as caught:
            await store.authenticate(text)
        said.add(str(caught.value))
    assert said == {"the API key is wrong"}
    for nothing in (None, ""):
        with pytest.raises(Unauthorized, match="an API key is needed"):
            await store.authenticate(nothing)


async def test_an_unknown_id_is_compared_like_a_known_one(
    store: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the time it takes says nothing."""
    _, secret = store.create("ada")
    compared: list[tuple[int, int]] = []
    real = hmac.compare_digest

    def compare(a: bytes, b: bytes) -> bool:
        compared.append((len(a), len(b)))
        return real(a, b)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    for text in (secret, f"{secret}x", "pk-nobody-x", "x"):
        with suppress(Unauthorized):
            await store.authenticate(text)
    assert compared == [(32, 32)] * 4


async def test_a_key_is_good_until_its_last_moment(path: Path) -> None:
    """And only the right secret is told that it has expired."""
    now = NOW
    with KeyStore(path, wall=lambda: now) as store:
        key, secret = store.create("ada", expires_at=NOW + 60)
        now = NOW + 59.9
        assert await store.authenticate(secret) == key
        now = NOW + 60
        with pytest.raises(Unauthorized, match=f"{key.key_id} has expired"):
            await store.authenticate(secret)
        with pytest.raises(Unauthorized, match="is wrong"):
            await store.authenticate(f"{secret}x")
        assert (key.state(NOW), key.state(now)) == ("active", "expired")


async def test_a_key_that_another_process_revokes_is_refused_within_a_second(
    path: Path, autojump_clock: MockClock
) -> None:
    """And one that it makes is taken; a gateway looks at most every 250 ms."""
    async with open_keys(path) as store:
        with KeyStore(path) as other:
            key, secret = other.create("ada")
            await trio.sleep(CHECK_SECONDS)
            assert await store.authenticate(secret) == key
            other.revoke(key.key_id)
        await trio.sleep(CHECK_SECONDS)
        with pytest.raises(Unauthorized, match="was revoked"):
            await store.authenticate(secret)


async def test_the_file_is_looked_at_once_for_many_requests(
    path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many come at the same moment."""
    async with open_keys(path) as store:
        _, secret = store.create("ada")
        looks = 0
        real = store._look

        def look() -> None:
            nonlocal looks
            looks += 1
            real()

        monkeypatch.setattr(store, "_look", look)
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(store.authenticate, secret)
        await store.authenticate(secret)
        assert looks == 1
        await trio.sleep(CHECK_SECONDS)
        await store.authenticate(secret)
        assert looks == 2


async def test_usage_of_another_gateway_does_not_read_the_keys_again(
    path: Path, autojump_clock: MockClock
) -> None:
    """It is written every second."""
    async with open_keys(path) as store:
        _, secret = store.create("ada")
        before = store._known
        other = Database(path)
        other.write(
            lambda execute: execute("INSERT INTO usage VALUES ('x', '2030-01-01', 1,1,1,1)")
        )
        other.close()
        await trio.sleep(CHECK_SECONDS)
        await store.authenticate(secret)
        assert store._known is before


async def test_a_file_that_was_removed_lets_nobody_in(
    path: Path, autojump_clock: MockClock
) -> None:
    """Nor does one that was put in its place let in others than its own keys."""
    async with open_keys(path) as store:
        key, secret = store.create("ada")
        saved = path.with_name("saved")
        with KeyStore(saved) as elsewhere:
            other, second = elsewhere.create("bob")
        for file in path.parent.glob(f"{path.name}*"):
            file.unlink()
        await trio.sleep(CHECK_SECONDS)
        with pytest.raises(Unauthorized):
            await store.authenticate(secret)
        assert store.list() == ()
        for file in path.parent.glob(f"{path.name}*"):
            file.unlink()
        saved.rename(path)
        await trio.sleep(CHECK_SECONDS)
        assert await store.authenticate(second) == other
        with pytest.raises(Unauthorized):
            await store.authenticate(secret)
        assert key.key_id != other.key_id


async def test_a_disk_that_fails_locks_nobody_out(
    path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was good a moment ago still is."""
    async with open_keys(path) as store:
        key, secret = store.create("ada")

        def fail() -> None:
            raise ConfigurationError("the disk is gone")

        monkeypatch.setattr(store, "_look", fail)
        await trio.sleep(CHECK_SECONDS)
        assert await store.authenticate(secret) == key


async def test_a_warm_look_up_takes_microseconds(store: KeyStore) -> None:
    """Every request pays for it: a hundredth of the gateway's own time."""
    for number in range(200):
        store.create(f"key {number}")
    _, secret = store.create("ada")
    await store.authenticate(secret)
    best = float("inf")
    for _ in range(20):
        began = time.perf_counter()
        for _ in range(100):
            await store.authenticate(secret)
        best = min(best, (time.perf_counter() - began) / 100)
    assert best < 20e-6


def test_no_secret_is_on_the_disk_and_only_its_owner_reads_the_file(
    store: KeyStore, path: Path
) -> None:
    """A copy of the file opens nothing."""
    _, secret = store.create("ada")
    files = list(path.parent.iterdir())
    data = b"".join(file.read_bytes() for file in files)

    assert secret.encode() not in data
    assert secret.split("-")[2].encode() not in data
    assert hashlib.sha256(secret.encode()).digest() in data
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_file_that_others_could_read_is_closed_to_them(path: Path) -> None:
    """Whoever made it."""
    KeyStore(path).close()
    path.chmod(0o644)
    KeyStore(path).close()

    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_opening_the_file_again_drops_none_of_its_locks(path: Path) -> None:
    """Else the next program that ends takes the journal from under a running gateway.

    https://www.sqlite.org/howtocorrupt.html, section 2.2. Only another process sees the locks.
    """
    program = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute({!r}); c.close()"
    look = [sys.executable, "-c", program.format("SELECT * FROM keys"), str(path)]
    with KeyStore(path) as store:
        store.create("ada")
        KeyStore(path).close()
        subprocess.run(look, check=True, timeout=30)
        assert sorted(file.name for file in path.parent.iterdir()) == [
            path.name,
            f"{path.name}-shm",
            f"{path.name}-wal",
        ]


def test_a_file_may_be_a_link_to_one_that_is_not_there_yet(tmp_path: Path) -> None:
    """It is made where the link says."""
    link, path = tmp_path / "link", tmp_path / "elsewhere" / "keys"
    link.symlink_to(path)
    KeyStore(link).close()

    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_keys_are_listed_in_the_order_they_were_made(path: Path) -> None:
    """The revoked ones too, again after a restart."""
    now = NOW
    with KeyStore(path, wall=lambda: now) as store:
        one, _ = store.create("one")
        now += 1
        store.create("two")
        assert store.revoke(one.key_id).revoked_at == now
        now += 1
        assert store.revoke(one.key_id).revoked_at == NOW + 1
    with KeyStore(path) as again:
        assert [key.name for key in again.list()] == ["one", "two"]
        assert [key.revoked_at for key in again.list()] == [NOW + 1, None]


def test_a_full_file_forgets_the_key_that_was_revoked_first(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And takes no more if all of them are good."""
    monkeypatch.setattr(_keys, "MAX_KEYS", 3)
    now = NOW
    with KeyStore(path, wall=lambda: now) as store:
        made = [store.create(f"{number}")[0] for number in range(3)]
        with pytest.raises(ConfigurationError, match="has 3 API keys and takes no more"):
            store.create("3")
        store.revoke(made[2].key_id)
        now += 1
        store.revoke(made[0].key_id)
        store.create("3")
        assert sorted(key.name for key in store.list()) == ["0", "1", "3"]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"name": ""}, "the name is ''"),
        ({"name": "a\nb"}, "the name is"),
        ({"name": "x" * 201}, "1 to 200 printable"),
        ({"name": "a", "models": ["\x1b[2J"]}, "the model is"),
        ({"name": "a", "models": [f"{n}" for n in range(257)]}, "257 models are too many"),
        ({"name": "a", "concurrency": 0}, "concurrency is 0: it must be 1 or more"),
        ({"name": "a", "tokens_per_minute": 2**63}, "tokens_per_minute is"),
        ({"name": "a", "expires_at": NOW - 1}, "would expire before it is made"),
        ({"name": "a", "expires_at": float("nan")}, "would expire before it is made"),
    ],
)
def test_a_key_that_makes_no_sense_is_not_made(
    store: KeyStore, values: dict[str, Any], words: str
) -> None:
    """The text names the value and the rule."""
    with pytest.raises(ConfigurationError, match=re.escape(words)):
        store.create(**values)
    assert store.list() == ()


def test_nobody_revokes_a_key_that_is_not_there(store: KeyStore) -> None:
    """A slip of the finger does not look like a success."""
    with pytest.raises(ConfigurationError, match="there is no API key 'nix'"):
        store.revoke("nix")


def test_a_key_may_use_its_models_and_any_only_if_that_is_one() -> None:
    """Else the router could choose one that it may not."""
    free = Key(key_id="x", name="x")
    one = Key(key_id="x", name="x", models=("a",))
    two = Key(key_id="x", name="x", models=("a", "b"))

    assert [free.model_for(None), free.model_for("z")] == [None, "z"]
    assert [one.model_for(None), one.model_for("a")] == ["a", "a"]
    assert [two.may_use("b"), two.may_use("z"), free.may_use("z")] == [True, False, True]
    for key, asked, words in (
        (one, "z", "the model 'z'; it may use a"),
        (two, None, "any model; it may use a, b"),
    ):
        with pytest.raises(ModelForbidden, match=words):
            key.model_for(asked)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.write_bytes(b"no database " * 100), "file is not a database"),
        (lambda path: path.mkdir(), "Is a directory"),
        (lambda path: _other_program(path), "is the database of another program"),
        (lambda path: _later_version(path), f"schema {SCHEMA_VERSION + 1}"),
    ],
)
def test_a_file_that_is_not_ours_is_refused_and_left_alone(
    tmp_path: Path, make: Any, words: str
) -> None:
    """The text names it and the remedy."""
    path = tmp_path / "x"
    make(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(ConfigurationError, match=re.escape(words)) as caught:
        KeyStore(path)
    assert str(path) in str(caught.value)
    assert (path.read_bytes() if path.is_file() else None) == before


def _other_program(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE bookmarks (url TEXT)")
    connection.close()


def _later_version(path: Path) -> None:
    KeyStore(path).close()
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()


async def test_many_can_open_a_new_file_at_once(path: Path) -> None:
    """Whoever is first makes the tables."""

    def make() -> None:
        with KeyStore(path) as store:
            store.create("ada")

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(trio.to_thread.run_sync, make)
    with KeyStore(path) as store:
        assert len(store.list()) == 8
