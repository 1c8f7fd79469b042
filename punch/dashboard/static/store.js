// What the page knows: the feed's state, merged from its frames. Views read it and draw.

import { learnNames } from "./format.js";

/** @typedef {import("./types.js").Frame} Frame */

export const SERIES_SECONDS = 600;
const MOST_REQUESTS = 400;
const MOST_EVENTS = 1000;
const MOST_LOGS = 1000;

export class Store {
  constructor() {
    /** @type {Set<(changed: Set<string>) => void>} */
    this.readers = new Set();
    this.clear();
  }

  /** Forget everything: the gateway is another one, or we missed too much. */
  clear() {
    this.ready = false;
    this.about = {};
    /** What to add to this machine's clock for the gateway's, in seconds. */
    this.ahead = 0;
    /** @type {Map<string, import("./types.js").Peer>} */
    this.peers = new Map();
    /** @type {Map<number, import("./types.js").RequestRow>} newest last */
    this.requests = new Map();
    /** @type {Set<number>} */
    this.live = new Set();
    /** @type {import("./types.js").Happening[]} oldest first */
    this.events = [];
    /** @type {(import("./types.js").LogLine & {n: number})[]} oldest first */
    this.logs = [];
    this.logged = 0;
    /** @type {Map<number, import("./types.js").Point>} by second */
    this.points = new Map();
    this.totals = { requests: 0, failed: 0, tokens: 0, continued: 0, under_way: 0 };
    /** @type {?string} */
    this.trouble = null;
    /** @type {{id: string, why: string}[]} */
    this.unreachable = [];
    /** @type {import("./types.js").Split[]} */
    this.splits = [];
  }

  /** The gateway's clock, in seconds since 1970. */
  now() {
    return Date.now() / 1000 + this.ahead;
  }

  /** Call *reader* after each change with the names of what changed. */
  read(reader) {
    this.readers.add(reader);
  }

  /** @param {string} kind @param {Frame} frame */
  apply(kind, frame) {
    const changed = new Set(["totals", "live"]);
    if (kind === "snapshot") {
      this.clear();
      for (const name of ["about", "peers", "requests", "events", "logs", "points", "splits"]) changed.add(name);
    }
    this.ahead = frame.time - Date.now() / 1000;
    if (frame.about) this.about = frame.about;
    this.takePeers(frame, changed);
    for (const row of frame.requests ?? []) {
      this.requests.set(row.n, row);
      changed.add("requests");
    }
    if (frame.splits) {
      this.splits = frame.splits;
      changed.add("splits");
    }
    this.live = new Set(frame.live);
    this.totals = frame.totals;
    this.trouble = frame.trouble ?? null;
    if (this.unreachable.length || frame.unreachable) changed.add("peers");
    this.unreachable = frame.unreachable ?? [];
    for (const event of frame.events ?? []) {
      this.events.push(event);
      changed.add("events");
    }
    for (const line of frame.logs ?? []) {
      this.logged += 1;
      this.logs.push({ ...line, n: this.logged });
      changed.add("logs");
    }
    for (const point of frame.points ?? []) {
      this.points.set(point.t, point);
      changed.add("points");
    }
    this.trim();
    this.ready = true;
    for (const reader of this.readers) reader(changed);
  }

  takePeers(frame, changed) {
    for (const peer of frame.peers ?? []) {
      this.peers.set(peer.id, peer);
      changed.add("peers");
    }
    if (frame.members) {
      const members = new Set(frame.members);
      for (const id of this.peers.keys()) if (!members.has(id)) this.peers.delete(id);
      changed.add("peers");
    }
    if (changed.has("peers")) learnNames([...this.peers.values()]);
  }

  trim() {
    if (this.events.length > MOST_EVENTS) this.events.splice(0, this.events.length - MOST_EVENTS);
    if (this.logs.length > MOST_LOGS) this.logs.splice(0, this.logs.length - MOST_LOGS);
    const oldest = this.now() - SERIES_SECONDS - 2;
    for (const second of this.points.keys()) {
      if (second < oldest) this.points.delete(second);
    }
    for (const n of this.requests.keys()) {
      if (this.requests.size <= MOST_REQUESTS) break;
      if (!this.live.has(n)) this.requests.delete(n);
    }
  }

  /** Every request, newest first. */
  newest() {
    return [...this.requests.values()].sort((a, b) => b.n - a.n);
  }

  /** The newest request of an id. @param {string} id */
  find(id) {
    let found = null;
    for (const row of this.requests.values()) if (row.id === id && (!found || row.n > found.n)) found = row;
    return found;
  }

  /** Points of the last *seconds* whole seconds. */
  recent(seconds) {
    const from = this.now() - seconds;
    return [...this.points.values()].filter((point) => point.t >= from);
  }
}
