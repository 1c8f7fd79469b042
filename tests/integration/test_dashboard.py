"""The dashboard in a real browser, in front of real programs: seen, used, and looked at.

With ``PUNCH_SCREENSHOTS=FOLDER`` the pictures go there; ``dashboard.png`` is the README's.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from integration.programs import Program, Programs, limit
from integration.test_closed import Machine
from playwright.sync_api import Browser, Error, Locator, Page, expect, sync_playwright

from punch.backends import mock_words
from punch.dialer import chat_request

# Nothing that would ask anybody else on the network.
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

# Listeners that answer slowly enough to be killed in the middle of it: 32 words in some 4 s.
SLOW = {"environment": {"PUNCH_MOCK_DECODE_RATE": "8", "PUNCH_MOCK_PREFILL_RATE": "60"}}
QUICK = {"environment": {"PUNCH_MOCK_DECODE_RATE": "60", "PUNCH_MOCK_PREFILL_RATE": "400"}}

# What a page may take on a busy machine, in milliseconds.
PATIENCE = 20_000

expect.set_options(timeout=PATIENCE)

QUESTION = "Who goes on when a peer dies?"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium. It is never skipped: a page that nobody has looked at is a broken one."""
    path = os.environ.get("PUNCH_TEST_CHROMIUM") or shutil.which("chromium")
    if path is None:
        pytest.fail(
            "no Chromium: `apt-get install chromium`, or set PUNCH_TEST_CHROMIUM to its path"
        )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield browser
        browser.close()


