"""``punch keys``: makes, lists and revokes API keys of the gateway."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs

from ...exceptions import ConfigurationError
from ...gateway import DayUsage, Key, KeyStore, read_usage
from ...settings import (
    ALIAS,
    KEYS,
    SWITCH,
    TEXT,
    Rule,
    Settings,
    argument,
    count,
    explain,
    of,
    open_settings,
    optional,
    setting,
)
from .._columns import aligned, shortened
from .._exits import ExitCode
from .._output import plain
from .._run import command, run_one_of
from .._shared import keys_path

COLUMNS = (
    "id",
    "name",
    "state",
    "models",
    "requests/min",
    "tokens/min",
    "at once",
    "expires",
    "requests",
    "errors",
    "tokens",
)

# Cells are cut there: a name may be long, and so may a list of models.
WIDEST = 28

_SECONDS = {"h": 3600, "d": 86_400, "w": 604_800}


def expiry(text: str, now: float) -> float:
    """The end of a key that is to last for ``30d`` (or ``12h``, ``4w``) or until a date.

    A date is that day's beginning in UTC, unless it has a time.

    Raises:
      ValueError: with the rule.

    """
    span = re.fullmatch(r"(\d{1,4})([hdw])", text.strip().lower())
    if span is not None:
        return now + int(span[1]) * _SECONDS[span[2]]
    try:
        day = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ValueError("write 30d, 12h, 4w or a date such as 2030-12-31") from None
    return (day if day.tzinfo is not None else day.replace(tzinfo=UTC)).timestamp()


def _models(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise ValueError("it names none: leave it out, and the key may use all")
    return names


NAME = argument("name", TEXT, metavar="NAME", about="what to call it, for people")
MODELS = optional(
    "models",
    Rule(_models),
    variable="",
    metavar="A,B",
    help="models that it may use",
    shown_default="all",
)
REQUESTS = optional(
    "requests_per_minute",
    count(1),
    variable="",
    metavar="N",
    help="requests in a minute",
    shown_default="no limit",
)
TOKENS = optional(
    "tokens_per_minute",
    count(1),
    variable="",
    metavar="N",
    help="tokens of prompts and answers in a minute",
    shown_default="no limit",
)
CONCURRENCY = optional(
    "concurrency",
    count(1),
    variable="",
    metavar="N",
    help="requests under way",
    shown_default="no limit",
)
EXPIRES = optional(
    "expires",
    Rule(lambda text: expiry(text, time.time())),
    variable="",
    metavar="30d|DATE",
    help="when it ends",
    shown_default="never",
)
ADMIN = setting(
    "admin",
    SWITCH,
    False,
    variable="",
    help="its owner may let machines into a closed namespace, on the dashboard",
)
KEY_ID = argument("key_id", TEXT, metavar="ID", about="as `punch keys list` has it")
AS_JSON = setting("json", SWITCH, False, variable="", help="one JSON object a key and line")


@attrs.frozen(kw_only=True)
class ListSettings(Settings):
    """Settings of ``punch keys list``, which the others have too."""

    keys: Path | None = of(KEYS)
    """The gateway's file; see `keys_path`."""

    json: bool = of(AS_JSON)


@attrs.frozen(kw_only=True)
class CreateSettings(ListSettings):
    """Settings of ``punch keys create``."""

    name: str = of(NAME)
    models: tuple[str, ...] | None = of(MODELS)
    requests_per_minute: int | None = of(REQUESTS)
    tokens_per_minute: int | None = of(TOKENS)
    concurrency: int | None = of(CONCURRENCY)

    expires: float | None = of(EXPIRES)
    """Seconds of UTC since 1970."""

    admin: bool = of(ADMIN)


@attrs.frozen(kw_only=True)
class RevokeSettings(ListSettings):
    """Settings of ``punch keys revoke``."""

    key_id: str = of(KEY_ID)


