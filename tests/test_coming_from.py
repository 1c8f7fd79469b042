"""docs/coming-from.md: what stands there as ours is what our parsers, tables and routes take."""

from __future__ import annotations

import ast
import inspect
import json
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import attrs
import pytest
from gateway_client import open_client
from starlette.routing import Route, WebSocketRoute
from trio.testing import MockClock

import punch
from punch import create_namespace
from punch.__main__ import COMMANDS, _run
from punch.backends import MockBackend, MockScript
from punch.cli import _run as running
from punch.cli._backends import _batch_arguments
from punch.cli.splits._split_settings import CoordinatorSettings
from punch.cluster.worker.__main__ import main as worker
from punch.dashboard import Feed, Machines, Newcomers, dashboard_routes, live_routes
from punch.dialer.__main__ import main as dialer
from punch.events import Bus
from punch.exceptions import ConfigurationError
from punch.gateway import DEFAULT_PORT, GatewayParts, Metrics, build_application, metrics_route
from punch.listener.__main__ import main as listener
from punch.settings import (
    FILE_VARIABLE,
    SETTINGS,
    BackendSettings,
    DialerSettings,
    Settings,
    find_setting,
    load,
    parse_flags,
    settings_of,
)
from punch.settings.file import import_of

DOCUMENT = (Path(__file__).parent.parent / "docs" / "coming-from.md").read_text(encoding="utf-8")

MODULES = {"punch.listener": listener, "punch.dialer": dialer, "punch.cluster.worker": worker}

NOT_HERE, NOT_YET = "not here, because", "not yet:"

# The most that may be missing for good.
MAX_NOT_HERE = 10


@attrs.frozen(kw_only=True)
class Row:
    """A line of a table."""

    system: str
    """The heading of the section."""

    theirs: str
    ours: str
    differs: str

    def __str__(self) -> str:
        return f"{self.system}: {self.theirs}"

    @property
    def spans(self) -> list[str]:
        """What is between backticks in our column, without words about what is missing."""
        if self.ours.startswith((NOT_HERE, NOT_YET)):
            return []
        return re.findall(r"`([^`]*)`", self.ours)


def rows() -> Iterator[Row]:
    system = ""
    for line in DOCUMENT.splitlines():
        if line.startswith("## "):
            system = line.removeprefix("## ")
        if line.startswith("| ") and not line.startswith(("| there", "| ---")):
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("| "))]
            assert len(cells) in (2, 3), line
            yield Row(system=system, theirs=cells[0], ours=cells[1], differs="".join(cells[2:]))


ROWS = list(rows())


# ---- what is said ----


class _Parsed(BaseException):
    """Ends a command once its settings are loaded."""


