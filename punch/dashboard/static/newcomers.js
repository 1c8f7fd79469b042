// Machines that ask to be let into the closed namespace: their digits, and what a person decides.

import { announce } from "./announce.js";
import { h, keyed, setText, show } from "./dom.js";
import { icon } from "./icons.js";
import { sectionHead } from "./marks.js";
import { ask, problemOf, Unauthorized } from "./session.js";

// How often it is looked who asks, in milliseconds: somebody stands at the other machine and waits.
const EVERY = 2000;

/** @typedef {import("./types.js").Newcomer} Newcomer */

// Who was announced already, by any of the sections.
/** @type {Set<string>} */
let known = new Set();

/** @param {import("./store.js").Store} store @param {{locked: () => void}} tell @param {string} [where] the view */
export function newcomersSection(store, tell, where = "overview") {
  const title = `${where}-newcomers-title`;
  const hint = h("p", { class: "hint" });
  const problem = h("p", { class: "problem", role: "alert", hidden: true });
  const list = h("ul", { class: "newcomers" });
  const node = h("section", { class: "section panel", "aria-labelledby": title, hidden: true }, sectionHead(title, "Machines that ask to be let in"), hint, problem, list);
  let asked = -EVERY;
  let isAsking = false;

  async function refresh() {
    if (!store.about.join?.closed || isAsking || performance.now() - asked < EVERY) return;
    isAsking = true;
    asked = performance.now();
    try {
      const response = await ask("/api/dashboard/newcomers");
      if (response.ok) draw(await response.json());
    } catch (error) {
      if (error instanceof Unauthorized) tell.locked();
      // The gateway is away: the banner says so.
    } finally {
      isAsking = false;
    }
  }

  /** @param {{namespace: string, may: boolean, why_not: ?string, newcomers: Newcomer[]}} data */
  function draw(data) {
    const rows = data.newcomers;
    for (const row of rows) {
      if (row.state === "waiting" && !known.has(row.id)) announce(`${row.name} asks to be let in, and shows ${row.digits}`);
    }
    known = new Set(rows.map((row) => row.id));
    show(node, rows.length > 0);
    if (!rows.length) show(problem, false);
    setText(hint, data.may ? "Approve a machine only if its own screen shows the same six digits: any machine may call itself anything." : data.why_not ?? "");
    keyed(list, rows.map((row) => ({ ...row, may: data.may })), (row) => row.id, () => newcomer(decide));
  }

  /** @param {Newcomer} row @param {"approve" | "refuse"} what */
  async function decide(row, what) {
    show(problem, false);
    try {
      const path = [row.id, row.digits.replace(" ", ""), what].map(encodeURIComponent).join("/");
      const response = await ask(`/api/dashboard/newcomers/${path}`, { method: "POST" });
      if (!response.ok) throw new Error(await problemOf(response));
      announce((await response.json()).said);
    } catch (error) {
      if (error instanceof Unauthorized) return tell.locked();
      setText(problem, `That was not done: ${error.message}`);
      show(problem, true);
    }
    asked = -EVERY;
    refresh();
  }

  return { node, tick: refresh };
}

/** @param {(row: Newcomer, what: "approve" | "refuse") => void} decide */
function newcomer(decide) {
  /** @type {Newcomer} */
  let shown;
  const name = h("strong");
  const host = h("span", { class: "hint" });
  const digits = h("strong", { class: "digits num" });
  const said = h("span");
  const approve = h("button", { type: "button", class: "primary", onclick: () => decide(shown, "approve") }, icon("check"), h("span", null, "Approve"));
  const refuse = h("button", { type: "button", class: "button", onclick: () => decide(shown, "refuse") }, icon("cross"), h("span", null, "Refuse"));
  const buttons = h("span", { class: "newcomer-buttons" }, approve, refuse);
  const node = h("li", { class: "newcomer" }, h("span", { class: "newcomer-who" }, name, host), digits, said, buttons);
  return {
    node,
    /** @param {Newcomer} row */
    update(row) {
      shown = row;
      setText(name, row.name);
      setText(host, `from ${row.host}${row.state === "waiting" ? `, for ${row.seconds} s more` : ""}`);
      setText(digits, row.digits);
      setText(said, row.said);
      show(said, row.said !== "");
      show(buttons, row.state === "waiting" && row.may);
      approve.setAttribute("aria-label", `Approve ${row.name}, which shows ${row.digits}`);
      refuse.setAttribute("aria-label", `Refuse ${row.name}, which shows ${row.digits}`);
    },
  };
}
