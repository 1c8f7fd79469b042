"""The settings of each program as typed values: which settings it has, and with which default.

A single setting is described in `_table` and its neighbours; where its value comes from is decided
by `_layers`.
"""

from __future__ import annotations

from pathlib import Path

import attrs

from ..capability import PeerId
from ..routing.names import Alias
from ..wire import Privacy
from . import _adopting as adopting
from . import _answering as answering
from . import _asking as asking
from . import _splitting as splitting
from . import _table as table
from ._adopting import Adoptee
from ._member_limits import MemberLimits
from ._setting import Settings, group, of
from ._table import Transport
from ._tunnel_ports import TunnelPort


@attrs.frozen(kw_only=True)
class ProgramSettings(Settings):
    """Settings of every program that logs.

    Each program repeats the field with its own default, so that it comes last in ``--help``.
    """

    log_level: str = of(table.LOG_LEVEL)
    """The least level that goes to standard error."""


@attrs.frozen(kw_only=True)
class NetworkSettings(Settings):
    """Where and how a peer finds the others."""

    bootstrap: tuple[str, ...] = of(table.BOOTSTRAP)
    """The addresses where the namespace meets."""

    namespace: str = of(table.NAMESPACE)
    """Name of the namespace; only its members see each other."""

    transport: Transport = of(table.TRANSPORT)
    """``tcp``, ``quic`` or ``dual``."""

    known_peers: Path | None = of(table.KNOWN_PEERS)
    """File of the identities that bootstraps had; `None` for the one in the data folder."""

    lan: bool | None = of(table.LAN)
    """Whether members on the same LAN find each other by mDNS; `None`: in a closed namespace."""

    lan_interfaces: tuple[str, ...] = of(table.LAN_INTERFACES)
    """The interfaces for that; empty for all with a LAN behind them."""


@attrs.frozen(kw_only=True)
class StrictSettings(Settings):
    """Whether an answer may be simulated. Two switches for one thing: either turns it on."""

    strict: bool = of(table.STRICT)
    disable_simulation: bool = of(table.DISABLE_SIMULATION)

    @property
    def is_on(self) -> bool:
        """True if only real inference is accepted."""
        return self.strict or self.disable_simulation


@attrs.frozen(kw_only=True)
class BackendSettings(Settings):
    """Settings of a listener's backend; see INFERENCE.md."""

    name: str = of(answering.BACKEND)
    """Name of the backend, such as ``llama_cpp``."""

    model: str | None = of(answering.MODEL_FILE)
    """A GGUF file, or the name of a model that was pulled."""

    slots: int | None = of(answering.SLOTS)
    """Requests side by side; `None` for the backend's own number."""

    context: int | None = of(answering.CONTEXT)
    """Tokens of one request; `None` for the usual number."""

    features: tuple[str, ...] = of(answering.FEATURES)
    """What the models of an adopted server can do; empty for what it tells."""

    program: str | None = of(answering.LLAMA_CPP_EXE)
    """A program of llama.cpp."""

    threads: int | None = of(answering.LLAMA_THREADS)
    """Threads to compute with; `None` for as many as there are CPUs."""

    no_mmap: bool = of(answering.LLAMA_NO_MMAP)
    """Whether the model is read into memory instead of mapped."""

    gpu_layers: int | None = of(answering.LLAMA_GPU_LAYERS)
    """Layers on GPUs; `None` leaves it to the engine."""

    batch: int | None = of(answering.LLAMA_BATCH)
    """Tokens of prompts that are taken at once; `None` leaves it to the engine."""

    micro_batch: int | None = of(answering.LLAMA_UBATCH)
    """Tokens of these that are computed at once; `None` leaves it to the engine."""

    openai_url: str | None = of(answering.OPENAI_URL)
    """Address of an OpenAI-compatible server."""

    openai_key: str | None = of(answering.OPENAI_KEY)
    """API key of that server."""

    openai_model: str | None = of(answering.OPENAI_MODEL)
    """The only model of that server to offer; `None` for all."""

    mock_decode_rate: float | None = of(answering.MOCK_DECODE_RATE)
    """Tokens per second that the mock makes; `None` for all at once."""

    mock_prefill_rate: float | None = of(answering.MOCK_PREFILL_RATE)
    """Prompt tokens per second that the mock reads; `None` for all at once."""

    mock_delay: float = of(answering.MOCK_DELAY)
    """Seconds before the mock does anything."""

    mock_fail_after: int | None = of(answering.MOCK_FAIL_AFTER)
    """Tokens after which the mock fails; `None` for never."""

    mock_thinks: int = of(answering.MOCK_THINKS)
    """Tokens that the mock thinks before an answer; 0 for a model that cannot think."""

    mock_sees: bool = of(answering.MOCK_SEES)
    """Whether the mock takes pictures."""

    mock_model: str = of(answering.MOCK_MODEL)
    """The model that the mock pretends to be."""


