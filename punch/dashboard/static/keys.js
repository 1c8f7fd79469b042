// The API keys: what each used, by the day, and what is left of its minute. No secret is in here.

import { h, keyed, replace, setText, show } from "./dom.js";
import { count, moment, plural } from "./format.js";
import { badge, meter } from "./marks.js";
import { ask, problemOf, Unauthorized } from "./session.js";

// How often they are looked at again, in milliseconds.
const EVERY = 5000;

/** @typedef {import("./types.js").KeyRow} KeyRow */

/** @param {Element} root @param {{locked: () => void}} tell */
export function keysView(root, tell) {
  const sub = h("p", { class: "sub" });
  const problem = h("p", { class: "problem", role: "alert", hidden: true });
  const cards = h("div", { class: "cards" });
  const none = howToMakeOne();
  replace(root, h("header", { class: "view-head" }, h("h1", { id: "title-keys", tabindex: "-1" }, "Keys"), sub), problem, none, cards);
  let asked = -EVERY;
  let isAsking = false;

  async function refresh() {
    if (isAsking || performance.now() - asked < EVERY) return;
    isAsking = true;
    asked = performance.now();
    try {
      const response = await ask("/api/dashboard/keys");
      if (!response.ok) throw new Error(await problemOf(response));
      draw(await response.json());
      show(problem, false);
    } catch (error) {
      if (error instanceof Unauthorized) tell.locked();
      else setText(problem, `The keys cannot be shown: ${error.message}.`);
      show(problem, !(error instanceof Unauthorized));
    } finally {
      isAsking = false;
    }
  }

  /** @param {{today: string, days: number, keys: ?KeyRow[], more: number}} data */
  function draw(data) {
    const rows = data.keys ?? [];
    show(none, data.keys === null || rows.length === 0);
    if (data.keys === null) setText(sub, "This gateway asks for no key, and counts nothing by key.");
    else setText(sub, `${plural(rows.length + data.more, "key")}${data.more ? `, ${count(data.more)} of them not shown` : ""} · days are in UTC`);
    // A card knows the gateway's day, which is not the browser's, and is drawn anew at its end.
    keyed(cards, rows.map((row) => ({ ...row, today: data.today })), (row) => row.id, () => keyCard(data.days));
  }

  return {
    update() {},
    tick: refresh,
    /** The newest numbers, whatever was seen before. */
    shown() {
      asked = -EVERY;
      refresh();
    },
  };
}

function howToMakeOne() {
  return h(
    "div",
    { class: "empty", hidden: true },
    h("p", null, "A key says who asks, is counted, and can have limits and an end:"),
    h("pre", { class: "lines", tabindex: "0", role: "region", "aria-label": "How to make a key" }, h("code", null, "punch keys create phone --requests-per-minute 60 --tokens-per-minute 20000 --expires 30d")),
    h("p", null, "on the gateway's machine prints its secret, once. From then on every request needs a key, this page as well, unless the gateway runs with --open-to-all."),
  );
}

/** @param {number} shown days */
function keyCard(shown) {
  const name = h("h2");
  const state = h("span");
  const line = h("p", { class: "card-line" });
  const today = h("dd", { class: "num" });
  const all = h("dd", { class: "num" });
  const meters = { requests: meter("Requests"), tokens: meter("Tokens"), running: meter("At once") };
  const limits = h("div", { class: "meters" }, ...Object.values(meters).map((each) => each.node));
  const body = h("tbody");
  const caption = h("caption", { class: "unseen" });
  const table = h("table", { class: "grid" }, caption, h("thead", null, h("tr", null, ...["Day", "Requests", "Errors", "Prompt", "Answer"].map((text, index) => h("th", { scope: "col", class: index ? "num" : null }, text)))), body);
  const region = h("div", { class: "scroll", tabindex: "0", role: "region" }, table);
  const details = h("details", { class: "chart-table key-days" }, h("summary", null, "By day"), region);
  const node = h("section", { class: "card key-card" }, h("div", { class: "card-head" }, name, state), line, h("dl", { class: "facts" }, fact("Today", today), fact(`${shown} days`, all)), limits, details);
  let drawn = "";
  return {
    node,
    /** @param {KeyRow & {today: string}} row */
    update(row) {
      const shape = JSON.stringify(row);
      if (shape === drawn) return;
      drawn = shape;
      setText(name, row.name);
      name.id = `key-${row.id}`;
      node.setAttribute("aria-labelledby", name.id);
      replace(state, row.state === "active" ? badge("ok", "check", "active") : badge("bad", "cross", row.state));
      setText(line, [row.id, modelsOf(row), endOf(row)].filter(Boolean).join(" · "));
      const newest = row.days[row.days.length - 1];
      setText(today, said(newest?.day === row.today ? [newest] : []));
      setText(all, said(row.days));
      drawMeters(meters, row);
      setText(caption, `What ${row.name} used, the newest day first`);
      region.setAttribute("aria-label", `What ${row.name} used, by day`);
      replace(body, ...[...row.days].reverse().map(dayRow), row.days.length === 0 && h("tr", null, h("td", { colspan: "5", class: "hint" }, "It was not used.")));
    },
  };
}

const fact = (name, value) => h("div", null, h("dt", null, name), value);

/** @param {import("./types.js").Day[]} days */
function said(days) {
  const sum = (field) => days.reduce((total, day) => total + day[field], 0);
  return `${plural(sum("requests"), "request")} · ${plural(sum("prompt_tokens") + sum("completion_tokens"), "token")}`;
}

/** @param {KeyRow} row */
function modelsOf(row) {
  if (row.models.length === 0) return "all models";
  return `${row.models.join(", ")}${row.more_models ? ` and ${row.more_models} more` : ""}`;
}

/** @param {KeyRow} row */
function endOf(row) {
  if (row.revoked !== null) return `revoked ${moment(row.revoked)}`;
  return row.expires === null ? "" : `${row.state === "expired" ? "expired" : "expires"} ${moment(row.expires)}`;
}

/** @param {any} meters @param {KeyRow} row */
function drawMeters(meters, row) {
  for (const name of ["requests", "tokens"]) {
    const limit = row.limits[name];
    const left = row.left[name];
    if (limit === null || left === null) meters[name].hide();
    else meters[name].update(1 - left / limit, `${count(left)} of ${count(limit)} a minute left`);
  }
  const most = row.limits.concurrency;
  if (most === null) meters.running.hide();
  else meters.running.update(row.left.running / most, `${count(Math.max(0, most - row.left.running))} of ${count(most)} left`);
}

/** @param {import("./types.js").Day} day */
function dayRow(day) {
  return h("tr", null, h("th", { scope: "row", class: "num" }, day.day), ...[day.requests, day.errors, day.prompt_tokens, day.completion_tokens].map((value) => h("td", { class: "num" }, count(value))));
}
