// Who is connected with this gateway, and how: a picture, and the same as a table.

import { h, replace, s, setText, show } from "./dom.js";
import { peerName, plural, seconds } from "./format.js";
import { badge, peerMark, sectionHead } from "./marks.js";
import { colourOf } from "./palette.js";

/** @typedef {import("./types.js").Topology} Topology */

/**
 * @typedef {object} Spot one line of the picture and of the table
 * @property {string} kind peer, lender, away or meeting
 * @property {?string} id
 * @property {string} name
 * @property {string} path
 * @property {string} says
 * @property {string} link what stands on the line
 * @property {boolean} isBroken
 * @property {boolean} holds a part of a split
 */

// Sizes of the picture, in pixels: a line of text fits twice into a box.
const ROW = 54;
const BOX = 42;
const LETTER = 7.2;

const PATHS = { process: "in this process", machine: "on this machine", network: "over the network", relay: "through a relay" };
const KINDS = { peer: "listens", lender: "lends memory", away: "cannot be reached", meeting: "meeting point" };

export function topologySection() {
  const picture = h("div", { class: "topology" });
  const empty = h("p", { class: "empty" }, "Nobody else is known here yet.");
  const body = h("tbody");
  const table = h("table", { class: "grid" }, h("caption", { class: "unseen" }, "This process, and everybody that it is connected with"), h("thead", null, h("tr", null, ...["Machine", "Is", "Connected", "More"].map((text) => h("th", { scope: "col" }, text)))), body);
  const region = h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Connections, as a table" }, table);
  const details = h("details", { class: "chart-table" }, h("summary", null, "As a table"), region);
  const more = h("p", { class: "hint", hidden: true });
  const node = h("section", { class: "section panel", "aria-labelledby": "topology-title" }, sectionHead("topology-title", "Who is connected"), h("p", { class: "hint" }, "As far as this process knows: how others are connected with each other is not told."), picture, empty, more, details);
  let drawn = "";
  /** @type {?Topology} */
  let last = null;

  /** @param {Topology} data */
  function draw(data) {
    last = data;
    const spots = spotsOf(data);
    const width = Math.max(260, Math.floor(picture.clientWidth || 320));
    const shape = JSON.stringify([spots, data.here, width]);
    if (shape === drawn) return;
    drawn = shape;
    replace(picture, drawing(data, spots, width));
    show(empty, spots.length === 0);
    setText(more, `and ${data.more} more that are not drawn`);
    show(more, data.more > 0);
    replace(body, hereRow(data), ...spots.map(spotRow));
  }

  return {
    node,
    draw,
    /** Another width. */
    resized() {
      if (last) draw(last);
    },
  };
}

/** @param {Topology} data @returns {Spot[]} */
function spotsOf(data) {
  const holds = new Map();
  for (const split of data.splits) for (const worker of split.workers) holds.set(worker, [...(holds.get(worker) ?? []), split.model ?? split.id]);
  const part = (id) => (holds.has(id) ? `holds a part of ${holds.get(id).join(", ")}` : "");
  /** @type {Spot[]} */
  const spots = data.peers.map((peer) => ({
    kind: "peer",
    id: peer.id,
    name: peer.name ?? peerName(peer.id),
    path: PATHS[peer.path] ?? "connected",
    says: [plural(peer.models, "model"), peer.lends && "lends memory", part(peer.id), peer.leaves && "leaves", peer.reachable === false && "not reached from elsewhere"].filter(Boolean).join(", "),
    link: peer.rtt === null ? "" : seconds(peer.rtt),
    isBroken: false,
    holds: holds.has(peer.id),
  }));
  for (const worker of data.workers.filter((each) => !each.listens && each.id !== data.here.id)) {
    spots.push({ kind: "lender", id: worker.id, name: peerName(worker.id), path: "when it is borrowed from", says: part(worker.id) || "lends memory", link: "", isBroken: false, holds: holds.has(worker.id) });
  }
  for (const away of data.away) spots.push({ kind: "away", id: away.id, name: peerName(away.id), path: "not connected", says: away.why, link: "away", isBroken: true, holds: false });
  for (const each of data.meeting) {
    spots.push({ kind: "meeting", id: null, name: each.alike ? `${each.name} and ${each.alike} more` : each.name, path: each.works ? "met there" : "not met there", says: each.works ? `lists ${plural(each.listeners, "listener")}` : each.trouble ?? "has not answered yet", link: each.works ? "meets" : "away", isBroken: !each.works, holds: false });
  }
  return spots;
}