@attrs.define
class Gateway:
    """A gateway that serves, and everything around it."""

    programs: Programs
    program: Program
    url: str
    browser: Browser

    @contextmanager
    def page(
        self,
        *,
        width: int = 1280,
        height: int = 900,
        scheme: Any = "light",
        complaints: bool = False,
        **options: Any,
    ) -> Iterator[Page]:
        """The dashboard in a window of its own. What the browser complains of is a failure."""
        context = self.browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, **options
        )
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        said: list[str] = []
        page.on("console", lambda line: said.append(line.text) if line.type == "error" else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(f"{self.url}/")
        try:
            yield page
        finally:
            context.close()
        # That it lost the gateway, or wants a key, the browser says of itself.
        said = [line for line in said if not line.startswith("Failed to load resource")]
        assert bool(said) is complaints, said

    def ask(self, count: int, *, ids: str = "load", at_once: int = 3) -> None:
        """Some requests, as a program would send them."""

        def some(which: Sequence[int]) -> None:
            for number in which:
                httpx.post(
                    f"{self.url}/v1/chat/completions",
                    json={
                        "model": "auto",
                        "messages": [{"role": "user", "content": f"question {number}"}],
                        "stream": number % 2 == 0,
                    },
                    headers={"x-request-id": f"{ids}-{number}"},
                    timeout=60,
                )

        threads = [
            threading.Thread(target=some, args=(range(first, count, at_once),))
            for first in range(at_once)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def serve(programs: Programs, browser: Browser, *arguments: str) -> Gateway:
    """Start a gateway and wait until it serves."""
    program = programs.start("gateway", "--port", "0", *arguments)
    url = program.wait_for("serving")["url"]
    return Gateway(programs, program, url, browser)


@pytest.fixture
def gateway(programs: Programs, browser: Browser) -> Gateway:
    """A gateway with a bootstrap and nobody else."""
    programs.bootstrap()
    return serve(programs, browser)


def card(page: Page, program: Program) -> Locator:
    """The card of a listener."""
    return page.locator(f".peer-card:has([title='{program.peer_id}'])")


def send(page: Page, question: str) -> Locator:
    """Ask in the chat; the answer."""
    page.get_by_role("link", name="Chat", exact=True).click()
    page.get_by_label("Your question").fill(question)
    page.keyboard.press("Enter")
    return page.locator(".turn-answer").last


def answerer(answer: Locator, listeners: Sequence[Program]) -> Program:
    """Which listener answers, as the page says."""
    expect(answer.locator(".answer-part")).not_to_be_empty()
    peer_id = answer.locator(".answer-who .peer-mark").last.get_attribute("title")
    (found,) = [each for each in listeners if each.peer_id == peer_id]
    return found


@limit(120)
def test_peers_appear_and_vanish_live(gateway: Gateway) -> None:
    """Within seconds, without a reload, with what they claim."""
    with gateway.page() as page:
        expect(page.get_by_text("No peer is in this namespace yet.")).to_be_visible()
        first = gateway.programs.listener(**SLOW["environment"])
        expect(card(page, first)).to_be_visible()
        expect(card(page, first)).to_contain_text("simulated")
        expect(card(page, first)).to_contain_text("ready")
        expect(card(page, first)).to_contain_text("mock")
        second = gateway.programs.listener(**SLOW["environment"])
        expect(page.locator(".peer-card")).to_have_count(2)
        # Said to whoever does not look, too.
        expect(page.locator("#announcer")).to_contain_text("joined")
        second.send(signal.SIGKILL)
        expect(card(page, second)).to_have_count(0)
        expect(card(page, first)).to_be_visible()
        page.get_by_role("radio", name="Table").check(force=True)
        row = page.get_by_role("row").filter(has=page.locator(f"[title='{first.peer_id}']"))
        expect(row).to_contain_text("mock (simulated)")


TWO_LANES = """
import os, sys
import trio
from punch.backends import MockBackend, MockScript
from punch.listener import open_listener

async def main():
    first, second = MockBackend(MockScript(slots=2)), MockBackend(MockScript(slots=3, model="more"))
    async with open_listener(first, bootstrap=os.environ["PUNCH_BOOTSTRAP"]) as listener:
        lane = await listener.add(second, name="second")
        await trio.to_thread.run_sync(sys.stdin.readline)
        await listener.remove(lane)
        await trio.sleep_forever()

trio.run(main)
"""


@limit(120)
def test_a_peer_shows_its_lanes_as_they_come_and_go(gateway: Gateway) -> None:
    """Each with its backend and slots, and the models with theirs; on a card and in the table."""
    script = gateway.programs.start_script(TWO_LANES)
    with gateway.page() as page:
        lanes = page.locator(".card-lanes li")
        expect(lanes).to_have_count(2)
        expect(lanes.last).to_contain_text("second")
        expect(lanes.last).to_contain_text("mock (simulated) · 0 / 3 busy")
        expect(page.locator(".peer-card")).to_contain_text("on second")
        page.get_by_role("radio", name="Table").check(force=True)
        row = page.locator("table.grid tbody tr")
        expect(row).to_contain_text("second 0/3")
        script.write("\n")
        expect(row).not_to_contain_text("second")
        page.get_by_role("radio", name="Cards").check(force=True)
        # One that is ready says nothing that its card does not.
        expect(lanes).to_have_count(0)
        expect(page.locator(".peer-card")).to_be_visible()


SPLIT = """
import os, sys
import trio
from punch.dashboard import dashboard_routes, live_routes, open_feed
from punch.events import (
    Bus, HeldLayers, PlanChanged, SplitLoading, SplitReady, WorkerConnected, WorkerLost,
)
from punch.gateway import GatewayParts, GatewaySettings, open_gateway
from punch.dialer import open_router

def plan(*workers):
    held = [HeldLayers(worker="", device="CPU", first=0, layers=4, bytes=40 << 20)]
    for number, worker in enumerate(workers):
        held.append(HeldLayers(worker=worker, device="CPU", first=4 + 13 * number, layers=13,
                               bytes=130 << 20, token_bytes=7 << 10))
    return PlanChanged(at=0.0, split="split-1", model="smollm2", layers=tuple(held),
                       output_on_head=True, decode_rate=31.5, first_token=0.4,
                       left_out=("cid: it lends nothing now",))

STEPS = {
    "plan": [plan("ann", "bob")],
    "load": [SplitLoading(at=0.0, split="split-1", model="smollm2", progress=0.43)],
    "ready": [
        WorkerConnected(at=0.0, split="split-1", worker="ann", bytes=130 << 20),
        WorkerConnected(at=0.0, split="split-1", worker="bob", bytes=130 << 20),
        SplitReady(at=0.0, split="split-1", model="smollm2", seconds=3.5),
    ],
    "lost": [WorkerLost(at=0.0, split="split-1", worker="bob", why="its tunnel ended")],
    "anew": [plan("ann")],
}

async def main():
    events = Bus()
    async with (
        open_router(bootstrap=os.environ["PUNCH_BOOTSTRAP"], events=events) as router,
        open_feed(router, events=events) as feed,
        open_gateway(router, GatewayParts(
            settings=GatewaySettings(port=0), events=events,
            routes=(*dashboard_routes(feed), *live_routes(feed, events)),
        )) as gateway,
    ):
        print(gateway.url, flush=True)
        while line := await trio.to_thread.run_sync(sys.stdin.readline):
            for event in STEPS[line.strip()]:
                events.publish(event)
        feed.close()

trio.run(main)
"""


@limit(120)
def test_a_split_shows_who_holds_what_how_far_it_is_and_whom_it_lost(
    programs: Programs, browser: Browser
) -> None:
    """As a picture and in words, live; and on a narrow screen too."""
    programs.bootstrap()
    script = programs.start_script(SPLIT)
    url = script.wait_until(lambda: script.out.strip(), "address")
    gateway = Gateway(programs, script, url, browser)
    with gateway.page() as page:
        section = page.get_by_role("region", name="Split over several machines")
        expect(section).to_be_hidden()
        script.write("plan\n")
        expect(section.locator(".split-block")).to_have_count(3)
        expect(section.locator(".split-parts li").nth(1)).to_contain_text(
            "ann layers 4 to 16 on CPU: 130 MiB, 7 KiB a token over its link"
        )
        expect(section).to_contain_text("predicted 31.5 tokens/s · first token 400 ms")
        expect(section).to_contain_text("Not in it: cid: it lends nothing now.")
        script.write("load\n")
        expect(section).to_contain_text("loading, 43 %")
        expect(section.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "43")
        script.write("ready\n")
        expect(section).to_contain_text("answers")
        expect(section.get_by_role("progressbar")).to_be_hidden()
        script.write("lost\n")
        expect(section).to_contain_text("lost a worker")
        expect(section.locator(".split-block[data-state=lost]")).to_have_count(1)
        happenings = page.locator(".happenings")
        expect(happenings).to_contain_text("bob was lost by smollm2 its tunnel ended")
        expect(page.locator("#announcer")).to_contain_text("bob was lost by smollm2")
        script.write("anew\n")
        expect(section.locator(".split-block")).to_have_count(2)
        expect(happenings).to_contain_text("smollm2 has another plan: 1 worker")
        if given := os.environ.get("PUNCH_SCREENSHOTS"):
            page.screenshot(path=Path(given) / "split.png")
    with gateway.page(width=390, height=800) as page:
        expect(page.locator(".split-block")).to_have_count(2)
        wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0
    for scheme in ("light", "dark"):
        with gateway.page(scheme=scheme) as page:
            expect(page.locator(".split-block")).to_have_count(2)
            problems = Axe().run(page).response["violations"]
            assert [one["id"] for one in problems if one["impact"] in ("serious", "critical")] == []


@limit(180)
def test_a_chat_goes_on_when_its_peer_is_killed_and_the_story_says_why(gateway: Gateway) -> None:
    """A visible seam in the text, who went on from where, and both decisions opened up."""
    listeners = gateway.programs.listeners(SLOW, SLOW, SLOW)
    with gateway.page() as page:
        expect(page.locator(".peer-card")).to_have_count(3)
        answer = send(page, QUESTION)
        victim = answerer(answer, listeners)
        expect(answer.locator(".answer-text")).to_contain_text(re.compile(r"(\S+ ){6}"))
        victim.send(signal.SIGKILL)
        seam = answer.locator(".seam-mark")
        expect(seam).to_contain_text("went on")
        expect(answer).to_have_attribute("aria-busy", "false")
        parts = answer.locator(".answer-part").all_text_contents()
        assert len(parts) == 2
        assert "".join(parts) == " ".join(mock_words(chat_request(QUESTION)))
        expect(answer).to_contain_text("32 tokens")
        expect(answer).to_contain_text(f"continued at character {len(parts[0])}")

        answer.get_by_role("link", name="Why?").click()
        story = page.locator("#story")
        expect(story.get_by_role("heading", name="The answer, in 2 parts")).to_be_visible()
        sentence = story.locator(".seam")
        expect(sentence).to_contain_text(f"{victim.peer_id[-8:]} was lost after")
        expect(sentence).to_contain_text(f"went on from character {len(parts[0])}")
        expect(story.locator(".segments .segment")).to_have_count(2)
        decisions = story.locator("details.decision")
        expect(decisions).to_have_count(2)
        expect(decisions.first).to_contain_text("chosen first")
        expect(decisions.first.locator("tr[data-chosen]")).to_contain_text(victim.peer_id[-8:])
        expect(decisions.first.locator(".tag", has_text="next")).to_have_count(1)
        for term in ("rtt", "prefill", "decode"):
            expect(decisions.first.get_by_role("columnheader", name=term)).to_be_visible()
        expect(decisions.last).not_to_have_attribute("open", "")
        decisions.last.locator("summary").click()
        expect(decisions.last).to_contain_text("goes on with the answer")
        expect(decisions.last.locator("tbody tr")).to_have_count(2)
        page.keyboard.press("Escape")
        expect(story).to_be_hidden()

        page.get_by_role("link", name="Overview", exact=True).click()
        expect(page.locator(".stat", has_text="Continued").locator("strong")).to_have_text("1")
        expect(page.locator(".happenings")).to_contain_text("goes on with the answer")
        page.get_by_role("link", name="Log", exact=True).click()
        expect(page.locator(".log-lines")).to_contain_text("was lost after")
        # Nothing of what was asked or said is in what everybody with the key may see.
        snapshot = httpx.get(f"{gateway.url}/api/dashboard/snapshot").text
        assert "goes on when" not in snapshot
        assert parts[0].strip() not in snapshot


@limit(120)
def test_an_answer_can_be_stopped(gateway: Gateway) -> None:
    """The listener stops as well, and the request is told as one whose client left."""
    gateway.programs.listeners(SLOW)
    with gateway.page() as page:
        expect(page.locator(".peer-card")).to_have_count(1)
        answer = send(page, QUESTION)
        expect(answer.locator(".answer-part")).not_to_be_empty()
        page.get_by_role("button", name="Stop the answer").click()
        expect(answer).to_contain_text("You stopped it.")
        page.get_by_role("link", name="Requests", exact=True).click()
        expect(page.locator(".requests tbody tr")).to_contain_text("client left")


@limit(120)
def test_requests_are_walked_through_with_the_keyboard(gateway: Gateway) -> None:
    """One stop for the tab key, arrows from there, Escape back to where one was."""
    gateway.programs.listeners(QUICK)
    with gateway.page() as page:
        expect(page.locator(".peer-card")).to_have_count(1)
        gateway.ask(4, at_once=1)
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator("#main")).to_be_focused()
        page.get_by_role("link", name="Requests", exact=True).click()
        expect(page.locator("h1", has_text="Requests")).to_be_focused()
        links = page.locator("a.row-link")
        expect(links).to_have_count(4)
        expect(page.locator("a.row-link[tabindex='0']")).to_have_count(1)
        links.first.focus()
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowDown")
        expect(links.nth(2)).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator("#story")).to_be_visible()
        expect(page.locator("#story-title")).to_be_focused()
        expect(page.locator("#story-title")).to_have_text("load-1")
        page.keyboard.press("Escape")
        expect(page.locator("#story")).to_be_hidden()
        expect(links.nth(2)).to_be_focused()
        # Every point of a chart leads to the requests that it comes from.
        page.get_by_role("link", name="Overview", exact=True).click()
        chart = page.get_by_role("region", name="Tokens per second", exact=True)
        chart.get_by_text("As a table").click()
        expect(chart.locator("tbody a[data-request]").first).to_be_visible()
        chart.get_by_role("slider").focus()
        page.keyboard.press("ArrowLeft")
        expect(chart.locator(".readout")).to_contain_text("tokens/s")
        page.get_by_role("radio", name="24 h").check()
        expect(chart.locator(".tick", has_text="24 h")).to_be_visible()
        expect(chart.locator(".readout")).to_contain_text(re.compile("last 24 hours: [1-9]"))
        expect(chart.locator("tbody")).not_to_contain_text("Nothing went through")


