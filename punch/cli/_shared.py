"""What several programs make of their settings."""

from __future__ import annotations

from pathlib import Path

from ..discovery import KnownPeers, parse_bootstraps
from ..network import Address
from ..settings import NetworkSettings, data_folder


def bootstraps(settings: NetworkSettings) -> tuple[Address, ...]:
    """Where the namespace meets, by what this peer dials with.

    Raises:
      ConfigurationError: naming the setting, what it says and the forms there are.

    """
    said = settings.said("bootstrap")
    return tuple(
        place.reached_by(settings.transport, setting=said)
        for place in parse_bootstraps(settings.bootstrap, setting=said)
    )


def known_peers(settings: NetworkSettings) -> KnownPeers:
    """Who was at which bootstrap address before: in the file of *settings*, or the usual one."""
    return KnownPeers(settings.known_peers or data_folder() / "known_peers")


def decision_log_path(given: str | None) -> Path | None:
    """Where the decision log is: the file that was *given*, the usual one, or nowhere."""
    if given is not None and given.strip().lower() == "none":
        return None
    return Path(given).expanduser() if given else data_folder() / "decisions.jsonl"


def keys_path(given: Path | None) -> Path:
    """Where the gateway's keys are: the file that was *given*, or the usual one."""
    return given or data_folder() / "gateway.sqlite3"
