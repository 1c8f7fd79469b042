"""`punch coordinator` and two workers as programs of their own, over real tunnels."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
from integration.lost_workers import QUESTION, Home, check, servers_of, tree, until
from integration.programs import Program, Programs, alive, limit, off
from integration.test_layout_real import rpc_server
from integration.test_split import PROMPTS

from punch.dialer import chat_request, open_router
from punch.wire import Hints

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")


def worker(programs: Programs, folder: Path, borrower: str, number: int) -> Program:
    """A worker that lends half a gigabyte to *borrower* alone."""
    return programs.start(
        "cluster.worker",
        "--lend-to", borrower, "--memory", "512MiB", "--device", "CPU",
        "--identity", str(programs.folder / f"worker{number}.key"),
        LLAMA_CPP_EXE=str(folder / "llama-server"), LLAMA_THREADS="1",
    )  # fmt: skip


@pytest.mark.long
@limit(240)
def test_an_answer_outlives_a_worker_of_a_split(
    programs: Programs, llama_cpp_folder: Path, model_path: Path
) -> None:
    """The plan is printed, both workers have a part, and one is killed in the middle."""
    coordinator = programs.start_punch(
        "coordinator",
        "--model", str(model_path), "--min-workers", "2", "--force", "--context", "1024",
        "--slots", "1", "--identity", str(programs.folder / "coordinator.key"),
        LLAMA_CPP_EXE=str(llama_cpp_folder / "llama-server"), LLAMA_THREADS="1",
    )  # fmt: skip
    borrower = coordinator.wait_for("waiting for workers")["peer"]
    workers = [worker(programs, llama_cpp_folder, borrower, number) for number in (1, 2)]
    for each in workers:
        each.wait_for("lending")
    coordinator.wait_for("listening")
    assert "of 12D3Koo" in coordinator.out
    ask = ["--ask", "Write a story about a dog.", "--temperature", "0", "--max-tokens", "60"]
    dialer = programs.start("dialer", *ask)
    dialer.wait_until(lambda: len(dialer.out) > 40, "a beginning")
    servers_of(workers[0])[0].kill()
    begun = dialer.out
    answer = dialer.wait(120)
    assert answer.code == 0, answer
    assert answer.out.startswith(begun)
    lost = coordinator.wait_for("a worker is lost")
    assert lost["worker"] in {each.wait_for("lending")["peer"] for each in workers}
    assert len(coordinator.events("a split is planned")[0]["layers"]) == 2
    assert programs.dial("--ask", "Hello", "--max-tokens", "4").code == 0
    assert coordinator.stop(signal.SIGTERM).code == 0
    # What was borrowed was given back.
    for each in workers:
        assert each.process.poll() is None


@pytest.fixture
def home(programs: Programs, llama_cpp_folder: Path, model_path: Path) -> Home:
    """Two workers and who may borrow of them."""
    found = Home(head=programs, places=[programs] * 2, engine=llama_cpp_folder, model=model_path)
    found.open()
    return found


def whole(home: Home, *options: str) -> Program:
    """A listener that has the model whole."""
    return home.head.start(
        "listener",
        *options,
        PUNCH_INFERENCE_BACKEND="llama_cpp",
        LLAMA_GGUF_PATH=str(home.model),
        variables=home.variables,
    )


@pytest.mark.long
@limit(300)
async def test_twenty_answers_are_the_same_alone_over_servers_and_over_workers(
    home: Home, llama_cpp_folder: Path
) -> None:
    """Word for word: of one machine, of a split over plain RPC servers, and through tunnels.

    None of them is timed before: llama.cpp's prompt cache keeps the beginning of whatever it read
    last, and what was read in parts of another size is not the same to the last bit.
    """
    plainly = "--no-calibrate"
    listener = whole(home, plainly)
    with rpc_server(llama_cpp_folder) as one, rpc_server(llama_cpp_folder) as other:
        plain = home.head.start_punch(
            "coordinator", *home.options, "--workers", f"{one},{other}",
            "--identity", str(home.head.folder / "plain.key"), plainly, **home.variables,
        )  # fmt: skip
        with home.coordinator(plainly) as coordinator:
            arms = [
                str((await off(each.wait_for, "listening", 120.0))["peer"])
                for each in (listener, plain, coordinator)
            ]
            for each in (plain, coordinator):
                assert len(each.events("a split is ready")[0]["workers"]) == 2
            async with open_router(bootstrap=home.head.address) as router:
                await router.wait_for_peers(lambda peers: len(peers) >= len(arms))
                answers = list[str]()
                for prompt in PROMPTS:
                    request = chat_request(prompt, max_tokens=24, temperature=0.0)
                    for peer in arms:
                        asked = attrs.evolve(
                            request, request_id=f"{len(answers)}", hints=Hints(only=(peer,))
                        )
                        found = await router.ask(asked)
                        assert found.executor == peer
                        answers.append(found.text)
        assert (await off(plain.stop)).code == 0
    alone, over_servers, over_workers = answers[::3], answers[1::3], answers[2::3]
    assert all(alone)
    assert over_servers == alone
    assert over_workers == alone


def kill_head(coordinator: Program) -> None:
    """The coordinator alone: what it has started notices."""
    coordinator.kill()


def stop_head(coordinator: Program) -> None:
    """The coordinator and all that it has started."""
    for process in tree(coordinator):
        process.suspend()


@pytest.mark.long
@pytest.mark.parametrize("harm", [kill_head, stop_head])
@limit(240)
def test_an_answer_outlives_the_coordinator(harm: Callable[[Program], None], home: Home) -> None:
    """A listener that has the model whole goes on, and the workers have their memory back.

    Of a coordinator that is stopped nobody hears anything: its leases end at their time.
    """
    listener = whole(home)
    listener.wait_for("listening", 120)
    coordinator = home.head.start_punch("coordinator", *home.options, **home.variables)
    head = coordinator.wait_for("listening")["peer"]
    greedy = ["--temperature", "0", "--max-tokens", "60", "--ask", QUESTION]
    own = tree(coordinator)
    dialer = home.head.start("dialer", "--prefer", head, *greedy)
    dialer.wait_until(lambda: len(dialer.out) > 30, "a beginning")
    begun = dialer.out
    harm(coordinator)
    try:
        check(dialer.wait(60), begun)
        for number in range(2):
            home.until_idle(number)
        if harm is kill_head:
            until(lambda: not any(alive(each.pid) for each in own), "all of it has ended")
        assert home.head.dial("--ask", "Hello", "--max-tokens", "4").code == 0
    finally:
        for process in tree(coordinator):
            process.resume()


@pytest.mark.long
@limit(120)
def test_a_gateway_says_why_it_would_split_nothing(
    programs: Programs, llama_cpp_folder: Path, model_path: Path
) -> None:
    """A model that this machine has room for is quickest there; and a split needs a listener."""
    programs.bootstrap()
    environment = {
        "LLAMA_CPP_EXE": str(llama_cpp_folder / "llama-server"),
        "PUNCH_INFERENCE_BACKEND": "mock",
    }
    split = ["--port", "0", "--split", str(model_path)]
    refused = programs.start("gateway", *split, variables=environment).wait(30)
    assert refused.code != 0
    assert "--split needs --listen-too" in refused.err + refused.out
    gateway = programs.start("gateway", *split, "--listen-too", variables=environment)
    told = gateway.wait_for("a model is not to be split", seconds=60)
    assert "alone" in told["why"]
    assert gateway.stop(signal.SIGTERM).code == 0
