// What is behind each lane: its engine, its state, why not; and the servers of others that were adopted.

import { h, keyed, replace, setText, show } from "./dom.js";
import { seconds, span } from "./format.js";
import { badge, peerMark, provenance, sectionHead } from "./marks.js";

/** @typedef {import("./types.js").Adopted} Adopted */

// Rows of the table; more lanes than these nobody reads.
const MOST = 200;

/** @param {import("./store.js").Store} store */
export function lanesSection(store) {
  const body = h("tbody");
  const empty = h("p", { class: "empty" }, "No lane is known yet.");
  const table = h("table", { class: "grid" }, h("caption", { class: "unseen" }, "The lanes of all listeners"), h("thead", null, h("tr", null, ...["Machine", "Lane", "Engine", "State", "Busy", "Models"].map((text) => h("th", { scope: "col" }, text)))), body);
  const region = h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "The lanes of all listeners" }, table);
  const node = h("section", { class: "section panel", "aria-labelledby": "lanes-title" }, sectionHead("lanes-title", "Lanes"), region, empty);
  let drawn = "";
  return {
    node,
    update() {
      const rows = [...store.peers.values()].sort((a, b) => (a.id < b.id ? -1 : 1)).flatMap((peer) => peer.lanes.map((lane) => ({ peer, lane }))).slice(0, MOST);
      const shape = JSON.stringify(rows.map(({ peer, lane }) => [peer.id, peer.name, lane, peer.models.map((model) => [model.name, model.lane, model.loads])]));
      if (shape === drawn) return;
      drawn = shape;
      show(region, rows.length > 0);
      show(empty, rows.length === 0);
      replace(body, ...rows.map(({ peer, lane }) => laneRow(peer, lane)));
    },
  };
}

/** @param {import("./types.js").Peer} peer @param {import("./types.js").Lane} lane */
function laneRow(peer, lane) {
  const models = peer.models.filter((model) => model.lane === lane.id);
  return h(
    "tr",
    null,
    h("th", { scope: "row" }, peerMark(peer.id)),
    h("td", null, lane.id || "–"),
    h("td", null, lane.backend, " ", provenance(lane.simulated)),
    h("td", { class: "told" }, stateBadge(lane.state), lane.reason && h("span", { class: "hint block" }, lane.reason)),
    h("td", { class: "num" }, `${lane.load.busy} / ${lane.load.slots}${lane.load.queued ? `, ${lane.load.queued} wait` : ""}`),
    h("td", { class: "told" }, ...(models.length ? models.flatMap((model, index) => [index ? ", " : "", `${model.name}${model.loads > 0 ? ` (loads in ${seconds(model.loads)})` : " (loaded)"}`]) : ["none"])),
  );
}

/** @param {string} state */
function stateBadge(state) {
  if (state === "ready") return badge("ok", "check", "ready");
  if (state === "starting" || state === "looking") return badge("wait", "clock", state);
  if (state === "failed" || state === "left alone") return badge("bad", "cross", state);
  return badge("warn", "pause", state);
}

export function adoptedSection() {
  const list = h("ul", { class: "adopted" });
  const node = h("section", { class: "section panel", "aria-labelledby": "adopted-title", hidden: true }, sectionHead("adopted-title", "Adopted servers of this machine"), h("p", { class: "hint" }, "Servers of models that run already and are not punch's: ", h("code", null, "punch adopt"), " names others."), list);
  return {
    node,
    /** @param {{adopted: Adopted[]}} data */
    draw(data) {
      show(node, data.adopted.length > 0);
      keyed(list, data.adopted, (row) => row.url, adoptedRow);
    },
  };
}

function adoptedRow() {
  const name = h("strong");
  const url = h("span", { class: "mono hint" });
  const said = h("span", { class: "hint" });
  const why = h("span", { class: "hint" });
  const state = h("span");
  const node = h("li", { class: "line-row" }, h("span", { class: "line-who" }, name, url, said, why), state);
  let drawn = "";
  return {
    node,
    /** @param {Adopted} row */
    update(row) {
      setText(name, row.program ?? "a server");
      setText(url, row.url);
      const models = row.models.length ? `${row.models.join(", ")}${row.more_models ? ` and ${row.more_models} more` : ""}` : "no models";
      setText(said, [row.how === "found" ? "found by itself" : "named", row.lane === null ? "no lane" : `lane ${row.lane}`, models, `so for ${span(row.seconds)}`].join(" · "));
      setText(why, row.reason ?? "");
      show(why, row.reason !== null);
      if (row.state !== drawn) replace(state, stateBadge(row.state));
      drawn = row.state;
    },
  };
}
