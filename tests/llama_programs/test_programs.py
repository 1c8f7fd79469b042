"""What is concluded from a program's help text, and the command lines made of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from punch.backends.llama._cli_question import read_question, sampling_flags
from punch.backends.llama._served import with_features
from punch.backends.llama._server import can_embed_too, has_lost_port, server_command
from punch.capability import ModelOffer
from punch.exceptions import GenerationFailed, InvalidRequest, PeerRefused
from punch.llama_cpp import Program
from punch.llama_cpp._program import read_devices, read_named_devices
from punch.wire import ChatMessage, CommandRequest, Sampling

NEW = ["--model", "--port", "--parallel", "--load-mode", "--jinja", "--no-ui", "--no-kv-unified"]
OLD = ["--model", "--port", "--parallel", "--no-mmap"]


def program(*flags: str, name: str = "llama-server") -> Program:
    """A program whose help names *flags*."""
    return Program(path=Path(name), version=None, flags=frozenset(flags))


def command(flags: list[str], *, no_mmap: bool = True, alias: str = "m") -> list[str]:
    """The command line for a build that knows *flags*."""
    return server_command(
        program(*flags),
        model_path=Path("m.gguf"),
        port=1234,
        threads=3,
        no_mmap=no_mmap,
        slots=4,
        context_tokens=1000,
        gpu_layers=None,
        alias=alias,
        embed=False,
        extra_args=["--more"],
    )


def test_the_flag_against_mapping_is_the_one_that_the_build_knows() -> None:
    """It was renamed in 2026, and a wrong flag keeps the program from starting."""
    assert program("--no-mmap").mmap_flags(True) == ["--no-mmap"]
    assert program("--load-mode").mmap_flags(True) == ["--load-mode", "none"]
    assert program("--load-mode").mmap_flags(False) == []
    assert program().mmap_flags(True) == []


def test_the_context_is_that_of_all_slots_together() -> None:
    """llama-server divides it; a request must get all that it was promised."""
    line = command(NEW)
    assert line[line.index("--ctx-size") + 1] == "4000"
    assert line[line.index("--parallel") + 1] == "4"
    assert "--no-kv-unified" in line


def test_a_server_is_bound_to_loopback_and_shows_no_key() -> None:
    """Arguments are for every user of the machine to see."""
    line = command(NEW)
    assert line[line.index("--host") + 1] == "127.0.0.1"
    assert not [word for word in line if "key" in word]


def test_unknown_flags_are_left_out() -> None:
    """An old build gets what it knows."""
    line = command(OLD)
    assert {"--jinja", "--no-ui", "--no-webui", "--no-kv-unified", "--load-mode"} & set(line) == (
        set()
    )
    assert "--no-mmap" in line
    assert line[-1] == "--more"


def test_a_server_that_answers_can_embed_besides() -> None:
    """Where the build knows how, and the operator has not said it himself."""
    line = server_command(
        program("--embeddings", "--pooling"), model_path=Path("m.gguf"), port=1, threads=None,
        no_mmap=False, slots=1, context_tokens=10, gpu_layers=None, alias=None, embed=False,
        extra_args=[], embed_too=True,
    )  # fmt: skip
    assert line[-3:] == ["--embeddings", "--pooling", "mean"]
    assert can_embed_too(program("--embeddings", "--pooling"), ["--verbose"])
    assert not can_embed_too(program("--embeddings", "--pooling"), ["--pooling=cls"])
    assert not can_embed_too(program("--embedding"), [])


def test_what_a_server_does_with_any_model_is_offered() -> None:
    """By what the model itself can do."""
    chat = ModelOffer(name="m")
    forms = {"json_schema", "logprobs"}
    assert (
        with_features(chat, can_embed=True).features
        == {"chat", "complete", "embed", "tools"} | forms
    )
    assert with_features(chat, can_embed=False).features == {"chat", "complete", "tools"} | forms
    base = ModelOffer(name="m", features=frozenset({"complete"}))
    assert with_features(base, can_embed=False).features == {"complete"} | forms
    vectors = ModelOffer(name="m", features=frozenset({"embed"}))
    assert with_features(vectors, can_embed=True) == vectors


def test_a_name_with_a_comma_is_no_alias() -> None:
    """It would be two."""
    assert "--alias" not in command(NEW, alias="a,b")


def test_a_lost_port_is_recognized() -> None:
    """In the words of builds old and new."""
    assert has_lost_port(
        ["x", "E srv start: couldn't bind HTTP server socket, hostname: 127.0.0.1"]
    )
    assert not has_lost_port(["failed to load model"])


def test_kinds_are_told_apart_by_flags() -> None:
    """Names move: today's llama-completion was called llama-cli."""
    assert program(*NEW).is_server
    assert program("--model", "-no-cnv", name="llama-cli").is_plain
    assert not program("--model", "--single-turn", name="llama-cli").is_plain