@limit(120)
def test_the_log_is_searched_and_held(gateway: Gateway) -> None:
    """By level and by words; what came meanwhile is counted, not lost."""
    gateway.programs.listeners(QUICK)
    with gateway.page() as page:
        expect(page.locator(".peer-card")).to_have_count(1)
        page.get_by_role("link", name="Log", exact=True).click()
        gateway.ask(2, at_once=1)
        lines = page.locator(".log-line")
        expect(lines.filter(has_text="done in")).to_have_count(2)
        page.get_by_role("button", name="Pause").click()
        before = lines.count()
        gateway.ask(2, ids="later", at_once=1)
        expect(page.get_by_role("button", name=re.compile(r"Go on \(\d+ new\)"))).to_be_visible()
        assert lines.count() == before
        page.get_by_role("button", name="Go on").click()
        expect(lines.filter(has_text="done in")).to_have_count(4)
        page.get_by_label("Find").fill("later-1")
        expect(lines.filter(has_text="done in")).to_have_count(1)
        page.get_by_label("Find").fill("")
        page.get_by_label("Level").select_option("error")
        expect(page.get_by_text("No line is like that.")).to_be_visible()


@limit(120)
def test_a_lost_gateway_is_said_and_found_again(gateway: Gateway) -> None:
    """It comes back by itself, and shows the state of the new one."""
    with gateway.page() as page:
        link = page.locator("#link-text")
        expect(link).to_have_text("Live")
        assert gateway.program.stop().code == 0
        expect(page.locator("#banner")).to_contain_text("trying again in")
        expect(link).to_have_text("Not connected")
        port = gateway.url.rpartition(":")[2]
        gateway.programs.start("gateway", "--port", port).wait_for("serving")
        expect(link).to_have_text("Live")
        expect(page.locator("#banner")).to_be_hidden()


