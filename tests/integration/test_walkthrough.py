"""The walkthrough, as a person does it: programs in terminals, a real model behind them."""

from __future__ import annotations

import hashlib
import json
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from integration.programs import Program, Programs, limit, off, open_programs

from punch import ChatMessage, CommandRequest, KnownPeers, chat_request, open_router
from punch.backends import mock_words

QUESTION = "What is the capital of France?"
TOKENS = 12
GREEDY = ("--temperature", "0", "--seed", "1", "--max-tokens", str(TOKENS))


def mock_answer(question: str, **options: Any) -> str:
    """What a mock says to *question*."""
    return " ".join(mock_words(chat_request(question, **options)))


# ---- real answers ----


@attrs.frozen(kw_only=True)
class Walkthrough:
    """A listener with a real model, which is its own bootstrap."""

    programs: Programs
    listener: Program
    backend: str
    digest: str


BACKENDS = ("llama-cli", "llama-completion", "llama-server", "embedded")


@pytest.fixture(scope="module", params=BACKENDS)
def walkthrough(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    model_path: Path,
    llama_cpp_folder: Path,
) -> Iterator[Walkthrough]:
    """Terminal 1 of INFERENCE.md, for one value of LLAMA_CPP_EXE or the embedded engine."""
    folder = tmp_path_factory.mktemp(request.param)
    environment = {"LLAMA_GGUF_PATH": str(model_path), "PUNCH_TRANSPORT": "dual"}
    if request.param == "embedded":
        environment["PUNCH_INFERENCE_BACKEND"] = "embedded"
    else:
        # Alone in a folder: with llama-server beside it, any of them would mean the server.
        alone = folder / "bin" / request.param
        alone.parent.mkdir()
        alone.symlink_to(llama_cpp_folder / request.param)
        environment["PUNCH_INFERENCE_BACKEND"] = "llama_cpp"
        environment["LLAMA_CPP_EXE"] = str(alone)
    with model_path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    with open_programs(folder) as programs:
        yield Walkthrough(
            programs=programs,
            listener=programs.listener(**environment),
            backend="embedded" if request.param == "embedded" else "llama_cpp",
            digest=digest,
        )


@pytest.mark.parametrize("transport", ["tcp", "quic"])
@limit(120)
def test_a_real_answer_says_where_it_comes_from(walkthrough: Walkthrough, transport: str) -> None:
    """Provenance, digest, tokens and id are true; streamed, it is the same text and no more."""
    dial = walkthrough.programs.dial
    asked = ("--transport", transport, "--ask", QUESTION, *GREEDY)
    said = dial(*asked, "--json", "--request-id", f"mine-{transport}").json()
    assert said["status"] == "success"
    assert said["request_id"] == f"mine-{transport}"
    assert said["executor"] == walkthrough.listener.peer_id
    provenance = said["provenance"]
    assert provenance["kind"] == "real"
    assert provenance["backend"] == walkthrough.backend
    assert provenance["model_digest"] == walkthrough.digest
    # The limit cut it off, so the backend's own count can only be the limit.
    assert said["result"]["finish_reason"] == "length"
    assert said["usage"]["completion_tokens"] == TOKENS
    assert said["usage"]["prompt_tokens"] > len(QUESTION.split())
    assert 0 < said["timings"]["decode"] < said["timings"]["total"]
    streamed = dial(*asked)
    assert streamed.out == said["result"]["text"] + "\n"
    assert (streamed.code, streamed.err) == (0, "")


@limit(120)
def test_a_real_answer_ends_by_itself(walkthrough: Walkthrough) -> None:
    """Where the model ends its answer, the reason is that, and there are fewer tokens."""
    said = walkthrough.programs.dial(
        "--ask", "Say only: yes", "--temperature", "0", "--max-tokens", "200", "--json"
    ).json()
    assert said["result"]["finish_reason"] == "stop"
    assert 0 < said["usage"]["completion_tokens"] < 200


