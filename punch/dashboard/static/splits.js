// Models over several machines: who holds which layers, what goes over each link, how far loading is.

import { h, keyed, replace, setAttribute, setStyle, setText, show } from "./dom.js";
import { bytes, rate, seconds, share } from "./format.js";
import { badge, peerMark, sectionHead } from "./marks.js";
import { colourOf } from "./palette.js";

/** @typedef {import("./types.js").Split} Split */
/** @typedef {import("./types.js").SplitPart} SplitPart */

/** @param {import("./store.js").Store} store */
export function splitsSection(store) {
  const list = h("ul", { class: "splits" });
  const node = h("section", { class: "section panel", "aria-labelledby": "splits-title", hidden: true }, sectionHead("splits-title", "Split over several machines"), list);
  return {
    node,
    update() {
      show(node, store.splits.length > 0);
      keyed(list, store.splits, (split) => split.id, splitRow);
    },
  };
}

function splitRow() {
  const name = h("strong");
  const state = h("span");
  const numbers = h("span", { class: "hint split-numbers" });
  const bar = h("span", { class: "bar split-bar", role: "progressbar", "aria-label": "Loaded", "aria-valuemin": "0", "aria-valuemax": "100" }, h("i"));
  const picture = h("div", { class: "split-picture", "aria-hidden": "true" });
  const parts = h("ol", { class: "split-parts" });
  const out = h("p", { class: "hint" });
  const node = h("li", { class: "split" }, h("div", { class: "split-top" }, name, state, numbers), bar, picture, parts, out);
  let drawn = "";
  return {
    node,
    /** @param {Split} split */
    update(split) {
      setText(name, split.model ?? split.id);
      setText(numbers, predicted(split));
      show(bar, split.progress !== null);
      const done = Math.round(100 * (split.progress ?? 0));
      setStyle(bar, "--share", `${done}%`);
      setAttribute(bar, "aria-valuenow", done);
      const shape = JSON.stringify([split.state, split.progress, split.parts, split.more_parts, split.output_on_head, split.left_out]);
      if (shape === drawn) return;
      drawn = shape;
      replace(state, stateBadge(split));
      replace(picture, ...split.parts.flatMap((part, index) => [index || part.worker ? link(part) : null, block(part)]));
      replace(parts, ...split.parts.map((part) => partLine(part)), split.more_parts > 0 && h("li", { class: "hint" }, `and ${split.more_parts} more`));
      setText(out, [split.output_on_head ? "The head makes the last step of each token itself." : "", ...split.left_out.map((why) => `Not in it: ${why}.`)].filter(Boolean).join(" "));
      show(out, out.textContent !== "");
    },
  };
}

/** @param {Split} split */
function stateBadge(split) {
  if (split.state === "ready") return badge("ok", "check", "answers");
  if (split.state === "loading") return badge("wait", "clock", `loading, ${share(split.progress)}`);
  if (split.state === "lost") return badge("bad", "warning", "lost a worker");
  if (split.state === "failed") return badge("bad", "warning", "does not start");
  if (split.state === "over") return badge("quiet", "stop", "ended");
  return badge("wait", "clock", "planning");
}

/** @param {Split} split */
function predicted(split) {
  const said = [];
  if (split.decode !== null) said.push(`predicted ${rate(split.decode)} tokens/s`);
  if (split.first !== null) said.push(`first token ${seconds(split.first)}`);
  if (split.starts) said.push(`started ${split.starts === 1 ? "once" : `${split.starts} times`}, in ${seconds(split.seconds)}`);
  return said.join(" · ");
}

const holder = (part) => (part.worker ? peerMark(part.worker) : h("strong", null, "the head"));
const layersOf = (part) => (part.layers === 0 ? "no layers" : part.layers === 1 ? `layer ${part.first}` : `layers ${part.first} to ${part.first + part.layers - 1}`);

/** A device, as wide as its share of the bytes. @param {SplitPart} part */
function block(part) {
  const node = h("span", { class: "split-block", "data-state": part.state ?? "holds", title: `${layersOf(part)}, ${bytes(part.bytes)}` }, h("b", null, layersOf(part)), h("span", null, bytes(part.bytes)));
  setStyle(node, "--colour", colourOf(part.worker));
  setStyle(node, "--bytes", String(Math.max(1, Math.round(part.bytes / 2 ** 20))));
  return node;
}

/** What goes over the link to it. @param {SplitPart} part */
function link(part) {
  return h("span", { class: "split-link" }, part.token_bytes ? `${bytes(part.token_bytes)} a token` : "");
}

/** The same in words. @param {SplitPart} part */
function partLine(part) {
  const where = part.worker ? (part.token_bytes ? `, ${bytes(part.token_bytes)} a token over its link` : "") : ", without a link";
  const state = part.state === "lost" ? badge("bad", "warning", "lost") : part.state === "lent" ? badge("wait", "clock", "lent") : null;
  return h("li", { "data-state": part.state ?? "holds" }, holder(part), ` ${layersOf(part)} on ${part.device}: ${bytes(part.bytes)}${where}`, state && " ", state);
}