@limit(120)
def test_the_dashboard_takes_the_same_key_as_the_api(programs: Programs, browser: Browser) -> None:
    """Without it there is a form and no data; it stays in the tab, and is in no address."""
    programs.bootstrap()
    created = programs.punch("keys", "create", "operator", "--json")
    secret = next(
        value
        for value in json.loads(created.out).values()
        if isinstance(value, str) and len(value) > 30
    )
    gateway = serve(programs, browser)
    programs.listeners(QUICK)
    for path in ("snapshot", "events", "history", "keys", "requests/x"):
        assert httpx.get(f"{gateway.url}/api/dashboard/{path}").status_code == 401
    with gateway.page() as page:
        form = page.get_by_role("dialog", name="This gateway asks for a key")
        expect(form).to_be_visible()
        expect(page.get_by_label("API key")).to_be_focused()
        page.get_by_label("API key").fill("wrong")
        page.keyboard.press("Enter")
        expect(form).to_contain_text("This key was not accepted.")
        page.get_by_label("API key").fill(secret)
        page.keyboard.press("Enter")
        expect(form).to_be_hidden()
        expect(page.locator(".peer-card")).to_have_count(1)
        answer = send(page, QUESTION)
        expect(answer).to_contain_text("32 tokens")
        # The gateway knows it by another id than the page has sent, and the page by the same.
        answer.get_by_role("link", name="Why?").click()
        story = page.locator("#story")
        expect(story.locator("details.decision")).to_have_count(1)
        expect(story.locator("details.decision").first).to_contain_text("chosen first")
        page.keyboard.press("Escape")
        expect(story).to_be_hidden()
        assert secret not in page.content()
        assert secret not in page.url
        page.reload()
        expect(page.locator("#link-text")).to_have_text("Live")
        page.get_by_role("button", name="Forget the key").click()
        expect(form).to_be_visible()