def _create(settings: CreateSettings) -> ExitCode:
    with KeyStore(keys_path(settings.keys)) as store:
        key, secret = store.create(
            settings.name,
            models=settings.models or (),
            requests_per_minute=settings.requests_per_minute,
            tokens_per_minute=settings.tokens_per_minute,
            concurrency=settings.concurrency,
            expires_at=settings.expires,
            is_admin=settings.admin,
        )
    if settings.json:
        print(json.dumps(_as_data(key) | {"secret": secret}))
        return ExitCode.OK
    # Alone on standard output: a script takes it from there.
    print(secret, flush=True)
    _warn_of_aliases(settings.models or ())
    print(f"punch: key {key.key_id} is made; its secret is shown this once", file=sys.stderr)
    return ExitCode.OK


def _warn_of_aliases(models: Sequence[str]) -> None:
    """Say that a key is for models, if it was made for the alias of one."""
    try:
        aliases = explain(ALIAS, {}, os.environ, open_settings(os.environ)).value
    except ConfigurationError:
        return
    assert isinstance(aliases, tuple)
    for alias in aliases:
        if alias.name in models:
            print(
                plain(
                    f"punch: {alias.name} is an alias, and a key is for models: unless one is "
                    f"offered by that name, make the key for {alias.model}"
                ),
                file=sys.stderr,
            )


def _list(settings: ListSettings) -> ExitCode:
    path = keys_path(settings.keys)
    found: tuple[Key, ...] = ()
    usage: dict[str, tuple[DayUsage, ...]] = {}
    if path.exists():
        # Else looking would make the file.
        with KeyStore(path) as store:
            found = store.list()
            usage = read_usage(store.database)
    if settings.json:
        for key in found:
            days = [attrs.asdict(day) for day in usage.get(key.key_id, ())]
            print(json.dumps(_as_data(key) | {"usage": days}))
        return ExitCode.OK
    if not found:
        print(
            f"no API key in {plain(str(path))}; `punch keys create NAME` makes one", file=sys.stderr
        )
        return ExitCode.OK
    lines = [COLUMNS, *(_cells(key, usage.get(key.key_id, ())) for key in found)]
    print(*aligned(lines), sep="\n")
    return ExitCode.OK


def _revoke(settings: RevokeSettings) -> ExitCode:
    path = keys_path(settings.keys)
    if not path.exists():
        raise ConfigurationError(f"there is no file {path}: name the gateway's with --keys")
    with KeyStore(path) as store:
        key = store.revoke(settings.key_id)
    if settings.json:
        print(json.dumps(_as_data(key)))
    else:
        print(f"key {key.key_id} ({key.name}) is revoked")
    return ExitCode.OK


COMMANDS = {
    "create": command("make a key; its secret is printed, this once", CreateSettings, _create),
    "list": command("list the keys, and what they used in the last 400 days", ListSettings, _list),
    "revoke": command("refuse a key from now on, within a second", RevokeSettings, _revoke),
}


def keys(arguments: Sequence[str]) -> int:
    """Run ``punch keys``; its exit code."""
    about = "Make, list and revoke API keys of the gateway."
    return run_one_of("punch keys", about, COMMANDS, arguments)


def _as_data(key: Key) -> dict[str, Any]:
    return attrs.asdict(key) | {"state": key.state(time.time())}


def _cells(key: Key, days: Sequence[DayUsage]) -> tuple[str, ...]:
    total = DayUsage(day="")
    for day in days:
        total = total.plus(day)
    ends = key.expires_at
    cells = (
        key.key_id,
        key.name,
        f"{key.state(time.time())}{', admin' if key.is_admin else ''}",
        ",".join(key.models) or "all",
        _limit(key.requests_per_minute),
        _limit(key.tokens_per_minute),
        _limit(key.concurrency),
        "never" if ends is None else datetime.fromtimestamp(ends, UTC).strftime("%Y-%m-%d %H:%M"),
        f"{total.requests}",
        f"{total.errors}",
        f"{total.prompt_tokens + total.completion_tokens}",
    )
    return tuple(shortened(plain(cell), WIDEST) for cell in cells)


def _limit(value: int | None) -> str:
    return "-" if value is None else f"{value}"