// ---- the picture ----

/** @param {Topology} data @param {Spot[]} spots @param {number} width */
function drawing(data, spots, width) {
  const left = Math.max(104, Math.min(190, Math.floor(width * 0.3)));
  const gap = Math.min(150, Math.floor(width * 0.22));
  const right = width - left - gap - 4;
  const height = Math.max(1, spots.length) * ROW;
  const middle = height / 2;
  const said = spots.map((spot) => `${spot.name} ${KINDS[spot.kind]}, ${spot.path}`);
  const svg = s("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": `This machine in the middle of ${plural(spots.length, "connection")}: ${said.join("; ")}` });
  spots.forEach((spot, index) => {
    const y = index * ROW + ROW / 2;
    const x = left + gap;
    svg.append(
      s("path", { class: "link-line", "data-kind": spot.isBroken ? "broken" : spot.kind, "data-holds": spot.holds, d: `M${left + 2} ${middle}C${left + gap / 2} ${middle} ${left + gap / 2} ${y} ${x} ${y}` }),
      box(x, y, right, spot),
    );
    if (spot.link) svg.append(s("text", { class: "link-text", x: x - 6, y: y - 5, "text-anchor": "end" }, cut(spot.link, gap * 0.6)));
  });
  const name = data.here.name ?? "this process";
  const own = s("g", null, s("rect", { class: "spot spot-here", x: 2, y: middle - BOX / 2, width: left, height: BOX, rx: 8 }), s("text", { class: "spot-name", x: 10, y: middle - 3 }, cut("This machine", left - 14)), s("text", { class: "spot-says", x: 10, y: middle + 13 }, cut(name, left - 14)));
  svg.append(own);
  return svg;
}

/** @param {number} x @param {number} y @param {number} width @param {Spot} spot */
function box(x, y, width, spot) {
  const group = s("g", null, s("title", null, `${spot.name}: ${KINDS[spot.kind]}, ${spot.path}; ${spot.says}`), s("rect", { class: "spot", "data-kind": spot.kind, x, y: y - BOX / 2, width, height: BOX, rx: spot.kind === "meeting" ? BOX / 2 : 8 }));
  const bar = s("rect", { class: "spot-bar", x, y: y - BOX / 2, width: 5, height: BOX });
  if (spot.id && spot.kind !== "away") {
    bar.style.setProperty("--colour", colourOf(spot.id));
    group.append(bar);
  }
  const inset = spot.kind === "meeting" ? 18 : 12;
  group.append(s("text", { class: "spot-name", x: x + inset, y: y - 3 }, cut(spot.name, width - inset - 6)), s("text", { class: "spot-says", x: x + inset, y: y + 13 }, cut(`${KINDS[spot.kind]} · ${spot.says}`, width - inset - 6)));
  return group;
}

/** As much of *text* as *width* has room for, about. */
function cut(text, width) {
  const most = Math.max(3, Math.floor(width / LETTER));
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
}

// ---- the table ----

/** @param {Topology} data */
function hereRow(data) {
  const name = data.here.name ?? "This process";
  return h("tr", null, h("th", { scope: "row" }, name), h("td", null, badge("live", "dot", "this machine")), h("td", null, "–"), h("td", null, data.here.listens ? `listens, ${plural(data.here.models, "model")}` : "only asks"));
}

/** @param {Spot} spot */
function spotRow(spot) {
  const mark = spot.isBroken ? badge("bad", "warning", KINDS[spot.kind]) : badge("quiet", spot.kind === "meeting" ? "joined" : "check", KINDS[spot.kind]);
  return h("tr", null, h("th", { scope: "row" }, spot.id ? peerMark(spot.id) : spot.name), h("td", null, mark), h("td", null, spot.link && !spot.isBroken ? `${spot.path}, ${spot.link}` : spot.path), h("td", null, spot.says || "–"));
}
