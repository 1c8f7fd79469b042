// The story of one request: what was decided, who was asked, who went on, and how it ended.

import { announce } from "./announce.js";
import { decisionDetails } from "./decision.js";
import { h, replace, setText } from "./dom.js";
import { count, moment, plural, seconds } from "./format.js";
import { outcomeWords, startWords, withoutPeer } from "./happenings.js";
import { icon } from "./icons.js";
import { outcome, partsOf, peerMark, segmentBar, words } from "./marks.js";
import { speedOf } from "./requests.js";
import { ask, problemOf, Unauthorized } from "./session.js";

// Ends of an answer that is whole: what comes after is another answer to the same request.
const FINISHED = new Set(["stop", "length", "tool_calls"]);

// A request under way is asked for again when it changed, and not more often.
const AGAIN = 700;

/**
 * @param {HTMLElement} root
 * @param {import("./store.js").Store} store
 * @param {{closed: () => void, locked: () => void}} tell
 */
export function storyPanel(root, store, tell) {
  /** @type {?string} */
  let id = null;
  let timer = 0;
  let turn = 0;
  const title = h("h2", { id: "story-title", tabindex: "-1" });
  const state = h("div", { class: "badges" });
  const copy = h("button", { type: "button", class: "icon-button", "aria-label": "Copy the request id", title: "Copy the request id" }, icon("copy"));
  const close = h("button", { type: "button", class: "icon-button", "aria-label": "Close the story (Escape)", title: "Close (Escape)", onclick: () => tell.closed() }, icon("cross"));
  const body = h("div", { class: "story-body", tabindex: "-1" });
  replace(root, h("header", { class: "story-head" }, h("div", { class: "story-name" }, h("p", { class: "overline" }, "Request"), title), state, copy, close), body);
  copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(id ?? "");
      announce("The request id was copied");
    } catch {
      getSelection()?.selectAllChildren(title);
    }
  });

  async function load() {
    timer = 0;
    const wanted = id;
    const mine = (turn += 1);
    if (!wanted) return;
    try {
      const response = await ask(`/api/dashboard/requests/${encodeURIComponent(wanted)}`);
      if (mine !== turn || wanted !== id) return;
      if (!response.ok) replace(body, h("p", { class: "empty" }, await problemOf(response)));
      else draw(await response.json());
    } catch (error) {
      if (error instanceof Unauthorized) tell.locked();
      else if (mine === turn) replace(body, h("p", { class: "empty" }, "The gateway cannot be reached."));
    }
  }

  /** Parts that somebody opened stay open, and the reading stays where it is. */
  function draw(data) {
    const opened = new Map([...body.querySelectorAll("details")].map((part, index) => [index, part.open]));
    const top = body.scrollTop;
    replace(body, ...chapters(data, store));
    [...body.querySelectorAll("details")].forEach((part, index) => {
      if (opened.has(index)) part.open = Boolean(opened.get(index));
    });
    body.scrollTop = top;
    const row = data.request;
    replace(state, row ? outcome(row) : null);
  }

  return {
    get id() {
      return id;
    },
    /** @param {string} wanted */
    open(wanted) {
      if (id === wanted) return;
      id = wanted;
      root.hidden = false;
      document.body.classList.add("has-story");
      setText(title, wanted);
      replace(state);
      replace(body, h("p", { class: "empty" }, "Loading the story"));
      title.focus({ preventScroll: true });
      load();
    },
    close() {
      id = null;
      turn += 1;
      root.hidden = true;
      document.body.classList.remove("has-story");
    },
    /** Something came of a request. @param {Set<string>} changed */
    update(changed) {
      if (id === null || timer || !(changed.has("requests") || changed.has("events"))) return;
      const row = store.find(id);
      const seen = store.events.slice(-40).some((event) => event.id === id);
      if (row || seen) {
        const stamp = JSON.stringify([row, store.events.filter((event) => event.id === id).length]);
        if (stamp === body.dataset.stamp) return;
        body.dataset.stamp = stamp;
        timer = window.setTimeout(load, AGAIN);
      }
    },
  };
}