@attrs.frozen(kw_only=True)
class AdoptingSettings(Settings):
    """Which servers that run already are answered with, too."""

    servers: tuple[Adoptee, ...] = of(adopting.ADOPT)
    """Those that a person has named."""

    found: bool | None = of(adopting.ADOPT_FOUND)
    """Whether others are found; `None`: in a closed namespace."""

    off: bool = of(adopting.NO_ADOPT)
    """Whether none is adopted, whatever the others say."""

    def finds(self, *, is_closed: bool) -> bool:
        """Whether servers are found by themselves in a namespace of this kind."""
        return not self.off and (is_closed if self.found is None else self.found)


@attrs.frozen(kw_only=True)
class LendingSettings(Settings):
    """What a machine lends, and to whom."""

    device: tuple[str, ...] = of(splitting.DEVICE)
    """Devices to lend; empty for all that are no CPU, or else the CPU."""

    memory: int | None = of(splitting.MEMORY)
    """Bytes to lend at most; `None` for a share of what is free."""

    lend_to: tuple[PeerId, ...] = of(splitting.LEND_TO)
    """Who alone may borrow; empty for the members of a closed namespace that may."""

    tunnel_port: int | None = of(splitting.TUNNEL_PORT)
    """TCP port of the tunnel's far end; `None` for the usual ones."""

    program: str | None = of(splitting.RPC_SERVER)
    """llama.cpp's RPC server; `None` for the one that is found."""

    engine: str | None = of(answering.LLAMA_CPP_EXE)
    """A program of llama.cpp, beside which it may stand."""

    threads: int | None = of(answering.LLAMA_THREADS)
    """Threads to compute with; `None` for the program's own number."""

    calibrate: bool = of(
        answering.CALIBRATE, about="measure the devices at the start, so that borrowers can plan"
    )
    """Whether the devices are measured."""


@attrs.frozen(kw_only=True)
class ListenerSettings(ProgramSettings):
    """Settings of ``python -m punch.listener``."""

    network: NetworkSettings = group(NetworkSettings)

    listen: tuple[str, ...] = of(answering.LISTEN)
    """Addresses to be dialled at; by default this machine's side of the way to the bootstrap."""

    announce: tuple[str, ...] = of(answering.ANNOUNCE)
    """Further addresses that dialers are told."""

    name: str | None = of(answering.NAME)
    """What people call this machine; `None` for nothing."""

    backend: BackendSettings = group(BackendSettings)

    queue: int = of(answering.QUEUE)
    """Requests that may wait for a slot."""

    calibrate: bool = of(answering.CALIBRATE)
    """Whether the backend is timed at the start."""

    stranger_tokens: int | None = of(answering.STRANGER_TOKENS)
    """Tokens of an answer for a peer of another machine; `None` for no cap."""

    stranger_seconds: float | None = of(answering.STRANGER_SECONDS)
    """Seconds of an answer for a peer of another machine; `None` for no cap."""

    stranger_priority: int | None = of(answering.STRANGER_PRIORITY)
    """Priority of a request of a peer of another machine; `None` for no cap."""

    limit: tuple[MemberLimits, ...] = of(answering.LIMITS_OF_MEMBERS)
    """What single members of a closed namespace may ask for."""

    tunnel_ports: tuple[TunnelPort, ...] = of(answering.TUNNEL_PORTS)
    """Ports of this machine that peers may reach, none unless said."""

    strict: StrictSettings = group(StrictSettings)

    lend: bool = of(splitting.LEND)
    """Whether memory of this machine is lent, too, as in `lending`."""

    lending: LendingSettings = group(LendingSettings)

    identity: str | None = of(table.LISTENER_IDENTITY)
    """The file of its key; by default one of its own in the data folder."""

    log_level: str = of(table.LOG_LEVEL, default="info")


