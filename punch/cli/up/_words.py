"""Decides what `punch up` prints: what it is, what has come and gone since, and what is wrong.

Names of models and machines may come from any peer: whoever prints these lines makes them plain.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ._engine_choice import PULL, NoEngine
from ._status import LaneRow, Status

# What `punch up` prints: the machines and the seconds that its code is good for.
CODE_USES = 10
CODE_SECONDS = 24 * 3600.0


def opening_lines(status: Status) -> tuple[str, ...]:
    """What is said once it serves."""
    where = status.addresses
    assert where is not None, "it serves"
    kind = "the closed namespace" if status.is_closed else "the open namespace"
    made = ", which was made now" if status.is_new else ""
    return (
        f"punch is up: {status.name or 'this machine'} is in {kind} {status.namespace}{made}",
        f"  OpenAI     {where.openai}",
        f"  Ollama     {where.ollama}",
        f"  Anthropic  {where.anthropic}",
        f"  dashboard  {where.dashboard}",
    )


def next_lines(status: Status, *, code: str | None, elsewhere: str | None) -> tuple[str, ...]:
    """What to type on the next machine.

    Args:
      status: What runs.
      code: The code of an invite, if one was made; it is alone on its line.
      elsewhere: In an open namespace, what another machine types; `None` if none reaches it.

    """
    if not status.is_closed:
        if elsewhere is None:
            return (
                "no other machine reaches this namespace: give --bootstrap an address of a LAN",
            )
        return (f"on the next machine: {elsewhere}",)
    if code is not None:
        return (
            f"on the next machine: punch up --join, and this code, for {CODE_USES} machines and "
            "one day:",
            code,
        )
    if status.is_admin:
        return ("for the next machine: `punch invite` prints a code for `punch up --join` there",)
    admins = [row.name for row in status.members if row.is_admin]
    where = _listed(admins) if admins else "an admin of the namespace"
    return (f"for the next machine: `punch invite` on {where} prints a code",)


def news(before: Status, after: Status) -> tuple[str, ...]:
    """What has come and gone between two looks, a line each."""
    return tuple(_news(before, after))


def _news(before: Status, after: Status) -> Iterator[str]:
    had = {(lane.name, model) for lane in before.lanes for model in lane.models}
    for lane in after.lanes:
        fresh = [model for model in lane.models if (lane.name, model) not in had]
        if fresh:
            yield f"+ {_listed(fresh)}, here, by {_by(lane)}"
            if lane.simulated:
                yield (
                    "  THIS IS A SIMULATION, as it was asked for: its answers are random words, "
                    "and no model makes them"
                )
    there = {(lane.name, model) for lane in after.lanes for model in lane.models}
    for lane in before.lanes:
        gone = [model for model in lane.models if (lane.name, model) not in there]
        if gone:
            yield f"- {_listed(gone)}, here, by {lane.name}"
    yield from _members(before, after)
    yield from (f"waits for {each}" for each in after.waits_for if each not in before.waits_for)
    yield from (f"! {each}" for each in after.wrong if each not in before.wrong)


def _members(before: Status, after: Status) -> Iterator[str]:
    old = {row.machine: row for row in before.members if not row.is_here}
    new = {row.machine: row for row in after.members if not row.is_here}
    for key, row in new.items():
        was = old.get(key)
        if row.is_connected and (was is None or not was.is_connected):
            yield f"+ {row.name} is there"
        fresh = [each for each in row.models if was is None or each not in was.models]
        if fresh:
            yield f"+ {_listed(fresh)}, on {row.name}"
    for key, was in old.items():
        if was.is_connected and (key not in new or not new[key].is_connected):
            yield f"- {was.name} is not there any more"


def _by(lane: LaneRow) -> str:
    return lane.name if lane.server is None else f"{lane.name} at {lane.server}"


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:6])
    return f"{shown} and {len(names) - 6} more" if len(names) > 6 else shown


def missing_here(missing: NoEngine) -> str:
    """What this machine would answer with, and has not: it waits for that."""
    brings = "a small one" if missing.remedy == PULL else "what is missing"
    return (
        f"{missing.what} to answer with here, too: `{missing.remedy}` brings {brings}, and this "
        "`punch up` takes it by itself"
    )