# ---- connecting programs ----

# A model's name comes from its peer, and an address from whoever gave the link away.
NASTY = """it's $(id) `id` "x" \\ ; & é <b>"""


def keyed(programs: Programs, browser: Browser) -> tuple[Gateway, str]:
    """A gateway that asks for a key, with a quick listener; and the secret of one key."""
    programs.bootstrap()
    created = programs.punch("keys", "create", "phone", "--requests-per-minute", "60", "--json")
    secret = next(
        value
        for value in json.loads(created.out).values()
        if isinstance(value, str) and len(value) > 30
    )
    gateway = serve(programs, browser)
    programs.listeners(QUICK)
    return gateway, secret


def sign_in(page: Page, secret: str) -> None:
    """Give the page a key, and wait until it shows a peer."""
    page.get_by_label("API key").fill(secret)
    page.keyboard.press("Enter")
    expect(page.locator(".peer-card")).to_have_count(1)


def run_line(where: str, text: str) -> str:
    """Do what a person does with lines of the page, and return what they print."""
    command = [sys.executable, "-c", text] if "Python" in where else ["bash", "-c", text]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def check_quoting(programs: list[dict[str, Any]], address: str) -> None:
    """Each language reads the name and the address out of the lines as they were given."""
    texts = {
        (program["id"], index): block["text"]
        for program in programs
        for index, block in enumerate(program["blocks"])
    }
    say = """
        curl() { printf '%s\\0' "$@"; }
        ollama() { curl "$OLLAMA_HOST" "$@"; }
        pi() { curl "$@"; }
        claude() { curl "$ANTHROPIC_BASE_URL" "$ANTHROPIC_MODEL"; }
    """
    said = run_line("", say + texts["curl", 0]).split("\0")
    assert said[1] == f"{address}/v1/chat/completions"
    assert json.loads(said[-2])["model"] == NASTY
    assert run_line("", say + texts["ollama", 1]).split("\0")[:3] == [address, "run", NASTY]
    assert run_line("", say + texts["pi", 1]).split("\0")[-2] == NASTY
    assert run_line("", say + texts["claude-code", 0]).split("\0")[:2] == [address, NASTY]
    codex = tomllib.loads(texts["codex", 0])
    assert codex["model"] == NASTY
    assert codex["model_providers"]["punch"]["base_url"] == f"{address}/v1"
    (punch,) = json.loads(texts["pi", 0])["providers"].values()
    assert (punch["baseUrl"], punch["models"][0]["id"]) == (f"{address}/v1", NASTY)
    for program, base in (("openai", f"{address}/v1"), ("anthropic", address), ("ollama", address)):
        nodes = list(ast.walk(ast.parse(texts[program, 0])))
        constants = [node.value for node in nodes if isinstance(node, ast.Constant)]
        assert {base, NASTY} <= set(constants)


