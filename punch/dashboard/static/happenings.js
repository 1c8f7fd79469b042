// What happened, in sentences: the decision log's lines, and peers that come and go.

import { h } from "./dom.js";
import { bytes, clock, peerName, plural, rate, score, seconds } from "./format.js";
import { icon } from "./icons.js";
import { peerMark, requestLink, words } from "./marks.js";

/** @typedef {import("./types.js").Happening} Happening */

const WHY = {
  first: "chosen first",
  failover: "asked next, since the one before gave nothing",
  continuation: "goes on with the answer",
  hedge: "asked beside the first",
  move: "asked instead: it would be done earlier than that queue",
};

const OUTCOMES = {
  success: "answered",
  cancelled: "was stopped",
  silent: "went silent",
  unreachable: "was lost",
  refused: "refused",
  backend_failed: "failed",
  deadline: "ran out of time",
};

const OF_STARTS = {
  success: "was started",
  cancelled: "was not waited for any more",
  backend_failed: "could not be started",
};

/** What became of a wait for a start. @param {string} outcome */
export const startWords = (outcome) => OF_STARTS[outcome] ?? outcomeWords(outcome);

/** What came of asking a peer. @param {string} outcome */
export const outcomeWords = (outcome) => OUTCOMES[outcome] ?? `ended with ${words(outcome)}`;

/** Why a decision was made. @param {string} reason */
export const reasonWords = (reason) => WHY[reason] ?? reason;

/** How much it matters, in the words of a log. @param {Happening} event */
export function levelOf(event) {
  if (event.kind === "attempted" && !["success", "cancelled"].includes(event.outcome)) return "warning";
  if (event.kind === "ended" && !["success", "cancelled"].includes(event.status)) return "error";
  if (event.kind === "decided" && !event.peer) return "warning";
  if (event.kind === "split") return ["lost", "failed"].includes(event.what) ? "warning" : ["lent", "returned", "connected"].includes(event.what) ? "debug" : "info";
  if (event.kind === "left" || event.kind === "dropped") return "warning";
  return event.kind === "attempted" ? "debug" : "info";
}

/** @param {Happening} event */
function iconOf(event) {
  if (event.kind === "joined" || event.kind === "left") return icon(event.kind);
  if (event.kind === "decided") return icon(event.reason === "continuation" ? "seam" : "next");
  if (levelOf(event) === "warning" || levelOf(event) === "error") return icon("warning");
  return icon(event.kind === "ended" ? "check" : "dot");
}

/** The sentence, with links. @param {Happening} event @returns {(Node|string)[]} */
export function sentence(event) {
  const peer = () => peerMark(event.peer ?? null);
  switch (event.kind) {
    case "joined":
      return [peer(), ` joined with ${event.backend}`];
    case "left":
      return [peer(), " is gone"];
    case "decided":
      if (!event.peer) return [`nobody could be asked, of ${plural(event.of, "peer")}`];
      return [peer(), event.starts ? " is to be started first" : ` ${reasonWords(event.reason)}`, ...(event.score === null ? [] : [h("span", { class: "hint" }, ` ${scored(event)}, of ${event.of}`)])];
    case "attempted":
      return [peer(), ` ${event.reason === "start" ? startWords(event.outcome) : outcomeWords(event.outcome)} after ${seconds(event.seconds)}`, event.tokens ? `, ${plural(event.tokens, "token")}` : "", ...(event.error ? [h("span", { class: "hint" }, ` ${withoutPeer(event.error, event.peer)}`)] : [])];
    case "split":
      return splitSentence(event);
    case "ended":
      if (event.status !== "success") return [`ended with ${words(event.status)} after ${seconds(event.seconds)}`, ...(event.error ? [h("span", { class: "hint" }, ` ${event.error}`)] : [])];
      return [`done in ${seconds(event.seconds)}`, event.tokens === null ? "" : `, ${plural(event.tokens, "token")}`, event.segments > 1 ? ` in ${event.segments} parts` : ""];
    default:
      return [`${plural(event.count, "line")} of the decision log could not be kept`];
  }
}

/** What became of a split. @param {Happening} event @returns {(Node|string)[]} */
function splitSentence(event) {
  const model = event.model ?? "a model";
  const worker = () => peerMark(event.worker ?? null);
  const why = event.why ? h("span", { class: "hint" }, ` ${event.why}`) : "";
  switch (event.what) {
    case "begun":
      return [`${model} is to be split over several machines`];
    case "planned":
    case "replanned":
      return [`${model} ${event.what === "planned" ? "has a plan" : "has another plan"}: ${plural(event.workers, "worker")}`, event.decode === null ? "" : h("span", { class: "hint" }, ` predicted ${rate(event.decode)} tokens/s`)];
    case "ready":
      return [`${model} answers, split, after ${seconds(event.seconds)}`];
    case "failed":
      return [`${model} does not start, split: ${plural(event.starts, "try", "tries")}`, why];
    case "connected":
      return [worker(), ` holds its layers of ${model}`, h("span", { class: "hint" }, ` ${bytes(event.bytes)}`)];
    case "lost":
      return [worker(), ` was lost by ${model}`, why];
    case "lent":
      return [worker(), ` lends ${bytes(event.bytes)} to ${model}`];
    default:
      return [worker(), ` lends nothing to ${model} any more`, why];
  }
}

const scored = (event) => (event.unit === "s" ? `predicted ${seconds(event.score)}` : `score ${score(event.score)}`);

/** Errors begin with the id of their peer, which stands there already. */
export const withoutPeer = (error, peer) => (peer && error.startsWith(`${peer}: `) ? error.slice(peer.length + 2) : error);

/** As plain text, to search in and to read out. @param {Happening} event */
export function plainSentence(event) {
  return sentence(event).map((part) => (typeof part === "string" ? part : part.textContent)).join("");
}

/** A line of the overview's list. @param {Happening} event */
export function happeningLine(event) {
  return h(
    "li",
    { class: "happening", "data-level": levelOf(event) },
    h("time", { class: "num", datetime: new Date(event.time * 1000).toISOString() }, clock(event.time)),
    iconOf(event),
    h("span", { class: "happening-text" }, ...sentence(event)),
    event.id ? requestLink(event.id) : h("span"),
  );
}

/** Where an answer goes on at another peer. @param {Happening} event */
export const isContinuation = (event) => event.kind === "decided" && event.reason === "continuation" && Boolean(event.peer);

/** What to say aloud. @param {Happening} event @returns {?string} */
export function spoken(event) {
  if (event.kind === "joined") return `Peer ${peerName(event.peer ?? null)} joined`;
  if (event.kind === "left") return `Peer ${peerName(event.peer ?? null)} is gone`;
  if (event.kind === "split" && ["lost", "ready", "failed", "replanned"].includes(event.what)) return plainSentence(event);
  if (isContinuation(event)) return `Peer ${peerName(event.peer ?? null)} goes on with an answer`;
  return null;
}
