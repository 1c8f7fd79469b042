"""`punch why`, `punch replay` and `punch peers`, on logs that the real log wrote."""

from __future__ import annotations

import json
from pathlib import Path

import attrs
import decision_logs as made
import pytest
import trio

from punch.__main__ import COMMANDS
from punch.capability import PeerId
from punch.cli import ExitCode, decision_log_path
from punch.cli.commands import peers, replay, why
from punch.cli.commands._peers import as_data, table
from punch.events import Bus
from punch.peers import Rates
from punch.settings import data_folder


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PUNCH_DECISION_LOG", raising=False)


@pytest.fixture
def log(tmp_path: Path) -> str:
    """A log with an easy request and, after it, one that was continued."""
    path = tmp_path / "d.jsonl"
    trio.run(made.write, path, made.note_success, made.note_continued)
    return str(path)


def test_the_story_of_a_continued_request_fits_one_screen_and_names_everything(
    log: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who was there, who was asked and why, what came of it, and who went on where."""
    assert why(["long-1", "--log", log]) == ExitCode.OK
    text = capsys.readouterr().out
    lines = text.splitlines()

    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    for words in (
        "request long-1",
        "success after 17.60 s, first text after 620 ms",
        "smollm2 (abababababab), strict; prompt ~420 tokens, answer ~200",
        "completion-time, lowest s is best",
        "-> ..astfast1      9.684",
        "out, strict: simulates (backend mock)",
        "..astfast1 went silent after 3.40 s: 41 tokens, 183 characters (first 620 ms)",
        "no token within 1.5 s",
        "-> ..lowslow2",
        "out, tried: was already asked",
        "..astfast1 went silent after 41 tokens; ..lowslow2 went on from character 183",
        "predicted 9.68 s, took 17.60 s",
        "120 tokens     520 characters",
        "end: stop; smollm2 on llama_cpp; tokens: 461 prompt (64 cached), 161 answer",
    ):
        assert words in text


def test_the_story_of_a_start_says_what_it_was_for_and_what_came_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its seconds beside the other terms, who would read it, its plan, and the seconds it took."""
    path = tmp_path / "d.jsonl"
    trio.run(made.write, path, made.note_started)
    assert why(["--log", str(path)]) == ExitCode.OK
    text = capsys.readouterr().out

    assert max(map(len, text.splitlines())) <= 80
    assert "   peer         kind     score      rtt  prefill   decode    start\n" in text
    assert "-> ..eadhead4   start    5.189    0.000    0.467    2.222    2.500\n" in text
    told = " ".join(text.split())
    assert "to be started, 2.50 s: smollm2, over 2 workers of ann, bob; 12 + 12 layers;" in told
    assert "taken: could be started in 2.5 s, split over 3 machines: done first, by 4.5 s; " in told
    assert "; peer 9.68 s " in told
    assert "more of it" not in text
    assert "   ..eadhead4 start was started after 2.60 s\n" in text
    assert "-> ..eadhead4      2.693" in text
    assert "predicted 5.19 s, took 5.40 s; first text 2.97 s, took 3.10 s" in text


def test_a_start_is_decided_again_as_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A policy that counts no seconds starts nothing; a wait for a start is no answer."""
    path = tmp_path / "d.jsonl"
    trio.run(made.write, path, made.note_started)
    assert replay([str(path), "--policy", "completion-time", "--json"]) == ExitCode.OK
    result = json.loads(capsys.readouterr().out)
    assert result["decisions"] == result["same"] == 2
    assert result["same_seconds"] == 2.8

    assert replay([str(path), "--policy", "least-requests", "--json"]) == ExitCode.OK
    result = json.loads(capsys.readouterr().out)
    assert result["decisions"] == 2
    assert result["same"] <= 1


def test_without_an_id_it_is_the_last_request(log: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Which is what somebody wonders about."""
    assert why(["--log", log]) == ExitCode.OK

    assert capsys.readouterr().out.startswith("request long-1\n")


def test_the_list_has_a_line_for_each_request(log: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The newest is the last."""
    assert why(["--log", log, "--list"]) == ExitCode.OK
    first, second = capsys.readouterr().out.splitlines()

    assert "easy-1" in first
    assert "long-1" in second
    assert "1 failed first" in second


def test_the_story_as_json_leaves_nothing_out(log: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One object on one line, with whole peer ids and snapshots."""
    assert why(["easy-1", "--log", log, "--json"]) == ExitCode.OK
    data = json.loads(capsys.readouterr().out)

    assert [line["kind"] for line in data["lines"]] == ["decided", "attempted", "ended"]
    assert data["lines"][0]["weighed"][0]["peer"]["peer_id"] == made.FAST


def test_an_unknown_id_and_a_missing_log_say_so(
    log: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither is silence."""
    assert why(["nix", "--log", log]) == ExitCode.USAGE
    assert "has nothing of request nix" in capsys.readouterr().err
    assert why(["--log", str(tmp_path / "none.jsonl")]) == ExitCode.USAGE
    assert "there is no decision log" in capsys.readouterr().err


def test_bad_lines_are_named_by_number_and_the_rest_is_told(
    log: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Somebody edited the file."""
    with Path(log).open("a") as file:
        file.write("{bad}\n")

    assert why(["--log", log]) == ExitCode.OK
    captured = capsys.readouterr()
    assert "line 9: left out: it is not JSON" in captured.err
    assert "long-1" in captured.out


async def test_what_peers_call_themselves_does_not_reach_the_terminal_raw(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Names and errors come from anybody."""
    path = tmp_path / "d.jsonl"
    await made.write(
        path,
        lambda events: made.note_attempted(
            events,
            "r",
            peer_id="evil\x1b[2J",
            outcome="backend_failed",
            error="a\x1b]0;title\x07\nb",
            seconds=1.0,
        ),
    )
    assert why(["--log", str(path)]) == ExitCode.OK
    assert why(["--log", str(path), "--list"]) == ExitCode.OK

    assert "\x1b" not in capsys.readouterr().out


def test_where_the_log_is_comes_from_the_option_the_variable_or_the_data_folder(
    log: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In this order; `none` is nowhere."""
    assert decision_log_path(None) == data_folder() / "decisions.jsonl"
    assert str(decision_log_path("/z")) == "/z"
    assert decision_log_path("none") is None
    monkeypatch.setenv("PUNCH_DECISION_LOG", log)
    assert why([]) == ExitCode.OK
    monkeypatch.setenv("PUNCH_DECISION_LOG", "none")
    assert why(["--log", log]) == ExitCode.OK
    capsys.readouterr()
    assert why([]) == ExitCode.USAGE
    assert "PUNCH_DECISION_LOG is none: name a decision log" in capsys.readouterr().err


def test_replaying_the_same_policy_makes_the_same_choices(
    log: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The snapshot is all that it needs."""
    assert replay([log, "--policy", "completion-time", "--json"]) == ExitCode.OK
    result = json.loads(capsys.readouterr().out)

    assert result["decisions"] == result["same"] == 3
    assert result["predicted"] == result["logged_predicted"]
    assert result["same_succeeded"] == pytest.approx(2 / 3)
    assert result["same_seconds"] == pytest.approx((9.0 + 14.2) / 2)
    assert result["other_seconds"] is None


async def test_another_policy_is_compared_by_prediction_and_by_what_happened(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A log of round-robin, decided again by completion-time."""
    path = tmp_path / "d.jsonl"

    def note(events: Bus) -> None:
        for serial in range(4):
            request = attrs.evolve(made.REQUEST, serial=serial)
            decision = made.decide("round-robin", request=request)
            made.note_decided(events, f"r{serial}", decision)
            made.note_attempted(
                events,
                f"r{serial}",
                peer_id=decision.chosen_peer,
                seconds=10.0 if decision.chosen_peer == made.FAST else 20.0,
                first_text=1.0,
                tokens=9,
                characters=9,
            )

    await made.write(path, note)
    assert replay([str(path), "--policy", "completion-time", "--json"]) == ExitCode.OK
    result = json.loads(capsys.readouterr().out)

    assert (result["decisions"], result["same"]) == (4, 2)
    assert result["predicted"] < result["logged_predicted"]
    assert (result["same_seconds"], result["other_seconds"]) == (10.0, 20.0)

    assert replay([str(path), "--policy", "random", "--policy", "completion-time"]) == ExitCode.OK
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_replay_refuses_what_it_cannot_do(
    log: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An unknown policy, a missing file, a log without decisions."""
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    for arguments, words in (
        ([log, "--policy", "best"], "--policy is 'best': it must be one of completion-time"),
        ([str(tmp_path / "nix")], "there is no decision log"),
        ([str(empty)], "has no decisions"),
    ):
        assert replay(arguments) == ExitCode.USAGE
        assert words in capsys.readouterr().err


def test_the_table_of_peers_tells_claims_from_measurements_and_nothing_raw() -> None:
    """A claim has a tilde, and no name reaches the terminal raw."""
    measured = attrs.evolve(made.PEERS[0], rates={"smollm2": Rates(decode=31.0, decode_samples=5)})
    text = table([measured, made.record(PeerId("b\x1b[2J"), rate=7.0)], 100.0)
    head, *lines = text.splitlines()

    assert head.split()[:5] == ["peer", "lane", "backend", "state", "model"]
    assert len(lines) == 2
    assert "31.0" in text
    assert "~7.0" in text
    assert "4.0 ms" in text
    assert "0.5 s" in text
    assert "closed" in text
    assert "\x1b" not in text
    assert as_data(measured, 100.0)["models"][0]["measured"]["decode"] == 31.0


def test_an_empty_namespace_has_a_sentence_instead_of_a_table() -> None:
    """A head without rows looks like a fault."""
    assert table([], 0.0) == "no listener is known in this namespace"


def test_the_commands_are_registered() -> None:
    """`punch why` and its like are what a person types."""
    assert {"why": why, "replay": replay, "peers": peers}.items() <= COMMANDS.items()
