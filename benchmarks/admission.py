"""A refusal by an executor whose queue of 1,000 is full.

All slots are taken and 1,000 requests wait, of one dialer, of 100, or of 1,000 with one each, which
is the most work; every newcomer is refused, and hears after how many seconds to ask again. From the
request to the error, in one process, without its way over the network.
"""

from __future__ import annotations

import math
import statistics
import time
from contextlib import suppress

from _results import Report, Row, milliseconds

from punch.admission import NoRoom, Slots, Ticket
from punch.routing import route_request
from punch.wire import ChatMessage, CommandRequest

TITLE = "A refusal with 1,000 requests waiting"

QUEUE = 1000
SLOTS = 8
MAX_SECONDS = 1e-4

# About 400 tokens.
PROMPT = "The quick brown fox jumps over the lazy dog near the river bank. " * 24


def full_slots(dialers: int) -> Slots:
    """Slots that are all taken, and a queue with no room, of so many *dialers*."""
    slots = Slots(SLOTS, QUEUE)
    for number in range(SLOTS + QUEUE):
        ticket = Ticket(claimant=f"{number % dialers}", prompt_tokens=100, output_tokens=200)
        slots.admit(ticket, limit=math.inf, own_seconds=0.0, now=0.0)
    slots.usual_seconds = 4.0
    return slots


def refuse(slots: Slots, *, limit: float) -> float:
    """Seconds of one refusal of a request, which has *limit* seconds left."""
    # A new one each time: a request is measured once.
    request = CommandRequest(request_id="r", messages=(ChatMessage(role="user", content=PROMPT),))
    began = time.thread_time()
    ticket = Ticket(claimant="0", prompt_tokens=route_request(request).prompt_tokens)
    with suppress(NoRoom):
        slots.admit(ticket, limit=limit, own_seconds=0.1, now=1.0)
        raise AssertionError("it was not refused")
    return time.thread_time() - began


def measure(*, quick: bool) -> Report:
    """Seconds of a refusal, for a full queue and for a deadline that cannot be met."""
    rounds = 100 if quick else 1000
    rows = []
    for dialers in (1, 100, 1000):
        slots = full_slots(dialers)
        for what, limit in (("no room", math.inf), ("no time", 30.0)):
            middle = statistics.median(refuse(slots, limit=limit) for _ in range(rounds))
            rows.append(
                Row(
                    what=f"{what}, {dialers} dialers",
                    ours=milliseconds(middle),
                    why="Who holds the most places is looked for among all dialers.",
                ).at_most(middle, MAX_SECONDS, milliseconds, firm=True)
            )
    notes = (f"Median of {rounds}. {' '.join(__doc__.partition('.')[2].split())}",)
    return Report(title=TITLE, rows=tuple(rows), notes=notes)
