// "Add a machine": an invite is made, shown once, and can be taken back.

import { announce } from "./announce.js";
import { copyButton } from "./clipboard.js";
import { confirmed } from "./confirm.js";
import { h, keyed, replace, s, setText, show } from "./dom.js";
import { moment, plural, span } from "./format.js";
import { badge, sectionHead } from "./marks.js";
import { ask, problemOf, Unauthorized } from "./session.js";

/** @typedef {import("./types.js").Invite} Invite */
/** @typedef {import("./types.js").Members} Members */

const ENDS = [
  ["3600", "an hour"],
  ["86400", "a day"],
  ["604800", "a week"],
];
const USUAL_END = "86400";

// What a code of the page may do at most; the gateway checks it.
const MOST_USES = 20;
const MOST_NAME = 64;

/** @param {import("./store.js").Store} store @param {{locked: () => void, changed: () => void}} tell */
export function inviteSection(store, tell) {
  const uses = h("input", { id: "invite-uses", type: "number", min: "1", max: String(MOST_USES), value: "1", required: true });
  const ends = h("select", { id: "invite-ends" }, ...ENDS.map(([value, text]) => h("option", { value }, text)));
  ends.value = USUAL_END;
  const name = h("input", { id: "invite-name", type: "text", maxlength: String(MOST_NAME), autocomplete: "off", spellcheck: "false", placeholder: "as it says" });
  const mine = h("input", { id: "invite-mine", type: "checkbox" });
  const short = h("input", { id: "invite-short", type: "checkbox", onchange: () => (uses.disabled = short.checked) });
  const make = h("button", { type: "submit", class: "primary" }, "Make an invite");
  const problem = h("p", { class: "problem", role: "alert", hidden: true });
  const form = h(
    "form",
    { class: "invite-form" },
    field("Machines", uses),
    field("Counts for", ends),
    field("Name", name),
    h("label", { class: "field", for: "invite-mine" }, mine, h("span", null, "It is mine, too")),
    h("label", { class: "field", for: "invite-short" }, short, h("span", null, "A short code to say aloud, for one try")),
    make,
  );
  const made = h("div", { class: "invite-made", hidden: true });
  const hint = h("div", { class: "hint" });
  const list = h("ul", { class: "invites", "aria-label": "Invites" });
  const node = h("section", { class: "section panel", "aria-labelledby": "invite-title" }, sectionHead("invite-title", "Add a machine"), hint, form, problem, made, list);

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    make.disabled = true;
    const wish = { uses: short.checked ? 1 : Number(uses.value), seconds: Number(ends.value), name: name.value.trim(), mine: mine.checked, short: short.checked };
    if (short.checked) wish.seconds = Math.min(wish.seconds, 3600);
    const answer = await send("/api/dashboard/invites", { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(wish) });
    make.disabled = false;
    if (!answer) return;
    showMade(answer);
    tell.changed();
  });

  /** What a change came to; null if it was not done, which is said. */
  async function send(path, options) {
    show(problem, false);
    try {
      const response = await ask(path, options);
      if (!response.ok) throw new Error(await problemOf(response));
      return await response.json();
    } catch (error) {
      if (error instanceof Unauthorized) tell.locked();
      else {
        setText(problem, `That was not done: ${error.message}`);
        show(problem, true);
      }
      return null;
    }
  }

  /** The code, once. @param {import("./types.js").MadeInvite} invite */
  function showMade(invite) {
    const code = h("code", null, invite.code);
    const join = invite.short && invite.at ? `punch join --at ${invite.at}` : "punch join";
    const gone = h("button", { type: "button", class: "button", onclick: () => hideMade() }, "Hide the code");
    const title = h("h3", { tabindex: "-1" }, "The code, shown this once");
    replace(
      made,
      title,
      h("pre", { class: "lines", tabindex: "0", role: "region", "aria-label": "The code" }, code),
      h("div", { class: "buttons" }, copyButton(code, "the code"), gone),
      h("p", null, "On the other machine type ", h("code", null, join), ", or ", h("code", null, "punch up --join -"), ", and paste it. Whoever has it may join: show it to nobody else."),
      h("p", { class: "hint" }, `For ${plural(invite.uses, "machine")}, until ${moment(invite.ends)}.`),
      invite.short ? null : drawn(invite.qr),
    );
    show(made, true);
    announce("An invite was made; its code is shown");
    title.focus();
  }

  function hideMade() {
    replace(made);
    show(made, false);
    make.focus();
  }

  /** @param {Invite} row */
  async function withdraw(row) {
    if (!(await confirmed("Take this invite back?", `Its code (${row.name ?? row.id}) lets nobody in any more. Who has used it stays.`, "Take it back"))) return;
    const answer = await send(`/api/dashboard/invites/${encodeURIComponent(row.id)}/withdraw`, { method: "POST" });
    if (answer) announce(answer.said);
    tell.changed();
  }

  return {
    node,
    /** @param {Members} data */
    draw(data) {
      show(form, data.may);
      const hints = data.namespace === null ? openHints(store.about.join ?? {}) : data.may ? closedHints(data) : [data.why_not ?? ""];
      const said = JSON.stringify(hints.map(String)) + data.namespace;
      if (said !== hint.dataset.said) {
        hint.dataset.said = said;
        replace(hint, ...hints.map((each) => (each instanceof Node ? each : h("p", null, each))));
      }
      keyed(list, data.invites, (row) => row.id, () => inviteRow(withdraw));
      show(list, data.invites.length > 0);
    },
  };
}

