"""What users type, and every variable that INFERENCE.md names: an empty home, QUIC, port 51820."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest
from integration.programs import ROOT, Programs, free_port, limit

NAMESPACE = "N"
QUESTION = "What is the capital of France?"
DEFAULT_PORT = 51820

# What a program must not share with another one.
OWN = ("PUNCH_IDENTITY",)

# A peer that is not there.
OTHER = "12D3KooWPnzyP1m2hUFpy1DAJwCrU5d1VFobf1Mp6KdeJ97uimh3"

LIBRARY = """
import os
import sys

import punch
import trio


async def main() -> None:
    async with punch.open_router(
        namespace=sys.argv[1], bootstrap=os.environ["PUNCH_BOOTSTRAP"], transport="quic"
    ) as router:
        await router.wait_for_peers()
        request = punch.chat_request(
            sys.argv[2], sampling=punch.Sampling(max_tokens=8, temperature=0.0), strict=True
        )
        response = await router.ask(request)
        print(response.provenance.kind, response.result.text)


trio.run(main)
"""


def port() -> int:
    """The usual port, or another one if somebody has it."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
    ):
        try:
            tcp.bind(("127.0.0.1", DEFAULT_PORT))
            udp.bind(("127.0.0.1", DEFAULT_PORT))
        except OSError:
            return free_port()
    return DEFAULT_PORT


