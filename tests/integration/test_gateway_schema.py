"""Schemathesis against a real gateway: what `/openapi.json` says is what comes back."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import hypothesis
import pytest
import schemathesis
from integration.programs import Programs, limit
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

# Whether a body that fits the description is taken (`positive_data_acceptance`) cannot be asked:
# some fields go only with others, and a mock has one model.
CHECKS: Any = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
]

# What can be answered. A conversation made at random rarely can, and the fields beside it would
# never be asked for.
ASKED = [{"role": "user", "content": "How are you?"}]
GOOD: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": ASKED},
    "/v1/completions": {"prompt": "Once"},
    "/v1/embeddings": {"input": "Once"},
    "/v1/responses": {"input": "Once"},
    "/v1/messages": {"messages": ASKED, "model": "auto", "max_tokens": 9},
    "/v1/messages/count_tokens": {"messages": ASKED, "model": "auto"},
    "/api/chat": {"messages": ASKED, "model": "mock"},
    "/api/generate": {"prompt": "Once", "model": "mock"},
    "/api/embed": {"input": "Once", "model": "mock"},
    "/api/embeddings": {"prompt": "Once", "model": "mock"},
    "/api/show": {"model": "mock"},
    "/api/pull": {"model": "mock"},
}
FEW = 3
"""Fields beside what can be answered; of many, one is refused nearly always."""


def _as_made(case: Any) -> None:
    pass


def _answerable(case: Any) -> None:
    """What can be answered, with the first few of the fields that were made up."""
    if case.path in GOOD and isinstance(case.body, dict):
        made = [name for name in case.body if name not in GOOD[case.path]][:FEW]
        case.body = {name: case.body[name] for name in made} | GOOD[case.path]


def _in_time(case: Any) -> None:
    """Leave out what is rightly a 503 or a 504 where all listeners are mocks on a busy machine."""
    wishes: Any = case.body.get("punch") if isinstance(case.body, dict) else None
    if isinstance(wishes, dict):
        if wishes.get("strict") is True:
            del wishes["strict"]
        timeout: Any = wishes.get("timeout")
        if type(timeout) in (int, float) and 0 < timeout < 10:
            del wishes["timeout"]


WAYS: tuple[tuple[GenerationMode, Callable[[Any], None]], ...] = (
    (GenerationMode.POSITIVE, _as_made),
    (GenerationMode.POSITIVE, _answerable),
    (GenerationMode.NEGATIVE, _as_made),
)


def ask(
    cases: Any, change: Callable[[Any], None], count: int, seen: dict[str, Counter[int]]
) -> None:
    """Ask so many times, check each answer, and note its status."""

    @hypothesis.seed(1)
    @hypothesis.settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(case=cases)
    def ask_one(case: Any) -> None:
        change(case)
        _in_time(case)
        answer = case.call(timeout=20)
        seen[case.path][answer.status_code] += 1
        case.validate_response(answer, checks=CHECKS)

    ask_one()


@limit(900)
@pytest.mark.parametrize("count", [10, pytest.param(200, marks=pytest.mark.long)])
def test_schemathesis_finds_no_5xx_and_no_undeclared_answer(programs: Programs, count: int) -> None:
    """So many bodies that fit, that can be answered, and that do not fit, on every path."""
    programs.listeners({}, {})
    gateway = programs.gateway()
    schema: Any = schemathesis.openapi.from_url(f"{gateway.url}/openapi.json")
    seen: dict[str, Counter[int]] = defaultdict(Counter)
    for found in schema.get_all_operations():
        operation = found.ok()
        for mode, change in WAYS if operation.method == "post" else WAYS[:1]:
            ask(operation.as_strategy(generation_mode=mode), change, count, seen)
    assert not [line for line in gateway.log if line["level"] in ("error", "critical")]
    assert set(seen) >= GOOD.keys()
    assert all(statuses[200] for statuses in seen.values()), seen
    assert all(seen[path].total() > seen[path][200] for path in GOOD), seen


@limit(120)
def test_no_path_takes_another_method(programs: Programs) -> None:
    """A 405 with the methods that are taken."""
    programs.listener()
    gateway = programs.gateway()
    schema: Any = schemathesis.openapi.from_url(f"{gateway.url}/openapi.json")
    for found in schema.get_all_operations():
        operation = found.ok()
        answer = operation.Case(
            method="PATCH", path_parameters={"model": "mock"} if "{" in operation.path else {}
        ).call()
        assert answer.status_code == 405, operation.path