const field = (text, input) => h("label", { class: "field", for: input.id }, h("span", null, text), input);

/** @param {Members} data */
function closedHints(data) {
  if (data.served) return [`A code lets machines into ${data.namespace}.`];
  return [`A code lets machines into ${data.namespace}. No program of this machine lets anybody in now: start punch up, or punch serve --listen-too.`];
}

/** @param {import("./types.js").Join} join */
function openHints(join) {
  const elsewhere = join.elsewhere ? ["On another machine type ", h("code", null, join.elsewhere)] : ["Give all machines ", h("code", null, "--bootstrap HOST:51820"), " with the address of one"];
  return [h("p", null, "This namespace is open: whoever knows its name and reaches it is in. ", ...elsewhere, ". ", h("code", null, "punch up"), " makes one that is closed.")];
}

/** @param {{size: number, path: string}} qr */
function drawn(qr) {
  return s("svg", { class: "qr", viewBox: `0 0 ${qr.size} ${qr.size}`, role: "img", "aria-label": "The same code, to be scanned", "shape-rendering": "crispEdges" }, s("rect", { width: qr.size, height: qr.size, class: "qr-white" }), s("path", { d: qr.path, class: "qr-black" }));
}

/** @param {(row: Invite) => void} withdraw */
function inviteRow(withdraw) {
  /** @type {Invite} */
  let shown;
  const name = h("strong");
  const said = h("span", { class: "hint" });
  const state = h("span");
  const button = h("button", { type: "button", class: "button", onclick: () => withdraw(shown) }, "Take it back");
  const node = h("li", { class: "line-row" }, h("span", { class: "line-who" }, name, said), state, button);
  let drawn_ = "";
  return {
    node,
    /** @param {Invite} row */
    update(row) {
      shown = row;
      const title = row.name ?? `Invite ${row.id.slice(0, 8)}`;
      setText(name, title);
      const used = row.used_by.length ? `, used by ${row.used_by.join(", ")}` : "";
      setText(said, row.state === "open" ? `${row.left} of ${plural(row.uses, "use")} left, for ${span(row.seconds)} more${used}` : `${plural(row.uses, "use")}${used}`);
      if (row.state !== drawn_) replace(state, row.state === "open" ? badge("ok", "check", "counts") : badge("quiet", "stop", row.state));
      drawn_ = row.state;
      show(button, row.state === "open");
      button.setAttribute("aria-label", `Take back ${title}`);
    },
  };
}
