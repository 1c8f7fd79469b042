// A decision, opened up: everybody that was looked at, every term of every score.

import { h, setStyle } from "./dom.js";
import { count, plural, score, seconds } from "./format.js";
import { icon } from "./icons.js";
import { peerMark } from "./marks.js";
import { reasonWords } from "./happenings.js";

// Candidates that are shown; who comes after them hardly mattered.
const MOST_ROWS = 12;

// Where a model would run; see punch/routing/kinds.
const KINDS = { here: "This machine has it whole", peer: "Another machine has it whole", split: "It runs over several machines", start: "It would have to be started" };

// Terms have colours of their own, apart from those of the peers.
const TERM_COLOURS = 7;

/**
 * A line of the decision log with kind "decided"; see `Decided` in punch/decision_log/_entries.py.
 * @param {any} decided
 */
export function decisionDetails(decided, open) {
  const able = decided.weighed.filter((one) => one.removed_by === null);
  const removed = decided.weighed.filter((one) => one.removed_by !== null);
  const chosen = able.find((one) => one.peer.peer_id === decided.chosen);
  const node = h("details", { class: "decision" });
  if (open) node.open = true;
  node.append(
    h(
      "summary",
      null,
      h("span", { class: "decision-title" }, decided.chosen ? peerMark(decided.chosen) : h("strong", null, "Nobody"), " ", decided.chosen ? reasonWords(decided.reason) : "could be asked"),
      h("span", { class: "hint" }, summary(decided, chosen, able.length)),
    ),
    able.length ? candidates(decided, able) : "",
    removed.length ? ruledOut(removed) : "",
    decided.left_out ? h("p", { class: "hint" }, `and ${plural(decided.left_out, "peer")} more`) : "",
  );
  return node;
}

const sum = (terms) => terms.reduce((total, term) => total + Number(term), 0);

function summary(decided, chosen, able) {
  const of = decided.weighed.length + decided.left_out;
  const parts = [decided.policy];
  if (chosen) parts.push(decided.unit === "s" ? `predicted ${seconds(sum(chosen.terms))}` : `score ${score(sum(chosen.terms))}`);
  if (chosen?.kind && decided.taken) parts.push(`${chosen.kind.word}: ${decided.taken}`);
  parts.push(`${count(able)} of ${plural(of, "peer")} could be asked`);
  return parts.join(" · ");
}

/** Everybody that could be asked, best first, and what their scores are made of. */
function candidates(decided, able) {
  // A term that is nothing for everybody explains nothing.
  const columns = decided.term_names.map((name, index) => ({ name, index })).filter(({ index }) => able.some((one) => Number(one.terms[index]) !== 0));
  const most = Math.max(...able.map((one) => one.terms.reduce((total, term) => total + Math.max(0, Number(term)), 0)), 1e-9);
  const best = decided.lowest_is_best ? "lowest" : "highest";
  const caption = `Scores in ${decided.unit || "points"}, the ${best} is best; the sum of the terms`;
  const place = able.findIndex((one) => one.peer.peer_id === decided.chosen);
  const next = able.find((one) => one.peer.peer_id !== decided.chosen);
  return h(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    h(
      "table",
      { class: "grid terms" },
      h("caption", null, caption),
      h("thead", null, h("tr", null, h("th", { scope: "col" }, "Peer"), h("th", { scope: "col", class: "num" }, "Score"), h("th", { scope: "col" }, "Made of"), ...columns.map(({ name, index }) => h("th", { scope: "col", class: "num" }, termKey(index), name)))),
      h(
        "tbody",
        null,
        ...able.slice(0, MOST_ROWS).map((one, index) =>
          h(
            "tr",
            { "data-chosen": index === place, title: one.start?.offer.plan || null },
            h("th", { scope: "row" }, peerMark(one.peer.peer_id), mark(one, index === place, one === next)),
            h("td", { class: "num" }, h("strong", null, score(sum(one.terms)))),
            h("td", null, termsBar(one, columns, most)),
            ...columns.map(({ index: column }) => h("td", { class: "num" }, score(one.terms[column]))),
          ),
        ),
      ),
    ),
    able.length > MOST_ROWS && h("p", { class: "hint" }, `and ${able.length - MOST_ROWS} more that could be asked`),
  );
}

function mark(one, chosen, next) {
  const marks = [];
  if (chosen) marks.push(h("span", { class: "tag tag-chosen" }, icon("check"), "chosen"));
  if (next) marks.push(h("span", { class: "tag" }, icon("next"), "next"));
  if (one.start) marks.push(h("span", { class: "tag", title: one.start.offer.plan || null }, icon("clock"), one.start.is_under_way ? "starts" : "to be started"));
  if (one.kind) marks.push(h("span", { class: "tag", title: KINDS[one.kind.word] ?? null }, one.kind.word));
  if (one.hot) marks.push(h("span", { class: "tag tag-hot", title: "It has a longer queue than most, and gave way" }, "hot"));
  return h("span", { class: "tags" }, ...marks);
}

function termKey(index) {
  const key = h("i", { class: "term-key", "aria-hidden": "true" });
  setStyle(key, "--colour", `var(--term-${index % TERM_COLOURS})`);
  return key;
}

/** The terms end to end; the numbers beside it say the same. */
function termsBar(one, columns, most) {
  const bar = h("span", { class: "terms-bar", "aria-hidden": "true" });
  for (const { name, index } of columns) {
    const value = Math.max(0, Number(one.terms[index]));
    if (!value) continue;
    bar.append(h("i", { title: name, style: { "--share": `${(100 * value) / most}%`, "--colour": `var(--term-${index % TERM_COLOURS})` } }));
  }
  return bar;
}

/** Who was removed, by which filter, and why. */
function ruledOut(removed) {
  return h(
    "div",
    { class: "ruled-out" },
    h("h4", null, `Ruled out: ${removed.length}`),
    h(
      "ul",
      null,
      ...removed.slice(0, MOST_ROWS).map((one) => h("li", null, peerMark(one.peer.peer_id), h("span", { class: "tag" }, icon("cross"), one.removed_by), h("span", { class: "hint" }, one.reason ?? ""))),
      removed.length > MOST_ROWS && h("li", { class: "hint" }, `and ${removed.length - MOST_ROWS} more`),
    ),
  );
}