@attrs.frozen(kw_only=True)
class DialerSettings(ProgramSettings):
    """Settings of ``python -m punch.dialer``."""

    ask: str | None = of(asking.ASK)
    """The question; ``-`` for standard input, `None` for a conversation."""

    network: NetworkSettings = group(NetworkSettings)
    model: str | None = of(asking.MODEL_NAME)
    policy: str = of(table.POLICY)
    stream: bool = of(asking.STREAM)
    json: bool = of(asking.RESPONSE_AS_JSON)
    explain: bool = of(asking.EXPLAIN)
    continuation: bool = of(asking.CONTINUATION)
    hedge: bool = of(table.HEDGE)
    alias: tuple[Alias, ...] = of(table.ALIAS)
    prefer: tuple[str, ...] = of(asking.PREFER)
    avoid: tuple[str, ...] = of(asking.AVOID)
    only: tuple[str, ...] = of(asking.ONLY)
    privacy: Privacy = of(asking.PRIVACY)

    min_rate: float = of(asking.MIN_RATE)
    """Tokens a second that a peer must make."""

    max_load: float | None = of(asking.MAX_LOAD)
    """Requests that a peer may have for each of its slots."""

    timeout: float = of(asking.TIMEOUT)
    """Seconds for a whole answer."""

    strict: StrictSettings = group(StrictSettings)
    system: str | None = of(asking.SYSTEM)
    max_tokens: int | None = of(asking.MAX_TOKENS)
    temperature: float | None = of(asking.TEMPERATURE)
    top_p: float | None = of(asking.TOP_P)
    top_k: int | None = of(asking.TOP_K)
    min_p: float | None = of(asking.MIN_P)
    repeat_penalty: float | None = of(asking.REPEAT_PENALTY)
    stop: tuple[str, ...] = of(asking.STOP)
    seed: int | None = of(asking.SEED)
    request_id: str | None = of(asking.REQUEST_ID)
    identity: str | None = of(table.DIALER_IDENTITY)

    decision_log: str | None = of(table.DECISION_LOG)
    """A file, ``none``, or by default one in the data folder."""

    log_level: str = of(table.LOG_LEVEL, default="warning")


@attrs.frozen(kw_only=True)
class PlainRpcSettings(Settings):
    """RPC servers that run already, and whether they may be used."""

    backends: tuple[str, ...] = of(splitting.RPC_BACKEND)
    """Their addresses, each with its port."""

    is_allowed: bool = of(splitting.ALLOW_PLAIN_RPC)
    """Whether they may be used."""


@attrs.frozen(kw_only=True)
class SplitOptions(ProgramSettings):
    """How a split is made, whoever starts it."""

    workers: tuple[str, ...] | None = of(splitting.WORKERS)
    exclude: tuple[str, ...] | None = of(splitting.EXCLUDE)
    tensor_split: tuple[float, ...] | None = of(splitting.TENSOR_SPLIT)
    min_workers: int = of(splitting.MIN_WORKERS)
    min_peers: int = of(splitting.MIN_PEERS)
    device: tuple[str, ...] | None = of(splitting.SPLIT_DEVICE)
    bin_dir: Path | None = of(splitting.BIN_DIR)
    threads: int | None = of(splitting.THREADS)
    context: int | None = of(splitting.CONTEXT)
    slots: int = of(splitting.SLOTS)

    prompt: int = of(splitting.PROMPT)
    """Tokens of a usual prompt."""

    answer: int = of(splitting.ANSWER)
    """Tokens of a usual answer."""

    force: bool = of(splitting.FORCE)
    rpc: PlainRpcSettings = group(PlainRpcSettings)

    @property
    def least(self) -> int:
        """Workers that must hold layers."""
        return max(self.min_workers, self.min_peers)


