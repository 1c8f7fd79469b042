"""Programs of an earlier commit and of this one in one namespace: each understands the other.

The old ones are that commit's own files, taken out of `.git` (`tests/past.py` names it), run by
the same Python with the same libraries. Every process has a data folder of its own, so nobody
shares an identity or what was learnt of a bootstrap.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import past
import pytest
from integration.programs import ROOT, Program, Programs, Result, limit, open_programs

from punch import Sampling, chat_request
from punch.backends import mock_words

OLD, NEW = "old", "new"
SIDES = (OLD, NEW)

QUESTION = "Why is the sky blue?"
TOKENS = 12

# A mock's text hangs on the prompt alone: whoever prints it got the whole answer, in order.
ANSWER = " ".join(mock_words(chat_request(QUESTION, sampling=Sampling(max_tokens=TOKENS))))

NO_REAL_PEER = 6


@pytest.fixture(scope="module")
def old_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the earlier commit."""
    return past.unpack_or_skip(tmp_path_factory.mktemp("old"), "punch")


class Both:
    """Starts programs of either side."""

    def __init__(self, programs: Programs, old_tree: Path) -> None:
        self.programs = programs
        self._trees = {OLD: old_tree, NEW: ROOT}
        self._numbers = itertools.count(1)

    def environment(self, side: str, **more: str) -> dict[str, str]:
        """That of one process."""
        folder = self.programs.folder / f"{side}-{next(self._numbers)}"
        return {
            "PYTHONPATH": str(self._trees[side]),
            "XDG_DATA_HOME": str(folder / "data"),
            "XDG_CONFIG_HOME": str(folder / "config"),
            "XDG_CACHE_HOME": str(folder / "cache"),
            "PUNCH_DECISION_LOG": str(folder / "decisions.jsonl"),
            **more,
        }

    def bootstrap(self, side: str) -> Program:
        """A bootstrap alone."""
        return self.programs.bootstrap(**self.environment(side))

    def listener(self, side: str, *arguments: str, **more: str) -> Program:
        """A listener with a mock, whose model is named for its side."""
        named = {"PUNCH_MOCK_MODEL": f"{side}-model"} | more
        return self.programs.listener(*arguments, **self.environment(side, **named))

    def dial(self, side: str, *arguments: str) -> Result:
        """One question."""
        asked = ("--ask", QUESTION, "--max-tokens", str(TOKENS), "--json")
        return self.programs.dial(*asked, *arguments, variables=self.environment(side))

    def gateway(self, side: str, *arguments: str, **more: str) -> Program:
        """A gateway."""
        return self.programs.gateway(*arguments, **self.environment(side, **more))


@pytest.fixture
def both(tmp_path: Path, old_tree: Path) -> Iterator[Both]:
    """Programs of both sides, gone afterwards."""
    with open_programs(tmp_path) as programs:
        yield Both(programs, old_tree)


def test_the_old_programs_are_really_old(both: Both) -> None:
    """Else all of this would prove that today understands today."""
    said = {
        side: both.programs.start_script(
            "import pathlib, punch; print(pathlib.Path(punch.__file__).parent)",
            **both.environment(side),
        )
        .wait()
        .out.strip()
        for side in SIDES
    }
    assert Path(said[NEW]) == ROOT / "punch"
    assert Path(said[OLD]) != Path(said[NEW])
    # The file that it had, and that has been a folder since.
    assert (Path(said[OLD]) / "router.py").is_file()


@pytest.mark.parametrize(
    "meeting", ["old bootstrap", "new bootstrap", "old listener", "new listener"]
)
@limit(240)
def test_each_asks_each_wherever_they_meet(both: Both, meeting: str) -> None:
    """Dialers and gateways of both sides get the answers of listeners of both sides.

    They meet at a bootstrap of either side, or at the first listener, which serves as one.
    """
    first, what = meeting.split()
    if what == "bootstrap":
        both.bootstrap(first)
    # The first one is the bootstrap where there is none.
    sides = sorted(SIDES, key=lambda side: side != first)
    listeners = {side: both.listener(side) for side in sides}
    for asking, answering in itertools.product(SIDES, SIDES):
        response = both.dial(asking, "--model", f"{answering}-model").json()
        check(response, listeners[answering])
    for side in SIDES:
        url = both.gateway(side).url
        for answering in SIDES:
            check_gateway(url, f"{answering}-model")


