"""What a running `punch up` is: one frozen value, which `punch status` and the terminal show."""

from __future__ import annotations

from typing import Any, Literal

import attrs

from ...adoption import AdoptedServer

State = Literal["starting", "serving", "moving", "draining"]


@attrs.frozen(kw_only=True)
class LaneRow:
    """A lane of the listener here."""

    name: str
    """What it is called."""

    backend: str
    """The kind of its backend."""

    state: str
    """``ready``, ``starting``, ``resting`` or ``failed``."""

    models: tuple[str, ...] = ()
    """The models on offer there."""

    simulated: bool = False
    """Whether no model makes its answers."""

    slots: int = 0
    """Requests that it answers side by side."""

    busy: int = 0
    """Requests that it answers now."""

    reason: str | None = None
    """Why it is not ready, where that is known."""

    server: str | None = None
    """The address of the server that is not ours; `None` for an engine of this machine's own."""


@attrs.frozen(kw_only=True)
class MemberRow:
    """A machine of the namespace."""

    name: str
    """What people call it; its key where nobody has said."""

    machine: str
    """Its key; in an open namespace, the identity of the peer."""

    is_here: bool
    """Whether it is this one."""

    is_connected: bool
    """Whether there is a session with it now."""

    is_admin: bool = False
    """Whether it may let others in."""

    models: tuple[str, ...] = ()
    """The models that it has on offer."""


@attrs.frozen(kw_only=True)
class Addresses:
    """Where programs ask, as they take it."""

    gateway: str
    """The address itself, for a browser too: it has the dashboard."""

    ollama: str
    """For programs of Ollama."""

    @property
    def openai(self) -> str:
        """For programs of OpenAI."""
        return f"{self.gateway}/v1"

    @property
    def anthropic(self) -> str:
        """For programs of Anthropic, which add ``/v1`` themselves."""
        return self.gateway

    @property
    def dashboard(self) -> str:
        """For a browser."""
        return f"{self.gateway}/"


@attrs.frozen(kw_only=True)
class Status:
    """A running `punch up`, at one instant."""

    state: State
    """What it is doing."""

    process: int
    """Its process id."""

    version: str
    """Of punch."""

    namespace: str = ""
    """The namespace: ``NAME@FINGERPRINT`` if it is closed, ``NAME`` if it is open."""

    is_closed: bool = True
    """Whether only members are in it."""

    is_new: bool = False
    """Whether this `up` has made it."""

    is_admin: bool = False
    """Whether this machine may let others in."""

    name: str = ""
    """What people call this machine there."""

    peer: str = ""
    """The identity of this process."""

    roles: tuple[str, ...] = ()
    """``listener``, ``gateway``, ``meeting point``, ``worker``."""

    listens: tuple[str, ...] = ()
    """Multiaddresses where other machines reach it."""

    addresses: Addresses | None = None
    """Where programs ask; `None` while nothing serves."""

    has_keys: bool = False
    """Whether requests need an API key."""

    members: tuple[MemberRow, ...] = ()
    """The machines, this one first."""

    lanes: tuple[LaneRow, ...] = ()
    """What answers here."""

    adopted: tuple[AdoptedServer, ...] = ()
    """The servers that are not ours: those that were named, and those that were found."""

    workers: tuple[str, ...] = ()
    """The peers that lend memory, this one included."""

    waits_for: tuple[str, ...] = ()
    """What is not there yet, and would be taken by itself."""

    wrong: tuple[str, ...] = ()
    """What does not work, each with why, and what to do."""

    @property
    def models(self) -> tuple[str, ...]:
        """Every model on offer in the namespace, each once."""
        rows = [model for each in self.members for model in each.models]
        rows += [model for each in self.lanes for model in each.models]
        return tuple(sorted(set(rows)))

    def as_data(self) -> dict[str, Any]:
        """The value as JSON has it."""
        data = attrs.asdict(self)
        data["models"] = list(self.models)
        where = self.addresses
        data["addresses"] = (
            None
            if where is None
            else {
                "gateway": where.gateway,
                "openai": where.openai,
                "ollama": where.ollama,
                "anthropic": where.anthropic,
                "dashboard": where.dashboard,
            }
        )
        return data