def test_gpus_are_read_from_the_list_of_devices() -> None:
    """The CPU and other machines' memory are none."""
    text = (
        "Available devices:\n"
        "  CUDA0: NVIDIA GeForce RTX 4090 (24078 MiB, 23600 MiB free)\n"
        "  RPC0: 127.0.0.1:50052 (16000 MiB, 15000 MiB free)\n"
        "  BLAS: OpenBLAS (0 MiB, 0 MiB free)\n"
    )
    (gpu,) = read_devices(text)
    assert read_named_devices(text) == {"CUDA0": gpu}
    assert gpu.name == "NVIDIA GeForce RTX 4090"
    assert gpu.total_bytes == 24078 * 1024 * 1024
    assert gpu.free_bytes == 23600 * 1024 * 1024
    assert read_devices("Available devices:\n  (none)\n") == ()


def chat(*turns: tuple[str, str], **more: Any) -> CommandRequest:
    """A request for a chat of these *turns*, as role and text."""
    messages = tuple(ChatMessage(role=role, content=content) for role, content in turns)
    return CommandRequest(request_id="r", messages=messages, **more)


def test_one_question_with_a_system_message_can_be_asked() -> None:
    """The most that the programs take."""
    question = read_question(chat(("system", "s"), ("user", "-u")), plain=True)
    assert (question.system, question.prompt, question.chat) == ("s", "-u", True)


@pytest.mark.parametrize(
    ("request_", "plain", "word", "error"),
    [
        (
            chat(("user", "a"), ("assistant", "b"), ("user", "c")),
            True,
            "messages",
            PeerRefused,
        ),
        (chat(("system", "a")), True, "messages", PeerRefused),
        (chat(("user", "")), True, "messages", InvalidRequest),
        (chat(("user", "/read /etc/passwd")), False, "messages", PeerRefused),
        (
            CommandRequest(request_id="r", command="complete", prompt="p"),
            False,
            "complete",
            PeerRefused,
        ),
        (
            CommandRequest(request_id="r", command="complete", prompt=""),
            True,
            "prompt",
            InvalidRequest,
        ),
        (
            CommandRequest(request_id="r", command="embed", inputs=("a",)),
            True,
            "embed",
            PeerRefused,
        ),
    ],
    ids=["conversation", "system only", "empty", "command", "raw", "no prompt", "embed"],
)
def test_what_the_programs_cannot_take_is_refused_by_name(
    request_: CommandRequest, plain: bool, word: str, error: type[Exception]
) -> None:
    """Never silently cut or changed; what another backend can do is sent on to it."""
    with pytest.raises(error, match=word):
        read_question(request_, plain=plain)


def test_a_begun_chat_is_not_continued_by_a_program() -> None:
    """It would repeat what was said; another peer may do it."""
    with pytest.raises(GenerationFailed, match="begun answer"):
        read_question(chat(("user", "a"), continuation="b"), plain=True)


def test_every_sampling_parameter_becomes_a_flag() -> None:
    """And one that the build does not have is refused."""
    sampling = Sampling(
        max_tokens=5, temperature=0.0, top_p=0.9, top_k=4, min_p=0.1, repeat_penalty=1.5, seed=-1
    )
    known = program("--temp", "--top-p", "--top-k", "--min-p", "--repeat-penalty", "--seed")
    assert sampling_flags(known, sampling, context_tokens=99) == [
        "--n-predict", "5", "--temp", "0.0", "--top-p", "0.9", "--top-k", "4",
        "--min-p", "0.1", "--repeat-penalty", "1.5", "--seed", "4294967295",
    ]  # fmt: skip
    assert sampling_flags(known, Sampling(), context_tokens=99) == ["--n-predict", "99"]
    with pytest.raises(PeerRefused, match="min_p"):
        sampling_flags(program("--temp"), Sampling(min_p=0.1), context_tokens=99)
