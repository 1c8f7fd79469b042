"""``punch adopt``: names servers to answer with, lists them, and takes them away.

They are kept in the settings file. A `punch up` that runs is told to read it again.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import trio

from ...admin import call
from ...adoption import WORDS, Seen, look_once
from ...exceptions import ConfigurationError, NotRunning
from ...settings import (
    ADOPT,
    SWITCH,
    TEXT,
    WORD,
    Adoptee,
    Settings,
    argument,
    change_items,
    data_folder,
    explain,
    of,
    open_settings,
    optional,
    path_to_change,
    setting,
)
from .._columns import aligned, shortened
from .._exits import ExitCode
from .._output import plain
from .._run import command, run_command, run_one_of
from ._wanted import as_given

ABOUT = """\
Answer with a server of models that runs already, here or on another machine:

  punch adopt http://nas:11434
  punch adopt nas:8000 --model qwen3 --features chat,tools --key @NAS_KEY
  punch adopt list
  punch adopt remove http://nas:11434

What runs on this machine at its usual port is found by itself. The others are kept in the settings
file, and `punch up` follows."""

# A longer reason is cut in the table; `--json` has all of it.
WIDEST = 60

URL = argument(
    "url", TEXT, metavar="URL", about="address of the server, with or without http:// and /v1"
)
MODEL = optional(
    "model", WORD, variable="", metavar="NAME", help="offer this one of its models only"
)
FEATURES = optional(
    "features",
    WORD,
    variable="",
    metavar="WORDS",
    help="what its models that chat can do, with commas between the words: chat, complete, embed, "
    "tools, json_schema, logprobs, reasoning, image",
    shown_default="what it tells",
)
CONTEXT = optional(
    "context",
    WORD,
    variable="",
    metavar="TOKENS",
    help="longest prompt and answer of one request",
    shown_default="what it tells",
)
SLOTS = optional(
    "slots",
    WORD,
    variable="",
    metavar="N",
    help="requests to send it side by side",
    shown_default="what it tells, or 4",
)
KEY = optional(
    "key",
    WORD,
    variable="",
    metavar="@VARIABLE|FILE",
    help="where its key is: @ and the name of a variable of the running punch, or a file",
)
AS_JSON = setting("json", SWITCH, False, variable="", help="one JSON object a server and line")


@attrs.frozen(kw_only=True)
class AddSettings(Settings):
    """Settings of ``punch adopt URL``."""

    url: str = of(URL)
    model: str | None = of(MODEL)
    features: str | None = of(FEATURES)
    context: str | None = of(CONTEXT)
    slots: str | None = of(SLOTS)
    key: str | None = of(KEY)


@attrs.frozen(kw_only=True)
class ListSettings(Settings):
    """Settings of ``punch adopt list``."""

    json: bool = of(AS_JSON)


@attrs.frozen(kw_only=True)
class RemoveSettings(Settings):
    """Settings of ``punch adopt remove``."""

    url: str = of(URL)


def _of(text: str) -> Adoptee:
    try:
        return Adoptee.of(text)
    except ValueError as error:
        raise ConfigurationError(f"{ADOPT.shown(text)!r} cannot be adopted: {error}") from None


def _key_of(adoptee: Adoptee) -> str:
    """What is the same for two ways of writing one address."""
    return adoptee.url.removesuffix("/v1").rstrip("/").lower()


def _add(settings: AddSettings) -> ExitCode:
    if settings.url.split() != [settings.url]:
        raise ConfigurationError("an address has no blanks; what is known of it has flags")
    key = settings.key
    if key is not None and not key.startswith("@"):
        # Its words are parted by blanks, and its place is this folder's.
        key = str(Path(key).expanduser().absolute())
        if key.split() != [key]:
            raise ConfigurationError(f"--key is {key!r}: name a file without blanks in its path")
    words = {
        "model": settings.model,
        "features": settings.features,
        "context": settings.context,
        "slots": settings.slots,
        "key": key,
    }
    said = [f"{name}={value}" for name, value in words.items() if value is not None]
    adoptee = _of(" ".join([settings.url, *said]))
    seen = _seen(adoptee)
    if seen == "gateway":
        raise ConfigurationError(
            f"{adoptee.url} is not adopted: {WORDS[seen]}; `punch join` or `punch up --join` does"
        )

    def change(items: Sequence[str]) -> Sequence[str]:
        others = [item for item in items if _key_of(_of(item)) != _key_of(adoptee)]
        return [*others, str(adoptee)]

    change_items(path_to_change(os.environ), ADOPT, change)
    if seen not in (None, "models"):
        print(f"punch: {adoptee.url} is waited for: {WORDS[seen]}", file=sys.stderr)
    return _told(f"{adoptee.url} is adopted from now on")


def _seen(adoptee: Adoptee) -> Seen | None:
    """What is at the server now; `None` if its key is another process's to know."""
    try:
        given = as_given(adoptee, os.environ)
    except ConfigurationError:
        return None
    return trio.run(look_once, given)


