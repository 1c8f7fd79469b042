"""`punch models fit`: what fits where, how it would be split, and what is said of wrong input."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import attrs
import pytest
import trio
import trio.testing
from gguf_writer import tiny
from layouts import SMOL, make_layout

from punch.capability import Gpu, PeerId
from punch.cli import ExitCode
from punch.cli.commands import models
from punch.cli.splits._asked import survey_all
from punch.cli.splits._fitting import Here, Told, fit
from punch.cluster import Borrower, LentDevice, WorkerFacts
from punch.exceptions import PeerRefused
from punch.gguf import LayerSize
from punch.llama_cpp import Speeds
from punch.peers import short_id
from punch.placement import Link, Mix, Plan, Refused, Wants

GB = 10**9
SPEEDS = Speeds(bandwidth=8e9, compute=20e9)
HERE = Here(memory_total=16 * GB, memory_free=12 * GB, speeds=SPEEDS)
WANTS = Wants(context_tokens=4096, slots=1, mix=Mix(prompt_tokens=512, answer_tokens=128))
# 60 layers of 100 MB, and 6 KB for each token in each of them.
BIG = make_layout(
    [LayerSize(weights=100_000_000, kv_per_token=6144, values_per_token=3072)] * 60,
    embeddings=400_000_000,
    output=400_000_000,
    largest_tensor=400_000_000,
    embedding=4096,
    vocabulary=128_000,
)


def worker(number: int, *, memory: int = 8 * GB, rtt: float = 1e-3) -> Told:
    """A worker that is as fast as this machine."""
    return Told(
        name=f"worker{number}", memory=memory, bandwidth=None, link=Link(rtt=rtt, rate=117e6)
    )


def test_a_small_model_fits_with_all_of_its_context() -> None:
    """And nobody is asked for help."""
    found = fit(attrs.evolve(SMOL, context_tokens=8192), HERE, WANTS)
    assert isinstance(found.alone, Plan)
    assert found.context == 8192
    assert (found.split, found.chosen) == (None, found.alone)


def test_the_longest_context_is_found_to_the_step() -> None:
    """It fits, and 256 tokens more do not."""
    here = attrs.evolve(HERE, memory_free=8 * GB)
    layout = attrs.evolve(BIG, context_tokens=131_072)
    found = fit(layout, here, WANTS)
    assert found.context is not None
    assert 256 <= found.context < 131_072

    def fits(context: int) -> bool:
        asked = attrs.evolve(WANTS, context_tokens=context)
        return isinstance(fit(layout, here, asked).alone, Plan)

    assert fits(found.context)
    assert not fits(found.context + 256)


def test_a_model_that_is_too_big_is_split_over_those_that_lend() -> None:
    """And refused with the numbers where they lend too little."""
    here = attrs.evolve(HERE, memory_free=4 * GB)
    found = fit(BIG, here, WANTS, workers=[worker(1), worker(2)])
    assert isinstance(found.alone, Refused)
    assert found.alone.word == "does_not_fit"
    assert found.context is None
    assert isinstance(found.split, Plan)
    assert found.split.is_split
    assert found.chosen is found.split
    too_little = fit(BIG, here, WANTS, workers=[worker(1, memory=GB)])
    assert isinstance(too_little.split, Refused)
    assert too_little.split.needed is not None


def test_a_split_that_does_not_pay_is_shown_and_not_chosen() -> None:
    """Both are there: what it would be, and that this machine alone is faster."""
    short = attrs.evolve(WANTS, mix=Mix(prompt_tokens=16, answer_tokens=128))
    found = fit(BIG, HERE, short, workers=[worker(1, rtt=0.5)])
    assert isinstance(found.split, Plan)
    assert isinstance(found.chosen, Plan)
    assert isinstance(found.alone, Plan)
    assert found.split.is_split
    assert not found.chosen.is_split
    assert found.split.prediction.seconds > found.alone.prediction.seconds


def test_a_gpu_holds_layers_where_it_has_room() -> None:
    """It is one of the devices of this machine."""
    here = attrs.evolve(
        HERE,
        gpus={"CUDA0": Gpu(name="NVIDIA", total_bytes=24 * GB, free_bytes=20 * GB)},
        gpu_speeds={"CUDA0": Speeds(bandwidth=500e9, compute=20e12)},
    )
    found = fit(BIG, here, WANTS)
    assert isinstance(found.alone, Plan)
    assert [share.device for share in found.alone.shares] == ["CUDA0"]


def test_everything_can_be_told_as_json() -> None:
    """In bytes and seconds; speeds that nobody measured are null."""
    told = json.loads(json.dumps(fit(SMOL, HERE, WANTS, workers=[worker(1)]).as_dict()))
    assert told["fits_here"] is True
    assert told["here"]["devices"][0]["bandwidth"] == 8e9
    assert told["split"]["shares"][-1]["holder"] == "worker1"
    unmeasured = fit(SMOL, attrs.evolve(HERE, speeds=None), WANTS).as_dict()
    assert unmeasured["here"]["devices"][0]["bandwidth"] is None
    assert unmeasured["here"]["is_measured"] is False


class MadeUpBorrower:
    """Surveys workers that answer, refuse, or say nothing."""

    async def survey(self, peer_id: PeerId, addresses: Sequence[str]) -> WorkerFacts:
        """By the worker's name."""
        assert addresses == ("/ip4/10.0.0.1/tcp/1",)
        if peer_id == "mute":
            await trio.sleep_forever()
        if peer_id == "closed":
            raise PeerRefused("does not lend to this peer", peer_id=peer_id)
        devices = (
            LentDevice(name="CPU", total=32 * GB, free=24 * GB),
            LentDevice(name="CUDA0", total=8 * GB, free=8 * GB, bandwidth=300e9, compute=9e12),
        )
        return WorkerFacts(
            peer_id=peer_id,
            devices=devices if peer_id == "two" else devices[:1],
            memory=16 * GB,
            bound="limit",
            rpc=None,
            build="",
            threads=0,
            carriers=frozenset({"direct"}),
            is_leased=False,
            rtt=0.002,
        )