@limit(120)
def test_the_lines_of_the_page_connect_programs(programs: Programs, browser: Browser) -> None:
    """They have the address of the page and no secret, and work when a key is filled in."""
    gateway, secret = keyed(programs, browser)
    with gateway.page(bypass_csp=True, permissions=["clipboard-read", "clipboard-write"]) as page:
        sign_in(page, secret)
        page.get_by_role("link", name="Connect", exact=True).click()
        expect(page.locator("#view-connect .sub")).to_contain_text("punch keys create")
        blocks = page.locator("#view-connect pre")
        given = dict(
            zip(
                blocks.evaluate_all("all => all.map(each => each.getAttribute('aria-label'))"),
                blocks.all_text_contents(),
                strict=True,
            )
        )
        assert len({name.split(",")[0] for name in given}) == 7
        assert secret not in page.content()
        page.get_by_role("button", name="Copy: curl, in a terminal").click()
        expect(page.get_by_role("button", name="Copy: curl, in a terminal")).to_have_text("Copied")
        assert page.evaluate("navigator.clipboard.readText()") == given["curl, in a terminal"]
        lines = {where: text.replace("YOUR_KEY", secret) for where, text in given.items()}
        assert "chat.completion" in run_line("", lines["curl, in a terminal"])
        # In one process, since the clients share most of what they import.
        clients = [text for where, text in lines.items() if "Python" in where]
        said = run_line("Python", "\n".join(clients))
        assert (len(clients), len(said.splitlines())) == (3, 3)
        # What others may have chosen: names of models, and the name in the address.
        address = f"http://{NASTY.replace(' ', '')}.localhost:1"
        check_quoting(
            page.evaluate(
                """async ([address, model]) => {
                  const assets = document.querySelector("script[type=module]").src;
                  const lines = await import(new URL("lines.js", assets));
                  return lines.programsFor(address, model);
                }""",
                [address, NASTY],
            ),
            address,
        )
        look_at(page)
        # Each of the four lines was a request of this key.
        page.get_by_role("link", name="Keys", exact=True).click()
        card = page.get_by_role("region", name="phone", exact=True)
        expect(card.locator(".facts dd").first).to_contain_text("4 requests · ")
        expect(card).to_contain_text("of 60 a minute left")
        card.get_by_text("By day").click()
        expect(card.locator("tbody tr")).to_have_count(1)
        assert secret not in page.content()
        look_at(page)


@limit(90)
def test_a_machine_that_asks_is_let_in_on_the_page(programs: Programs, browser: Browser) -> None:
    """By the digits that both screens show; another one is refused, and each is told."""
    attic, laptop, thief = (Machine(programs, name) for name in ("attic", "laptop", "thief"))
    full = attic.punch("namespace", "create", "home", "--called", "attic")
    program = programs.start("gateway", "--port", "0", "--listen-too", variables=attic.variables)
    gateway = Gateway(programs, program, program.wait_for("serving")["url"], browser)
    (address,) = program.wait_for("listening")["addresses"]
    at = ":".join(address.split("/")[2:5:2])
    with gateway.page() as page:
        asking = page.get_by_role("region", name="Machines that ask to be let in")
        for machine, button, code in ((laptop, "Approve", 0), (thief, "Refuse", None)):
            asks = programs.start_punch(
                *("join", "--nearby", "--yes", "--called", machine.name, "--at", at),
                **machine.variables,
            )
            row = asking.get_by_role("listitem").filter(has_text=f"{machine.name}from")
            digits = row.locator(".digits").text_content() or "none"
            assert f"punch: {digits}  asked" in asks.err
            expect(page.locator("#announcer")).to_contain_text(f"{machine.name} asks to be let in")
            if code == 0:
                look_at(page)
            page.get_by_role("button", name=f"{button} {machine.name}, which shows").click()
            if code == 0:
                expect(row).to_contain_text(f"{machine.name} ({digits}) is a member of {full}")
                assert asks.wait().code == 0
            else:
                assert "an admin has refused" in asks.wait().err
                expect(row).to_be_hidden()
    assert laptop.punch("namespace", "list").startswith(f"{full}  as laptop")


