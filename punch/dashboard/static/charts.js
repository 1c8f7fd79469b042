// Two charts of the last ten minutes or of the last day, drawn by hand: each second leads to its
// requests.

import { h, replace, s, setAttribute } from "./dom.js";
import { clock, count, plural, rate, seconds } from "./format.js";
import { History } from "./history.js";
import { choice, requestLink, sectionHead } from "./marks.js";
import { SERIES_SECONDS } from "./store.js";

const HEIGHT = 148;
const TOP = 8;
const BOTTOM = 20;
const LEFT = 54;
const RIGHT = 6;

/** @typedef {import("./types.js").Point} Point */

/**
 * How far back the charts go: in seconds, by buckets of one of some sizes, so that each mark has
 * three pixels, and with the ticks of the axis.
 * @typedef {{seconds: number, words: string, sizes: number[], unit: number, name: string, ticks: number[], few: number[]}} Span
 */

/** @type {Object<string, Span>} */
const SPANS = {
  minutes: { seconds: SERIES_SECONDS, words: "last ten minutes", sizes: [1, 2, 3, 4, 5, 6, 10, 15, 20, 30], unit: 60, name: "min", ticks: [10, 8, 6, 4, 2, 0], few: [10, 5, 0] },
  day: { seconds: 86400, words: "last 24 hours", sizes: [60, 120, 180, 240, 300, 360, 600, 900, 1200, 1800], unit: 3600, name: "h", ticks: [24, 18, 12, 6, 0], few: [24, 12, 0] },
};

/**
 * Some seconds together, so that a narrow chart has as many marks as it has room for.
 * @typedef {{t: number, width: number, tokens: number, requests: number, failed: number, p50: ?number, p95: ?number, firsts: number, ids: string[], more: number}} Bucket
 */

/** @param {import("./store.js").Store} store */
export function chartsSection(store) {
  const tokens = chart({
    id: "tokens",
    title: "Tokens per second",
    unit: (value) => rate(value),
    top: (bucket) => bucket.tokens / bucket.width,
    draw: drawArea,
    tell: (bucket) => `${rate(bucket.tokens / bucket.width)} tokens/s, ${plural(bucket.requests, "request")} ended`,
    summary: (buckets, words) => {
      const sum = buckets.reduce((total, bucket) => total + bucket.tokens, 0);
      const most = Math.max(0, ...buckets.map((bucket) => bucket.tokens / bucket.width));
      return `Tokens per second, ${words}: ${count(sum)} tokens in all, at most ${rate(most)} a second.`;
    },
    columns: [["Tokens", (bucket) => count(bucket.tokens)], ["Ended", (bucket) => count(bucket.requests)], ["Failed", (bucket) => count(bucket.failed)]],
  });
  const latency = chart({
    id: "latency",
    title: "Time to first token",
    unit: (value) => seconds(value),
    top: (bucket) => bucket.p95 ?? 0,
    draw: drawRanges,
    tell: (bucket) => (bucket.p50 === null ? "no first token" : `median ${seconds(bucket.p50)}, 95th percentile ${seconds(bucket.p95)} of ${plural(bucket.firsts, "request")}`),
    summary: (buckets, words) => {
      const seen = buckets.filter((bucket) => bucket.p50 !== null);
      if (!seen.length) return "Time to first token, last ten minutes: no request gave text.";
      return `Time to first token, ${words}: medians from ${seconds(Math.min(...seen.map((b) => b.p50 ?? 0)))} to ${seconds(Math.max(...seen.map((b) => b.p50 ?? 0)))}.`;
    },
    columns: [["Median", (bucket) => seconds(bucket.p50)], ["95th percentile", (bucket) => seconds(bucket.p95)], ["Requests", (bucket) => count(bucket.firsts)]],
    key: h("span", { class: "chart-key hint" }, h("i", { class: "key-dot" }), "median", h("i", { class: "key-bar" }), "up to 95th percentile"),
  });
  let span = SPANS.minutes;
  const history = new History(update);
  const spans = choice("How far back the charts go", "chart-span", [["minutes", "10 min"], ["day", "24 h"]], "minutes", (chosen) => {
    span = SPANS[chosen];
    update();
  });

  function update() {
    const isDay = span === SPANS.day;
    if (isDay) history.refresh();
    const points = isDay ? history.points : [...store.points.values()];
    tokens.update(points, store.now(), span);
    latency.update(points, store.now(), span);
  }

  const node = h("section", { class: "section", "aria-labelledby": "charts-title" }, sectionHead("charts-title", "Traffic", spans), h("div", { class: "charts" }, tokens.node, latency.node));
  return { node, update };
}

