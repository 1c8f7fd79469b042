"""Your machines, one model endpoint, nobody in the middle.

A listener runs a model and says what it can do; a dialer asks, and the best listener answers.
They find each other at a bootstrap address inside a namespace, over libp2p::

    async with punch.open_router(namespace="home") as router:
        response = await router.ask("Why is the sky blue?")
        print(response.text, response.provenance)

From asyncio, and from programs that block, `punch.blocking` has the same.

And to answer, with a backend of punch's or of your own::

    async with punch.open_listener(backend, namespace="home"):
        await trio.sleep_forever()

In a namespace that nobody enters uninvited, which ``punch.create_namespace`` makes and
``punch.join_namespace`` joins, each program has a membership::

    async with punch.open_membership("home") as home, punch.open_router(membership=home) as router:
        ...

The layout, from the inside out; a room imports only rooms above its own line:

    exceptions    capability                          the vocabulary
    gguf          peers                               what is known of model files and of peers
    wire          access                              messages, their bytes; who is a member
    routing       placement                           who is asked, and why; which layers lie where
    events                                            what happens, for whoever subscribes
    ------------- no I/O above, trio below -------------
    admission     network      processes   machine    what everything below is made of
    libp2p        session      llama_cpp   model_store
    backends      discovery   tunnels                 what runs a model; who is there; its wires
    bootstrap     decision_log  membership            where it meets; what was decided; its lock
    dialer        listener                            asks; answers
    cluster                                           lends memory, borrows it, splits a model
    gateway       testing                             HTTP in front of a dialer; public fakes
    dashboard     simulator                           a page of it all; a swarm on virtual time
    settings                                          where each setting comes from
    admin                                             commands to a punch that runs
    cli           and every `__main__.py`             the programs
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._version import __version__
from .access import Grant, Namespace
from .capability import Capability, Gpu, Lane, Load, ModelOffer, PeerId
from .decision_log import DecisionLog, open_decision_log
from .dialer import Answer, Attribution, Hedge, Router, chat_request, open_router
from .discovery import KnownPeers, SourceState
from .discovery.lan import Lan, real_lan
from .events import Batch, Bus, Event, Subscription
from .exceptions import (
    AnswerInterrupted,
    AnswerUnfit,
    BackendError,
    ConfigurationError,
    ContextTooLong,
    DeadlineExceeded,
    EnginesDied,
    InvalidRequest,
    ModelForbidden,
    NetworkError,
    NoPeerAvailable,
    NoRealPeer,
    NotPermitted,
    OfferUnavailable,
    PeerError,
    PeerFailed,
    PeerRefused,
    PeerSimulated,
    PeerTimeout,
    PeerUnable,
    PeerUnreachable,
    PunchError,
    QuotaExceeded,
    RequestCancelled,
    RequestConflict,
    RequestError,
    Unauthorized,
    UnknownModel,
)
from .network import Address, Node
from .peers import Belief, Breaker, Candidate, LaneRecord, PeerRecord, Rates
from .routing import (
    POLICIES,
    Assessment,
    Decision,
    FailedAttempt,
    Filter,
    Policy,
    Prediction,
    RouteRequest,
    Scorer,
    Startable,
    StartableOffer,
)
from .routing.kinds import Kind
from .routing.names import Alias, Aliases, Wishes
from .wire import (
    ChatMessage,
    CommandRequest,
    CommandResponse,
    Completion,
    ContentPart,
    Fault,
    Hints,
    Progress,
    Provenance,
    RegistrationLimits,
    Sampling,
    Segment,
    Timings,
    TokenLogprob,
    Tool,
    ToolCall,
    Usage,
)

if TYPE_CHECKING:
    from .backends import Backend, Emit, Generation, Loading
    from .bootstrap import BootstrapServer, open_bootstrap
    from .cluster import (
        Borrower,
        Lease,
        LentDevice,
        RpcLender,
        Worker,
        WorkerFacts,
        open_borrower,
        open_rpc_lender,
        open_worker,
    )
    from .gateway import Gateway, GatewayParts, GatewaySettings, open_gateway
    from .listener import Caps, Listener, RunningLane, open_listener
    from .membership import (
        Asked,
        CreatedInvite,
        DiskMembership,
        Home,
        InviteStatus,
        Joined,
        Left,
        MemberStatus,
        NearbyRequest,
        approve_newcomer,
        create_invite,
        create_namespace,
        export_root,
        find_member,
        find_namespace,
        import_root,
        join_namespace,
        join_nearby,
        joined_namespaces,
        leave_namespace,
        list_invites,
        list_members,
        list_newcomers,
        open_membership,
        refuse_newcomer,
        remove_member,
        rename_member,
        rotate_key,
        withdraw_invite,
    )

# Where these are, which a program that only asks has no use for: each is imported when it is used.
_ROOMS = {
    "open_listener": "listener",
    "Listener": "listener",
    "RunningLane": "listener",
    "Caps": "listener",
    "Backend": "backends",
    "Generation": "backends",
    "Emit": "backends",
    "Loading": "backends",
    "open_bootstrap": "bootstrap",
    "BootstrapServer": "bootstrap",
    "open_worker": "cluster",
    "Worker": "cluster",
    "open_rpc_lender": "cluster",
    "RpcLender": "cluster",
    "open_borrower": "cluster",
    "Borrower": "cluster",
    "WorkerFacts": "cluster",
    "LentDevice": "cluster",
    "Lease": "cluster",
    "open_gateway": "gateway",
    "Gateway": "gateway",
    "GatewaySettings": "gateway",
    "GatewayParts": "gateway",
    "create_namespace": "membership",
    "joined_namespaces": "membership",
    "find_namespace": "membership",
    "leave_namespace": "membership",
    "Left": "membership",
    "Home": "membership",
    "open_membership": "membership",
    "DiskMembership": "membership",
    "export_root": "membership",
    "import_root": "membership",
    "rotate_key": "membership",
    "create_invite": "membership",
    "CreatedInvite": "membership",
    "list_invites": "membership",
    "InviteStatus": "membership",
    "withdraw_invite": "membership",
    "join_namespace": "membership",
    "Joined": "membership",
    "join_nearby": "membership",
    "Asked": "membership",
    "list_newcomers": "membership",
    "NearbyRequest": "membership",
    "approve_newcomer": "membership",
    "refuse_newcomer": "membership",
    "list_members": "membership",
    "find_member": "membership",
    "MemberStatus": "membership",
    "rename_member": "membership",
    "remove_member": "membership",
}


def __getattr__(name: str) -> Any:
    """The value *name* of a room that is imported only now (PEP 562)."""
    from importlib import import_module

    if name == "blocking":
        return import_module("punch.blocking")
    if name not in _ROOMS:
        raise AttributeError(f"module 'punch' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"punch.{_ROOMS[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


__all__ = [
    "__version__",
    # asking
    "open_router",
    "Router",
    "Answer",
    "chat_request",
    "CommandRequest",
    "Hints",
    "Alias",
    "Aliases",
    "Wishes",
    "ChatMessage",
    "ContentPart",
    "Tool",
    "ToolCall",
    "Sampling",
    "CommandResponse",
    "Completion",
    "Usage",
    "Timings",
    "Provenance",
    "TokenLogprob",
    "Fault",
    "Segment",
    "Progress",
    "FailedAttempt",
    "Attribution",
    "KnownPeers",
    "SourceState",
    "Lan",
    "real_lan",
    "Hedge",
    "Address",
    "Node",
    "Bus",
    "Event",
    "Subscription",
    "Batch",
    "open_decision_log",
    "DecisionLog",
    # answering
    "open_listener",
    "Listener",
    "RunningLane",
    "Caps",
    "Backend",
    "Generation",
    "Emit",
    "Loading",
    # what stands around them
    "open_bootstrap",
    "RegistrationLimits",
    "BootstrapServer",
    # lending memory, and borrowing it
    "open_worker",
    "Worker",
    "open_rpc_lender",
    "RpcLender",
    "open_borrower",
    "Borrower",
    "WorkerFacts",
    "LentDevice",
    "Lease",
    "open_gateway",
    "Gateway",
    "GatewaySettings",
    "GatewayParts",
    # closed namespaces
    "create_namespace",
    "joined_namespaces",
    "find_namespace",
    "leave_namespace",
    "Left",
    "export_root",
    "import_root",
    "rotate_key",
    "Home",
    "Namespace",
    "Grant",
    "open_membership",
    "DiskMembership",
    "create_invite",
    "CreatedInvite",
    "list_invites",
    "InviteStatus",
    "withdraw_invite",
    "join_namespace",
    "Joined",
    "join_nearby",
    "Asked",
    "list_newcomers",
    "NearbyRequest",
    "approve_newcomer",
    "refuse_newcomer",
    "list_members",
    "find_member",
    "MemberStatus",
    "rename_member",
    "remove_member",
    # choosing
    "Policy",
    "POLICIES",
    "Scorer",
    "Filter",
    "RouteRequest",
    "StartableOffer",
    "Startable",
    "Decision",
    "Assessment",
    "Prediction",
    "Kind",
    "Belief",
    "Candidate",
    "PeerRecord",
    "LaneRecord",
    "Rates",
    "Breaker",
    # what peers say of themselves
    "Capability",
    "Lane",
    "ModelOffer",
    "Load",
    "Gpu",
    "PeerId",
    # what goes wrong
    "PunchError",
    "ConfigurationError",
    "RequestError",
    "InvalidRequest",
    "ContextTooLong",
    "RequestConflict",
    "RequestCancelled",
    "Unauthorized",
    "ModelForbidden",
    "QuotaExceeded",
    "EnginesDied",
    "NoPeerAvailable",
    "UnknownModel",
    "NoRealPeer",
    "DeadlineExceeded",
    "AnswerInterrupted",
    "AnswerUnfit",
    "PeerError",
    "PeerUnreachable",
    "PeerTimeout",
    "PeerRefused",
    "NotPermitted",
    "OfferUnavailable",
    "PeerUnable",
    "PeerFailed",
    "PeerSimulated",
    "BackendError",
    "NetworkError",
]