# What a script of the page's own does with a feed: the protocol, the first message or none, and why
# it was closed.
LISTEN = """async ([path, protocols]) => {
  const address = new URL(path, location.href);
  address.protocol = "ws:";
  const socket = new WebSocket(address, protocols);
  const said = await new Promise((resolve) => {
    socket.onmessage = (event) => resolve(event.data);
    socket.onclose = () => resolve(null);
  });
  const protocol = socket.protocol;
  const closed = new Promise((resolve) => { socket.onclose = (event) => resolve(event.code); });
  if (said === null) return [protocol, said, null];
  socket.close(1000);
  return [protocol, said, await closed];
}"""


@limit(60)
def test_a_script_of_the_page_reads_the_feeds_over_websockets(
    programs: Programs, browser: Browser
) -> None:
    """With the key as a subprotocol, since a browser sends no header; without it, nothing."""
    gateway, secret = keyed(programs, browser)
    with gateway.page(complaints=True) as page:
        sign_in(page, secret)
        protocols = ["punch", f"punch.key.{secret}"]
        for path in ("/ws/dashboard", "/ws/logs", "/ws/backends"):
            protocol, said, code = page.evaluate(LISTEN, [path, protocols])
            assert (protocol, code) == ("punch", 1000), path
            assert isinstance(json.loads(said), dict)
        for wrong in (["punch"], ["punch", "punch.key.wrong"]):
            assert page.evaluate(LISTEN, ["/ws/dashboard", wrong])[1] is None
        assert secret not in page.url


@limit(60)
def test_a_gateway_without_keys_says_how_to_make_one(gateway: Gateway) -> None:
    """And asks for a key as soon as there is one, this page too."""
    with gateway.page() as page:
        page.get_by_role("link", name="Keys", exact=True).click()
        expect(page.locator("#view-keys")).to_contain_text("This gateway asks for no key")
        expect(page.locator("#view-keys pre")).to_contain_text("punch keys create")
        gateway.programs.punch("keys", "create", "phone")
        expect(page.get_by_role("dialog", name="This gateway asks for a key")).to_be_visible()


def look_at(page: Page) -> None:
    """Wide and light, narrow and dark: nothing is cut off, and axe finds nothing serious."""
    for width, height, scheme in ((1280, 900, "light"), (360, 740, "dark")):
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
        assert page.evaluate(TOO_WIDE) == 0, width
        found = [
            (problem["id"], [node["html"][:160] for node in problem["nodes"][:3]])
            for problem in Axe().run(page).response["violations"]
            if problem["impact"] in ("serious", "critical")
        ]
        assert found == [], (width, scheme)


# ---- looked at ----


@attrs.define
class Shown:
    """A dashboard with something to see on it."""

    gateway: Gateway
    continued: str
    """The request that another peer went on with."""


@pytest.fixture
def shown(gateway: Gateway) -> Shown:
    """Four unlike listeners, some traffic, and an answer that outlived its peer."""
    listeners = gateway.programs.listeners(
        {"environment": {"PUNCH_MOCK_DECODE_RATE": "45", "PUNCH_MOCK_PREFILL_RATE": "300"}},
        {"environment": {"PUNCH_MOCK_DECODE_RATE": "24", "PUNCH_MOCK_PREFILL_RATE": "120"}},
        {"environment": {"PUNCH_MOCK_DECODE_RATE": "9", "PUNCH_MOCK_PREFILL_RATE": "40"}},
        {"environment": {"PUNCH_MOCK_DECODE_RATE": "9", "PUNCH_MOCK_MODEL": "other"}},
    )
    url = gateway.url
    until_there(url, 4)
    gateway.ask(24, at_once=4)
    body = {
        "model": "mock",
        "messages": [{"role": "user", "content": QUESTION}],
        "stream": True,
        "max_tokens": 160,
    }
    headers = {"x-request-id": "outlived"}
    with httpx.stream(
        "POST", f"{url}/v1/chat/completions", json=body, headers=headers, timeout=60
    ) as answer:
        lines = answer.iter_lines()
        for _ in range(60):
            next(lines)
        peer_id = answer.headers["x-punch-peer"]
        (victim,) = [each for each in listeners if each.peer_id == peer_id]
        victim.send(signal.SIGKILL)
        for _ in lines:
            pass
    return Shown(gateway, "outlived")


