"""Says what it means that a listener could not be dialled, and tells our own listener of it, once.

Who could be dialled is found out by bootstraps, and by dialers as they go; see `punch.bootstrap`.
"""

from __future__ import annotations

from collections.abc import Iterable

from .._logs import get_logger
from ..exceptions import ConfigurationError
from ..network import parse_address
from ..wire import Reach, short_word

log = get_logger(__name__)

# What each word means; a word that is not known here says itself.
_WORDS = {
    "no_answer": "no answer, as where a firewall drops what comes in",
    "refused": "connection refused, as where a firewall refuses it, or nothing listens there",
    "no_route": "no way there",
    "no_name": "the name is not known",
    "other_peer": "another peer answered",
    "no_peer": "something else answered",
    "no_relay": "the relay does not lead there",
    "no_protocol": "a libp2p node answered that is no listener",
}


def explain(reach: Reach) -> str:
    """Why a listener cannot be reached, as a sentence without its end; in our words only."""
    who = "the bootstrap" if reach.by == "bootstrap" else "another machine"
    try:
        where = f" at {parse_address(reach.address)}"
    except ConfigurationError:
        where = ""
    why = _WORDS.get(reach.why) or short_word(reach.why)
    return f"{who} could not reach it{where}: {why}"


def combined(verdicts: Iterable[Reach | None]) -> Reach | None:
    """What several bootstraps say of a listener, in one: whoever could reach it is right."""
    known = [each for each in verdicts if each is not None]
    return next((each for each in known if each.ok), known[0] if known else None)


class OwnReach:
    """How our own listener could be dialled, by who says so."""

    def __init__(self) -> None:
        self._heard: dict[tuple[str, str], Reach] = {}

    @property
    def verdict(self) -> Reach | None:
        """The first trouble, or else that somebody could; `None` if nothing is known."""
        known = list(self._heard.values())
        return next((each for each in known if not each.ok), known[0] if known else None)

    def hear(self, source: str, reach: Reach) -> None:
        """Take a verdict of *source*, and log the trouble when it comes and when it goes."""
        before = self.verdict
        if reach.ok:
            # What members could not do before that is settled; whoever still cannot says so again.
            self._heard.pop((source, "member"), None)
        self._heard[source, reach.by] = reach
        after = self.verdict
        if before is not None and not before.ok:
            if after is not None and after.ok:
                log.info("this listener can be reached again", address=reach.address)
            return
        if reach.ok:
            return
        log.warning(
            "this listener cannot be reached from everywhere",
            why=explain(reach),
            remedy=_remedy(reach),
        )


def _remedy(reach: Reach) -> str:
    try:
        place = parse_address(reach.address)
    except ConfigurationError:
        return "see docs/network.md"
    kind = "tcp" if place.transport == "tcp" else "udp"
    return (
        f"let {kind.upper()} port {place.port} in through this machine's firewall, such as "
        f"`sudo ufw allow {place.port}/{kind}`; behind a router, have that forward the port and "
        "say --announce with its address; docs/network.md has the other firewalls"
    )
