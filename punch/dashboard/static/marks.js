// The small marks that every view uses: peers, badges, bars, segments.

import { h, setAttribute, setStyle, setText } from "./dom.js";
import { count, peerName, requestName } from "./format.js";
import { icon } from "./icons.js";
import { colourOf } from "./palette.js";

/** A peer: its colour and its name. @param {?string} id */
export function peerMark(id) {
  const mark = h("span", { class: "peer-mark", title: id ?? null }, h("i", { class: "swatch", "aria-hidden": "true" }), h("span", { class: "mono" }, peerName(id)));
  setStyle(mark, "--colour", colourOf(id));
  return mark;
}

/** A link to a request's story. @param {string} id @param {string} [text] */
export function requestLink(id, text) {
  return h("a", { class: "mono request-link", href: storyAddress(id), title: id, "data-request": id }, text ?? requestName(id));
}

/** @param {string} id */
export const storyAddress = (id) => `#/requests/${encodeURIComponent(id)}`;

/** A word with a sign of its own. @param {string} kind @param {string} name @param {string} text */
export function badge(kind, name, text) {
  return h("span", { class: `badge badge-${kind}` }, icon(/** @type {any} */ (name)), h("span", null, text));
}

/** Where answers come from. @param {boolean} simulated */
export const provenance = (simulated) =>
  simulated ? badge("simulated", "simulated", "simulated") : badge("real", "real", "real");

/** What became of a request. @param {import("./types.js").RequestRow} row */
export function outcome(row) {
  if (row.seconds === null) {
    if (row.waits) return badge("wait", "clock", waiting(row.waits));
    if (row.first === null) return badge("wait", "clock", row.peer ? "asked" : "choosing");
    return badge("live", "play", "answering");
  }
  if (row.error === "disconnected" || row.error === "cancelled") return badge("quiet", "cross", "client left");
  if (row.error) return badge("bad", "warning", words(row.error));
  return badge("ok", "check", "done");
}

/** Codes are words with underscores. @param {string} code */
export const words = (code) => code.replaceAll("_", " ");

/** @param {{state: string, ahead: ?number, seconds: ?number}} waits */
function waiting(waits) {
  if (waits.state === "queued") return waits.ahead === null ? "queued" : `queued, ${waits.ahead} ahead`;
  return waits.state === "loading" ? "model loads" : "working";
}

/** A bar of a share, with its number beside it. @param {string} label */
export function meter(label) {
  const name = h("span", { class: "meter-name" }, label);
  const value = h("span", { class: "meter-value num" });
  const bar = h("span", { class: "bar", "aria-hidden": "true" }, h("i"));
  const node = h("div", { class: "meter" }, name, bar, value);
  return {
    node,
    /** @param {?number} share 0 to 1 @param {string} text @param {string} [title] */
    update(share, text, title) {
      node.hidden = false;
      setText(value, text);
      setStyle(bar, "--share", `${Math.round(Math.min(1, Math.max(0, share ?? 0)) * 100)}%`);
      setAttribute(bar, "data-level", share === null ? "none" : share >= 0.9 ? "high" : share >= 0.7 ? "mid" : "low");
      setAttribute(name, "title", title ?? null);
    },
    hide() {
      node.hidden = true;
    },
  };
}

/**
 * The parts of an answer, and the one that is being made.
 * @param {import("./types.js").RequestRow} row
 * @returns {{peer: ?string, tokens: number, done: boolean}[]}
 */
export function partsOf(row) {
  const parts = row.segments.map((segment) => ({ peer: segment.peer, tokens: segment.tokens, done: true }));
  if (row.seconds === null && row.first !== null) {
    const before = parts.reduce((sum, part) => sum + part.tokens, 0);
    parts.push({ peer: row.peer, tokens: Math.max(0, row.tokens - before), done: false });
  }
  return parts.filter((part) => part.tokens > 0 || !part.done);
}

/** The parts of an answer as one bar; who reads hears the same. */
export function segmentBar() {
  const node = h("div", { class: "segments", role: "img" });
  let drawn = "";
  return {
    node,
    /** @param {{peer: ?string, tokens: number, done: boolean}[]} parts */
    update(parts) {
      const said = parts.map((part) => `${count(part.tokens)} tokens by ${peerName(part.peer)}`).join(", then ");
      setAttribute(node, "aria-label", said || "no text yet");
      const shape = parts.map((part) => `${part.peer}${part.done}`).join();
      if (shape !== drawn) {
        drawn = shape;
        node.replaceChildren(...parts.map((part) => h("span", { class: part.done ? "segment" : "segment segment-open", style: { "--colour": colourOf(part.peer) } })));
      }
      parts.forEach((part, index) => setStyle(node.children[index], "--tokens", String(Math.max(1, part.tokens))));
    },
  };
}

/** A heading of a part of a view, with room for controls. */
export function sectionHead(id, title, ...controls) {
  return h("div", { class: "section-head" }, h("h2", { id }, title), ...controls);
}

/** A choice between a few, as radio buttons that look like one control. */
export function choice(legend, name, options, chosen, changed) {
  const node = h("fieldset", { class: "choice" }, h("legend", { class: "unseen" }, legend));
  for (const [value, text] of options) {
    const input = h("input", { type: "radio", name, value, onchange: () => changed(value) });
    input.checked = value === chosen;
    node.append(h("label", null, input, h("span", null, text)));
  }
  return node;
}