/** @param {{request_id: string, request: ?import("./types.js").RequestRow, prompt: ?string, source: string, lines: any[], choices: {request_id: string, lines: any[]}[]}} data */
function chapters(data, store) {
  const row = data.request;
  const decisions = data.lines.filter((line) => line.kind === "decided");
  const ends = data.lines.filter((line) => line.kind === "ended");
  const end = ends[ends.length - 1] ?? null;
  return [
    facts(data, row, decisions, end),
    data.prompt && h("section", { class: "chapter" }, h("h3", null, "Asked"), h("p", { class: "prompt" }, data.prompt)),
    answerParts(row, end, data.lines),
    h("section", { class: "chapter" }, h("h3", null, "What was decided, and what came of it"), timeline(data.lines, decisions, store)),
    ...data.choices.map((choice, index) => h("section", { class: "chapter" }, h("h3", null, `Answer ${index + 2}`), timeline(choice.lines, choice.lines.filter((line) => line.kind === "decided"), store))),
    data.source === "log" && h("p", { class: "hint" }, "From the decision log."),
  ];
}

// ---- numbers ----

function facts(data, row, decisions, end) {
  const total = row?.seconds ?? end?.seconds ?? null;
  const first = row?.first ?? end?.first_text ?? null;
  const prompt = row?.prompt_tokens ?? end?.usage?.prompt_tokens ?? null;
  const cached = row?.cached_tokens ?? end?.usage?.cached_tokens ?? null;
  const tokens = row?.tokens ?? end?.usage?.completion_tokens ?? null;
  const made = row?.made_by ?? (end?.backend ? { kind: end.simulated ? "simulated" : "real", backend: end.backend, model: end.model, digest: null } : null);
  const began = row?.began ?? data.lines[0]?.time;
  const numbers = [
    ["Total", total === null ? "under way" : seconds(total)],
    ["First text", seconds(first)],
    ["Prompt", prompt === null ? "–" : `${count(prompt)} tok${cached ? `, ${count(cached)} cached` : ""}`],
    ["Answer", tokens === null ? "–" : `${count(tokens)} tok`],
    ["Speed", row && speedOf(row) !== null ? `${speedOf(row)} tok/s` : "–"],
  ];
  const words_ = [];
  if (began) words_.push(moment(began));
  if (row) words_.push(`${row.endpoint}${row.stream ? ", streamed" : ""}`);
  const key = row?.key ?? end?.key_id;
  if (key) words_.push(`key ${key}`);
  if (end?.machine) words_.push(`asked as ..${end.machine.slice(-8)}`);
  const predicted = prediction(decisions, total, first);
  return h(
    "section",
    { class: "chapter" },
    h("dl", { class: "facts" }, ...numbers.map(([name, value]) => h("div", null, h("dt", null, name), h("dd", { class: "num" }, value)))),
    made && h("p", { class: "made-by" }, icon(made.kind === "real" ? "real" : "simulated"), ` ${made.kind}: ${made.model ?? "a model"} on ${made.backend}`, made.digest && h("span", { class: "mono hint", title: `sha256 ${made.digest}` }, ` ${made.digest.slice(0, 12)}`)),
    h("p", { class: "hint" }, words_.join(" · ")),
    predicted && h("p", { class: "hint" }, predicted),
  );
}

/** What the first decision expected, beside what it was. */
function prediction(decisions, total, first) {
  const decided = decisions.find((one) => one.chosen !== null && one.chosen !== undefined);
  const chosen = decided?.weighed.find((one) => one.peer.peer_id === decided.chosen);
  if (!chosen || decided.unit !== "s" || total === null) return null;
  const expected = chosen.terms.reduce((sum, term) => sum + Number(term), 0);
  const at = decided.term_names.indexOf("decode");
  let text = `Predicted ${seconds(expected)}, took ${seconds(total)}`;
  if (at >= 0 && first !== null) text += `; first text predicted after ${seconds(expected - Number(chosen.terms[at]))}, came after ${seconds(first)}`;
  return `${text}.`;
}

