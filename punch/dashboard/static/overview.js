// The overview: what the network is doing, on one screen.

import { chartsSection } from "./charts.js";
import { h, keyed, replace, setAttribute, setText, show } from "./dom.js";
import { count, peerName, plural, rate, seconds, span } from "./format.js";
import { happeningLine } from "./happenings.js";
import { outcome, partsOf, peerMark, requestLink, sectionHead, segmentBar } from "./marks.js";
import { newcomersSection } from "./newcomers.js";
import { peersSection } from "./peers.js";
import { splitsSection } from "./splits.js";

// Rows of the two lists; the views behind them have the rest.
const MOST_LIVE = 8;
const MOST_HAPPENINGS = 9;

/** @param {Element} root @param {import("./store.js").Store} store @param {{locked: () => void}} tell */
export function overview(root, store, tell) {
  const sub = h("p", { class: "sub" });
  const stats = statsStrip(store);
  const newcomers = newcomersSection(store, tell);
  const peers = peersSection(store);
  const splits = splitsSection(store);
  const charts = chartsSection(store);
  const live = liveSection(store);
  const happenings = happeningsSection(store);
  replace(
    root,
    h("header", { class: "view-head" }, h("h1", { id: "title-overview", tabindex: "-1" }, "Overview"), sub),
    newcomers.node,
    stats.node,
    peers.node,
    splits.node,
    charts.node,
    h("div", { class: "pair" }, live.node, happenings.node),
  );

  return {
    /** @param {Set<string>} changed */
    update(changed) {
      const about = store.about;
      if (about.punch) setText(sub, `policy ${about.policy}${about.strict ? ", strict" : ""} · up ${span(store.now() - about.began)} · punch ${about.punch}`);
      stats.update();
      if (changed.has("peers") || changed.has("requests") || changed.has("about")) peers.update();
      if (changed.has("splits") || changed.has("peers")) splits.update();
      if (changed.has("events")) happenings.update();
      live.update();
    },
    /** Once a second: what moves with time alone. */
    tick() {
      newcomers.tick();
      charts.update();
      stats.update();
      live.update();
    },
  };
}

// ---- numbers ----

/** @param {import("./store.js").Store} store */
function statsStrip(store) {
  const make = (label, href) => {
    const value = h("strong", { class: "stat-value num" }, "–");
    const note = h("span", { class: "stat-note" });
    return { node: h("li", null, h("a", { class: "stat", href }, h("span", { class: "stat-label" }, label), value, note)), value, note };
  };
  const cells = {
    peers: make("Peers", "#peers-title"),
    live: make("Under way", "#/requests?show=live"),
    tokens: make("Tokens / s", "#chart-tokens"),
    first: make("First token", "#chart-latency"),
    continued: make("Continued", "#/requests?show=continued"),
  };
  for (const name of ["peers", "tokens", "first"]) {
    cells[name].node.firstChild.addEventListener("click", (event) => {
      event.preventDefault();
      document.getElementById(event.currentTarget.getAttribute("href").slice(1))?.scrollIntoView({ block: "start" });
    });
  }
  const node = h("ul", { class: "stats", "aria-label": "Now" }, ...Object.values(cells).map((cell) => cell.node));

  function update() {
    const peers = [...store.peers.values()];
    const simulated = peers.filter((peer) => peer.simulated).length;
    setText(cells.peers.value, store.ready ? peers.length : "–");
    setText(cells.peers.note, peers.length ? (simulated === 0 ? "all real" : simulated === peers.length ? "all simulated" : `${simulated} simulated`) : "none yet");
    setText(cells.live.value, count(store.totals.under_way));
    setText(cells.live.note, `${count(store.totals.requests)} ended`);
    // The second that is now is not over: the five before it.
    const now = Math.floor(store.now());
    const five = store.recent(7).filter((point) => point.t < now && point.t >= now - 5);
    setText(cells.tokens.value, rate(five.reduce((sum, point) => sum + point.tokens, 0) / 5));
    setText(cells.tokens.note, `${count(store.totals.tokens)} in all`);
    const minute = store.recent(60).filter((point) => point.p50 !== null);
    const firsts = minute.map((point) => point.p50 ?? 0).sort((a, b) => a - b);
    setText(cells.first.value, firsts.length ? seconds(firsts[Math.ceil(firsts.length / 2) - 1]) : "–");
    setText(cells.first.note, firsts.length ? `worst ${seconds(Math.max(...minute.map((point) => point.p95 ?? 0)))}, last minute` : "nothing in the last minute");
    setText(cells.continued.value, count(store.totals.continued));
    setText(cells.continued.note, store.totals.failed ? `${plural(store.totals.failed, "request")} failed` : "no request failed");
    setAttribute(cells.continued.node, "data-some", store.totals.continued > 0);
  }
  return { node, update };
}

