// The list of requests. Arrows move, Enter opens a story.

import { h, keyed, replace, setAttribute, setText, show } from "./dom.js";
import { clock, count, peerName, plural, rate, requestName, seconds, span } from "./format.js";
import { icon } from "./icons.js";
import { choice, outcome, partsOf, peerMark, segmentBar, storyAddress } from "./marks.js";

/** @typedef {import("./types.js").RequestRow} Row */

const SHOW = [["all", "All"], ["live", "Under way"], ["continued", "Continued"], ["failed", "Failed"]];

const MATCHES = {
  all: () => true,
  live: (row) => row.seconds === null,
  continued: (row) => row.continued > 0 || (row.seconds === null && row.segments.length > 0),
  failed: (row) => row.error !== null || row.failed > 0,
};

/** @param {Element} root @param {import("./store.js").Store} store */
export function requests(root, store) {
  let shown = "all";
  const body = h("tbody");
  const empty = h("p", { class: "empty" });
  const found = h("p", { class: "sub" });
  const filter = choice("Show", "requests-show", SHOW, shown, (value) => {
    history.replaceState(null, "", value === "all" ? "#/requests" : `#/requests?show=${value}`);
    setFilter(value);
  });
  const heads = [["Request", ""], ["Outcome", ""], ["Model", "wide"], ["Answered by", ""], ["Parts", "wide"], ["Tokens", "num"], ["First", "num wide"], ["Total", "num"], ["Began", "num wide"]];
  const table = h(
    "table",
    { class: "grid requests", id: "requests-table" },
    h("caption", { class: "unseen" }, "The last requests, newest first. Arrow keys move between them, Enter opens one."),
    h("thead", null, h("tr", null, ...heads.map(([text, kind]) => h("th", { scope: "col", class: kind }, text)))),
    body,
  );
  replace(
    root,
    h("header", { class: "view-head" }, h("h1", { id: "title-requests", tabindex: "-1" }, "Requests"), found, filter),
    h("div", { class: "panel flush" }, table, empty),
  );
  body.addEventListener("keydown", rove);
  body.addEventListener("focusin", (event) => {
    for (const link of body.querySelectorAll("a.row-link")) link.tabIndex = link === event.target ? 0 : -1;
  });
  // The whole row is a target for the mouse; the link in it is the one for keys.
  body.addEventListener("click", (event) => {
    const row = /** @type {Element} */ (event.target).closest("tr");
    if (!/** @type {Element} */ (event.target).closest("a")) row?.querySelector("a.row-link")?.click();
  });

  function setFilter(value) {
    shown = value in MATCHES ? value : "all";
    for (const input of filter.querySelectorAll("input")) input.checked = input.value === shown;
    update();
  }

  function update() {
    const all = store.newest();
    const rows = all.filter(MATCHES[shown]).slice(0, 200);
    keyed(body, rows, (row) => row.n, () => requestRow(store));
    if (rows.length && !body.querySelector('a.row-link[tabindex="0"]')) body.querySelector("a.row-link").tabIndex = 0;
    show(table, rows.length > 0);
    show(empty, rows.length === 0);
    setText(empty, all.length === 0 ? "No request came yet. Point a program at this address, or ask something in the chat." : `None of the last ${plural(all.length, "request")} is like that.`);
    setText(found, `${plural(store.totals.requests, "request")} ended, ${count(store.totals.under_way)} under way, ${count(store.totals.continued)} continued`);
  }

  /** Mark the row whose story is open. @param {?string} id */
  function mark(id) {
    for (const row of body.rows) setAttribute(row, "data-open", id !== null && row.querySelector("a.row-link")?.dataset.request === id);
  }

  return { update, tick: update, setFilter, mark, /** The row that a story was opened from. */ focusOn: (id) => rowLink(body, id)?.focus() };
}

function rowLink(body, id) {
  return [...body.querySelectorAll("a.row-link")].find((link) => link.dataset.request === id);
}

/** One stop for the tab key, arrows between the rows. */
function rove(event) {
  const links = [...event.currentTarget.querySelectorAll("a.row-link")];
  const at = links.indexOf(document.activeElement);
  const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: links.length - 1 }[event.key];
  if (at < 0 || to === undefined || !links[to]) return;
  event.preventDefault();
  links[to].focus();
}

/** @param {import("./store.js").Store} store */
function requestRow(store) {
  const link = h("a", { class: "row-link mono", tabindex: "-1" });
  const cells = Object.fromEntries(["outcome", "model", "peer", "parts", "tokens", "first", "total", "began"].map((name) => [name, h("td")]));
  cells.model.className = "wide";
  cells.parts.className = "wide parts";
  cells.tokens.className = cells.total.className = "num";
  cells.first.className = cells.began.className = "num wide";
  const bar = segmentBar();
  cells.parts.append(bar.node);
  const node = h("tr", null, h("th", { scope: "row" }, link), ...Object.values(cells));
  let drawn = "";
  return {
    node,
    /** @param {Row} row */
    update(row) {
      const shape = JSON.stringify([row.peer, row.seconds === null, row.error, row.waits, row.first === null, row.segments.length]);
      if (shape !== drawn) {
        drawn = shape;
        setText(link, requestName(row.id));
        setAttribute(link, "href", storyAddress(row.id));
        setAttribute(link, "data-request", row.id);
        setAttribute(link, "title", row.id);
        replace(cells.outcome, outcome(row), row.continued > 0 && h("span", { class: "sign", title: `in ${row.segments.length} parts` }, icon("seam"), h("span", { class: "unseen" }, "continued")));
        setText(cells.model, row.made_by?.model ?? row.model ?? "any");
        replace(cells.peer, row.peer ? peerMark(row.peer) : h("span", { class: "hint" }, "–"));
        setText(cells.began, clock(row.began));
        setAttribute(cells.peer, "title", peerName(row.peer));
      }
      bar.update(partsOf(row));
      setText(cells.tokens, count(row.tokens));
      setText(cells.first, seconds(row.first));
      setText(cells.total, row.seconds === null ? span(store.now() - row.began) : seconds(row.seconds));
    },
  };
}

/** Tokens per second of one answer, from its first text on. @param {Row} row */
export function speedOf(row) {
  if (row.seconds === null || row.first === null || row.tokens < 2 || row.seconds <= row.first) return null;
  return rate((row.tokens - 1) / (row.seconds - row.first));
}