@pytest.fixture
def parse(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Give a line to the very program that would run it, up to its settings."""
    said: list[type[Settings]] = []

    def stop(name: str, about: str, kind: type[Settings], arguments: Sequence[str]) -> NoReturn:
        flags = parse_flags(name, about, kind, arguments)
        load(kind, flags, {})
        said.append(kind)
        raise _Parsed

    monkeypatch.setattr(running, "load_settings", stop)

    def parsed(line: str) -> None:
        words = shlex.split(line)
        said.clear()
        try:
            if words[0] == "python":
                assert words[1] == "-m", line
                MODULES[words[2]](words[3:])
            else:
                assert words[0] == "punch", line
                assert words[1] in COMMANDS, line
                _run(words[1:])
        except _Parsed:
            assert said, line
            return
        except SystemExit:
            # Of argparse, which has said why.
            pass
        raise AssertionError(f"{line}: it loads no settings")

    return parsed


VARIABLES = {
    FILE_VARIABLE,
    *(each.variable for each in (*SETTINGS, *settings_of(DialerSettings)) if each.variable),
}


def check_variable(text: str) -> None:
    """A variable that some setting has, with a value that this takes."""
    name, _, value = text.partition("=")
    assert name in VARIABLES, text
    for setting in SETTINGS:
        if setting.variable == name:
            for item in value.split(",") if setting.many else [value]:
                setting.rule.value(item)


def check_call(text: str) -> None:
    """A call of the library with arguments that it has."""
    call = ast.parse(text, mode="eval").body
    assert isinstance(call, ast.Call), text
    path = ast.unparse(call.func).split(".")
    assert path[0] == "punch", text
    function: Any = punch
    for name in path[1:]:
        function = getattr(function, name)
    named = {each.arg: None for each in call.keywords if each.arg}
    signature = inspect.signature(function)
    signature.bind(*call.args, **named)
    if any(each.kind is each.VAR_KEYWORD for each in signature.parameters.values()):
        # What it does not have itself are arguments of a router.
        router = inspect.signature(punch.open_router)
        router.bind(**{name: None for name in named if name not in signature.parameters})


def check_field(text: str) -> None:
    """A field of a response, or a property."""
    kind, _, field = text.partition(".")
    assert hasattr(getattr(punch, kind), field) or field in attrs.fields_dict(
        getattr(punch, kind)
    ), text


async def served(folder: Path) -> set[str]:
    """Every method and path of a gateway with a dashboard, as `punch up` has them."""
    async with open_client({}) as client:
        feed = Feed(client.router)
        home = create_namespace("home", folder=folder)
        routes = [
            *dashboard_routes(
                feed, newcomers=Newcomers(home), machines=Machines(home), router=client.router
            ),
            *live_routes(feed, Bus()),
            metrics_route(Metrics(client.router)),
        ]
        app = build_application(client.router, GatewayParts(routes=tuple(routes)))
        return {
            f"{method} {each.path}"
            for each in app._routes.routes
            if isinstance(each, Route)
            for method in each.methods or ()
        } | {f"WS {each.path}" for each in app._routes.routes if isinstance(each, WebSocketRoute)}


def test_each_row_says_what_is_ours_or_why_there_is_nothing() -> None:
    """And no more is missing for good than may be."""
    for row in ROWS:
        missing = row.ours.startswith((NOT_HERE, NOT_YET))
        assert missing or row.spans, f"{row}: nothing of it can be checked"
        assert missing or NOT_HERE not in row.ours, row
        # Both are said in these words alone.
        assert "not here" not in row.ours.replace(NOT_HERE, ""), row
    missing_rows = [str(row) for row in ROWS if row.ours.startswith(NOT_HERE)]
    assert len(missing_rows) <= MAX_NOT_HERE, missing_rows


async def test_each_row_is_taken_by_the_real_parsers_tables_and_routes(
    parse: Callable[[str], None], tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Commands, variables, settings, endpoints, calls, fields and JSON, and nothing else."""
    paths = await served(tmp_path)
    seen, wrong = 0, []
    for row in ROWS:
        for span in row.spans:
            try:
                if span.startswith(("punch ", "python -m ")):
                    parse(span)
                elif re.match(r"[A-Z][A-Z_]+=", span):
                    check_variable(span)
                elif re.match(r"(GET|POST|WS) /", span):
                    assert span in paths, span
                elif span.startswith("punch."):
                    check_call(span)
                elif span.startswith("{"):
                    check_pi(json.loads(span))
                elif span.startswith("CommandResponse."):
                    check_field(span)
                else:
                    assert find_setting(span).name == span
            except (AssertionError, ValueError, TypeError, AttributeError, ConfigurationError) as e:
                wrong.append(f"{row}: {span}: {e!r}")
            seen += 1
    assert not wrong, "\n".join(wrong)
    assert seen > 150


def check_pi(block: Any) -> None:
    """The providers of pi, with the gateway's own address."""
    (provider,) = block["providers"].values()
    assert provider["baseUrl"] == f"http://localhost:{DEFAULT_PORT}/v1"
    assert provider["models"][0]["id"].endswith(".gguf")


# ---- what of theirs is there ----

THEIRS: dict[str, str] = {
    "The original punch": """
        listener dialer --transport --bootstrap --namespace --ask PUNCH_INFERENCE_BACKEND
        LLAMA_CPP_EXE LLAMA_GGUF_PATH LLAMA_THREADS LLAMA_NO_MMAP PUNCH_STRICT_DISTRIBUTED
        PUNCH_DISABLE_SIMULATION request_id
    """,
    "demo.sh": """
        glm qwen3 /path/to.gguf stop ~/.models/ rpc-server --rpc -ngl --host --port /health
        /v1/chat/completions /tmp/llama-server.log ~/.pi/agent/models.json --provider
    """,
    "SynapticLlamas": """
        --input -i --model -m --workers -w --metrics --interactive --distributed -d --dask
        --dask-scheduler --add-node --discover --load-config --enable-distributed-inference
        --rpc-backend
        mode collab refine synthesis timeout ast quality qretries rag redis verbose dask
        distributed rpc strategy status benchmark dashboard metrics nodes add remove discover
        health save load exit quit q
        collaborative_mode refinement_rounds agent_timeout ast_voting_enabled quality_threshold
        max_quality_retries flockparser_enabled dashboard_verbose model synthesis_model
        task_distribution_enabled model_sharding_enabled rpc_backends redis_logging_enabled
        redis_host redis_port redis_db redis_password distributed_inference_enabled
        dashboard_enable_dask coordinator_url
        /ws/dashboard /ws/logs /ws/ollama_logs /ws/llama_cpp_logs 13B 70B LLAMA_RPC_BACKENDS
    """,
    "mesh-inference": """
        worker host client --model --serve --client --join --port --min-peers --tensor-split
        --bin-dir --device
    """,
    "LlamaNet": """
        MODEL_PATH HOST PORT DHT_PORT NODE_ID BOOTSTRAP_NODES HEARTBEAT_INTERVAL N_CTX N_BATCH
        N_GPU_LAYERS --model-path --host --port --dht-port --node-id --bootstrap-nodes
        bootstrap_nodes model min_tps max_load dht_port prompt max_tokens temperature top_p top_k
        stop repeat_penalty text node_id tokens_generated generation_time
        /generate /status /info /v1/models /v1/completions /v1/chat/completions /health
        /dht/status docker docker-compose
    """,
}


@pytest.mark.parametrize("system", THEIRS)
def test_everything_of_theirs_has_a_row(system: str) -> None:
    """By the lists of their own documents."""
    there = " ".join(row.theirs for row in ROWS if row.system == system)
    words = set(re.split(r"[\s`,;:\"()=]+", there))
    missing = set(THEIRS[system].split()) - words
    # A path may stand behind a host.
    assert [one for one in sorted(missing) if "/" not in one or f"{one}`" not in there] == []


# ---- some of it is run ----


def test_each_setting_of_the_import_becomes_what_its_row_says() -> None:
    """Ours in the row is where the import puts it."""
    values: dict[str, object] = {
        "model": "llama3.2",
        "agent_timeout": 300,
        "rpc_backends": [{"host": "10.9.66.45", "port": 50052}],
        "coordinator_url": "http://127.0.0.1:18080",
    }
    for key, value in values.items():
        (row,) = [one for one in ROWS if one.theirs == f"`{key}`" and one.system[:3] == "Syn"]
        found = import_of({key: value})
        assert [one.setting.name for one in found.taken] == row.spans, key
        assert not found.left


def test_a_batch_is_said_to_the_engine_in_its_own_words() -> None:
    """And nothing that was not said."""
    said = {"LLAMA_BATCH": "512", "LLAMA_UBATCH": "128"}
    assert _batch_arguments(load(BackendSettings, {}, said)) == [
        *("--batch-size", "512", "--ubatch-size", "128")
    ]
    assert _batch_arguments(load(BackendSettings, {}, {})) == []


def test_the_flags_of_a_mesh_are_those_of_a_coordinator() -> None:
    """With the values that its documents have."""
    line = "--model big.gguf --min-peers 2 --tensor-split 0.85,0.15 --bin-dir /opt --device CUDA0"
    flags = parse_flags("punch coordinator", "", CoordinatorSettings, line.split())
    found = load(CoordinatorSettings, flags, {})
    assert (found.least, found.tensor_split, found.device) == (2, (0.85, 0.15), ("CUDA0",))


async def test_the_bodies_of_the_others_are_answered_at_the_endpoints_of_their_rows(
    autojump_clock: MockClock,
) -> None:
    """demo.sh's own line with its `"model": "test"`, and what LlamaNet's client sends."""
    async with open_client({"a": MockBackend(MockScript(model="glm", decode_rate=1000.0))}) as one:
        line = {"model": "test", "messages": [{"role": "user", "content": "Hello!"}]}
        reply = await one.post("/v1/chat/completions", {**line, "max_tokens": 200})
        assert (reply.status, bool(reply.json()["choices"])) == (200, True)
        assert reply.json()["model"] == "glm"
        body = {"prompt": "What is LlamaNet?", "max_tokens": 5, "temperature": 0.7, "top_p": 0.9}
        (row,) = [one for one in ROWS if one.theirs == "`POST /generate`"]
        method, path = row.spans[0].split()
        assert method == "POST"
        reply = await one.post(path, {**body, "stop": ["###"]})
        assert (reply.status, bool(reply.json()["choices"][0]["text"])) == (200, True)