@pytest.mark.parametrize("transport", ["tcp", "quic"])
@limit(60)
def test_two_terminals_are_enough(programs: Programs, transport: str) -> None:
    """The first listener becomes the bootstrap; a dialer with nothing but a question finds it."""
    listener = programs.listener("--transport", transport)
    assert listener.events("nobody was at the bootstrap address")
    kind = "/quic-v1/" if transport == "quic" else "/tcp/"
    assert all(kind in address for address in listener.addresses)
    said = programs.dial("--transport", transport, "--ask", "hi")
    assert (said.code, said.out) == (0, mock_answer("hi") + "\n")
    assert "warning: this answer is simulated (backend mock)" in said.err
    assert said.err.count("is simulated") == 1
    # A second listener finds the first one there.
    second = programs.listener("--transport", transport)
    assert not second.events("nobody was at the bootstrap address")
    assert second.peer_id != listener.peer_id
    assert listener.stop().code == 0
    assert second.stop().code == 0


# ---- what a dialer prints ----


@pytest.fixture(scope="module")
def mocked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Programs]:
    """A bootstrap of its own with one mock listener."""
    with open_programs(tmp_path_factory.mktemp("mocked")) as programs:
        programs.bootstrap()
        programs.listener(PUNCH_MOCK_MODEL="parrot")
        yield programs


@limit(60)
def test_ask_reads_the_question_from_standard_input(mocked: Programs) -> None:
    """`--ask -` takes all of it, lines and all."""
    question = "first line\nsecond line é\n"
    said = mocked.dial("--ask", "-", typed=question)
    assert (said.code, said.out) == (0, mock_answer(question) + "\n")
    assert "warning: this answer is simulated (backend mock)" in said.err


@limit(60)
def test_an_empty_question_is_refused(mocked: Programs) -> None:
    """Nothing on standard input is no question."""
    said = mocked.dial("--ask", "-")
    assert (said.code, said.out) == (2, "")
    assert "--ask is empty" in said.err


@limit(60)
def test_no_stream_prints_the_same_at_once(mocked: Programs) -> None:
    """`--no-stream` and `PUNCH_STREAM=0` give the text that streaming gives."""
    for arguments, environment in ((("--no-stream",), {}), ((), {"PUNCH_STREAM": "0"})):
        said = mocked.dial("--ask", "hi", *arguments, variables=environment)
        assert (said.code, said.out) == (0, mock_answer("hi") + "\n")


@limit(60)
def test_a_conversation_takes_piped_questions(mocked: Programs) -> None:
    """Answers on standard output, one a line, with the turns before; talk on standard error."""
    typed = (
        "one\n/model dodo\ntwo\n/model\nthree\n/peers\n/why\n/nonsense\n/reset\none\n/exit\nnever\n"
    )
    said = mocked.dial(typed=typed)
    answer = mock_answer("one")
    turns = [("user", "one"), ("assistant", answer), ("user", "three")]
    third = CommandRequest(
        request_id="x",
        messages=tuple(ChatMessage(role=role, content=content) for role, content in turns),
    )
    assert said.code == 0
    # The question that failed left no turn behind.
    assert said.out.splitlines() == [answer, " ".join(mock_words(third)), answer]
    assert "on offer: parrot" in said.err
    assert "decision: completion-time" in said.err
    assert "there is no command /nonsense" in said.err


@limit(60)
def test_explain_shows_the_numbers_on_standard_error(mocked: Programs) -> None:
    """Who could have answered, with every term of the score; the answer stays clean."""
    said = mocked.dial("--ask", "hi", "--explain")
    assert said.out == mock_answer("hi") + "\n"
    for word in ("decision: completion-time", "rtt", "queue", "prefill", "decode", "<- chosen"):
        assert word in said.err


@limit(60)
def test_the_answer_arrives_as_it_is_made(programs: Programs) -> None:
    """The first word is printed long before the last one is made."""
    programs.listener(PUNCH_MOCK_DECODE_RATE="10")
    dialer = programs.start("dialer", "--ask", "hi", "--max-tokens", "20")
    dialer.wait_out()
    began = time.monotonic()
    said = dialer.wait()
    # Twenty words at ten a second; half of it for a busy machine.
    assert time.monotonic() - began > 1.0
    assert said.out == " ".join(mock_words(chat_request("hi"))[:20]) + "\n"