def until_there(url: str, count: int) -> None:
    """Wait until so many peers are known."""
    deadline = time.monotonic() + 30
    while len(httpx.get(f"{url}/api/dashboard/snapshot").json().get("members", [])) < count:
        assert time.monotonic() < deadline
        time.sleep(0.1)


VIEWS = {
    "overview": "#/",
    "requests": "#/requests",
    "story": "#/requests/outlived",
    "chat": "#/chat",
    "log": "#/log",
}


TOO_WIDE = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
# Names, addresses and errors are others' texts: a word of them may be as long as it likes.
LENGTHEN = """for (const node of document.querySelectorAll(
    "main p, ul.hint > li, main strong, main dd, main h2, .live-where, .happening-text, .log-said"
)) { node.hidden = false; node.append("/p2p/".repeat(80)); }"""


def visit(page: Page, url: str, view: str) -> None:
    """Show a view, complete."""
    page.goto(f"{url}/{VIEWS[view]}")
    expect(page.locator("#link-text")).to_have_text("Live")
    if view == "story":
        expect(page.locator(".parts-list")).to_be_visible()
    # Whatever moves has come to rest.
    page.wait_for_timeout(400)


@limit(400)
def test_axe_finds_nothing_serious_and_nothing_is_cut_off(shown: Shown, tmp_path: Path) -> None:
    """In every view, light and dark, wide and narrow; and every one is photographed."""
    folder = Path(os.environ.get("PUNCH_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    gateway = shown.gateway
    found = []
    busy = threading.Thread(target=gateway.ask, args=(60,), kwargs={"ids": "while"})
    busy.start()
    for scheme in ("light", "dark"):
        for width, height in ((1280, 900), (390, 844), (360, 740)):
            with gateway.page(
                width=width, height=height, scheme=scheme, bypass_csp=True, reduced_motion="reduce"
            ) as page:
                for view in VIEWS:
                    visit(page, gateway.url, view)
                    assert page.evaluate(TOO_WIDE) == 0, f"{view} at {width}"
                    if width == 360:
                        page.evaluate(LENGTHEN)
                        assert page.evaluate(TOO_WIDE) == 0, f"{view} with long words"
                        continue
                    name = f"{view}-{width}-{scheme}.png"
                    page.screenshot(path=folder / name, full_page=view == "overview")
                    for problem in Axe().run(page).response["violations"]:
                        if problem["impact"] in ("serious", "critical"):
                            nodes = [node["html"][:160] for node in problem["nodes"][:3]]
                            found.append((view, width, scheme, problem["id"], nodes))
    busy.join()
    assert found == []


@limit(300)
def test_the_picture_of_the_readme_is_of_the_real_thing(shown: Shown, tmp_path: Path) -> None:
    """Four peers at work, an answer that was continued, and numbers that went up."""
    given = os.environ.get("PUNCH_SCREENSHOTS")
    # Where the picture is to be kept, the charts get a minute and a half of traffic.
    count = 220 if given else 6
    folder = Path(given or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    gateway = shown.gateway
    busy = threading.Thread(
        target=gateway.ask, args=(count,), kwargs={"ids": "traffic", "at_once": 4}
    )
    with gateway.page(height=1180) as page:
        visit(page, gateway.url, "overview")
        busy.start()
        while (
            busy.is_alive()
            and httpx.get(f"{gateway.url}/api/dashboard/snapshot").json()["totals"]["requests"]
            < 25 + count * 0.8
        ):
            page.wait_for_timeout(250)
        page.screenshot(path=folder / "dashboard.png")
        busy.join()
        expect(page.locator(".stat", has_text="Continued").locator("strong")).to_have_text("1")
        expect(page.locator(".chart-svg .area")).to_be_visible()
        points = page.locator(".chart-svg .median")
        expect(points).not_to_have_count(0)


@limit(60)
def test_the_policy_stops_what_is_not_ours(gateway: Gateway) -> None:
    """An inline script, a style, markup from text: none of them works in this page."""
    with gateway.page(complaints=True) as page:
        expect(page.locator("#link-text")).to_have_text("Live")
        with pytest.raises(Error, match="TrustedHTML"):
            page.evaluate("document.body.innerHTML = '<b>x</b>'")
        ran = page.evaluate(
            """async () => {
              const script = document.createElement('img');
              script.src = 'https://example.org/x.png';
              const refused = new Promise((resolve) => {
                addEventListener('securitypolicyviolation', (e) => resolve(e.effectiveDirective));
              });
              document.body.append(script);
              return refused;
            }"""
        )
        assert ran == "img-src"
