// Puts the parts together: the feed fills the store, the address chooses the view, views draw.

import { announce } from "./announce.js";
import { chat } from "./chat.js";
import { connect } from "./connect.js";
import { setText, show } from "./dom.js";
import { Feed } from "./events.js";
import { spoken } from "./happenings.js";
import { keysView } from "./keys.js";
import { logView } from "./log.js";
import { modelsView } from "./models.js";
import { networkView } from "./network.js";
import { overview } from "./overview.js";
import { requests } from "./requests.js";
import { key, setKey } from "./session.js";
import { Store } from "./store.js";
import { storyPanel } from "./story.js";

/** @param {string} id @returns {any} */
const part = (id) => document.getElementById(id);

const store = new Store();
const views = {
  overview: overview(part("view-overview"), store, { locked }),
  requests: requests(part("view-requests"), store),
  chat: chat(part("view-chat"), store, { locked }),
  network: networkView(part("view-network"), store, { locked }),
  models: modelsView(part("view-models"), store, { locked }),
  connect: connect(part("view-connect"), store),
  keys: keysView(part("view-keys"), { locked }),
  log: logView(part("view-log"), store),
};
const story = storyPanel(part("story"), store, { closed: closeStory, locked });
let current = "";
/** Where the story was opened from. */
let from = "#/requests";

// ---- the address ----

function route() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [name, ...rest] = path.split("/");
  const view = name in views ? name : "overview";
  const request = view === "requests" && rest.length ? decodeURIComponent(rest.join("/")) : null;
  // A story lies over the view that it was opened from.
  if (!request || !current) showView(view);
  if (view === "requests" && !request) views.requests.setFilter(new URLSearchParams(query).get("show") ?? "all");
  if (request) story.open(request);
  else if (story.id) {
    const id = story.id;
    story.close();
    if (view === "requests") views.requests.focusOn(id);
  }
  views.requests.mark(request);
  if (!request) from = location.hash || "#/";
}

function showView(view) {
  if (view === current) return;
  for (const name of Object.keys(views)) show(part(`view-${name}`), name === view);
  for (const link of document.querySelectorAll("[data-view]")) {
    if (link.getAttribute("data-view") === view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const heading = part(`title-${view}`);
  document.title = view === "overview" ? "punch" : `${heading.textContent} · punch`;
  if (current) {
    heading.focus({ preventScroll: true });
    scrollTo(0, 0);
  }
  current = view;
  views[view].shown?.();
  draw(new Set(["about", "peers", "requests", "events", "logs", "points"]));
  views[view].tick?.();
}

function closeStory() {
  location.hash = from;
}

addEventListener("hashchange", route);
addEventListener("keydown", (event) => {
  if (event.key === "Escape" && story.id && !part("sign-in").open) closeStory();
});
document.querySelector(".skip")?.addEventListener("click", (event) => {
  event.preventDefault();
  part("main").focus();
});

// ---- drawing ----

/** @param {Set<string>} changed */
function draw(changed) {
  if (current) views[current].update(changed);
  if (current !== "chat") views.chat.update(changed);
  story.update(changed);
}

store.read((changed) => {
  if (document.hidden) return; // Nobody looks: it is drawn on coming back.
  draw(changed);
  if (changed.has("about")) views[current].tick?.(); // All of it is new: do not wait a second.
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) draw(new Set(["about", "peers", "requests", "events", "logs", "points"]));
});
setInterval(() => {
  if (!document.hidden && store.ready && current) views[current].tick?.();
}, 1000);
addEventListener("resize", () => {
  if (current) views[current].tick?.();
});

// ---- the feed ----

let heard = -1;
let countdown = 0;

const feed = new Feed({
  frame(kind, frame) {
    store.apply(kind, frame);
    const newest = store.events[store.events.length - 1]?.n ?? 0;
    // What was there before we came is no news.
    if (heard >= 0 && kind === "update") {
      for (const event of frame.events ?? []) {
        const text = event.n > heard ? spoken(event) : null;
        if (text) announce(text);
      }
    }
    heard = newest;
  },
  state(state, { until = 0, problem = "" } = {}) {
    clearInterval(countdown);
    const link = part("link");
    if (link.dataset.state === "waiting" && state === "live") announce("Connected again");
    if (link.dataset.state === "live" && state === "waiting") announce("The connection to the gateway was lost");
    // While trying again it still is what it was: no flicker between two states.
    if (state === "connecting" && link.dataset.state === "waiting") return setText(part("link-text"), "Trying again");
    link.dataset.state = state;
    setText(part("link-text"), { live: "Live", connecting: "Connecting", waiting: "Not connected", locked: "Locked" }[state]);
    const banner = part("banner");
    show(banner, state === "waiting");
    if (state === "waiting") {
      const say = () => setText(banner, `The gateway cannot be reached (${problem}). What you see is from before; trying again in ${Math.max(1, Math.ceil((until - Date.now()) / 1000))} s.`);
      say();
      countdown = window.setInterval(say, 1000);
    }
    show(part("sign-out"), key() !== null && state !== "locked");
    if (state === "locked") locked();
  },
});

// ---- the key ----

const dialog = part("sign-in");

function locked() {
  setText(part("key-problem"), key() === null ? "" : "This key was not accepted.");
  setKey(null);
  if (!dialog.open) dialog.showModal();
  part("key").value = "";
  part("key").focus();
}

dialog.addEventListener("cancel", (event) => event.preventDefault());
part("sign-in-form").addEventListener("submit", (event) => {
  event.preventDefault();
  setKey(part("key").value.trim());
  dialog.close();
  feed.last = "";
  feed.run();
});
part("sign-out").addEventListener("click", () => {
  setKey(null);
  location.reload();
});

route();
feed.run();