@limit(60)
def test_a_policy_can_be_chosen_by_name(mocked: Programs) -> None:
    """Option or variable; the response says which one decided."""
    said = mocked.dial("--ask", "hi", "--json", PUNCH_POLICY="capability").json()
    assert said["decision"]["policy"] == "capability"
    said = mocked.dial("--ask", "hi", "--json", "--policy", "least-requests").json()
    assert said["decision"]["policy"] == "least-requests"


@limit(60)
def test_an_unknown_model_names_the_ones_on_offer(mocked: Programs) -> None:
    """Nobody is asked, and the text says what could have been asked for."""
    said = mocked.dial("--ask", "hi", "--model", "gpt-5")
    assert (said.code, said.out) == (3, "")
    assert "'gpt-5'" in said.err
    assert "parrot" in said.err


# ---- settings that are wrong ----


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        (["--policy", "best"], {}, ["policy is 'best'", "completion-time", "round-robin"]),
        (["--max-tokens", "0"], {}, ["--max-tokens is '0'", "1 or more"]),
        (["--timeout", "soon"], {}, ["--timeout is 'soon'", "number"]),
        ([], {"PUNCH_TEMPERATURE": "hot"}, ["PUNCH_TEMPERATURE is 'hot'", "number"]),
        ([], {"PUNCH_TRANSPORT": "udp"}, ["PUNCH_TRANSPORT is 'udp'", "tcp, quic, dual"]),
        (["--bootstrap", "http://attic"], {}, ["--bootstrap is 'http://attic'", "HOST:PORT"]),
        ([], {"PUNCH_STRICT_DISTRIBUTED": "maybe"}, ["PUNCH_STRICT_DISTRIBUTED", "1 or 0"]),
        (["--request-id", "two words"], {}, ["request_id is 'two words'", "printable"]),
        (["--nonsense"], {}, ["--nonsense"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
@limit(60)
def test_a_wrong_dialer_setting_is_named(
    mocked: Programs, arguments: list[str], environment: dict[str, str], words: list[str]
) -> None:
    """Exit code 2, or 4 for the request itself; option or variable, value and rule in a line."""
    said = mocked.dial("--ask", "hi", *arguments, variables=environment)
    assert (said.code, said.out) == (4 if "--request-id" in arguments else 2, "")
    for word in words:
        assert word in said.err
    assert "Traceback" not in said.err


@limit(60)
def test_a_wrong_listener_setting_is_named(
    programs: Programs, tmp_path: Path, model_path: Path, llama_cpp_folder: Path
) -> None:
    """Every missing or wrong setting ends the listener at once with its name and the remedy."""
    no_gguf = tmp_path / "readme.gguf"
    no_gguf.write_text("This is not a model.\n" * 100)
    truncated = tmp_path / "truncated.gguf"
    with model_path.open("rb") as file:
        truncated.write_bytes(file.read(5_000_000))
    turned = tmp_path / "turned.gguf"
    turned.write_bytes(b"GGUF" + (3).to_bytes(4, "big") + bytes(1000))
    server = {
        "PUNCH_INFERENCE_BACKEND": "llama_cpp",
        "LLAMA_CPP_EXE": str(llama_cpp_folder / "llama-server"),
    }
    model = {"LLAMA_GGUF_PATH": str(model_path)}
    embedded = {"PUNCH_INFERENCE_BACKEND": "embedded"}
    cases: list[tuple[dict[str, str], list[str]]] = [
        (server, ["LLAMA_GGUF_PATH is not set", "--model", "punch models pull"]),
        (embedded, ["LLAMA_GGUF_PATH is not set"]),
        ({**server, "LLAMA_GGUF_PATH": "/nowhere/x.gguf"}, ["LLAMA_GGUF_PATH", "/nowhere/x.gguf"]),
        ({**server, "LLAMA_GGUF_PATH": str(no_gguf)}, ["readme.gguf", "GGUF"]),
        ({**embedded, "LLAMA_GGUF_PATH": str(truncated)}, ["truncated.gguf", "loaded completely"]),
        ({**server, "LLAMA_GGUF_PATH": str(turned)}, ["turned.gguf", "endian"]),
        ({**server, "LLAMA_GGUF_PATH": str(tmp_path)}, [str(tmp_path)]),
        (
            {"PUNCH_INFERENCE_BACKEND": "llama_cpp", **model},
            ["LLAMA_CPP_EXE is not set", "punch engine install"],
        ),
        (
            {**server, **model, "LLAMA_CPP_EXE": "/nowhere/llama"},
            ["LLAMA_CPP_EXE", "/nowhere/llama"],
        ),
        ({**server, **model, "LLAMA_CPP_EXE": sys.executable}, ["LLAMA_CPP_EXE"]),
        ({**server, **model, "LLAMA_THREADS": "many"}, ["LLAMA_THREADS is 'many'", "number"]),
        ({"PUNCH_INFERENCE_BACKEND": "llama"}, ["PUNCH_INFERENCE_BACKEND is 'llama'", "embedded"]),
        ({"PUNCH_INFERENCE_BACKEND": "openai"}, ["PUNCH_OPENAI_URL is not set", "http://"]),
        ({"PUNCH_MOCK_DECODE_RATE": "-1"}, ["PUNCH_MOCK_DECODE_RATE is '-1'", "above 0"]),
        ({"PUNCH_SLOTS": "0"}, ["PUNCH_SLOTS is '0'", "1 or more"]),
        (
            {"PUNCH_LISTEN": "0.0.0.0:4001"},
            ["PUNCH_LISTEN is '0.0.0.0:4001'", "/ip4/HOST/tcp"],
        ),
    ]
    # In twos, for two cores.
    for pair in (cases[i : i + 2] for i in range(0, len(cases), 2)):
        started = [programs.start("listener", variables=environment) for environment, _ in pair]
        for program, (environment, wanted) in zip(started, pair, strict=True):
            said = program.wait()
            assert (said.code, said.out) == (2, ""), (environment, said)
            assert "Traceback" not in said.err, said.err
            for word in wanted:
                assert word in said.err, (environment, word, said.err)


@limit(60)
def test_a_port_in_use_names_its_holder(programs: Programs) -> None:
    """Exit code 7, and the pid of who should move."""
    first = programs.bootstrap()
    second = programs.run("bootstrap")
    assert (second.code, second.out) == (7, "")
    assert f"process {first.pid}" in second.err
    assert "another port" in second.err


@limit(60)
def test_a_port_held_by_a_stranger_is_not_taken_for_a_bootstrap(programs: Programs) -> None:
    """A listener says that something else answers there, and joins once a bootstrap does."""
    stranger = programs.start_script(
        "import socket, sys\n"
        "server = socket.create_server(('127.0.0.1', int(sys.argv[1])))\n"
        "print('ready', flush=True)\n"
        "while True:\n"
        "    server.accept()[0].sendall(b'220 mail.example ESMTP\\r\\n')\n",
        str(programs.port),
    )
    stranger.wait_out("ready")
    listener = programs.start("listener")
    said = listener.wait_for("the bootstrap is out of reach")
    assert "not a libp2p peer" in said["why"]
    stranger.kill()
    programs.bootstrap()
    programs.ready(listener)


# ---- meeting ----


@limit(60)
def test_the_bootstraps_identity_is_verified_where_it_is_given(programs: Programs) -> None:
    """With the right /p2p id it is joined, with a wrong one refused with both names."""
    bootstrap = programs.bootstrap()
    listener = programs.listener("--bootstrap", f"{programs.address}/p2p/{bootstrap.peer_id}")
    right = programs.dial(
        "--ask", "hi", "--bootstrap", f"{programs.address}/p2p/{bootstrap.peer_id}"
    )
    assert (right.code, right.out) == (0, mock_answer("hi") + "\n")
    wrong = programs.dial(
        "--ask", "hi", "--bootstrap", f"{programs.address}/p2p/{listener.peer_id}"
    )
    assert (wrong.code, wrong.out) == (7, "")
    assert bootstrap.peer_id in wrong.err
    assert listener.peer_id in wrong.err
    assert "identity" in wrong.err


@limit(90)
def test_a_changed_identity_is_refused_until_it_is_accepted(
    programs: Programs, tmp_path: Path
) -> None:
    """The text says how to accept the new one, and that works."""
    first = programs.bootstrap("--identity", str(tmp_path / "first.key"))
    listener = programs.listener()
    assert programs.dial("--ask", "hi").code == 0
    listener.stop()
    first.stop()
    second = programs.bootstrap("--identity", str(tmp_path / "second.key"))
    said = programs.dial("--ask", "hi")
    assert (said.code, said.out) == (7, "")
    assert first.peer_id in said.err
    assert second.peer_id in said.err
    known = programs.data / "known_peers"
    place = f"127.0.0.1:{programs.port}"
    assert f"remove the line of {place} from {known}" in said.err
    refused = programs.run("listener")
    assert refused.code == 7
    assert str(known) in refused.err
    # As the text says.
    lines = [line for line in known.read_text().splitlines() if not line.startswith(f"{place} ")]
    known.write_text("".join(f"{line}\n" for line in lines))
    programs.listener()
    assert programs.dial("--ask", "hi").out == mock_answer("hi") + "\n"


@limit(60)
def test_nobody_at_the_bootstrap_is_said_as_it_is(programs: Programs) -> None:
    """A dialer alone gives up within seconds, with the address and the reason."""
    said = programs.dial("--ask", "hi")
    assert (said.code, said.out) == (7, "")
    assert programs.address in said.err
    assert "refused" in said.err


@limit(60)
def test_nobody_in_the_namespace_is_said_as_it_is(mocked: Programs) -> None:
    """The bootstrap answers and no listener is there: that is exit code 3."""
    said = mocked.dial("--ask", "hi", "--namespace", "empty")
    assert (said.code, said.out) == (3, "")
    assert "no listener" in said.err


@limit(60)
async def test_two_namespaces_never_see_each_other(programs: Programs) -> None:
    """One bootstrap, two namespaces: each dialer sees its own listener, and no other."""
    await off(programs.bootstrap)
    red, blue = await off(
        programs.listeners,
        {"arguments": ("--namespace", "red")},
        {"arguments": ("--namespace", "blue")},
    )
    for name, own, other in (("red", red, blue), ("blue", blue, red)):
        async with open_router(bootstrap=programs.address, namespace=name) as router:
            await router.wait_for_peers()
            assert [peer.peer_id for peer in router.peers] == [own.peer_id]
            response = await router.ask("hi")
            assert response.executor == own.peer_id
            assert other.peer_id not in router._dispatch.pool._states


@limit(60)
async def test_losing_the_bootstrap_disturbs_no_session(programs: Programs, tmp_path: Path) -> None:
    """Killed, it is missed by nobody; back again, everybody registers again."""
    identity = str(tmp_path / "bootstrap.key")
    bootstrap = await off(programs.bootstrap, "--identity", identity)
    listener = await off(programs.listener, PUNCH_MOCK_DECODE_RATE="20")
    known = KnownPeers(None)
    async with open_router(bootstrap=programs.address, known=known) as router:
        await router.wait_for_peers()
        async with router.answer(chat_request("long", timeout=30)) as answer:
            await answer.receive()
            await off(bootstrap.kill)
            async for _ in answer:
                pass
            assert answer.text == mock_answer("long")
        response = await router.ask("hi")
        assert response.result is not None
        assert response.result.text == mock_answer("hi")
        assert [peer.peer_id for peer in router.peers] == [listener.peer_id]
        await off(listener.wait_for, "the bootstrap is out of reach")
        await off(programs.bootstrap, "--identity", identity)
        # A newcomer meets the listener only if that has registered again.
        async with open_router(bootstrap=programs.address, known=known) as newcomer:
            await newcomer.wait_for_peers()
            assert (await newcomer.ask("hi")).executor == listener.peer_id
        # And the old dialer meets a new listener only if it has registered again itself.
        await off(programs.listener)
        await router.wait_for_peers(lambda peers: len(peers) == 2)


# ---- the end ----


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
@limit(60)
def test_a_listener_finishes_what_it_has_begun(programs: Programs, number: int) -> None:
    """The answer in flight is whole, the listener then ends with 0, its port is free."""
    programs.bootstrap()
    listener = programs.listener(PUNCH_MOCK_DECODE_RATE="12")
    dialer = programs.start("dialer", "--ask", "hi")
    dialer.wait_out()
    listener.send(number)
    listener.wait_for("draining")
    answered = dialer.wait()
    assert (answered.code, answered.out) == (0, mock_answer("hi") + "\n")
    ended = listener.wait()
    assert ended.code == 0
    assert "Traceback" not in ended.err


@limit(60)
def test_a_second_signal_ends_a_listener_at_once(programs: Programs) -> None:
    """It does not wait for an answer that takes long."""
    listener = programs.listener(PUNCH_MOCK_DECODE_RATE="1")
    dialer = programs.start("dialer", "--ask", "hi")
    dialer.wait_out()
    listener.send(signal.SIGTERM)
    listener.wait_for("draining")
    began = time.monotonic()
    ended = listener.stop(signal.SIGTERM)
    assert ended.code == 143
    # The drain alone may take 10 s.
    assert time.monotonic() - began < 8
    assert dialer.wait().code == 3


@limit(60)
def test_a_bootstrap_ends_when_told_to(programs: Programs) -> None:
    """SIGTERM and Ctrl-C end it with 0, with members connected, and free its port."""
    for number in (signal.SIGTERM, signal.SIGINT):
        bootstrap = programs.bootstrap()
        listener = programs.listener()
        assert bootstrap.stop(number).code == 0
        assert listener.stop().code == 0


@limit(60)
def test_logs_go_to_standard_error_as_json(programs: Programs) -> None:
    """Where it is no terminal, each line is one object that says what, where and when."""
    listener = programs.listener()
    ended = listener.stop()
    assert ended.out == ""
    lines = [json.loads(line) for line in ended.err.splitlines()]
    assert {line["event"] for line in lines} >= {"listening", "stopped"}
    assert all({"level", "logger", "timestamp"} <= line.keys() for line in lines)


@limit(60)
def test_a_listener_with_a_real_model_leaves_nothing_behind(
    programs: Programs, model_path: Path, llama_cpp_folder: Path
) -> None:
    """Told to end, or killed: its llama-server ends with it."""
    environment = {
        "PUNCH_INFERENCE_BACKEND": "llama_cpp",
        "LLAMA_CPP_EXE": str(llama_cpp_folder / "llama-server"),
        "LLAMA_GGUF_PATH": str(model_path),
        "PUNCH_CALIBRATE": "0",
    }
    for number in (signal.SIGTERM, signal.SIGKILL):
        listener = programs.listener(**environment)
        names = {Path(process.exe()).name for process in programs.descendants()}
        assert "llama-server" in names
        listener.stop(number)
        deadline = time.monotonic() + 10
        while programs.descendants() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert programs.descendants() == []


@limit(60)
def test_two_programs_of_one_user_have_two_identities(programs: Programs) -> None:
    """Two listeners share the data folder; each takes a key of its own and keeps it."""
    programs.bootstrap()
    first, second = programs.listeners({}, {})
    assert first.peer_id != second.peer_id
    both = {first.peer_id, second.peer_id}
    first.stop()
    second.kill()
    again = programs.listener()
    assert again.peer_id in both
    keys = sorted((programs.data / "identities").glob("listener*.key"))
    assert len(keys) == 2
    assert all(key.stat().st_mode & 0o077 == 0 for key in keys)


@limit(60)
async def test_a_port_of_another_transport_is_no_hindrance(programs: Programs) -> None:
    """`dual` on both sides: the dialer takes TCP and gets its answer."""
    await off(programs.listener, "--transport", "dual")
    async with open_router(bootstrap=programs.address, transport="dual") as router:
        response = await router.ask("hi")
        assert response.result is not None
        assert response.result.text == mock_answer("hi")
