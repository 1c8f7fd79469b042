"""Writes the story of a request, from the decision log, in words and numbers on one screen.

Everything in it stands in the log; nothing is decided anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime

from ...capability import PeerId
from ...decision_log import Attempted, Decided, Ended, ScoredCandidate, Story
from ...exceptions import DeadlineExceeded, PeerFailed, PeerRefused, PeerTimeout, PeerUnreachable
from ...peers import short_id, shown_names
from ...routing import Startable
from ...routing.kinds import best_of_kinds
from ...routing.starts import START
from .._columns import folded, padded, shortened, width_of
from .._output import plain

# A screen of 80 columns and 24 lines is what every terminal has.
WIDTH = 80

# Rows of one decision; candidates behind these hardly mattered.
MAX_ROWS = 5

# Columns of a name in a line: the rest of the line matters more. A model has as much of its own.
LONGEST_NAME = 24
LONGEST_MODEL = 64

# Columns of a kind of candidate, with the one between it and the score.
KIND = 6

# Columns that the names of peers have at least, so that stories look alike.
NAMES = 12

_WORDS = {
    PeerTimeout.code: "went silent",
    PeerUnreachable.code: "was lost",
    PeerRefused.code: "refused",
    PeerFailed.code: "failed",
    DeadlineExceeded.code: "ran out of time",
    "success": "answered",
    "cancelled": "was cancelled",
}

_OF_STARTS = {
    PeerFailed.code: "could not be started",
    "success": "was started",
    "cancelled": "was not waited for any more",
}

_WHY = {
    "first": "first choice",
    "failover": "another peer, since the one before gave nothing",
    "continuation": "a peer to go on with the answer",
    "hedge": "a second peer beside the first",
    "move": "a peer that would be done earlier than the queue of the one before",
}


Who = Callable[[PeerId], str]
"""What to call a peer."""


def names_of(story: Story) -> Who:
    """The names that the peers of *story* gave themselves, as its decisions remember them."""
    claimed = {
        weighed.peer.peer_id: _name(weighed.peer.capability.machine_name or "")
        for decision in story.decisions
        for weighed in decision.weighed
    }
    # Those that look alike now are told apart as those that always did.
    names = shown_names(claimed.items())
    return lambda peer_id: names.get(peer_id) or plain(short_id(peer_id))


def _name(said: str) -> str:
    return shortened(plain(said).replace("\n", " "), LONGEST_NAME)


def _labels(who: Who, each: Iterable[tuple[PeerId, str | None]]) -> list[str]:
    """What to call peers and, where they have several, their lanes."""
    return [who(peer) + ("" if lane is None else f" {_name(lane)}") for peer, lane in each]


def when(time: float) -> str:
    """A time, for people: in the zone of this machine."""
    try:
        moment = datetime.fromtimestamp(time, UTC).astimezone()
    except (OverflowError, OSError, ValueError):
        return "at an unknown time"
    return moment.strftime("%Y-%m-%d %H:%M:%S %z")


def tell(story: Story, called: Callable[[PeerId], str] = lambda machine: "") -> str:
    """The whole story; lines of at most 80 columns.

    Args:
      story: What the log has of the request.
      called: What a machine of ours is called in a closed namespace; empty if nothing is known.

    """
    who = names_of(story)
    lines = [
        *_head(story),
        *_payer(story.end, called),
        *_body(story, who),
        *_seams(story, who),
        *_foot(story, who),
    ]
    return "\n".join(part for line in lines for part in _fold(plain(line)))


def _fold(line: str, most: int = 2) -> list[str]:
    """*line* in at most *most* lines of the screen's width; what is longer is cut."""
    indent = len(line) - len(line.lstrip())
    return folded(line, WIDTH, indent=" " * (indent + 6), most=most)


# ---- what was asked ----


def _head(story: Story) -> Iterator[str]:
    yield f"request {story.request_id}"
    yield f"{when(story.time)}: {_outcome(story.end)}"
    if not story.decisions:
        return
    first = story.decisions[0].request
    model = shortened(plain(first.model or "any model"), LONGEST_MODEL)
    if first.model_digest is not None:
        model += f" ({first.model_digest[:12]})"
    yield (
        f"asked: {first.command}, {model}{', strict' if first.strict else ''}; "
        f"prompt ~{first.prompt_tokens} tokens, answer ~{first.output_tokens}"
    )


def _payer(end: Ended | None, called: Callable[[PeerId], str]) -> Iterator[str]:
    """Which key pays, and which machine's grant the listeners have seen."""
    if end is None:
        return
    words = []
    if end.key_id is not None:
        words.append(f"paid by key {end.key_id}")
    if end.machine is not None:
        name = _name(called(end.machine))
        words.append(" ".join(filter(None, ("asked as", name, short_id(end.machine)))))
    if words:
        yield "; ".join(words)


def _outcome(end: Ended | None) -> str:
    if end is None:
        return "no end was noted (it runs still, or its dialer was killed)"
    if end.status == "success":
        return f"success after {_seconds(end.seconds)}, first text after {_seconds(end.first_text)}"
    return f"{end.status} after {_seconds(end.seconds)}"