def variables(folder: Path, model: Path, server: Path) -> dict[str, str]:
    """Every variable that INFERENCE.md names, with a value that makes sense."""
    return {
        # what runs the model
        "PUNCH_INFERENCE_BACKEND": "llama_cpp",
        "LLAMA_GGUF_PATH": str(model),
        "LLAMA_CPP_EXE": str(server),
        "LLAMA_THREADS": "2",
        "LLAMA_NO_MMAP": "1",
        "LLAMA_GPU_LAYERS": "0",
        "LLAMA_BATCH": "512",
        "LLAMA_UBATCH": "256",
        "PUNCH_OPENAI_URL": "http://127.0.0.1:8000/v1",
        "PUNCH_OPENAI_KEY": "none-of-this-backend",
        "PUNCH_OPENAI_MODEL": "none-of-this-backend",
        "PUNCH_MOCK_DECODE_RATE": "20",
        "PUNCH_MOCK_PREFILL_RATE": "100",
        "PUNCH_MOCK_DELAY": "0.1",
        "PUNCH_MOCK_FAIL_AFTER": "5",
        "PUNCH_MOCK_THINKS": "8",
        "PUNCH_MOCK_SEES": "1",
        "PUNCH_MOCK_MODEL": "mock",
        "PUNCH_DISABLE_SIMULATION": "1",
        "PUNCH_STRICT_DISTRIBUTED": "1",
        "PUNCH_CALIBRATE": "1",
        "PUNCH_SLOTS": "2",
        "PUNCH_CONTEXT": "1024",
        "PUNCH_QUEUE": "4",
        "PUNCH_FEATURES": "chat",
        "PUNCH_NAME": "kitchen",
        "PUNCH_STRANGER_TOKENS": "100",
        "PUNCH_STRANGER_SECONDS": "100",
        "PUNCH_STRANGER_PRIORITY": "10",
        # An open namespace has no members who could be limited.
        "PUNCH_LIMIT": "",
        "PUNCH_PER_HOST": "16",
        "PUNCH_PER_NAMESPACE": "16",
        "PUNCH_MAX_PEERS": "64",
        # where
        "PUNCH_BOOTSTRAP": f"/ip4/127.0.0.1/udp/{port()}/quic-v1",
        "PUNCH_NAMESPACE": "not this one: the option beats it",
        "PUNCH_TRANSPORT": "quic",
        "PUNCH_LISTEN": "/ip4/127.0.0.1/udp/0/quic-v1",
        "PUNCH_ANNOUNCE": "/ip4/127.0.0.1/udp/9/quic-v1",
        "PUNCH_KNOWN_PEERS": str(folder / "known_peers"),
        "PUNCH_DECISION_LOG": str(folder / "decisions.jsonl"),
        "PUNCH_LOG_LEVEL": "info",
        # A file that is there, and that variables and options beat.
        "PUNCH_SETTINGS": str(folder / "settings.toml"),
        # what is asked, and how
        "PUNCH_ASK": "not this one: the option beats it",
        "PUNCH_MODEL": model.stem,
        "PUNCH_POLICY": "completion-time",
        "PUNCH_STREAM": "1",
        "PUNCH_JSON": "1",
        "PUNCH_EXPLAIN": "1",
        "PUNCH_CONTINUATION": "1",
        "PUNCH_HEDGE": "1",
        "PUNCH_TIMEOUT": "100",
        "PUNCH_SYSTEM": "You are brief.",
        "PUNCH_MAX_TOKENS": "8",
        "PUNCH_TEMPERATURE": "0",
        "PUNCH_TOP_P": "0.9",
        "PUNCH_TOP_K": "40",
        "PUNCH_MIN_P": "0.05",
        "PUNCH_REPEAT_PENALTY": "1.1",
        "PUNCH_STOP": "###",
        "PUNCH_SEED": "7",
        "PUNCH_REQUEST_ID": "mine-1",
        "PUNCH_ALIAS": "gpt-*=smollm2",
        "PUNCH_PREFER": "kitchen",
        "PUNCH_AVOID": "attic",
        "PUNCH_ONLY": "kitchen",
        "PUNCH_PRIVACY": "own",
        "PUNCH_MIN_RATE": "0.001",
        "PUNCH_MAX_LOAD": "9",
        "PUNCH_LAN": "1",
        "PUNCH_LAN_INTERFACES": "eth0",
        # the gateway's, which neither of the two heeds
        "PUNCH_HOST": "127.0.0.1",
        "PUNCH_GATEWAY_PORT": "11435",
        "PUNCH_STORE_RESPONSES": "600",
        "PUNCH_OLLAMA_PORT": "11434",
        "PUNCH_PROCESSES": "2",
        "PUNCH_RELAY": "0",
        "PUNCH_ANY_NAME": "0",
        "PUNCH_KEYS": str(folder / "gateway.sqlite3"),
        "PUNCH_OPEN_TO_ALL": "0",
        "PUNCH_ALLOW_ORIGIN": "https://example.org",
        "PUNCH_BODY_LIMIT": "32",
        "PUNCH_SHOW_PROMPTS": "0",
        "PUNCH_LISTEN_TOO": "0",
        # for models over several machines, which neither of the two runs or lends to
        "PUNCH_LEND": "0",
        "PUNCH_LEND_TO": OTHER,
        "PUNCH_WORKER_DEVICE": "CPU",
        "PUNCH_WORKER_MEMORY": "1GB",
        "PUNCH_RPC_SERVER": str(server.with_name("ggml-rpc-server")),
        "PUNCH_TUNNEL_PORT": "21850",
        "PUNCH_TUNNEL_PORTS": f"web={DEFAULT_PORT}@{OTHER}",
        "PUNCH_WORKERS": OTHER,
        "PUNCH_SPLIT": str(model),
        "PUNCH_SPLIT_WORKERS": OTHER,
        "PUNCH_SPLIT_EXCLUDE": f"{OTHER}/CUDA0",
        "PUNCH_SPLIT_DEVICE": "CPU",
        "PUNCH_SPLIT_MIN_WORKERS": "1",
        "PUNCH_SPLIT_MIN_PEERS": "1",
        "PUNCH_SPLIT_TENSOR_SPLIT": "3,1",
        "PUNCH_SPLIT_FORCE": "0",
        "PUNCH_SPLIT_SLOTS": "2",
        "PUNCH_SPLIT_CONTEXT": "2048",
        "PUNCH_SPLIT_PROMPT": "256",
        "PUNCH_SPLIT_ANSWER": "64",
        "PUNCH_SPLIT_THREADS": "2",
        "PUNCH_SPLIT_BIN_DIR": str(server.parent),
        "LLAMA_RPC_BACKENDS": "127.0.0.1:9",
        "PUNCH_ALLOW_PLAIN_RPC": "0",
        # for `punch up` alone
        "PUNCH_ADOPT": "http://127.0.0.1:9 model=none",
        "PUNCH_ADOPT_FOUND": "1",
        "PUNCH_NO_ADOPT": "0",
    }


