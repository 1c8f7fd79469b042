"""What the head of a split is started with, and which workers it can work with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest

from punch.cluster.coordinator import HeadBuild, split_arguments
from punch.cluster.coordinator._versions import fault_of
from punch.exceptions import ConfigurationError
from punch.llama_cpp import Program, RpcVersion
from punch.placement import Parts, Plan, Prediction, Share, Speculation

FLAGS = frozenset(
    {
        "--model", "--port", "--parallel", "--rpc", "--device", "--tensor-split", "-fit",
        "--cache-ram", "--spec-type", "--spec-ngram-simple-size-n", "--spec-ngram-simple-size-m",
    }
)  # fmt: skip
PROGRAM = Program(path=Path("/bin/llama-server"), version="1", flags=FLAGS)

PREDICTION = Prediction(
    token=0.1, first_token=1.0, prompt_rate=10.0, load=1.0, seconds=2.0, terms={}, step=0.1,
    token_parts=Parts(), prompt_parts=Parts(), load_parts=Parts(),
)  # fmt: skip


def plan(*shares: Share, **changes: Any) -> Plan:
    fields: dict[str, Any] = {
        "output_on_head": False, "is_tied": False, "micro_batch": 64, "slots": 2,
        "context_tokens": 512, "speculation": None, "prediction": PREDICTION,
    }  # fmt: skip
    return Plan(shares=shares, **(fields | changes))


def share(device: str, first: int, last: int, holder: str = "") -> Share:
    return Share(device=device, holder=holder, layers=range(first, last), weights=1, kv=1)


def value(arguments: list[str], flag: str) -> str:
    return arguments[arguments.index(flag) + 1]


def test_devices_are_named_as_the_head_counts_them() -> None:
    """Through all servers in their order; those of the head keep their names."""
    found = split_arguments(
        PROGRAM,
        plan(
            share("CPU", 0, 2),
            share("b/1", 2, 5, "b"),
            share("CUDA0", 5, 9),
            share("a", 9, 12, "a"),
        ),
        [("127.0.0.1:2", ["b/0", "b/1"]), ("127.0.0.1:1", ["a"])],
    )
    assert value(found, "--rpc") == "127.0.0.1:2,127.0.0.1:1"
    assert value(found, "--device") == "RPC1,CUDA0,RPC2"
    # The output counts as a layer of the last one; what is left to the processor counts nowhere.
    assert value(found, "--tensor-split") == "3,4,4"
    assert value(found, "--n-gpu-layers") == "11"
    assert value(found, "--ubatch-size") == "64"
    assert value(found, "--cache-ram") == "0"
    assert value(found, "-fit") == "off"
    assert "--override-tensor" not in found


@pytest.mark.parametrize(
    ("is_tied", "pattern"), [(True, "token_embd=CPU"), (False, r"^output\.weight=CPU")]
)
def test_the_output_stays_on_the_head_by_its_own_name(is_tied: bool, pattern: str) -> None:
    """Anchored: every layer has an `attn_output`."""
    found = split_arguments(
        PROGRAM,
        plan(share("a", 0, 2, "a"), output_on_head=True, is_tied=is_tied),
        [("127.0.0.1:1", ["a"])],
    )
    assert value(found, "--override-tensor") == pattern


def test_speculation_is_asked_for_where_the_program_knows_it() -> None:
    """Its flags are new, and an unknown one would end the head."""
    wanted = plan(share("a", 0, 2, "a"), speculation=Speculation(match=3, draft=8))
    endpoints = [("127.0.0.1:1", ["a"])]
    found = split_arguments(PROGRAM, wanted, endpoints)
    assert value(found, "--spec-type") == "ngram-simple"
    assert value(found, "--spec-ngram-simple-size-n") == "3"
    assert value(found, "--spec-ngram-simple-size-m") == "8"
    old = attrs.evolve(PROGRAM, flags=FLAGS - {"--spec-type", "-fit", "--cache-ram"})
    found = split_arguments(old, wanted, endpoints)
    assert [word for word in found if word.startswith("--spec")] == []
    assert "-fit" not in found
    assert "--cache-ram" not in found


def test_a_program_without_rpc_is_refused_with_the_remedy() -> None:
    """A build may lack it; it is no use as a head then."""
    program = attrs.evolve(PROGRAM, flags=FLAGS - {"--rpc"})
    with pytest.raises(ConfigurationError, match=r"no --rpc.*punch engine install"):
        split_arguments(program, plan(share("a", 0, 2, "a")), [("127.0.0.1:1", ["a"])])


def test_a_model_that_nobody_else_holds_needs_no_rpc() -> None:
    """The head alone, once all of its workers are gone."""
    program = attrs.evolve(PROGRAM, flags=FLAGS - {"--rpc"})
    found = split_arguments(program, plan(share("CPU", 0, 12)), [])
    assert "--rpc" not in found
    assert "--device" not in found
    assert value(found, "--n-gpu-layers") == "0"


HEAD = HeadBuild(version=RpcVersion(7, 0, 0), build="build 1")


@pytest.mark.parametrize("version", [(5, 0, 0), (7, 1, 0), (7, 0, 1), (8, 0, 0), (6, 9, 9)])
def test_any_other_version_is_refused_in_words_that_name_both(version: Any) -> None:
    """The patch number too, although llama.cpp does not look at it; forcing does not help."""
    other = RpcVersion(*version)
    for is_forced in (False, True):
        fault = fault_of("anna", other, "build 2", head=HEAD, is_forced=is_forced)
        assert fault is not None
        assert f"anna speaks RPC {other} (llama.cpp build 2)" in fault
        assert "the head RPC 7.0.0 (llama.cpp build 1)" in fault


def test_another_build_is_refused_unless_forced() -> None:
    """Where both are known."""
    version = RpcVersion(7, 0, 0)
    fault = fault_of("anna", version, "build 2", head=HEAD)
    assert fault is not None
    assert "build 2" in fault
    assert "build 1" in fault
    assert fault_of("anna", version, "build 2", head=HEAD, is_forced=True) is None
    assert fault_of("anna", version, "", head=HEAD) is None
    assert fault_of("anna", version, "build 1", head=HEAD) is None
    unknown = HeadBuild(version=None, build="build 1")
    assert fault_of("anna", RpcVersion(5, 0, 0), "build 1", head=unknown) is None
