"""Plans as text for people: tables that say what was found, and work out nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from ._plan import Considered, Plan, Refused

_UNITS: Final = ("B", "KB", "MB", "GB", "TB")


def size_text(size: float) -> str:
    """Bytes, with three digits that mean something: ``1.23 GB``."""
    value, place = float(size), 0
    while abs(value) >= 999.5 and place < len(_UNITS) - 1:
        value, place = value / 1000, place + 1
    return f"{value:.3g} {_UNITS[place]}"


def time_text(seconds: float) -> str:
    """Seconds, with three digits that mean something: ``12.3 ms``."""
    if abs(seconds) < 1.0:
        return f"{seconds * 1e3:.3g} ms"
    return f"{seconds:.3g} s" if abs(seconds) < 1000 else f"{seconds:.0f} s"


def describe(
    outcome: Plan | Refused,
    *,
    candidates: int = 8,
    called: Callable[[str], str] = lambda name: name,
) -> str:
    """A plan or a refusal in lines for people.

    Args:
      outcome: What is described.
      candidates: How many at most of those that were considered are told.
      called: What to call a device or a holder, given its name in the plan.

    """
    lines = _refused(outcome) if isinstance(outcome, Refused) else _plan(outcome, called)
    kept = outcome.considered[:candidates]
    rows = [line for one in kept for line in _considered(one, called)]
    left_out = outcome.left_out + len(outcome.considered) - len(kept)
    if rows:
        rows.insert(0, "considered:")
    if left_out:
        rows.append(f"  and {left_out} more")
    return "\n".join([*lines, *rows])


def _refused(refused: Refused) -> Iterator[str]:
    yield f"no plan ({refused.word}): {refused.reason}"


def _plan(plan: Plan, called: Callable[[str], str]) -> Iterator[str]:
    prediction = plan.prediction
    for place, share in enumerate(plan.shares):
        where = f" of {called(share.holder)}" if share.is_remote else " here"
        if share.device == share.holder:
            where = ""  # A worker with one device, which is called as the worker.
        layers = f"layers {share.layers.start}-{share.layers.stop - 1}"
        output = ", output" if share.has_output else ""
        line = (
            f"  {called(share.device)}{where}: {layers}{output}; "
            f"weights {size_text(share.weights)}, contexts {size_text(share.kv)}"
        )
        if place < len(prediction.devices) and share.is_remote:
            time = prediction.devices[place]
            line += (
                f"; a token {time_text(time.token.total)} (round trip "
                f"{time_text(time.token.waits)}), {size_text(time.up_bytes)} up and "
                f"{size_text(time.down_bytes)} down"
            )
        yield line
    if plan.output_on_head:
        yield "  output on the head"
    guess = "none" if plan.speculation is None else str(plan.speculation)
    yield (
        f"  micro-batch {plan.micro_batch}, {plan.slots} x {plan.context_tokens} tokens of "
        f"context, speculation {guess}"
    )
    yield (
        f"  {prediction.decode_rate:.3g} tokens/s, first token after "
        f"{time_text(prediction.first_token)} ({prediction.prompt_rate:.3g} tokens/s of prompt), "
        f"ready in {time_text(prediction.load)}"
    )
    terms = ", ".join(
        f"{name} {time_text(value)}" for name, value in prediction.terms.items() if value
    )
    yield f"  {time_text(prediction.seconds)} for the usual request: {terms}"


def _considered(one: Considered, called: Callable[[str], str]) -> Iterator[str]:
    names = [called(device) for device in one.devices]
    what = f"{names[0]} alone" if one.is_solo else " + ".join(names)
    if one.layers:
        what += f" ({'/'.join(map(str, one.layers))})"
    seconds = "" if one.seconds is None else f" {time_text(one.seconds)}"
    why = "taken" if one.removed_by is None else f"{one.removed_by}: {one.reason}"
    yield f"  {what}:{seconds} {why}"