// ---- who delivered what ----

function answerParts(row, end, lines) {
  const segments = row?.segments.length ? row.segments : (end?.segments ?? []).map((one) => ({ ...one, peer: one.peer_id }));
  const parts = row ? partsOf(row) : segments.map((one) => ({ peer: one.peer, tokens: one.tokens, done: true }));
  if (!parts.length) return null;
  const bar = segmentBar();
  bar.update(parts);
  const items = [];
  let characters = 0;
  let tokens = 0;
  parts.forEach((part, index) => {
    const segment = segments[index];
    if (index > 0 && !FINISHED.has(segments[index - 1]?.reason)) items.push(seam(parts[index - 1], part, segments[index - 1], tokens, characters, lines));
    items.push(h("li", null, peerMark(part.peer), h("span", { class: "num" }, plural(part.tokens, "token")), h("span", { class: "hint num" }, segment ? `${count(segment.characters)} characters in ${seconds(segment.seconds)}` : "still going"), h("span", { class: "hint" }, segment && index === parts.length - 1 ? words(segment.reason) : "")));
    characters += segment?.characters ?? 0;
    tokens += part.tokens;
  });
  return h("section", { class: "chapter", "data-parts": String(parts.length) }, h("h3", null, parts.length > 1 ? `The answer, in ${parts.length} parts` : "The answer"), bar.node, h("ol", { class: "parts-list" }, ...items));
}

/** Where one peer went on for another, in a sentence. */
function seam(before, after, segment, tokens, characters, lines) {
  const attempt = lines.find((line) => line.kind === "attempted" && line.peer_id === before.peer && line.outcome !== "success");
  const what = attempt ? outcomeWords(attempt.outcome) : "stopped";
  return h("li", { class: "seam" }, icon("seam"), h("span", null, peerMark(before.peer), ` ${what} after ${plural(tokens, "token")}; `, peerMark(after.peer), ` went on from character ${count(characters)}`, segment?.reason && h("span", { class: "hint" }, ` ${withoutPeer(segment.reason, before.peer)}`)));
}

// ---- step by step ----

function timeline(lines, decisions, store) {
  if (!lines.length) return h("p", { class: "hint" }, "The decision log has nothing of it: it never came as far as choosing a peer.");
  const start = lines[0].time;
  return h("ol", { class: "timeline" }, ...lines.map((line) => h("li", { "data-kind": line.kind, "data-bad": line.kind === "attempted" && !["success", "cancelled"].includes(line.outcome) }, h("span", { class: "num timeline-at", title: "since the first decision" }, `+${seconds(Math.max(0, line.time - start))}`), step(line, line === decisions[0], store))));
}

function step(line, isFirst, store) {
  if (line.kind === "decided") return decisionDetails(line, isFirst);
  if (line.kind === "attempted") {
    const text = [` ${line.reason === "start" ? startWords(line.outcome) : outcomeWords(line.outcome)} after ${seconds(line.seconds)}`];
    if (line.tokens || line.characters) text.push(`: ${plural(line.tokens, "token")}, ${plural(line.characters, "character")}`);
    if (line.first_text !== null && line.first_text !== undefined) text.push(`, first after ${seconds(line.first_text)}`);
    return h("p", null, peerMark(line.peer_id), text.join(""), line.error && h("span", { class: "hint block" }, withoutPeer(line.error, line.peer_id)));
  }
  const usage = line.usage ?? {};
  const tokens = [usage.prompt_tokens !== null && usage.prompt_tokens !== undefined && `${count(usage.prompt_tokens)} prompt`, usage.completion_tokens !== null && usage.completion_tokens !== undefined && `${count(usage.completion_tokens)} answer`].filter(Boolean);
  return h("p", null, h("strong", null, line.status === "success" ? "Done" : `Ended: ${words(line.status)}`), ` after ${seconds(line.seconds)}${line.finish_reason ? `, ${words(line.finish_reason)}` : ""}${tokens.length ? `, tokens: ${tokens.join(", ")}` : ""}`, line.error && h("span", { class: "hint block" }, line.error));
}
