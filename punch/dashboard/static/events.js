// The feed: server-sent events over fetch, since EventSource can carry no key. It comes back by
// itself, from where it was.

import { ask, Unauthorized } from "./session.js";

// The gateway says something every five seconds; a line that is silent for longer is dead.
const SILENT = 16_000;

// Waiting grows to this, so that a gateway that starts again is not stormed.
const LONGEST_WAIT = 15_000;

/**
 * @typedef {object} Ears
 * @property {(kind: string, frame: import("./types.js").Frame) => void} frame
 * @property {(state: "connecting"|"live"|"waiting"|"locked", more?: {until?: number, problem?: string}) => void} state
 */

export class Feed {
  /** @param {Ears} ears */
  constructor(ears) {
    this.ears = ears;
    this.last = "";
    this.failures = 0;
    this.stopped = true;
    this.wake = () => {};
    addEventListener("online", () => this.wake());
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) this.wake();
    });
  }

  /** Connect, and stay so. */
  async run() {
    if (!this.stopped) return;
    this.stopped = false;
    while (!this.stopped) {
      let problem = "the connection was closed";
      try {
        this.ears.state("connecting");
        await this.listen();
      } catch (error) {
        if (error instanceof Unauthorized) {
          this.stopped = true;
          this.ears.state("locked", { problem: error.message });
          return;
        }
        problem = error instanceof Error ? error.message : String(error);
      }
      await this.pause(problem);
    }
  }

  /** One connection, to its end. */
  async listen() {
    const control = new AbortController();
    let watchdog = setTimeout(() => control.abort(), SILENT);
    try {
      /** @type {Object<string, string>} */
      const headers = { accept: "text/event-stream" };
      if (this.last) headers["last-event-id"] = this.last;
      const response = await ask("/api/dashboard/events", { headers, signal: control.signal });
      if (!response.ok || !response.body) throw new Error(`the gateway answered ${response.status}`);
      for await (const event of eventsOf(response.body, () => {
        clearTimeout(watchdog);
        watchdog = setTimeout(() => control.abort(), SILENT);
      })) {
        this.failures = 0;
        if (event.id) this.last = event.id;
        this.ears.state("live");
        this.ears.frame(event.event, JSON.parse(event.data));
      }
    } catch (error) {
      if (control.signal.aborted) throw new Error("the gateway fell silent");
      throw error;
    } finally {
      clearTimeout(watchdog);
      control.abort();
    }
  }

  /** Wait longer each time, until then or until there is reason to hope. */
  async pause(problem) {
    this.failures += 1;
    const wait = Math.min(LONGEST_WAIT, 500 * 2 ** this.failures) * (0.75 + Math.random() / 2);
    this.ears.state("waiting", { until: Date.now() + wait, problem });
    await new Promise((resolve) => {
      const timer = setTimeout(resolve, wait);
      this.wake = () => {
        clearTimeout(timer);
        resolve(undefined);
      };
    });
    this.wake = () => {};
  }
}

/**
 * Server-sent events of a body.
 * @param {ReadableStream<Uint8Array>} body
 * @param {() => void} alive called for each piece
 */
export async function* eventsOf(body, alive = () => {}) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      alive();
      rest += decoder.decode(value, { stream: true });
      const blocks = rest.split(/\r?\n\r?\n/);
      rest = blocks.pop() ?? "";
      for (const block of blocks) {
        const event = { id: "", event: "message", data: "" };
        const data = [];
        for (const line of block.split(/\r?\n/)) {
          const colon = line.indexOf(":");
          if (colon <= 0) continue;
          const name = line.slice(0, colon);
          const text = line.slice(colon + 1).replace(/^ /, "");
          if (name === "data") data.push(text);
          else if (name === "id" || name === "event") event[name] = text;
        }
        if (data.length) yield { ...event, data: data.join("\n") };
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
