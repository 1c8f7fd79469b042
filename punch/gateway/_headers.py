"""Words for the headers and comments of an answer: decisions, provenance, waits. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate

from ..routing import Decision
from ..wire import CommandResponse, Progress, Provenance, Usage

# A header's value is cut here; proxies refuse much longer ones.
MAX_HEADER_CHARACTERS = 512


def what_is_waited_for(progress: Progress | None, waited: float) -> str:
    """Words for a comment: ``queued, 3 ahead, about 4 s``."""
    if progress is None:
        return f"waiting, {waited:.0f} s"
    words: list[str] = [progress.state]
    if progress.ahead:
        words.append(f"{progress.ahead} ahead")
    if progress.seconds is None or progress.seconds <= 0:
        # No peer has guessed, or its guess has passed: only the wait so far is known.
        words.append(f"{waited:.0f} s")
    elif progress.seconds < 1:
        words.append("less than 1 s")
    else:
        words.append(f"about {progress.seconds:.0f} s")
    return ", ".join(words)


def in_short(decision: Decision) -> str:
    """A decision in one header; the decision log has all of it."""
    words = [f"policy={decision.policy}"]
    if decision.chosen is not None:
        words.append(f"peer={decision.chosen.peer_id}")
        if decision.unit == "s":
            words.append(f"predicted={decision.score(decision.chosen):.3f}s")
        else:
            words.append(f"score={decision.score(decision.chosen):.4g}")
    words.append(f"of={len(decision.order) + len(decision.removed)}")
    return "; ".join(words)


def where_from(provenance: Provenance) -> str:
    """*provenance* in one header: ``real; backend=llama_cpp; digest=0123abcd``."""
    digest = provenance.model_digest
    words = [provenance.kind, f"backend={provenance.backend}"]
    if digest is not None:
        words.append(f"digest={digest[:12]}")
    return "; ".join(words)


def as_many_as_fit(names: Sequence[str]) -> str:
    """*names* in one header, and how many more there are if it has no room for all."""
    text = ", ".join(names)
    if len(text) <= MAX_HEADER_CHARACTERS:
        return text
    # What says how many are left out has twenty characters at most.
    ends = list(accumulate(len(name) + 2 for name in names))
    kept = sum(end <= MAX_HEADER_CHARACTERS - 20 for end in ends)
    return ", ".join([*names[:kept], f"and {len(names) - kept} more"])


def header_value(text: str) -> bytes:
    """*text* as a header value: it may come from a peer, so anything but ASCII becomes ``?``."""
    text = text[:MAX_HEADER_CHARACTERS]
    if not (text.isascii() and text.isprintable()):
        text = "".join(c if " " <= c <= "~" else "?" for c in text)
    return text.encode("ascii")


def usage_of(responses: Iterable[CommandResponse]) -> Usage:
    """The tokens of all *responses* together; `None` where one of them did not count."""
    answers = list(responses)
    if len(answers) == 1:
        return answers[0].usage

    def total(name: str) -> int | None:
        counts = [getattr(response.usage, name) for response in answers]
        return None if not counts or None in counts else sum(counts)

    return Usage(
        prompt_tokens=total("prompt_tokens"),
        completion_tokens=total("completion_tokens"),
        cached_tokens=total("cached_tokens"),
        reasoning_tokens=total("reasoning_tokens"),
    )
