// What the feed does not tell is asked for again and again, while somebody looks.

import { setText, show } from "./dom.js";
import { ask, problemOf, Unauthorized } from "./session.js";

/**
 * @param {string} path
 * @param {object} given
 * @param {number} given.every milliseconds
 * @param {(data: any) => void} given.draw
 * @param {Element} given.problem where a trouble is said
 * @param {string} given.what cannot be shown then
 * @param {{locked: () => void}} given.tell
 */
export function polled(path, { every, draw, problem, what, tell }) {
  let asked = -every;
  let isAsking = false;

  async function refresh() {
    if (isAsking || performance.now() - asked < every) return;
    isAsking = true;
    asked = performance.now();
    try {
      const response = await ask(path);
      if (!response.ok) throw new Error(await problemOf(response));
      draw(await response.json());
      show(problem, false);
    } catch (error) {
      if (error instanceof Unauthorized) tell.locked();
      // That the gateway is away the banner says.
      else if (!(error instanceof TypeError)) {
        setText(problem, `${what}: ${error.message}.`);
        show(problem, true);
      }
    } finally {
      isAsking = false;
    }
  }

  return {
    refresh,
    /** The newest, whatever was seen before. */
    again() {
      asked = -every;
      return refresh();
    },
  };
}