def test_every_variable_of_the_document_is_tried(tmp_path: Path) -> None:
    """A new one needs a value here."""
    document = (ROOT / "INFERENCE.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\b(?:PUNCH|LLAMA)_[A-Z_]*[A-Z]\b", document))
    assert named - set(OWN) == variables(tmp_path, tmp_path, tmp_path).keys()


def own_home(home: Path) -> dict[str, str]:
    """What has a program keep its files in *home*, as one that nobody has set anything for."""
    home.mkdir(exist_ok=True)
    folders = ("XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")
    return {"HOME": str(home), **dict.fromkeys(folders, "")}


def been_up(programs: Programs, home: Path) -> None:
    """Have `punch up` run in *home* for a moment: it makes a closed namespace there."""
    given = {"PUNCH_LISTEN": "/ip4/127.0.0.1/tcp/0", "PUNCH_LAN": "0", "PUNCH_NO_ADOPT": "1"}
    assert programs.up(**given, **own_home(home)).stop().code == 0
    assert list(home.rglob("namespace.json"))


@limit(240)
@pytest.mark.parametrize("was_up", [False, True], ids=["empty", "up was there"])
def test_what_users_type_works_in_any_home(
    programs: Programs, tmp_path: Path, model_path: Path, llama_cpp_folder: Path, was_up: bool
) -> None:
    """A listener, a dialer and `import punch`, each with all variables set, over QUIC.

    A closed namespace that `punch up` has made there is none of theirs.
    """
    everything = {
        **variables(tmp_path, model_path, llama_cpp_folder / "llama-server"),
        **own_home(tmp_path / "home"),
    }
    if was_up:
        been_up(programs, tmp_path / "home")
    Path(everything["PUNCH_SETTINGS"]).write_text(
        "# Kept for every day.\n[network]\nnamespace = 'not this one either'\n", encoding="utf-8"
    )
    own = {name: {"PUNCH_IDENTITY": str(tmp_path / f"{name}.key")} for name in ("l", "d")}
    listener = programs.listener("--namespace", NAMESPACE, **everything, **own["l"])
    assert [line["namespace"] for line in listener.events("listening")] == [NAMESPACE]
    assert all("/quic-v1" in address for address in listener.addresses)
    said = programs.dial(
        "--namespace", NAMESPACE, "--ask", QUESTION, variables={**everything, **own["d"]}
    ).json()
    assert said["request_id"] == "mine-1"
    assert said["status"] == "success"
    assert said["provenance"]["kind"] == "real"
    assert said["executor"] == listener.peer_id
    assert 0 < said["usage"]["completion_tokens"] <= 8
    assert said["result"]["text"].strip()
    # The decision log stands where it was told to.
    assert "mine-1" in Path(everything["PUNCH_DECISION_LOG"]).read_text(encoding="utf-8")
    library = programs.start_script(LIBRARY, NAMESPACE, QUESTION, **everything).wait(60)
    assert library.code == 0, library
    kind, _, text = library.out.partition(" ")
    assert kind == "real"
    assert text.strip()


@limit(120)
def test_the_shortest_lines_work_beside_punch_up(programs: Programs, tmp_path: Path) -> None:
    """Two programs that are told of no namespace are in the one that it made, as its members.

    Those that are told of another one by name are there, as ever.
    """
    quiet = {"PUNCH_LAN": "0", "PUNCH_NO_ADOPT": "1", "PUNCH_LISTEN": "/ip4/127.0.0.1/tcp/0"}
    given = {**own_home(tmp_path / "home"), **quiet}
    programs.up(**given)
    for namespace in ([], ["--namespace", "home"], ["--namespace", NAMESPACE]):
        model = f"model-{len(namespace)}-{''.join(namespace[1:])}"
        listener = programs.listener(*namespace, PUNCH_MOCK_MODEL=model, **given)
        said = programs.dial(
            *namespace,
            "--ask",
            QUESTION,
            "--model",
            model,
            "--json",
            "--no-stream",
            variables=given,
        )
        assert said.json()["executor"] == listener.peer_id