# ---- what was decided, and what came of it ----


def _body(story: Story, who: Who) -> Iterator[str]:
    """Decisions and attempts in the order in which they happened."""
    number = 0
    for line in story.lines:
        entry = line.entry
        if isinstance(entry, Decided):
            number += 1
            yield from _decision(who, entry, number)
        elif isinstance(entry, Attempted):
            yield from _attempt(who, entry)


def _decision(who: Who, decision: Decided, number: int) -> Iterator[str]:
    best = "lowest" if decision.lowest_is_best else "highest"
    why = _WHY.get(decision.reason, decision.reason)
    yield f"{number}. {why}: {decision.policy}, {best} {decision.unit} is best"
    if not decision.weighed:
        yield "   nobody was there"
        return
    shown = _shown(decision)
    # A term that is 0 for every candidate explains nothing.
    columns = [
        index
        for index in range(len(decision.term_names))
        if any(w.terms[index] for w in shown if w.removed_by is None)
    ]
    names = [decision.term_names[index] for index in columns]
    ways = best_of_kinds(decision.weighed)
    # Where all are of one kind, a word behind each says nothing.
    kinds = len(ways) > 1
    labels = _labels(who, ((w.peer.peer_id, None if kinds and w.start else w.lane) for w in shown))
    width = _columns(
        [label for label, w in zip(labels, shown, strict=True) if w.removed_by is None],
        beside=9 * (1 + len(columns)) + (KIND if kinds else 0),
    )
    if any(w.removed_by is None for w in shown):
        heads = f"{'kind':{KIND}}" if kinds else ""
        heads += f"{'score':>8}" + "".join(f" {name[:8]:>8}" for name in names)
        yield f"   {'peer':{width}} {heads}"
    for weighed, label in zip(shown, labels, strict=True):
        for row in _rows(decision, weighed, columns, label, width, kinds=kinds):
            # Most reasons of a later decision were said in full before.
            yield row if number == 1 else _fold(row, 1)[0]
    more = len(decision.weighed) - len(shown) + decision.left_out
    if more:
        yield f"   and {more} more"
    # Of one kind they are all the time; said once.
    if decision.chosen is not None and (kinds or (ways and number == 1)):
        yield f"   {_taken(decision, ways)}"


def _shown(decision: Decided) -> Sequence[ScoredCandidate]:
    """The candidates to show: the chosen one first, and at least one of those removed."""
    kept = [w for w in decision.weighed if w.removed_by is None]
    lost = [w for w in decision.weighed if w.removed_by is not None]
    rows = MAX_ROWS - min(len(lost), 2)
    return (kept[:rows] + lost)[:MAX_ROWS]


def _columns(labels: Sequence[str], *, beside: int) -> int:
    """How wide *labels* are, as far as *beside* them there is space for the rest of the line."""
    space = max(NAMES, WIDTH - len("-> ") - beside)
    return max([NAMES, *(width for width in map(width_of, labels) if width <= space)])


def _beside(mark: str, label: str, width: int, rest: str) -> Iterator[str]:
    """*rest* in its columns: behind *label*, or below it where that is too wide."""
    if width_of(label) > width:
        yield f"{mark} {label}"
        mark, label = "  ", ""
    yield f"{mark} {padded(label, width)}{rest}"


def _rows(
    decision: Decided,
    weighed: ScoredCandidate,
    columns: Sequence[int],
    label: str,
    width: int,
    *,
    kinds: bool,
) -> Iterator[str]:
    chosen = (weighed.peer.peer_id, weighed.lane) == (decision.chosen, decision.chosen_lane)
    mark = "->" if chosen else "  "
    kind = f"{weighed.kind.word if weighed.kind else '-':{KIND}}" if kinds else ""
    if weighed.removed_by is not None:
        yield f"{mark} {padded(label, width)} {kind}out, {weighed.removed_by}: {weighed.reason}"
        if weighed.start is not None:
            yield _start(weighed.start)
        return
    cells = [_number(weighed.score), *(_number(weighed.terms[index]) for index in columns)]
    words = [" hot"] if weighed.hot else []
    if decision.explored and chosen:
        words.append(" to measure it")
    yield from _beside(mark, label, width, f" {kind}{' '.join(cells)}{''.join(words)}")
    if weighed.start is not None:
        yield _start(weighed.start)


def _taken(decision: Decided, ways: Mapping[str, ScoredCandidate]) -> str:
    """Which kind was taken and why, and what the best of each other kind would have been."""
    chosen = decision.weighed[0]
    if len(ways) == 1 or chosen.kind is None:
        return f"each: {next(iter(ways.values())).kind}"
    said = [f"taken: {chosen.kind}{f': {decision.taken}' if decision.taken else ''}"]
    for word, one in ways.items():
        if word != chosen.kind.word:
            score = _scored(one.score, decision.unit)
            said.append(f"{word} {f'out, {one.removed_by}' if one.removed_by else score}")
    return "; ".join(said)


