// A box to chat with, over the gateway's own API. It shows who answers, and where somebody else
// went on.

import { announce } from "./announce.js";
import { calm, h, replace, setStyle, setText, show } from "./dom.js";
import { eventsOf } from "./events.js";
import { count, peerName, plural, seconds } from "./format.js";
import { icon } from "./icons.js";
import { peerMark, storyAddress } from "./marks.js";
import { colourOf } from "./palette.js";
import { ask, problemOf, Unauthorized } from "./session.js";

/** @typedef {{role: "user"|"assistant", content: string}} Turn */

/**
 * @param {HTMLElement} root
 * @param {import("./store.js").Store} store
 * @param {{locked: () => void}} tell
 */
export function chat(root, store, tell) {
  /** @type {Turn[]} */
  let turns = [];
  /** @type {?AbortController} */
  let running = null;
  /** @type {Set<ReturnType<typeof answerBox>>} */
  const boxes = new Set();

  const model = h("select", { id: "chat-model" }, h("option", { value: "auto" }, "auto: the router chooses"));
  const transcript = h("div", { class: "transcript", role: "region", "aria-label": "Conversation", tabindex: "0" });
  const hello = h("div", { class: "hello" }, h("p", null, "Ask something. The best peer answers; if it dies in the middle of a sentence, the next one goes on, and you see where."));
  const input = h("textarea", { id: "chat-input", rows: "2", placeholder: "Ask something", "aria-describedby": "chat-hint" });
  const send = h("button", { type: "submit", class: "primary round", "aria-label": "Send" }, icon("send"));
  const stop = h("button", { type: "button", class: "button round", "aria-label": "Stop the answer", hidden: true, onclick: () => running?.abort() }, icon("stop"));
  const anew = h("button", { type: "button", class: "button", onclick: startAnew }, "New chat");
  const form = h("form", { class: "composer" }, h("label", { class: "unseen", for: "chat-input" }, "Your question"), input, stop, send);
  transcript.append(hello);
  replace(
    root,
    h("header", { class: "view-head" }, h("h1", { id: "title-chat", tabindex: "-1" }, "Chat"), h("label", { class: "field", for: "chat-model" }, h("span", null, "Model"), model), anew),
    transcript,
    form,
    h("p", { class: "hint", id: "chat-hint" }, "Enter sends, Shift and Enter begins a new line. What you write stays in this page."),
  );

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    say(input.value.trim());
  });
  input.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      form.requestSubmit();
    }
  });

  function startAnew() {
    running?.abort();
    turns = [];
    boxes.clear();
    replace(transcript, hello);
    input.focus();
  }

  /** @param {string} question */
  async function say(question) {
    if (!question || running) return;
    hello.remove();
    input.value = "";
    turns.push({ role: "user", content: question });
    transcript.append(h("article", { class: "turn turn-user", "aria-label": "You" }, h("p", null, question)));
    const box = answerBox(newId(), store);
    boxes.add(box);
    transcript.append(box.node);
    scrollDown(true);
    const control = (running = new AbortController());
    show(stop, true);
    show(send, false);
    try {
      await stream(box, control.signal);
      box.done(null);
      announce(`The answer is complete: ${box.summary()}`);
    } catch (error) {
      if (error instanceof Unauthorized) tell.locked();
      box.done(control.signal.aborted ? "You stopped it." : error instanceof Error ? error.message : String(error), !control.signal.aborted);
      announce(control.signal.aborted ? "The answer was stopped" : "The answer failed");
    } finally {
      if (box.text) turns.push({ role: "assistant", content: box.text });
      else turns.pop();
      running = null;
      show(stop, false);
      show(send, true);
      if (document.activeElement === document.body) input.focus();
    }
  }

  /** @param {ReturnType<typeof answerBox>} box @param {AbortSignal} signal */
  async function stream(box, signal) {
    const response = await ask("/v1/chat/completions", {
      method: "POST",
      signal,
      headers: { "content-type": "application/json", "x-request-id": box.id },
      body: JSON.stringify({ model: model.value, messages: turns, stream: true, stream_options: { include_usage: true } }),
    });
    box.head(response.headers);
    if (!response.ok || !response.body) throw new Error(await problemOf(response));
    for await (const event of eventsOf(response.body)) {
      if (event.data === "[DONE]") return;
      const part = JSON.parse(event.data);
      if (part.error) throw new Error(part.error.message ?? "the answer failed");
      box.add(part.choices?.[0]?.delta?.content ?? "");
      if (part.punch?.segments) box.parts(part.punch.segments);
      if (part.usage) box.usage(part.usage);
      scrollDown(false);
    }
  }

  /** Follow the text, unless somebody has scrolled up to read. */
  function scrollDown(always) {
    const left = transcript.scrollHeight - transcript.scrollTop - transcript.clientHeight;
    if (always || left < 120) transcript.scrollTo({ top: transcript.scrollHeight, behavior: always && !calm() ? "smooth" : "auto" });
  }

  async function loadModels() {
    try {
      const response = await ask("/v1/models");
      if (!response.ok) return;
      const names = (await response.json()).data.map((one) => one.id).filter((name) => name !== "auto");
      const chosen = model.value;
      replace(model, h("option", { value: "auto" }, "auto: the router chooses"), ...names.map((name) => h("option", { value: name }, name)));
      if (names.includes(chosen)) model.value = chosen;
    } catch {
      // Auto is always there.
    }
  }

  let models = "";
  return {
    /** @param {Set<string>} changed */
    update(changed) {
      if (changed.has("requests")) for (const box of boxes) box.follow();
    },
    shown() {
      const now = [...store.peers.values()].flatMap((peer) => peer.models.map((one) => one.name)).sort().join();
      if (now !== models) {
        models = now;
        loadModels();
      }
    },
    tick() {
      this.shown();
    },
  };
}