/**
 * @param {Point[]} points
 * @param {number} end
 * @param {number} width seconds of one bucket
 * @param {number} length seconds of all of them
 */
export function bucketsOf(points, end, width, length) {
  /** @type {Map<number, Bucket>} */
  const found = new Map();
  const last = Math.floor(end / width) * width;
  for (let t = last - length + width; t <= last; t += width) {
    found.set(t, { t, width, tokens: 0, requests: 0, failed: 0, p50: null, p95: null, firsts: 0, ids: [], more: 0 });
  }
  for (const point of points) {
    const bucket = found.get(Math.floor(point.t / width) * width);
    if (!bucket) continue;
    bucket.tokens += point.tokens;
    bucket.requests += point.requests;
    bucket.failed += point.failed;
    bucket.more += point.more;
    for (const id of point.ids) if (!bucket.ids.includes(id)) bucket.ids.push(id);
    if (point.p50 !== null) {
      // Of several seconds the median of the busiest and the slowest of all: no mean of percentiles.
      if (bucket.p50 === null || point.firsts > bucket.firsts) bucket.p50 = point.p50;
      bucket.p95 = Math.max(bucket.p95 ?? 0, point.p95 ?? 0);
      bucket.firsts += point.firsts;
    }
  }
  return [...found.values()];
}

/** @param {any} given */
function chart(given) {
  const svg = s("svg", { class: "chart-svg", role: "img", height: HEIGHT });
  const range = h("input", { class: "chart-range", type: "range", min: 0, max: 1, value: 1, "aria-label": `${given.title}: a point in time` });
  const marker = h("span", { class: "chart-marker", "aria-hidden": "true", hidden: true });
  const readout = h("p", { class: "readout" });
  const frame = h("div", { class: "chart-frame" }, svg, marker, range);
  const body = h("tbody");
  const details = h(
    "details",
    { class: "chart-table" },
    h("summary", null, "As a table"),
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `${given.title}, table` },
      h("table", { class: "grid" }, h("caption", { class: "unseen" }, `${given.title}, the newest first`), h("thead", null, h("tr", null, h("th", { scope: "col" }, "Time"), ...given.columns.map(([name]) => h("th", { scope: "col" }, name)), h("th", { scope: "col" }, "Requests"))), body)),
  );
  const head = sectionHead(`chart-${given.id}`, given.title, given.key ?? null);
  const node = h("section", { class: "section panel chart", "aria-labelledby": `chart-${given.id}` }, head, frame, readout, details);

  /** @type {Bucket[]} */
  let buckets = [];
  /** The second that is pointed at, or null for the newest. */
  let pinned = null;
  let summed = 0;
  let span = SPANS.minutes;

  function point(index) {
    const bucket = buckets[index];
    pinned = bucket ? bucket.t : null;
    drawReadout();
  }

  function drawReadout() {
    const index = pinned === null ? -1 : buckets.findIndex((bucket) => bucket.t === pinned);
    const bucket = index < 0 ? null : buckets[index];
    if (!bucket) pinned = null;
    marker.hidden = !bucket;
    if (!bucket) {
      replace(readout, h("span", { class: "hint" }, given.summary(buckets, span.words)));
      setAttribute(range, "aria-valuetext", `the ${span.words}`);
      return;
    }
    const plot = svg.clientWidth - LEFT - RIGHT;
    marker.style.setProperty("--x", `${LEFT + (plot * (index + 0.5)) / buckets.length}px`);
    const text = `${clock(bucket.t)}: ${given.tell(bucket)}`;
    setAttribute(range, "aria-valuetext", text);
    const links = bucket.ids.slice(0, 6).map((id) => requestLink(id));
    const more = bucket.ids.length - links.length + bucket.more;
    replace(readout, h("span", { class: "num" }, text), links.length > 0 && h("span", { class: "readout-from" }, "from ", ...links, more > 0 && ` and ${more} more`));
  }

  range.addEventListener("input", () => point(Number(range.value)));
  range.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const at = (event.clientX - box.left - LEFT) / (box.width - LEFT - RIGHT);
    const index = Math.floor(at * buckets.length);
    if (index < 0 || index >= buckets.length) return;
    range.value = String(index);
    point(index);
  });
  frame.addEventListener("pointerleave", () => {
    if (document.activeElement !== range) point(-1);
  });
  range.addEventListener("keydown", (event) => {
    if (event.key === "Escape") point(-1);
  });

  return {
    node,
    /** @param {Point[]} points @param {number} now @param {Span} wanted */
    update(points, now, wanted) {
      const width = svg.clientWidth || frame.clientWidth;
      if (!width) return;
      if (wanted !== span) {
        span = wanted;
        pinned = null;
        summed = 0;
      }
      const seconds = span.sizes.find((size) => span.seconds / size <= width / 3) ?? span.sizes[span.sizes.length - 1];
      buckets = bucketsOf(points, now, seconds, span.seconds);
      setAttribute(range, "max", buckets.length - 1);
      if (pinned === null) range.value = String(buckets.length - 1);
      drawAxes(svg, width, buckets, given, span);
      drawReadout();
      if (details.open) drawTable(body, buckets, given.columns);
      if (Date.now() - summed > 10_000) {
        summed = Date.now();
        setAttribute(svg, "aria-label", given.summary(buckets, span.words));
      }
    },
  };
}

