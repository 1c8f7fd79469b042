"""Your machines, one model endpoint, nobody in the middle.

A listener runs a model and says what it can do; a dialer asks, and the best listener answers.
They find each other at a bootstrap address inside a namespace, over libp2p::

    async with punch.open_router(namespace="home") as router:
        response = await router.ask("Why is the sky blue?")
        print(response.result.text, response.provenance)

The layout, from the inside out; a room imports only rooms above its own line:

    exceptions    capability                     the vocabulary
    peers         gguf                           what is known of peers and of model files
    wire                                         messages, their bytes, the rules of a session
    routing                                      who is asked, in which order, and why
    ------------- no I/O above, trio below -------------
    node          backends      machine          libp2p; what runs a model; what we run on
    router        answer        decision_log     the dialer's side: one loop an answer
    executor      admission     recording        the listener's: slots, a queue, a backend
    testing       simulator                      a network in memory; a swarm on virtual time
    cli           listener  dialer  bootstrap    the programs
"""

from ._version import __version__
from .answer import Answer, Hedge
from .capability import Capability, Gpu, Load, ModelOffer, PeerId
from .decision_log import open_decision_log
from .exceptions import (
    AnswerInterrupted,
    ConfigurationError,
    ContextTooLong,
    DeadlineExceeded,
    InvalidRequest,
    NetworkError,
    NoPeerAvailable,
    NoRealPeer,
    PeerError,
    PunchError,
    RequestConflict,
    RequestError,
    UnknownModel,
)
from .node import KnownPeers
from .peers import PeerRecord
from .router import Router, chat_request, open_router
from .routing import POLICIES, Decision, Filter, Policy, RouteRequest, Scorer
from .wire import (
    ChatMessage,
    CommandRequest,
    CommandResponse,
    Sampling,
    Segment,
    TokenLogprob,
    Tool,
    ToolCall,
)

__all__ = [
    "__version__",
    # asking
    "open_router",
    "Router",
    "Answer",
    "chat_request",
    "CommandRequest",
    "ChatMessage",
    "Tool",
    "ToolCall",
    "Sampling",
    "CommandResponse",
    "TokenLogprob",
    "Segment",
    "KnownPeers",
    "Hedge",
    "open_decision_log",
    # choosing
    "Policy",
    "POLICIES",
    "Scorer",
    "Filter",
    "RouteRequest",
    "Decision",
    "PeerRecord",
    # what peers say of themselves
    "Capability",
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
    "NoPeerAvailable",
    "UnknownModel",
    "NoRealPeer",
    "DeadlineExceeded",
    "AnswerInterrupted",
    "PeerError",
    "NetworkError",
]
