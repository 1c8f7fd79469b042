// Small drawings, one path each, on a grid of 16.

import { s } from "./dom.js";

const PATHS = {
  real: "M8 1.8 13 4v4c0 3.2-2.1 5.3-5 6.3C5.1 13.3 3 11.2 3 8V4zM5.6 7.9l1.7 1.7 3.2-3.3",
  simulated: "M3 3h10v10H3zM5.5 6.2h.01M10.5 6.2h.01M5.5 10.2c1.6-1.2 3.4-1.2 5 0",
  check: "m3.5 8.5 3 3 6-6.5",
  cross: "m4 4 8 8M12 4l-8 8",
  next: "M3 8h9M8.5 4.5 12 8l-3.5 3.5",
  seam: "M3 4v3.5A2.5 2.5 0 0 0 5.5 10H13M10 7l3 3-3 3",
  clock: "M8 2.2a5.8 5.8 0 1 1 0 11.6A5.8 5.8 0 0 1 8 2.2M8 5v3.2l2 1.4",
  stop: "M4.5 4.5h7v7h-7z",
  pause: "M5.5 3.5v9M10.5 3.5v9",
  play: "M5 3.5 12 8l-7 4.5z",
  send: "M8 13V3.5M4 7.2l4-4 4 4",
  copy: "M5.5 5.5h7v7h-7zM10.5 5.5v-2h-7v7h2",
  joined: "M8 3.5v9M3.5 8h9",
  left: "M3.5 8h9",
  warning: "M8 2.5 14 13H2zM8 6.5v3M8 11.2v.1",
  info: "M8 2.2a5.8 5.8 0 1 1 0 11.6A5.8 5.8 0 0 1 8 2.2M8 7.4V11M8 5v.1",
  dot: "M8 6.5a1.5 1.5 0 1 1 0 3 1.5 1.5 0 0 1 0-3",
  cards: "M2.5 2.5h4.5V7H2.5zM9 2.5h4.5V7H9zM2.5 9H7v4.5H2.5zM9 9h4.5v4.5H9z",
  table: "M2.5 4h11M2.5 8h11M2.5 12h11",
};

/** @param {keyof typeof PATHS} name */
export function icon(name) {
  return s("svg", { viewBox: "0 0 16 16", class: `icon icon-${name}`, "aria-hidden": "true" }, s("path", { d: PATHS[name] }));
}
