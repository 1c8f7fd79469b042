// The models on offer beside the places where each would run: seconds, or what hinders.

import { h, replace, setText, show } from "./dom.js";
import { bytes, peerName, seconds } from "./format.js";
import { badge, sectionHead } from "./marks.js";

/** @typedef {import("./types.js").SizeRow} SizeRow */

const PLACES = [
  ["here", "This machine"],
  ["peer", "A peer, whole"],
  ["split", "Split, running"],
  ["start", "Could be started"],
];

export function sizesSection() {
  const body = h("tbody");
  const empty = h("p", { class: "empty" }, "No model is on offer yet.");
  const caption = "For each model, the seconds of a usual request at the best place of each kind";
  const table = h("table", { class: "grid sizes" }, h("caption", { class: "unseen" }, caption), h("thead", null, h("tr", null, h("th", { scope: "col" }, "Model"), ...PLACES.map(([, text]) => h("th", { scope: "col" }, text)))), body);
  const region = h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption }, table);
  const node = h("section", { class: "section panel", "aria-labelledby": "sizes-title" }, sectionHead("sizes-title", "Where a model would run"), h("p", { class: "hint" }, "A usual request now: 512 tokens of prompt, 128 of answer. One rule compares them all by seconds."), region, empty);
  const more = h("p", { class: "hint", hidden: true });
  node.append(more);
  let drawn = "";
  return {
    node,
    /** @param {{policy: string, models: SizeRow[], more_models: number}} data */
    draw(data) {
      const shape = JSON.stringify(data);
      if (shape === drawn) return;
      drawn = shape;
      show(region, data.models.length > 0);
      show(empty, data.models.length === 0);
      replace(body, ...data.models.map(row));
      setText(more, `and ${data.more_models} more models`);
      show(more, data.more_models > 0);
    },
  };
}

/** @param {SizeRow} model */
function row(model) {
  const head = h("th", { scope: "row" }, h("strong", null, model.model), h("span", { class: "hint block" }, [model.size === null ? "" : bytes(model.size), model.taken === null ? "nobody could be asked" : ""].filter(Boolean).join(" · ")));
  return h("tr", null, head, ...PLACES.map(([kind]) => cell(model, kind)));
}

/** @param {SizeRow} model @param {string} kind */
function cell(model, kind) {
  const found = model.cells[kind];
  const isTaken = model.taken === kind;
  const parts = [];
  if (found.seconds !== null) parts.push(h("strong", { class: "num" }, seconds(found.seconds)));
  else parts.push(h("span", { class: "num" }, found.why_not === null ? "could be asked" : "–"));
  if (isTaken) parts.push(" ", badge("ok", "check", "taken"));
  const said = [found.why_not, found.kind, found.peer && kind !== "here" ? peerName(found.peer) : null, isTaken && model.why ? model.why : null].filter(Boolean);
  parts.push(h("span", { class: "hint block" }, said.join("; ")));
  return h("td", { "data-taken": isTaken }, ...parts);
}
