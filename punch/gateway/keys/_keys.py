"""API keys: makes, lists and revokes them, and decides for every request whether its key is good.

A secret is ``pk-ID-RANDOM``: its public id, and 256 bits that nobody can guess. The file has its
SHA-256 only. A slow hash (scrypt, argon2) protects what people choose, by making each guess
dear; among 2**256 equally likely values there is nothing to guess, and every request would pay.

* A secret is shown once, when its key is made, and is in no file and no log.
* Looking up costs microseconds: the keys are in memory. At most every 250 ms the first request
  looks whether another process has changed the file, in a thread.
* A caller without a key learns nothing from how long the answer takes: an unknown id is compared
  like a known one, and only the right secret is told that its key has expired or was revoked.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import string
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import attrs
import trio

from ..._logs import get_logger
from ...exceptions import ConfigurationError, ModelForbidden, Unauthorized
from ._database import Database, Execute

log = get_logger(__name__)

# Keys in a file, the revoked ones included: the gateway has all of them in memory.
MAX_KEYS = 4096

# Models that a key may be limited to, and the longest of their names and of its own.
MAX_MODELS = 256
MAX_NAME_CHARACTERS = 200

# How long a change by another process may go unseen, in seconds.
CHECK_SECONDS = 0.25

# 62**10 ids: they are public, and only have to differ.
ID_LENGTH = 10

SECRET_BYTES = 32

# Characters of a given secret that are hashed: a header of megabytes must not cost more.
MAX_SECRET_CHARACTERS = 256

_DIGITS = string.digits + string.ascii_uppercase + string.ascii_lowercase
# What 32 bytes take in base 62.
_SECRET_DIGITS = 43

# The version of a file that was not read yet.
_NEVER = (0, -1)

# What an unknown id is compared with: no secret has it.
_NO_DIGEST = b"\0" * 32


@attrs.frozen(kw_only=True)
class Key:
    """An API key, without its secret."""

    key_id: str
    """The public id, by which the key is logged, listed and revoked."""

    name: str
    """What its owner calls the key."""

    models: tuple[str, ...] = ()
    """Models that it may use; empty for all."""

    requests_per_minute: int | None = None
    """Requests it may send in a minute; `None` for no limit."""

    tokens_per_minute: int | None = None
    """Tokens, of prompts and answers, that it may use in a minute; `None` for no limit."""

    concurrency: int | None = None
    """Requests it may have under way at a time; `None` for no limit."""

    created_at: float = 0.0
    """When it was made, in seconds since 1970, as are both below."""

    expires_at: float | None = None
    """When it begins to be refused; `None` for never."""

    revoked_at: float | None = None
    """When it was revoked; `None` if it was not."""

    is_admin: bool = False
    """Whether its owner may let machines into the namespace, on the dashboard."""

    def state(self, now: float) -> str:
        """``active``, ``expired`` or ``revoked``, *now* in seconds since 1970."""
        if self.revoked_at is not None:
            return "revoked"
        if self.expires_at is not None and self.expires_at <= now:
            return "expired"
        return "active"

    def may_use(self, model: str) -> bool:
        """Whether the key may use the model of this name."""
        return not self.models or model in self.models

    def model_for(self, model: str | None) -> str | None:
        """The model to ask for when the caller asks for *model*, `None` standing for any.

        Raises:
          ModelForbidden: if it may not be used, or any is asked for and several may.

        """
        if not self.models or model in self.models:
            return model
        if model is None and len(self.models) == 1:
            return self.models[0]
        raise self.forbidden(model)

    def forbidden(self, model: str | None) -> ModelForbidden:
        """The error for a caller that asks for *model*, which the key may not use."""
        asked = "any model" if model is None else f"the model {model[:MAX_NAME_CHARACTERS]!r}"
        return ModelForbidden(f"this API key may not use {asked}; it may use {_list(self.models)}")


def _list(names: Sequence[str]) -> str:
    return ", ".join(names[:16]) + (f" and {len(names) - 16} more" if len(names) > 16 else "")


def base62(data: bytes, length: int) -> str:
    """*data* as a number of *length* digits to the base 62."""
    number, digits = int.from_bytes(data), []
    for _ in range(length):
        number, digit = divmod(number, 62)
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))


def _digest(secret: str) -> bytes:
    # A header may have any bytes in it.
    return hashlib.sha256(secret[:MAX_SECRET_CHARACTERS].encode("utf-8", "surrogatepass")).digest()


class KeyStore:
    """The keys of one file. `authenticate` is for the event loop; everything else blocks.

    Args:
      path: The file; see `Database`.
      wall: The time, in seconds since 1970.

    Raises:
      ConfigurationError: here and from every method, if the file cannot be used.

    """

    def __init__(self, path: Path, *, wall: Callable[[], float] = time.time) -> None:
        self._database = Database(path)
        self._wall = wall
        self._known: dict[str, tuple[Key, bytes]] = {}
        self._version = _NEVER
        self._revision = _NEVER
        self._checked_at = -float("inf")
        self._checking = trio.Lock()
        self._warned = False
        self._look()

    @property
    def path(self) -> Path:
        """The file."""
        return self._database.path

    @property
    def database(self) -> Database:
        """The open file, which the book of these keys' usage shares."""
        return self._database

    # ---- for the event loop ----

    async def authenticate(self, secret: str | None) -> Key:
        """The key that *secret* is of; a checkpoint only if the file is to be looked at.

        Raises:
          Unauthorized: if it is missing, wrong, expired or revoked.

        """
        if trio.current_time() - self._checked_at >= CHECK_SECONDS:
            await self._check()
        return self._match(secret)

    async def _check(self) -> None:
        """Read the file if it has changed; requests that come meanwhile wait for the same read."""
        async with self._checking:
            if trio.current_time() - self._checked_at < CHECK_SECONDS:
                return
            try:
                await trio.to_thread.run_sync(self._look)
                self._warned = False
            except ConfigurationError as error:
                # The keys that were good a moment ago still are: a full disk must not lock out.
                if not self._warned:
                    log.warning("the keys cannot be read again", why=str(error))
                self._warned = True
            self._checked_at = trio.current_time()

    def _match(self, secret: str | None) -> Key:
        if not secret:
            raise Unauthorized("an API key is needed: send it as `Authorization: Bearer KEY`")
        parts = secret.split("-", 2)
        found = self._known.get(parts[1]) if len(parts) == 3 and parts[0] == "pk" else None
        digest = _NO_DIGEST if found is None else found[1]
        right = hmac.compare_digest(_digest(secret), digest)
        if found is None or not right:
            raise Unauthorized("the API key is wrong")
        key = found[0]
        if key.expires_at is not None or key.revoked_at is not None:
            state = key.state(self._wall())
            if state != "active":
                word = "has expired" if state == "expired" else "was revoked"
                raise Unauthorized(f"the API key {key.key_id} {word}")
        return key

    def known(self) -> tuple[Key, ...]:
        """Every key as of the last look at the file, the oldest first. Does not block."""
        keys = [key for key, _ in self._known.values()]
        return tuple(sorted(keys, key=lambda key: (key.created_at, key.key_id)))

    # ---- for programs, and for threads ----

    def __enter__(self) -> KeyStore:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def create(
        self,
        name: str,
        *,
        models: Sequence[str] = (),
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        concurrency: int | None = None,
        expires_at: float | None = None,
        is_admin: bool = False,
    ) -> tuple[Key, str]:
        """A new key, and its secret, which nobody can get to see again.

        Where the file is full, the key that was revoked first makes room, with its usage.

        Raises:
          ConfigurationError: if a value breaks a rule, or the file is full of good keys.

        """
        key = Key(
            key_id=base62(secrets.token_bytes(SECRET_BYTES), ID_LENGTH),
            name=name,
            models=tuple(dict.fromkeys(models)),
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
            concurrency=concurrency,
            created_at=self._wall(),
            expires_at=expires_at,
            is_admin=is_admin,
        )
        _check_key(key)
        secret = f"pk-{key.key_id}-{base62(secrets.token_bytes(SECRET_BYTES), _SECRET_DIGITS)}"
        row = attrs.asdict(key) | {"models": json.dumps(key.models), "digest": _digest(secret)}

        def insert(execute: Execute) -> None:
            _drop_oldest_revoked(execute, self.path)
            marks = ", ".join(f":{name}" for name in row)
            execute(f"INSERT INTO keys ({', '.join(row)}) VALUES ({marks})", row)  # noqa: S608 - our own names
            execute("UPDATE revision SET number = number + 1")

        self._database.write(insert)
        self._changed()
        return key, secret

    def list(self) -> tuple[Key, ...]:
        """Every key, the oldest first, the expired and the revoked ones among them."""
        self._look()
        return self.known()

    def revoke(self, key_id: str) -> Key:
        """Refuse a key from now on; again, it changes nothing.

        Raises:
          ConfigurationError: if there is none with this id.

        """
        now = self._wall()

        def mark(execute: Execute) -> None:
            execute(
                "UPDATE keys SET revoked_at = ? WHERE key_id = ? AND revoked_at IS NULL",
                (now, key_id),
            )
            execute("UPDATE revision SET number = number + 1")

        self._database.write(mark)
        self._changed()
        found = self._known.get(key_id)
        if found is None:
            raise ConfigurationError(
                f"there is no API key {key_id[:MAX_NAME_CHARACTERS]!r} in {self.path}; "
                "`punch keys list` lists them"
            )
        return found[0]

    def _changed(self) -> None:
        # `PRAGMA data_version` does not change with the commits of our own connection.
        self._version = _NEVER
        self._look()

    def _look(self) -> None:
        """Read the keys again if the file has changed."""
        version = self._database.version()
        if version == self._version:
            return
        # Usage is written every second, by other gateways too, and changes no key.
        revision = version[0], self._database.read("SELECT number FROM revision")[0][0]
        if revision != self._revision:
            rows = self._database.read(f"SELECT {', '.join(_COLUMNS)} FROM keys")  # noqa: S608 - our own names
            self._known = {key.key_id: (key, digest) for key, digest in map(_from_row, rows)}
        self._version, self._revision = version, revision