function drawAxes(svg, width, buckets, given, span) {
  const most = nice(Math.max(0, ...buckets.map(given.top)));
  const plot = width - LEFT - RIGHT;
  const y = (value) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / most);
  const x = (index) => LEFT + (plot * index) / buckets.length;
  const lines = [0, 0.5, 1].map((part) => most * part);
  const parts = [];
  for (const value of lines) {
    parts.push(s("line", { class: value === 0 ? "axis" : "gridline", x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value) }));
    parts.push(s("text", { class: "tick", x: LEFT - 8, y: y(value) + 3.5, "text-anchor": "end" }, given.unit(value)));
  }
  const end = buckets[buckets.length - 1].t;
  const ticks = width < 420 ? span.few : span.ticks;
  for (const back of ticks) {
    const at = LEFT + plot * (1 - (back * span.unit) / span.seconds);
    parts.push(s("text", { class: "tick", x: at, y: HEIGHT - 4, "text-anchor": back === 0 ? "end" : back === ticks[0] ? "start" : "middle" }, back === 0 ? "now" : `−${back} ${span.name}`));
  }
  svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
  svg.dataset.end = String(end);
  svg.replaceChildren(...parts, ...given.draw(buckets, x, y, plot / buckets.length));
}

/** An area below a line of steps. */
function drawArea(buckets, x, y, step) {
  let path = "";
  buckets.forEach((bucket, index) => {
    const at = y(bucket.tokens / bucket.width).toFixed(1);
    path += `${index === 0 ? "M" : "L"}${x(index).toFixed(1)} ${at}H${(x(index) + step).toFixed(1)}`;
  });
  const base = y(0).toFixed(1);
  return [
    s("path", { class: "area", d: `${path}V${base}H${x(0).toFixed(1)}Z` }),
    s("path", { class: "line", d: path }),
    ...buckets.flatMap((bucket, index) => (bucket.failed ? [s("path", { class: "failed", d: `M${x(index) + step / 2 - 3} ${y(0) + 2}h6l-3 -5z` })] : [])),
  ];
}

/** A dot for the median, and a line up to the 95th percentile. */
function drawRanges(buckets, x, y, step) {
  return buckets.flatMap((bucket, index) => {
    if (bucket.p50 === null) return [];
    const at = x(index) + step / 2;
    return [
      s("line", { class: "range", x1: at, x2: at, y1: y(bucket.p50), y2: y(bucket.p95 ?? bucket.p50) }),
      s("circle", { class: "median", cx: at, cy: y(bucket.p50), r: 2.2 }),
    ];
  });
}

function drawTable(body, buckets, columns) {
  const rows = buckets.filter((bucket) => bucket.ids.length || bucket.requests || bucket.tokens || bucket.firsts).reverse().slice(0, 30);
  replace(
    body,
    ...rows.map((bucket) =>
      h("tr", null, h("th", { scope: "row", class: "num" }, clock(bucket.t)), ...columns.map(([, text]) => h("td", { class: "num" }, text(bucket))), h("td", { class: "links" }, ...bucket.ids.slice(0, 4).map((id) => requestLink(id)), bucket.ids.length + bucket.more > 4 && ` +${bucket.ids.length + bucket.more - 4}`)),
    ),
    rows.length === 0 && h("tr", null, h("td", { colspan: columns.length + 2, class: "hint" }, "Nothing went through yet.")),
  );
}

/** The next round number: an axis that people can read. */
export function nice(value) {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  const step = [1, 2, 3, 4, 5, 6, 8, 10].find((size) => value <= size * power) ?? 10;
  return step * power;
}
