"""Your machines, one model endpoint, nobody in the middle.

A listener runs a model and says what it can do; a dialer asks, and the best listener answers.
They find each other at a bootstrap address inside a namespace, over libp2p::

    async with punch.open_router(namespace="home") as router:
        response = await router.ask("Why is the sky blue?")
        print(response.result.text, response.provenance)

The layout, from the inside out; a room imports only rooms above its own line:

    exceptions    capability                          the vocabulary
    gguf          peers                               what is known of model files and of peers
    wire                                              messages, their bytes, the rules of a session
    routing                                           who is asked, in which order, and why
    ------------- no I/O above, trio below -------------
    admission     network      processes   machine    what everything below is made of
    libp2p        session      llama_cpp   model_store
    backends      discovery                           what runs a model; who is there
    bootstrap     decision_log                        where a namespace meets; what was decided
    dialer        listener                            asks; answers
    gateway       testing                             HTTP in front of a dialer; public fakes
    dashboard     simulator                           a page of it all; a swarm on virtual time
    cli           and every `__main__.py`             the programs
"""

from ._version import __version__
from .capability import Capability, Gpu, Load, ModelOffer, PeerId
from .decision_log import open_decision_log
from .dialer import Answer, Hedge, Router, chat_request, open_router
from .discovery import KnownPeers
from .events import Bus
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
from .peers import PeerRecord
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
    "Bus",
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
