// The last day, a point for each minute. It is fetched while somebody looks at it, and not pushed.

import { ask } from "./session.js";

// A minute that is over does not change: looking twice in one is enough, in milliseconds.
const EVERY = 30_000;

export class History {
  /** @param {() => void} changed */
  constructor(changed) {
    this.changed = changed;
    /** @type {import("./types.js").Point[]} */
    this.points = [];
    this.asked = -EVERY;
  }

  /** Fetch the day unless that was done just now. */
  async refresh() {
    if (performance.now() - this.asked < EVERY) return;
    this.asked = performance.now();
    try {
      const response = await ask("/api/dashboard/history");
      if (!response.ok) return;
      const { points } = await response.json();
      this.points = points.map((point) => ({ ids: [], more: 0, ...point }));
      this.changed();
    } catch {
      // The feed says that the gateway is away, or wants a key; the next look tries again.
    }
  }
}