def _remove(settings: RemoveSettings) -> ExitCode:
    path, meant = path_to_change(os.environ), _of(settings.url)

    def change(items: Sequence[str]) -> Sequence[str]:
        left = [item for item in items if _key_of(_of(item)) != _key_of(meant)]
        if len(left) == len(items):
            raise ConfigurationError(
                f"{meant.url} is not in {path}; `punch adopt list` shows what is. What was found "
                "by itself is not kept there: `punch settings set adopt.found off`, or --no-adopt, "
                "leaves it alone"
            )
        return left

    change_items(path, ADOPT, change)
    return _told(f"{meant.url} is adopted no more")


def _ask(command: str) -> Any:
    """Have the running `punch up` carry out *command*; raises `NotRunning` if none runs."""
    return trio.run(partial(call, data_folder() / "admin", command))


def _told(words: str) -> ExitCode:
    """Say what was done, and have a running `punch up` do it too."""
    if ADOPT.variable is not None and os.environ.get(ADOPT.variable):
        print(
            f"punch: {ADOPT.variable} is set in this shell, and counts more than the file",
            file=sys.stderr,
        )
    try:
        _ask("reload")
    except NotRunning:
        print(f"{words}; `punch up` does not run now, and will read it when it starts")
    else:
        print(words)
    return ExitCode.OK


def _running() -> list[dict[str, Any]] | None:
    """What the running `punch up` has adopted; `None` if none runs."""
    try:
        status = _ask("status")
    except NotRunning:
        return None
    found = status.get("adopted") if isinstance(status, dict) else None
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _list(settings: ListSettings) -> ExitCode:
    found = explain(ADOPT, {}, os.environ, open_settings(os.environ))
    named = found.value
    assert isinstance(named, tuple)
    rows = _running()
    is_running = rows is not None
    shown = list(rows or ())
    urls = {str(row.get("url")).removesuffix("/v1") for row in shown}
    for each in named:
        if each.url.removesuffix("/v1") not in urls:
            words = "looking" if is_running else "not running"
            shown.append({"url": each.url, "how": "named", "state": words, "models": []})
    if settings.json:
        for row in shown:
            print(json.dumps(row))
        return ExitCode.OK
    if not is_running:
        print("punch: `punch up` does not run: only what is named is listed", file=sys.stderr)
    if not shown:
        print(
            "nothing is adopted; `punch adopt URL` names a server, and what runs on this machine "
            "at its usual port is found by `punch up`",
            file=sys.stderr,
        )
        return ExitCode.OK
    print(
        *aligned([("server", "how", "program", "state", "models"), *map(_cells, shown)]), sep="\n"
    )
    return ExitCode.OK


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    models = ", ".join(map(str, row.get("models") or ()))
    state = str(row.get("state", ""))
    if row.get("reason"):
        state = f"{state}: {row['reason']}"
    cells = (str(row.get("url")), str(row.get("how")), str(row.get("program") or "-"), state)
    return tuple(shortened(plain(cell), WIDEST) for cell in (*cells, models or "-"))


COMMANDS = {
    "list": command("list the servers that are adopted, and how they are", ListSettings, _list),
    "remove": command("adopt a server no more", RemoveSettings, _remove),
}


def adopt(arguments: Sequence[str]) -> int:
    """Run ``punch adopt``; its exit code."""
    if not arguments:
        arguments = ["list"]
    if arguments[0] in COMMANDS:
        return run_one_of("punch adopt", ABOUT, COMMANDS, arguments)
    return run_command("punch adopt", ABOUT, AddSettings, _add, arguments)