_COLUMNS = ("digest", *(field.name for field in attrs.fields(Key)))


def _from_row(row: Sequence[Any]) -> tuple[Key, bytes]:
    fields = dict(zip(_COLUMNS, row, strict=True))
    digest = bytes(fields.pop("digest"))
    models, is_admin = tuple(json.loads(fields["models"])), bool(fields["is_admin"])
    return Key(**fields | {"models": models, "is_admin": is_admin}), digest


def _check_key(key: Key) -> None:
    for what, text in (("name", key.name), *(("model", model) for model in key.models)):
        if not text.strip() or len(text) > MAX_NAME_CHARACTERS or not text.isprintable():
            raise ConfigurationError(
                f"the {what} is {text[:MAX_NAME_CHARACTERS]!r}: "
                f"it must be 1 to {MAX_NAME_CHARACTERS} printable characters"
            )
    if len(key.models) > MAX_MODELS:
        raise ConfigurationError(f"{len(key.models)} models are too many: up to {MAX_MODELS}")
    for field in ("requests_per_minute", "tokens_per_minute", "concurrency"):
        value = getattr(key, field)
        # As much as SQLite's integers hold is more than anybody can use.
        if value is not None and not 1 <= value < 2**63:
            raise ConfigurationError(f"{field} is {value}: it must be 1 or more")
    if key.expires_at is not None and not key.created_at < key.expires_at < float("inf"):
        raise ConfigurationError("the key would expire before it is made: give a later date")


def _drop_oldest_revoked(execute: Execute, path: Path) -> None:
    (count,) = execute("SELECT count(*) FROM keys").fetchone()
    if count < MAX_KEYS:
        return
    query = "SELECT key_id FROM keys WHERE revoked_at IS NOT NULL ORDER BY revoked_at LIMIT 1"
    oldest = execute(query).fetchone()
    if oldest is None:
        raise ConfigurationError(
            f"{path} has {count} API keys and takes no more; revoke some with `punch keys revoke`"
        )
    execute("DELETE FROM keys WHERE key_id = ?", oldest)
    execute("DELETE FROM usage WHERE key_id = ?", oldest)


@asynccontextmanager
async def open_keys(
    path: Path, *, wall: Callable[[], float] = time.time
) -> AsyncIterator[KeyStore]:
    """The keys of a file, for as long as the context lasts.

    Raises:
      ConfigurationError: if the file cannot be used.

    """
    store = await trio.to_thread.run_sync(lambda: KeyStore(path, wall=wall))
    try:
        yield store
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(store.close)
