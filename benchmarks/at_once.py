"""32 requests at once: 32 tasks that ask, and ask again as soon as they have their answer.

Punch carries them all on one session; py-libp2p opens a stream for each request, as its
handlers are made for. What py-libp2p does on 32 streams that stay open is told beside it.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from contextlib import ExitStack

from _processes import bare_pair, punch_pair, where_time_goes
from _results import Report, Row, median_ratio, milliseconds, times

TITLE = "32 requests at once"

WORKERS = 32
MIN_RATIO = 8.0

# Stream-per-request is some twenty times slower; rounds of equal length would tell little of it.
SHARE_OF_STREAMS = 5


def measure(*, quick: bool) -> Report:
    """Requests per second of punch and of py-libp2p."""
    rounds, count = (3, 1000) if quick else (9, 3200)
    rates: dict[str, list[float]] = defaultdict(list)
    cpu: dict[str, list[float]] = defaultdict(list)
    with ExitStack() as stack:
        listener, dialer = punch_pair(stack, backend="mock")
        bare_listener, bare_dialer = bare_pair(stack)
        request, reply = dialer.ask("sizes")
        sizes = {"request": request, "reply": reply}
        sides = {
            "punch": (dialer, listener, count, {}),
            "new": (bare_dialer, bare_listener, count // SHARE_OF_STREAMS, sizes | {"kept": False}),
            "kept": (bare_dialer, bare_listener, count, sizes | {"kept": True}),
        }
        for asks, _, _, arguments in sides.values():
            asks.ask("at_once", count=4 * WORKERS, workers=WORKERS, **arguments)
        for _ in range(rounds):
            for name, (asks, answers, number, arguments) in sides.items():
                before = asks.cpu(), answers.cpu()
                seconds = asks.ask("at_once", count=number, workers=WORKERS, **arguments)
                cpu[f"{name} dialer"].append((asks.cpu() - before[0]) / number)
                cpu[f"{name} listener"].append((answers.cpu() - before[1]) / number)
                rates[name].append(number / seconds)
        notes = (
            f"{rounds} rounds of {count} requests for punch and for the open streams, of "
            f"{count // SHARE_OF_STREAMS} with a stream each; {request} bytes there, {reply} back.",
            *where_time_goes(dialer, listener, "at_once", count=count, workers=WORKERS),
        )
    middle = {name: statistics.median(values) for name, values in (rates | cpu).items()}
    ratio = median_ratio(rates["punch"], rates["new"])
    rows = [
        Row(
            what="requests per second",
            ours=f"{middle['punch']:.0f}/s",
            other=f"{middle['new']:.0f}/s, py-libp2p with a new stream for each",
            ratio=f"{ratio:.1f}x",
            why=" ".join(notes[1:]),
        ).at_least(ratio, MIN_RATIO, times, firm=True),
        Row(
            what="the same, against streams that stay open",
            ours=f"{middle['punch']:.0f}/s",
            other=f"{middle['kept']:.0f}/s, py-libp2p on 32 open streams",
            ratio=f"{median_ratio(rates['punch'], rates['kept']):.2f}x",
        ),
    ]
    rows += [
        Row(
            what=f"CPU of the {side}, per request",
            ours=milliseconds(middle[f"punch {side}"]),
            other=f"{milliseconds(middle[f'new {side}'])}, with a new stream for each",
            ratio=f"{middle[f'punch {side}'] / middle[f'new {side}']:.2f}x",
        )
        for side in ("dialer", "listener")
    ]
    return Report(title=TITLE, rows=tuple(rows), notes=notes)