@attrs.frozen(kw_only=True)
class GatewaySettings(ProgramSettings):
    """Settings of ``python -m punch.gateway``."""

    host: str = of(asking.HOST)
    port: int = of(asking.PORT)

    ollama_port: int | None = of(asking.OLLAMA_PORT)
    """A second port, for programs that know Ollama's address and no other."""

    processes: int = of(asking.PROCESSES)
    """Processes that serve HTTP; with 1, all is in the program's own."""

    keys: Path | None = of(asking.KEYS)
    """The file of API keys; `None` for the usual one, see `keys_path`."""

    open_to_all: bool = of(asking.OPEN_TO_ALL)

    any_name: bool | None = of(asking.ANY_NAME)
    """Whether any name means the one model on offer; `None` for only where no key is needed."""

    allow_origin: tuple[str, ...] = of(asking.ALLOW_ORIGIN)

    body_limit: int = of(asking.BODY_LIMIT)
    """Bytes of a request body."""

    timeout: float = of(asking.GATEWAY_TIMEOUT)
    """Seconds for a whole answer, where the caller does not say."""

    store_responses: int = of(asking.STORE_RESPONSES)
    """Seconds after its last use for which a response can be referred to; 0 to store none."""

    show_prompts: bool = of(asking.SHOW_PROMPTS)
    network: NetworkSettings = group(NetworkSettings)
    policy: str = of(table.POLICY)
    hedge: bool = of(table.HEDGE)

    alias: tuple[Alias, ...] = of(table.ALIAS)
    """Further names of models; a running gateway follows those of the file."""

    strict: StrictSettings = group(StrictSettings)
    identity: str | None = of(table.GATEWAY_IDENTITY)

    decision_log: str | None = of(table.DECISION_LOG)
    """A file, ``none``, or by default one in the data folder."""

    listen_too: bool = of(asking.LISTEN_TOO)
    """Whether there is a listener in the same process, with the settings in `listener`."""

    listener: ListenerSettings = group(ListenerSettings)

    split: tuple[str, ...] = of(asking.SPLIT)
    """Models that may be split over workers; what is started is a lane of the listener here."""

    splits: SplitOptions = group(SplitOptions, within=splitting.OF_GATEWAY)
    """How they are split: ``--split-slots`` and so on."""

    traces: str | None = of(asking.TRACES)
    """The OpenTelemetry collector's address."""

    log_level: str = of(table.LOG_LEVEL, default="info")


@attrs.frozen(kw_only=True)
class BootstrapSettings(ProgramSettings):
    """Settings of ``python -m punch.bootstrap``."""

    listen: str = of(table.MEETING_ADDRESS)
    """Address that the bootstrap listens on."""

    transport: Transport = of(table.BOOTSTRAP_TRANSPORT)
    """``tcp``, ``quic`` or ``dual``."""

    per_host: int = of(table.PER_HOST)
    """Peers of one host in one namespace."""

    per_namespace: int = of(table.PER_NAMESPACE)
    """Peers of one namespace."""

    max_peers: int = of(table.MAX_PEERS)
    """Peers of all namespaces."""

    relay: bool = of(table.RELAY)
    """Whether it carries bytes between those who meet there and cannot reach each other."""

    identity: str | None = of(table.BOOTSTRAP_IDENTITY)
    log_level: str = of(table.LOG_LEVEL, default="info")


@attrs.frozen(kw_only=True)
class WorkerSettings(ProgramSettings):
    """Settings of ``python -m punch.cluster.worker``."""

    lending: LendingSettings = group(LendingSettings)
    network: NetworkSettings = group(NetworkSettings)

    listen: tuple[str, ...] = of(answering.LISTEN)
    """Addresses to be dialled at; by default this machine's side of the way to the bootstrap."""

    announce: tuple[str, ...] = of(answering.ANNOUNCE)
    """Further addresses that borrowers are told."""

    identity: str | None = of(table.WORKER_IDENTITY)
    """The file of its key; by default one of its own in the data folder."""

    log_level: str = of(table.LOG_LEVEL, default="info")
