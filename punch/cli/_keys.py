"""``punch keys``: make, list and revoke API keys of the gateway."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs

from ..exceptions import ConfigurationError, PunchError
from ..gateway import DayUsage, Key, KeyStore, read_usage
from ._exits import ExitCode, exit_code
from ._options import convert, count
from ._output import plain
from ._shared import KEYS, keys_path

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
    """When a key ends that shall last for ``30d`` (or ``12h``, ``4w``) or until a date.

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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="punch keys",
        description="Make, list and revoke API keys of the gateway.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    create = commands.add_parser(
        "create", help="make a key; its secret is printed, this once", allow_abbrev=False
    )
    create.add_argument("name", metavar="NAME", help="what to call it, for people")
    create.add_argument("--models", metavar="A,B", help="models that it may use [all]")
    create.add_argument("--requests-per-minute", metavar="N", help="[no limit]")
    create.add_argument("--tokens-per-minute", metavar="N", help="prompts and answers [no limit]")
    create.add_argument("--concurrency", metavar="N", help="requests under way [no limit]")
    create.add_argument("--expires", metavar="30d|DATE", help="when it ends [never]")
    listing = commands.add_parser(
        "list", help="list the keys, and what they used in the last 400 days", allow_abbrev=False
    )
    revoke = commands.add_parser(
        "revoke", help="refuse a key from now on, within a second", allow_abbrev=False
    )
    revoke.add_argument("key_id", metavar="ID", help="as `punch keys list` has it")
    for command in (create, listing, revoke):
        command.add_argument(
            "--keys", metavar="FILE", help=f"{KEYS.help} [{KEYS.environment}; {KEYS.shown_default}]"
        )
        command.add_argument("--json", action="store_true", help="one JSON object a key and line")
    return parser


def keys(arguments: Sequence[str]) -> int:
    """Run ``punch keys``; its exit code."""
    given = _parser().parse_args(arguments)
    commands: dict[str, Callable[[argparse.Namespace, Path], None]] = {
        "create": _create,
        "list": _list,
        "revoke": _revoke,
    }
    try:
        commands[given.command](given, keys_path(given.keys))
    except PunchError as error:
        print(f"punch: {plain(str(error))}", file=sys.stderr)
        return exit_code(error)
    return ExitCode.OK


def _create(given: argparse.Namespace, path: Path) -> None:
    limits = {
        name: convert(count(1), text, f"--{name.replace('_', '-')}")
        for name in ("requests_per_minute", "tokens_per_minute", "concurrency")
        if (text := getattr(given, name)) is not None
    }
    if given.expires is not None:
        now = time.time()
        limits["expires_at"] = convert(lambda text: expiry(text, now), given.expires, "--expires")
    models = [name.strip() for name in (given.models or "").split(",") if name.strip()]
    if given.models is not None and not models:
        raise ConfigurationError("--models names none: leave it out, and the key may use all")
    with KeyStore(path) as store:
        key, secret = store.create(given.name, models=models, **limits)
    if given.json:
        print(json.dumps(_as_data(key) | {"secret": secret}))
        return
    # Alone on standard output: a script takes it from there.
    print(secret, flush=True)
    print(f"punch: key {key.key_id} is made; its secret is shown this once", file=sys.stderr)


def _list(given: argparse.Namespace, path: Path) -> None:
    found: tuple[Key, ...] = ()
    usage: dict[str, tuple[DayUsage, ...]] = {}
    if path.exists():
        # Else looking would make the file.
        with KeyStore(path) as store:
            found = store.list()
            usage = read_usage(store.database)
    if given.json:
        for key in found:
            days = [attrs.asdict(day) for day in usage.get(key.key_id, ())]
            print(json.dumps(_as_data(key) | {"usage": days}))
        return
    if not found:
        print(
            f"no API key in {plain(str(path))}; `punch keys create NAME` makes one", file=sys.stderr
        )
        return
    lines = [COLUMNS, *(_row(key, usage.get(key.key_id, ())) for key in found)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(COLUMNS))]
    for line in lines:
        print("  ".join(f"{c:{w}}" for c, w in zip(line, widths, strict=True)).rstrip())


def _revoke(given: argparse.Namespace, path: Path) -> None:
    if not path.exists():
        raise ConfigurationError(f"there is no file {path}: name the gateway's with --keys")
    with KeyStore(path) as store:
        key = store.revoke(given.key_id)
    if given.json:
        print(json.dumps(_as_data(key)))
    else:
        print(f"key {key.key_id} ({key.name}) is revoked")


def _as_data(key: Key) -> dict[str, Any]:
    return attrs.asdict(key) | {"state": key.state(time.time())}


def _row(key: Key, days: Sequence[DayUsage]) -> tuple[str, ...]:
    total = DayUsage(day="")
    for day in days:
        total = total.plus(day)
    ends = key.expires_at
    cells = (
        key.key_id,
        key.name,
        key.state(time.time()),
        ",".join(key.models) or "all",
        _limit(key.requests_per_minute),
        _limit(key.tokens_per_minute),
        _limit(key.concurrency),
        "never" if ends is None else datetime.fromtimestamp(ends, UTC).strftime("%Y-%m-%d %H:%M"),
        f"{total.requests}",
        f"{total.errors}",
        f"{total.prompt_tokens + total.completion_tokens}",
    )
    return tuple(plain(cell)[:WIDEST] for cell in cells)


def _limit(value: int | None) -> str:
    return "-" if value is None else f"{value}"
