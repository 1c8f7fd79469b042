// The models: where each would run, what is behind the lanes, and which servers were adopted.

import { h, replace } from "./dom.js";
import { adoptedSection, lanesSection } from "./lanes.js";
import { polled } from "./poll.js";
import { sizesSection } from "./sizes.js";

// How often they are looked at again, in milliseconds.
const EVERY = 2000;

/** @param {Element} root @param {import("./store.js").Store} store @param {{locked: () => void}} tell */
export function modelsView(root, store, tell) {
  const problem = h("p", { class: "problem", role: "alert", hidden: true });
  const far = h("p", { class: "problem", role: "alert", hidden: true });
  const sizes = sizesSection();
  const lanes = lanesSection(store);
  const adopted = adoptedSection();
  replace(root, h("header", { class: "view-head" }, h("h1", { id: "title-models", tabindex: "-1" }, "Models")), problem, sizes.node, lanes.node, far, adopted.node);
  const places = polled("/api/dashboard/sizes", { every: EVERY, problem, what: "The models cannot be shown", tell, draw: sizes.draw });
  const servers = polled("/api/dashboard/adopted", { every: EVERY, problem: far, what: "The adopted servers cannot be shown", tell, draw: adopted.draw });
  return {
    /** @param {Set<string>} changed */
    update(changed) {
      if (changed.has("peers")) lanes.update();
    },
    tick() {
      places.refresh();
      servers.refresh();
    },
    shown() {
      lanes.update();
      places.again();
      servers.again();
    },
  };
}
