// The log as a stream: what was decided, and what the process says of itself. Newest first.

import { h, keyed, replace, setText, show } from "./dom.js";
import { clock, plural } from "./format.js";
import { levelOf, plainSentence, sentence } from "./happenings.js";
import { icon } from "./icons.js";
import { choice, peerMark, requestLink } from "./marks.js";

// Lines that are drawn; the search looks through all that are held.
const MOST_LINES = 300;

const LEVELS = ["debug", "info", "warning", "error"];
const SOURCES = [["all", "Both"], ["decisions", "Decisions"], ["process", "Process"]];

/** @typedef {{key: string, time: number, level: string, source: string, said: any}} Line */

/** @param {Element} root @param {import("./store.js").Store} store */
export function logView(root, store) {
  let source = "all";
  let least = "info";
  let words = "";
  let paused = false;
  /** Newest lines when it was paused. */
  let seen = { events: 0, logs: 0 };

  const list = h("ol", { class: "log-lines", "aria-label": "Log lines, newest first" });
  const empty = h("p", { class: "empty" });
  const note = h("p", { class: "sub" });
  const pause = h("button", { type: "button", class: "button", "aria-pressed": "false", onclick: () => setPaused(!paused) });
  const level = h("select", { id: "log-level", onchange: () => change(() => (least = level.value)) }, ...LEVELS.map((name) => h("option", { value: name, selected: name === least }, name === "error" ? name : `${name} and above`)));
  const search = h("input", { id: "log-search", type: "search", placeholder: "Words or an id", spellcheck: "false", autocomplete: "off", oninput: () => change(() => (words = search.value.trim().toLowerCase())) });
  const sources = choice("Source", "log-source", SOURCES, source, (value) => change(() => (source = value)));
  replace(
    root,
    h("header", { class: "view-head" }, h("h1", { id: "title-log", tabindex: "-1" }, "Log"), note),
    h("div", { class: "controls" }, sources, h("label", { class: "field", for: "log-level" }, h("span", null, "Level"), level), h("label", { class: "field grow", for: "log-search" }, h("span", null, "Find"), search), pause),
    h("div", { class: "panel flush log" }, list, empty),
  );

  function change(what) {
    what();
    draw();
  }

  function setPaused(value) {
    paused = value;
    seen = newest();
    pause.setAttribute("aria-pressed", String(paused));
    draw();
  }

  const newest = () => ({ events: store.events[store.events.length - 1]?.n ?? 0, logs: store.logs[store.logs.length - 1]?.n ?? 0 });

  /** @returns {Line[]} */
  function lines() {
    const found = [];
    if (source !== "process") {
      for (const event of store.events) {
        if (!paused || event.n <= seen.events) found.push({ key: `d${event.n}`, time: event.time, level: levelOf(event), source: "decision", said: event });
      }
    }
    if (source !== "decisions") {
      for (const line of store.logs) {
        if (!paused || line.n <= seen.logs) found.push({ key: `p${line.n}`, time: line.time, level: line.level === "critical" ? "error" : line.level, source: "process", said: line });
      }
    }
    return found
      .filter((line) => LEVELS.indexOf(line.level) >= LEVELS.indexOf(least) && (!words || text(line).includes(words)))
      .sort((a, b) => b.time - a.time)
      .slice(0, MOST_LINES);
  }

  function draw() {
    const shown = lines();
    keyed(list, shown, (line) => line.key, (line) => ({ node: logLine(line), update() {} }));
    show(empty, shown.length === 0);
    setText(empty, words || least !== "info" ? "No line is like that." : "Nothing was said yet.");
    drawPause();
  }

  function drawPause() {
    const now = newest();
    const more = now.events - seen.events + (now.logs - seen.logs);
    replace(pause, icon(paused ? "play" : "pause"), h("span", null, paused ? `Go on${more ? ` (${more} new)` : ""}` : "Pause"));
    setText(note, `${plural(store.events.length + store.logs.length, "line")} held here, the newest first${store.about.show_prompts ? "" : "; prompts and answers are never in it"}`);
  }

  return {
    /** @param {Set<string>} changed */
    update(changed) {
      if (!changed.has("events") && !changed.has("logs")) return;
      if (paused) drawPause();
      else draw();
    },
    shown: draw,
    tick() {},
  };
}

/** @param {Line} line */
function text(line) {
  const said = line.source === "decision" ? `${plainSentence(line.said)} ${line.said.id ?? ""} ${line.said.peer ?? ""}` : `${line.said.event} ${line.said.logger} ${Object.entries(line.said.fields).flat().join(" ")}`;
  return said.toLowerCase();
}

const SIGNS = { debug: "dot", info: "info", warning: "warning", error: "cross" };

/** One field of a line; what is not known is left out. @param {string} name @param {string} value */
function field(name, value) {
  if (value === "None") return [];
  const shown = name === "request_id" ? requestLink(value) : name === "peer" ? peerMark(value) : value;
  return [" ", h("span", { class: "log-field" }, h("span", null, name), "=", shown)];
}

/** @param {Line} line */
function logLine(line) {
  const decision = line.source === "decision";
  const said = decision
    ? [...sentence(line.said), " ", line.said.id ? requestLink(line.said.id) : ""]
    : [line.said.event, ...Object.entries(line.said.fields).flatMap(([name, value]) => field(name, value))];
  return h(
    "li",
    { class: "log-line", "data-level": line.level },
    h("time", { class: "num", datetime: new Date(line.time * 1000).toISOString() }, clock(line.time)),
    h("span", { class: "log-level" }, icon(/** @type {any} */ (SIGNS[line.level] ?? "dot")), h("span", null, line.level)),
    h("span", { class: "log-source" }, decision ? "decision" : line.said.logger.replace(/^punch\./, "").replace(/\._.*$/, "")),
    h("span", { class: "log-said" }, ...said),
  );
}
