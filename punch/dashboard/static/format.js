// Numbers, times and names as people read them.

const NONE = "–";

const clockOf = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
const dayOf = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const tenth = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

/** @param {?number} value a duration in seconds */
export function seconds(value) {
  if (value === null || value === undefined) return NONE;
  if (value < 0.001) return value <= 0 ? "0 ms" : `${(value * 1000).toFixed(2)} ms`;
  if (value < 0.01) return `${(value * 1000).toFixed(1)} ms`;
  if (value < 0.9995) return `${Math.round(value * 1000)} ms`;
  if (value < 10) return `${value.toFixed(2)} s`;
  if (value < 60) return `${value.toFixed(1)} s`;
  return span(value);
}

/** A long duration, in the two units that matter. @param {number} value */
export function span(value) {
  const total = Math.max(0, Math.floor(value));
  if (total < 60) return `${total} s`;
  if (total < 3600) return `${Math.floor(total / 60)} min ${total % 60} s`;
  if (total < 86400) return `${Math.floor(total / 3600)} h ${Math.floor((total % 3600) / 60)} min`;
  return `${Math.floor(total / 86400)} d ${Math.floor((total % 86400) / 3600)} h`;
}

/** @param {?number} value */
export function count(value) {
  return value === null || value === undefined ? NONE : whole.format(value);
}

/** @param {?number} value something per second */
export function rate(value) {
  if (value === null || value === undefined) return NONE;
  return value >= 100 ? whole.format(value) : tenth.format(value);
}

/** @param {?number} value bytes */
export function bytes(value) {
  if (value === null || value === undefined) return NONE;
  if (value >= 2 ** 30) return `${tenth.format(value / 2 ** 30)} GiB`;
  if (value >= 2 ** 20) return `${whole.format(value / 2 ** 20)} MiB`;
  return `${whole.format(value / 2 ** 10)} KiB`;
}

/** Used of a whole, with the unit said once. */
export function ofBytes(used, all) {
  if (used === null || used === undefined) return bytes(all);
  const unit = all >= 2 ** 30 ? 2 ** 30 : 2 ** 20;
  return `${tenth.format(used / unit)} / ${bytes(all)}`;
}

/** @param {number} value parameters of a model */
export function parameters(value) {
  if (value >= 1e9) return `${tenth.format(value / 1e9)}B`;
  if (value >= 1e6) return `${whole.format(value / 1e6)}M`;
  return whole.format(value);
}

/** @param {?number} value tokens of context */
export function context(value) {
  return value >= 1024 ? `${tenth.format(value / 1024)}k` : count(value);
}

/** A share as per cent. @param {?number} value */
export function share(value) {
  return value === null || value === undefined ? NONE : `${Math.round(value * 100)} %`;
}

/** Time of day. @param {number} time seconds since 1970 */
export const clock = (time) => clockOf.format(new Date(time * 1000));

/** Day and time. @param {number} time seconds since 1970 */
export const moment = (time) => dayOf.format(new Date(time * 1000));

/** What the peers that are there call their machines. @type {Map<string, string>} */
const names = new Map();

const asRead = (name) => name.normalize("NFKC").toLowerCase();
const tail = (id) => (id.length <= 12 ? id : `…${id.slice(-8)}`);

/** Learn the names; peers whose names look alike keep the ends of their ids beside them. */
export function learnNames(peers) {
  const named = peers.filter((peer) => peer.name && !/^(\.\.|…)/.test(peer.name.trim()));
  names.clear();
  for (const peer of named) {
    const alike = named.filter((other) => asRead(other.name) === asRead(peer.name)).length > 1;
    const looksLikeAnId = peers.some((other) => asRead(peer.name) === asRead(other.id));
    names.set(peer.id, alike || looksLikeAnId ? `${peer.name} ${tail(peer.id)}` : peer.name);
  }
}

/** A peer as the command line shows it: its name, or the end of its id, since all begin alike. @param {?string} id */
export function peerName(id) {
  if (!id) return "nobody";
  // The address of a server that nobody vouches for is shown whole, with the word that says so.
  if (id.startsWith("unauthenticated@")) return id;
  return names.get(id) ?? tail(id);
}

/** A request id: the end of a UUIDv7 is its random part. @param {string} id */
export function requestName(id) {
  return id.length <= 16 ? id : `…${id.slice(-8)}`;
}

/** One thing, several things. */
export const plural = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;

/** A number of a score, as wide as its size asks for. @param {?number} value */
export function score(value) {
  if (value === null || value === undefined || Number.isNaN(Number(value))) return value === null || value === undefined ? NONE : String(value);
  const number = Number(value);
  if (number === 0) return "0";
  return Math.abs(number) >= 1000 ? number.toPrecision(3) : number.toFixed(3);
}
