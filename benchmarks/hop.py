"""One hop: a question from the dialer to the listener and its answer back, over loopback TCP.

Four processes: listener and dialer of punch (mock backend, one token, not streamed, on the
session that is open), listener and dialer of bare py-libp2p (one message and its reply of the
same sizes, on a stream that is open). The dialers take turns.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from contextlib import ExitStack

from _processes import bare_pair, punch_pair, where_time_goes
from _results import Report, Row, median_ratio, milliseconds, times

TITLE = "One hop and back, one at a time"

MAX_RATIO = 1.5
MAX_CPU_RATIO = 1.1

WARM_UP = 100


def measure(*, quick: bool) -> Report:
    """Round trips and CPU a request, of punch, of its node alone, and of py-libp2p."""
    rounds, count = (5, 150) if quick else (15, 300)
    seconds: dict[str, list[float]] = defaultdict(list)
    cpu: dict[str, list[float]] = defaultdict(list)
    with ExitStack() as stack:
        listener, dialer = punch_pair(stack, backend="mock")
        bare_listener, bare_dialer = bare_pair(stack)
        request, reply = dialer.ask("sizes")
        sizes = {"request": request, "reply": reply}
        sides = {
            "punch": (dialer, listener, "hops", {}),
            "node": (dialer, listener, "bare_hops", sizes),
            "libp2p": (bare_dialer, bare_listener, "hops", sizes),
        }
        for asks, _, command, arguments in sides.values():
            asks.ask(command, count=WARM_UP, **arguments)
        for _ in range(rounds):
            for name, (asks, answers, command, arguments) in sides.items():
                before = asks.cpu(), answers.cpu()
                found = asks.ask(command, count=count, **arguments)
                cpu[f"{name} dialer"].append((asks.cpu() - before[0]) / count)
                cpu[f"{name} listener"].append((answers.cpu() - before[1]) / count)
                seconds[name].append(statistics.median(found))
        notes = (
            f"{rounds} rounds of {count} requests each; {request} bytes there, {reply} back. "
            f"{__doc__.partition('.')[2].strip()}".replace("\n", " "),
            *where_time_goes(dialer, listener, "hops", count=count),
        )
    middle = {name: statistics.median(values) for name, values in (seconds | cpu).items()}
    ratio = median_ratio(seconds["punch"], seconds["libp2p"])
    node_ratio = median_ratio(seconds["punch"], seconds["node"])
    rows = [
        Row(
            what="one hop and back, median",
            ours=milliseconds(middle["punch"]),
            other=f"{milliseconds(middle['libp2p'])}, a bare message on an open py-libp2p stream",
            ratio=f"{ratio:.2f}x",
            why=notes[1],
        ).at_most(ratio, MAX_RATIO, times, firm=True),
        Row(
            what="the same, against our own node",
            ours=milliseconds(middle["punch"]),
            other=f"{milliseconds(middle['node'])}, a bare message on a stream of punch.network",
            ratio=f"{node_ratio:.2f}x",
        ),
    ]
    for side, note in (("dialer", notes[1]), ("listener", notes[2])):
        ours, other = middle[f"punch {side}"], middle[f"libp2p {side}"]
        cpu_ratio = median_ratio(cpu[f"punch {side}"], cpu[f"libp2p {side}"])
        rows.append(
            Row(
                what=f"CPU of the {side}, per request",
                ours=milliseconds(ours),
                other=f"{milliseconds(other)}, bare py-libp2p",
                ratio=f"{cpu_ratio:.2f}x",
                why=note,
            ).at_most(cpu_ratio, MAX_CPU_RATIO, times)
        )
    return Report(title=TITLE, rows=tuple(rows), notes=notes)