/** An id that nobody else has. `randomUUID` exists on secure addresses only. */
function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return `chat-${[...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}

/** One answer on its way. @param {string} id Where there are keys, the gateway knows it by another. @param {import("./store.js").Store} store */
function answerBox(id, store) {
  const said = h("p", { class: "answer-text" });
  const who = h("div", { class: "answer-who" }, h("span", { class: "hint" }, "Choosing a peer"));
  const foot = h("div", { class: "answer-foot", hidden: true });
  const node = h("article", { class: "turn turn-answer", "aria-label": "Answer", "aria-busy": "true", "data-request": id }, who, said, foot);
  const began = performance.now();
  let text = "";
  let characters = 0;
  /** Where each part ends, in characters of the text, and who made it. @type {{peer: string, end: number}[]} */
  let seams = [];
  /** @type {?string} */
  let peer = null;
  let first = 0;
  let tokens = 0;
  let over = false;
  let drawn = "";

  function draw() {
    const points = seams.length ? Array.from(text) : null;
    const shape = `${JSON.stringify(seams)}${peer}`;
    const tail = said.lastElementChild;
    if (shape === drawn && tail && !over) {
      // The usual case: a word more at the end.
      const start = seams.length ? seams[seams.length - 1].end : 0;
      setText(tail, points ? points.slice(start).join("") : text);
      return;
    }
    drawn = shape;
    const parts = [];
    let start = 0;
    for (const one of [...seams, { peer: peer ?? "", end: Infinity }]) {
      if (start > 0) parts.push(seamMark(one.peer));
      const part = h("span", { class: "answer-part" }, points ? points.slice(start, one.end).join("") : text);
      setStyle(part, "--colour", colourOf(one.peer || null));
      parts.push(part);
      start = one.end;
    }
    replace(said, ...parts);
    said.classList.toggle("has-seams", seams.length > 0);
    if (peer) replace(who, ...[...seams.map((one) => one.peer), peer].flatMap((one, index) => (index ? [h("span", { class: "hint" }, icon("next")), peerMark(one)] : [peerMark(one)])));
  }

  /** Parts that are over; the last one is still being made, or was the end. */
  function setParts(segments, last) {
    let end = 0;
    const found = segments.map((segment) => ({ peer: segment.peer ?? segment.peer_id, end: (end += segment.characters) }));
    if (last) peer = found.pop()?.peer ?? peer;
    // The feed may know of a seam before its text is here.
    seams = found.filter((one) => one.end <= characters);
    draw();
  }

  return {
    get id() {
      return id;
    },
    node,
    get text() {
      return text;
    },
    /** @param {Headers} headers */
    head(headers) {
      id = headers.get("x-request-id") || id;
      node.dataset.request = id;
      peer = headers.get("x-punch-peer") || peer;
      draw();
    },
    add(more) {
      if (!more) return;
      if (!first) first = performance.now();
      text += more;
      characters += Array.from(more).length;
      tokens += 1;
      draw();
    },
    usage(usage) {
      tokens = usage.completion_tokens ?? tokens;
    },
    /** @param {any[]} segments */
    parts(segments) {
      if (segments.length) setParts(segments, true);
    },
    /** What the feed knows of it, which comes earlier than the answer's own end. */
    follow() {
      const row = store.find(id);
      if (!row || over) return;
      if (row.waits && !text) replace(who, h("span", { class: "hint" }, row.waits.state === "queued" ? `In the queue${row.waits.ahead === null ? "" : `, ${row.waits.ahead} ahead`}` : row.waits.state === "loading" ? "The model loads" : "Working"));
      if (row.peer && text) {
        peer = row.peer;
        setParts(row.segments, row.seconds !== null && row.segments.length > 0);
      }
    },
    summary() {
      const by = [...seams.map((one) => one.peer), peer].filter(Boolean).map(peerName).join(", then ");
      return `${plural(tokens, "token")}${by ? ` by ${by}` : ""}${seams.length ? `, continued ${seams.length === 1 ? "once" : `${seams.length} times`}` : ""}`;
    },
    /** @param {?string} problem */
    done(problem, failed = false) {
      over = true;
      draw();
      node.setAttribute("aria-busy", "false");
      if (!peer && !text) replace(who);
      const numbers = [];
      if (tokens) numbers.push(plural(tokens, "token"));
      if (first) numbers.push(`first after ${seconds((first - began) / 1000)}`, `${seconds((performance.now() - began) / 1000)} in all`);
      if (seams.length) numbers.push(`continued at character ${seams.map((one) => count(one.end)).join(", ")}`);
      replace(foot, problem && h("p", { class: failed ? "problem" : "hint", role: failed ? "alert" : null }, problem), numbers.length > 0 && h("span", { class: "hint num" }, numbers.join(" · ")), h("a", { href: storyAddress(id) }, "Why?"));
      show(foot, true);
    },
  };
}

/** Where another peer went on. @param {string} peer */
function seamMark(peer) {
  const mark = h("span", { class: "seam-mark", title: `${peer} went on from here` }, icon("seam"), h("span", null, `${peerName(peer)} went on`));
  setStyle(mark, "--colour", colourOf(peer));
  return mark;
}