// ---- requests under way ----

/** @param {import("./store.js").Store} store */
function liveSection(store) {
  const list = h("ul", { class: "live-list" });
  const empty = h("p", { class: "empty" }, "Nothing is under way. ", h("a", { href: "#/chat" }, "Ask something"));
  const title = sectionHead("live-title", "Under way", h("a", { class: "more", href: "#/requests" }, "All requests"));
  const node = h("section", { class: "section panel", "aria-labelledby": "live-title" }, title, list, empty);

  function update() {
    const rows = store.newest().filter((row) => row.seconds === null && store.live.has(row.n)).slice(0, MOST_LIVE);
    // What has just ended stays for a moment, so that the eye can follow it.
    const now = store.now();
    const over = store.newest().filter((row) => row.seconds !== null && now - (row.began + row.seconds) < 4).slice(0, Math.max(0, MOST_LIVE - rows.length));
    const shown = [...rows, ...over].sort((a, b) => b.n - a.n);
    keyed(list, shown, (row) => row.n, () => liveRow(store));
    show(empty, shown.length === 0);
  }
  return { node, update };
}

/** @param {import("./store.js").Store} store */
function liveRow(store) {
  const state = h("span");
  const where = h("span", { class: "live-where" });
  const numbers = h("span", { class: "num live-numbers" });
  const bar = segmentBar();
  const link = h("span", { class: "live-id" });
  const node = h("li", { class: "live-row" }, h("div", { class: "live-top" }, link, where, numbers, state), bar.node);
  let drawn = "";
  return {
    node,
    /** @param {import("./types.js").RequestRow} row */
    update(row) {
      const parts = partsOf(row);
      const peers = [...new Set([...parts.map((part) => part.peer), row.peer])].filter(Boolean);
      const shape = JSON.stringify([peers, row.seconds === null, row.error, row.waits, row.first === null]);
      if (shape !== drawn) {
        drawn = shape;
        replace(link, requestLink(row.id));
        replace(state, outcome(row));
        replace(where, ...peers.flatMap((peer, index) => (index ? [" → ", peerMark(peer)] : [peerMark(peer)])));
        setAttribute(where, "aria-label", peers.length ? `on ${peers.map(peerName).join(", then ")}` : null);
        setAttribute(node, "data-over", row.seconds !== null);
      }
      const took = row.seconds ?? store.now() - row.began;
      setText(numbers, `${count(row.tokens)} tok · ${row.seconds === null ? span(took) : seconds(took)}`);
      bar.update(parts);
    },
  };
}

// ---- what just happened ----

/** @param {import("./store.js").Store} store */
function happeningsSection(store) {
  const list = h("ol", { class: "happenings" });
  const empty = h("p", { class: "empty" }, "Nothing happened yet.");
  const node = h("section", { class: "section panel", "aria-labelledby": "happenings-title" }, sectionHead("happenings-title", "Just now", h("a", { class: "more", href: "#/log" }, "The whole log")), list, empty);
  return {
    node,
    update() {
      const newest = store.events.filter((event) => event.kind !== "attempted" || event.outcome !== "success").slice(-MOST_HAPPENINGS).reverse();
      keyed(list, newest, (event) => event.n, (event) => ({ node: happeningLine(event), update() {} }));
      show(empty, newest.length === 0);
    },
  };
}