async def test_workers_are_asked_at_the_same_time_and_named_if_they_lend_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """What a worker lends in all is shared out over its devices."""
    names = ("mute", "closed", "two", "one")
    began = trio.current_time()
    asked = await survey_all(
        cast("Borrower", MadeUpBorrower()),
        {PeerId(name): ("/ip4/10.0.0.1/tcp/1",) for name in names},
    )
    assert trio.current_time() - began == pytest.approx(5.0)
    assert [(each.name, each.peer_id, each.memory) for each in asked.workers] == [
        (f"{short_id(PeerId('two'))}/CPU", "two", 12 * GB),
        (f"{short_id(PeerId('two'))}/CUDA0", "two", 4 * GB),
        (short_id(PeerId("one")), "one", 16 * GB),
    ]
    assert asked.workers[1].bandwidth == 300e9
    assert asked.workers[0].bandwidth is None
    assert asked.left_out == {
        "mute": "it said nothing within 5 s",
        "closed": "does not lend to this peer",
    }


def test_it_fits_nowhere_is_an_exit_code_of_its_own(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """So that a script can tell."""

    async def little(*_: object) -> Here:
        return Here(memory_total=GB, memory_free=1000)

    monkeypatch.setattr("punch.cli.splits._fit._here", little)
    assert models(["fit", str(model)]) == ExitCode.NO_PEER
    assert "does not fit here" in capsys.readouterr().out


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny model, and no program that could measure anything."""
    monkeypatch.delenv("LLAMA_CPP_EXE", raising=False)
    monkeypatch.setattr("punch.cli.splits._fit.find_engines", lambda **_: ())
    path = tmp_path / "tiny.gguf"
    path.write_bytes(tiny())
    return path


def test_without_a_program_it_tells_what_fits_and_how_to_get_speeds(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No number is made up."""
    assert models(["fit", str(model), "--worker", "1GB"]) == ExitCode.OK
    said = capsys.readouterr().out
    assert "fits here, with 512 tokens of context, all that it was trained for" in said
    assert "LLAMA_CPP_EXE" in said
    assert "worker1: 1 GB memory, 1 ms away" in said
    assert "tokens/s" not in said


def test_json_is_one_line(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the file that was meant."""
    assert models(["fit", str(model), "--json"]) == ExitCode.OK
    told = json.loads(capsys.readouterr().out)
    assert told["path"] == str(model)
    assert told["model"]["layers"] == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--worker", "8"], "its MEMORY is '8': write a number with its unit, such as 8GB"),
        (["--worker", ""], "its MEMORY is ''"),
        (["--worker", "8GB:fast"], "its BANDWIDTH is 'fast'"),
        (["--worker", "8GB:1GB/s:5"], "its RTT is '5'"),
        (["--worker", "8GB::1ms:0bit/s"], "its RATE is '0bit/s': it must be above 0"),
        (["--worker", "1GB:1GB:1ms:1GB:x"], "at most, MEMORY:BANDWIDTH:RTT:RATE"),
        (["--context", "513"], "--context is 513: the model was trained for 512 tokens"),
        (["--context", "0"], "--context is '0': it must be 1 or more"),
        (["--prompt", "500", "--answer", "100"], "--prompt and --answer are 500 and 100 tokens"),
        (["--slots", "1000"], "--slots is '1000': it must be 256 or less"),
    ],
)
def test_a_wrong_value_is_named_with_its_rule_and_its_remedy(
    model: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """And nothing is printed but that."""
    assert models(["fit", str(model), *arguments]) == ExitCode.USAGE
    said = capsys.readouterr()
    assert words in said.err
    assert said.out == ""


def test_a_file_that_cannot_be_laid_out_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Missing, cut short, or without what a layout needs."""
    path = tmp_path / "x.gguf"

    def said(*content: Any) -> str:
        for data in content:
            path.write_bytes(data)
        assert models(["fit", str(path)]) == ExitCode.USAGE
        return capsys.readouterr().err

    assert "does not exist" in said()
    assert "not downloaded completely" in said(tiny()[:-64])
    assert "block_count" in said(tiny(llama_block_count=None))