def _scored(score: float | None, unit: str) -> str:
    return _seconds(score) if unit == "s" else _number(score).strip()


def _start(start: Startable) -> str:
    """What would have to be started, and why in this way: its plan's first line."""
    offer = start.offer
    state = "is starting" if start.is_under_way else "to be started"
    text = f"     {state}, {_seconds(start.seconds)}: {shortened(offer.offer.name, LONGEST_MODEL)}"
    if offer.workers:
        text += f", over {offer.workers} worker{'s' if offer.workers > 1 else ''}"
    if offer.owners:
        text += f" of {', '.join(map(_name, offer.owners))}"
    if start.waiting:
        text += f"; {start.waiting} more wait for it"
    plan = plain(offer.plan).strip().partition("\n")[0]
    return f"{text}; {plan}" if plan else text


def _attempt(who: Who, attempt: Attempted) -> Iterator[str]:
    word = _WORDS.get(attempt.outcome, f"ended with {attempt.outcome}")
    if attempt.reason == START:
        word = _OF_STARTS.get(attempt.outcome, f"ended with {attempt.outcome}")
    (label,) = _labels(who, [(attempt.peer_id, attempt.lane)])
    text = f"   {label} {word} after {_seconds(attempt.seconds)}"
    if attempt.tokens or attempt.characters:
        text += f": {attempt.tokens} tokens, {attempt.characters} characters"
    if attempt.first_text is not None:
        text += f" (first {_seconds(attempt.first_text)})"
    yield text
    if attempt.error:
        yield f"     {attempt.error}"


# ---- which peer continued for which ----


def _seams(story: Story, who: Who) -> Iterator[str]:
    """The places where a peer continued for another, each in a sentence."""
    for before, after, characters in _handovers(story):
        word = _WORDS.get(before.outcome, f"ended with {before.outcome}")
        yield (
            f"{who(before.peer_id)} {word} after {before.tokens} tokens; "
            f"{who(after)} went on from character {characters}"
        )


def _handovers(story: Story) -> Iterator[tuple[Attempted, PeerId, int]]:
    """The attempt that stopped, the peer that continued, and the characters before that place."""
    stopped: Attempted | None = None
    characters = 0
    for attempt in story.attempts:
        if attempt.outcome == "cancelled":
            continue
        if attempt.reason == "continuation" and stopped is not None and attempt.characters:
            yield stopped, attempt.peer_id, characters
        if attempt.characters:
            stopped = attempt
            characters += attempt.characters


# ---- the end ----


def _foot(story: Story, who: Who) -> Iterator[str]:
    yield from _prediction(story)
    end = story.end
    if end is None:
        return
    if len(end.segments) > 1:
        yield "parts of the answer:"
        labels = [who(segment.peer_id) for segment in end.segments]
        rests = [
            f" {segment.tokens:6} tokens {segment.characters:7} characters "
            f"{segment.seconds:9.2f} s  {segment.reason}"
            for segment in end.segments
        ]
        width = _columns(labels, beside=max(map(width_of, rests)))
        for label, rest in zip(labels, rests, strict=True):
            yield from _beside("  ", label, width, rest)
    if end.error:
        yield f"end: {end.status}: {end.error}"
    elif end.executor is not None:
        yield f"end: {_made_by(end)}"
    else:
        yield f"end: {end.status}"


def _made_by(end: Ended) -> str:
    usage = end.usage
    text = end.finish_reason or end.status
    if end.model is not None:
        model = shortened(plain(end.model), LONGEST_MODEL)
        text += f"; {model} on {end.backend}" + (", simulated" if end.simulated else "")
    counts = []
    if usage.prompt_tokens is not None:
        cached = f" ({usage.cached_tokens} cached)" if usage.cached_tokens else ""
        counts.append(f"{usage.prompt_tokens} prompt{cached}")
    if usage.completion_tokens is not None:
        counts.append(f"{usage.completion_tokens} answer")
    return text + (f"; tokens: {', '.join(counts)}" if counts else "")


def _prediction(story: Story) -> Iterator[str]:
    """The seconds that the first decision predicted, beside those that it took."""
    decision = next((d for d in story.decisions if d.chosen is not None), None)
    end = story.end
    if decision is None or end is None or decision.unit != "s":
        return
    expected = decision.score_of(decision.chosen)
    if expected is None:
        return
    text = f"predicted {_seconds(expected)}, took {_seconds(end.seconds)}"
    decode = decision.term_of(decision.chosen, "decode")
    if decode is not None and end.first_text is not None:
        text += f"; first text {_seconds(expected - decode)}, took {_seconds(end.first_text)}"
    yield text


def _seconds(value: float | None) -> str:
    if value is None:
        return "no text"
    return f"{value:.2f} s" if abs(value) >= 1.0 else f"{value * 1000:.0f} ms"


def _number(value: float | None) -> str:
    if value is None:
        return f"{'-':>8}"
    return f"{value:8.3f}" if abs(value) < 1000 else f"{value:8.3g}"