@pytest.mark.parametrize("meeting", SIDES)
@limit(180)
def test_a_gateway_that_listens_too_is_one_peer_to_either_side(both: Both, meeting: str) -> None:
    """It asks itself and the others, and is asked, also where a bootstrap knows one role a peer."""
    both.bootstrap(meeting)
    gateway = both.gateway(NEW, "--listen-too", PUNCH_MOCK_MODEL="own-model")
    gateway.peer_id = gateway.wait_for("listening")["peer"]
    for side in SIDES:
        both.listener(side)
    for model in ("own-model", *(f"{side}-model" for side in SIDES)):
        check_gateway(gateway.url, model)
    for side in SIDES:
        check(both.dial(side, "--model", "own-model").json(), gateway)


def check(response: dict[str, Any], listener: Program) -> None:
    """The whole answer, from whom it was asked, and called simulated."""
    assert response["status"] == "success"
    assert response["result"]["text"] == ANSWER
    assert response["executor"] == listener.peer_id
    assert response["provenance"]["kind"] == "simulated"
    assert response["provenance"]["backend"] == "mock"
    assert response["usage"]["completion_tokens"] == TOKENS


def check_gateway(url: str, model: str) -> None:
    """Whole and streamed, and vectors."""
    asked = {
        "model": model,
        "messages": [{"role": "user", "content": QUESTION}],
        "max_tokens": TOKENS,
    }
    with httpx.Client(base_url=url, timeout=60) as client:
        # A gateway serves before it has met everybody.
        deadline = time.monotonic() + 30
        while model not in client.get("/v1/models").text and time.monotonic() < deadline:
            time.sleep(0.2)
        whole = client.post("/v1/chat/completions", json=asked)
        assert whole.json()["choices"][0]["message"]["content"] == ANSWER
        streamed = client.post("/v1/chat/completions", json={**asked, "stream": True})
        assert streamed.text.rstrip().endswith("data: [DONE]")
        vectors = client.post("/v1/embeddings", json={"model": model, "input": ["one", "two"]})
        assert len(vectors.json()["data"]) == 2


@pytest.mark.parametrize(("asking", "dying"), [(NEW, OLD), (NEW, NEW), (OLD, NEW), (OLD, OLD)])
@limit(180)
def test_an_answer_that_one_side_began_is_finished_by_the_other(
    both: Both, asking: str, dying: str
) -> None:
    """Not a word is lost or said twice where the first listener is killed in the middle."""
    staying = NEW if dying == OLD else OLD
    both.bootstrap(NEW)
    slow = {"PUNCH_MOCK_DECODE_RATE": "8", "PUNCH_MOCK_MODEL": "shared"}
    victim = both.listener(dying, **slow)
    dialer = both.programs.start(
        "dialer", "--ask", QUESTION, "--max-tokens", "80", variables=both.environment(asking)
    )
    # The only one there is has begun before the other one comes.
    dialer.wait_out()
    both.listener(staying, **slow)
    victim.kill()
    ended = dialer.wait(60)
    text = " ".join(mock_words(chat_request(QUESTION, sampling=Sampling(max_tokens=80))))
    assert (ended.code, ended.out.strip()) == (0, text), ended


@pytest.mark.parametrize(("asking", "answering"), [(OLD, NEW), (NEW, OLD)])
@limit(120)
def test_strict_holds_between_the_sides(both: Both, asking: str, answering: str) -> None:
    """A simulated offer is known for one, whoever made it."""
    both.listener(answering)
    assert both.dial(asking, "--strict").code == NO_REAL_PEER


@pytest.mark.parametrize("side", SIDES)
@limit(120)
def test_a_caller_of_either_side_that_leaves_frees_the_slot(both: Both, side: str) -> None:
    """A cancel is understood: the one slot of the other side is there for the next question."""
    other = NEW if side == OLD else OLD
    both.bootstrap(other)
    listener = both.listener(other, "--slots", "1", PUNCH_MOCK_DECODE_RATE="5")
    url = both.gateway(side).url
    asked = {
        "messages": [{"role": "user", "content": QUESTION}],
        "max_tokens": 2000,
        "stream": True,
    }
    with httpx.Client(base_url=url, timeout=30) as client:
        deadline = time.monotonic() + 30
        while "model" not in client.get("/v1/models").text and time.monotonic() < deadline:
            time.sleep(0.2)
        with client.stream("POST", "/v1/chat/completions", json=asked) as response:
            next(response.iter_lines())
        began = time.monotonic()
        again = client.post(
            "/v1/chat/completions",
            json={**asked, "stream": False, "max_tokens": 2},
        )
        assert again.status_code == 200
        # The two thousand tokens would have taken 400 s.
        assert time.monotonic() - began < 15
    assert listener.process.poll() is None
