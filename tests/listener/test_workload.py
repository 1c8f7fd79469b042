"""The work before an executor: what it tells dialers of it."""

from __future__ import annotations

import attrs
import pytest

from punch.capability import ModelOffer, PeerId
from punch.listener._workload import MIN_SHARE, Workload
from punch.listener.recordings import Recording
from punch.wire import ChatMessage, CommandRequest, Provenance, Sampling

OFFER = ModelOffer(name="m")
ASK = CommandRequest(request_id="r", messages=(ChatMessage(role="user", content="x" * 350),))
HERE = Provenance(kind="real", backend="test")


def recording() -> Recording:
    """One that nobody reads."""
    return Recording(PeerId("d"), ASK)


async def test_a_begun_request_counts_its_prompt_until_there_is_text() -> None:
    """Then it has been read."""
    workload, answer = Workload(), recording()
    work = workload.plan(answer, ASK, OFFER)
    workload.begin(work)
    before = workload.prompt_tokens_left
    answer.begin(HERE, 0.0)
    await answer.add("a", 1)
    after = workload.prompt_tokens_left
    workload.end(work)
    assert (before, after) == (101, 0)
    assert workload.prompt_tokens_left == 0


async def test_what_is_left_of_an_answer_shrinks_to_a_share() -> None:
    """One that is longer than usual is never as good as finished."""
    workload, answer = Workload(), recording()
    workload.learn("m", 50)
    work = workload.plan(answer, ASK, OFFER)
    left = []
    workload.begin(work)
    for tokens in (0, 20, 25, 100):
        await answer.add("a", tokens)
        left.append(workload.output_tokens_left)
    workload.end(work)
    assert left == [50, 30, 50 * MIN_SHARE, 50 * MIN_SHARE]
    assert workload.output_tokens_left == 0


async def test_nothing_is_expected_beyond_what_was_asked_for() -> None:
    """The caller's limit bounds it, at the beginning and at the end."""
    workload, answer = Workload(), recording()
    workload.learn("m", 500)
    request = attrs.evolve(ASK, sampling=Sampling(max_tokens=30))
    workload.begin(workload.plan(answer, request, OFFER))
    at_first = workload.output_tokens_left
    await answer.add("a", 29)
    at_last = workload.output_tokens_left
    assert (at_first, at_last) == (30, 1)


def test_the_usual_length_is_learned_model_by_model() -> None:
    """What one model writes says nothing of another."""
    workload = Workload()
    for _ in range(60):
        workload.learn("m", 40)
    workload.learn("m", None)
    found = workload.plan(recording(), ASK, OFFER).ticket.output_tokens
    other = workload.plan(recording(), ASK, ModelOffer(name="o")).ticket.output_tokens
    assert found == pytest.approx(40, abs=1)
    assert other == 200
    embed = attrs.evolve(ASK, command="embed", inputs=("a",))
    assert workload.plan(recording(), embed, OFFER).ticket.output_tokens == 0


@pytest.mark.parametrize(("context", "most"), [(4096, 4096), (None, 1 << 20), (1 << 30, 1 << 20)])
def test_a_usual_length_fits_the_context(context: int | None, most: int) -> None:
    """A backend may count nonsense; the dialers hear of no more than there can be."""
    workload, offer = Workload(), ModelOffer(name="m", context_tokens=context)
    assert workload.usual_tokens(offer) is None
    workload.learn("m", 1 << 53)
    assert workload.usual_tokens(offer) == most


async def test_a_ticket_says_how_much_was_made() -> None:
    """So that it is charged for meanwhile."""
    answer = recording()
    work = Workload().plan(answer, ASK, OFFER)
    answer.begin(HERE, 0.0)
    await answer.add("a", 7)
    assert work.ticket.made() == 7
