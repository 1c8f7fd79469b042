// Who is a member of the closed namespace; those who may can remove one.

import { announce } from "./announce.js";
import { confirmed } from "./confirm.js";
import { h, keyed, replace, setText, show } from "./dom.js";
import { moment, plural, span } from "./format.js";
import { badge, sectionHead } from "./marks.js";
import { ask, problemOf, Unauthorized } from "./session.js";

/** @typedef {import("./types.js").Member} Member */

/** @param {{locked: () => void, changed: () => void}} tell */
export function membersSection(tell) {
  const count = h("span", { class: "hint" });
  const problem = h("p", { class: "problem", role: "alert", hidden: true });
  const list = h("ul", { class: "members" });
  const more = h("p", { class: "hint", hidden: true });
  const node = h("section", { class: "section panel", "aria-labelledby": "members-title", hidden: true }, sectionHead("members-title", "Members", count), problem, list, more);
  let namespace = "";

  /** @param {Member} row */
  async function remove(row) {
    const name = row.name ?? row.machine;
    if (!(await confirmed(`Remove ${name}?`, `${name} (${row.machine}) is out of ${namespace} at once and everywhere. It comes back by a new invite only.`, "Remove it"))) return;
    show(problem, false);
    try {
      const response = await ask(`/api/dashboard/members/${encodeURIComponent(row.machine)}/remove`, { method: "POST" });
      if (!response.ok) throw new Error(await problemOf(response));
      announce((await response.json()).said);
    } catch (error) {
      if (error instanceof Unauthorized) return tell.locked();
      setText(problem, `That was not done: ${error.message}`);
      show(problem, true);
    }
    tell.changed();
  }

  return {
    node,
    /** @param {import("./types.js").Members} data */
    draw(data) {
      namespace = data.namespace ?? "";
      show(node, data.namespace !== null);
      setText(count, plural(data.members.filter((row) => row.state === "member").length, "machine"));
      keyed(list, data.members.map((row) => ({ ...row, may: data.may })), (row) => row.machine, () => memberRow(remove));
      setText(more, `and ${data.more_members} more: punch members list has them`);
      show(more, data.more_members > 0);
    },
  };
}

/** @param {(row: Member) => void} remove */
function memberRow(remove) {
  /** @type {Member} */
  let shown;
  const name = h("strong");
  const said = h("span", { class: "hint" });
  const key = h("span", { class: "mono hint" });
  const marks = h("span", { class: "badges" });
  const button = h("button", { type: "button", class: "button", onclick: () => remove(shown) }, "Remove");
  const node = h("li", { class: "line-row" }, h("span", { class: "line-who" }, name, key, said), marks, button);
  let drawn = "";
  return {
    node,
    /** @param {Member & {may: boolean}} row */
    update(row) {
      shown = row;
      setText(name, row.name ?? "without a name");
      setText(key, row.machine);
      setText(said, saidOf(row));
      const shape = JSON.stringify([row.here, row.admin, row.state, row.connected]);
      if (shape !== drawn) replace(marks, row.here && badge("live", "dot", "this machine"), row.admin && badge("real", "real", "admin"), stateBadge(row));
      drawn = shape;
      show(button, row.may && !row.here && row.state !== "removed" && row.state !== "left");
      button.setAttribute("aria-label", `Remove ${row.name ?? row.machine}`);
    },
  };
}

/** @param {Member} row */
function stateBadge(row) {
  if (row.state === "removed") return badge("bad", "cross", "removed");
  if (row.state === "left") return badge("quiet", "left", "has left");
  if (row.state === "ended") return badge("warn", "clock", "its grant has ended");
  return row.connected ? badge("ok", "check", row.here ? "runs" : "connected") : badge("quiet", "pause", "not connected");
}

/** @param {Member} row */
function saidOf(row) {
  const said = [];
  if (row.scopes.length) said.push(`may ${row.scopes.join(", ")}`);
  if (row.ends !== null && row.state === "member") said.push(`until ${moment(row.ends)}`);
  if (!row.connected && row.seen !== null && !row.here) said.push(`seen ${span(row.seen)} ago`);
  return said.join(" · ");
}
