// The peers with their vectors: cards, or a table when there are many.

import { h, keyed, replace, setAttribute, setStyle, setText, show } from "./dom.js";
import { bytes, context, count, ofBytes, parameters, plural, rate, requestName, seconds, share } from "./format.js";
import { icon } from "./icons.js";
import { badge, choice, meter, peerMark, provenance, sectionHead, storyAddress } from "./marks.js";
import { colourOf } from "./palette.js";

/** @typedef {import("./types.js").Peer} Peer */

// More cards than these are a wall; a table has all of them on a screen.
const MOST_CARDS = 9;

/** @param {import("./store.js").Store} store */
export function peersSection(store) {
  let wish = "";
  const cards = h("ul", { class: "cards" });
  const table = peerTable();
  const empty = h("div", { class: "empty" });
  const away = h("ul", { class: "hint", "aria-label": "Listeners that cannot be reached" });
  let awayDrawn = "";
  const modes = choice("Show peers as", "peers-as", [["cards", "Cards"], ["table", "Table"]], "cards", (value) => {
    wish = value;
    update();
  });
  const node = h("section", { class: "section", "aria-labelledby": "peers-title" }, sectionHead("peers-title", "Peers", modes), cards, table.node, empty, away);

  function update() {
    const peers = [...store.peers.values()].sort((a, b) => (a.id < b.id ? -1 : 1));
    const mode = wish || (peers.length > MOST_CARDS ? "table" : "cards");
    for (const input of modes.querySelectorAll("input")) input.checked = input.value === mode;
    show(modes, peers.length > 0);
    show(cards, mode === "cards" && peers.length > 0);
    show(table.node, mode === "table" && peers.length > 0);
    show(empty, peers.length === 0);
    setAttribute(cards, "data-count", peers.length);
    if (mode === "cards") keyed(cards, peers, (peer) => peer.id, (peer) => peerCard(peer, store));
    else table.update(peers);
    const shown = JSON.stringify(store.unreachable);
    show(away, store.unreachable.length > 0);
    if (shown !== awayDrawn) {
      awayDrawn = shown;
      replace(away, ...store.unreachable.map((one) => h("li", null, peerMark(one.id), ` cannot be asked: ${one.why}`)));
    }
    if (!peers.length) {
      replace(empty, h("p", null, store.trouble ?? "No peer is in this namespace yet."), ...howToJoin(store.about.join ?? {}));
    }
  }
  return { node, update };
}

/** What to type so that a listener is there. @param {import("./types.js").Join} join */
function howToJoin(join) {
  const here = join.here ?? "punch listener";
  if (join.closed) {
    const invited = join.invite
      ? ["Let another machine in with ", h("code", null, join.invite), " here, and there "]
      : [`To let another machine in, ask an admin of ${join.closed} for an invite; there `];
    return [
      h("p", { class: "hint" }, "A listener shows up here within a second. Start one on this machine: ", h("code", null, here)),
      h("p", { class: "hint" }, ...invited, h("code", null, join.elsewhere ?? "punch join"), ", then ", h("code", null, "punch listener")),
    ];
  }
  const other = join.elsewhere
    ? ["on another one, ", h("code", null, join.elsewhere)]
    : ["other machines cannot reach 127.0.0.1: give all of them, and this gateway, ", h("code", null, "--bootstrap HOST:51820"), " with the address of one"];
  return [
    h("p", { class: "hint" }, "A listener shows up here within a second. Start one on this machine: ", h("code", null, here)),
    h("p", { class: "hint" }, ...other),
  ];
}

/** Why a peer would not be asked, or that it would be. @param {Peer} peer */
export function healthOf(peer) {
  if (peer.load.draining) return { kind: "warn", name: "left", text: "leaves" };
  if (peer.silent !== null) return { kind: "warn", name: "clock", text: `silent ${peer.silent} s` };
  const states = [peer.state, ...peer.models.map((model) => model.state)];
  const broken = states.find((state) => state.breaker !== "closed");
  if (broken?.breaker === "half-open") return { kind: "warn", name: "clock", text: "half-open: one try" };
  if (broken) return { kind: "bad", name: "cross", text: broken.cools ? `open, ${broken.cools} s` : "open" };
  if (peer.resting) return { kind: "warn", name: "pause", text: `rests ${peer.resting} s` };
  if (peer.lanes.length && peer.lanes.every((lane) => lane.state !== "ready")) return { kind: "warn", name: "clock", text: peer.lanes[0].state };
  if (peer.models.length && peer.models.every((model) => model.loads > 0)) return { kind: "warn", name: "clock", text: "loads" };
  return { kind: "ok", name: "check", text: "ready" };
}

/** @param {import("./types.js").Rate} value @returns {{text: string, note: string}} */
function best(value) {
  if (value.measured !== null && value.believed) return { text: rate(value.measured), note: "measured" };
  if (value.claimed !== null) return { text: rate(value.claimed), note: "claimed" };
  return { text: rate(value.measured), note: value.measured === null ? "" : "measured" };
}

// ---- a card ----

/** @param {Peer} peer @param {import("./store.js").Store} store */
function peerCard(peer, store) {
  const title = h("h3", { class: "card-title" }, peerMark(peer.id));
  const badges = h("div", { class: "badges" });
  const machine = h("p", { class: "card-line" });
  const models = h("ul", { class: "card-models" });
  const lanes = lanesList();
  const slots = slotsMeter();
  const meters = h("div", { class: "meters" }, slots.node);
  const rates = ratesTable();
  const foot = h("div", { class: "card-foot" });
  const node = h("li", { class: "card peer-card" }, h("div", { class: "card-head" }, title, badges), machine, models, lanes.node, meters, rates.node, foot);
  setStyle(node, "--colour", colourOf(peer.id));
  const memory = meter("Memory");
  const cpu = meter("CPU");
  /** @type {ReturnType<typeof meter>[]} */
  const gpus = [];
  meters.append(memory.node, cpu.node);
  let badgesDrawn = "";
  let modelsDrawn = "";

  return {
    node,
    /** @param {Peer} peer */
    update(peer) {
      const health = healthOf(peer);
      const drawn = `${peer.simulated} ${health.kind} ${health.text} ${peer.unreachable ?? ""}`;
      if (drawn !== badgesDrawn) {
        badgesDrawn = drawn;
        const state = badge(health.kind, health.name, health.text);
        if (peer.unreachable) badges.title = `Reached from here, and perhaps not by others: ${peer.unreachable}`;
        else badges.removeAttribute("title");
        state.title = health.kind === "ok" ? "Its breaker is closed: it may be asked" : "Why it may not be asked just now";
        replace(badges, provenance(peer.simulated), state, peer.unreachable !== null && badge("warn", "clock", "not reached by all"));
      }
      setText(machine, machineLine(peer));
      lanes.update(peer);
      const shown = JSON.stringify(peer.models.map((m) => [m.name, m.loads > 0, m.lane]));
      if (shown !== modelsDrawn) {
        modelsDrawn = shown;
        replace(models, ...peer.models.slice(0, 3).map((model) => modelLine(model, peer)), peer.models.length + peer.more_models > 3 && h("li", { class: "hint" }, `and ${peer.models.length + peer.more_models - 3} more`));
      }
      slots.update(peer);
      updateGpus(peer, gpus, meters, memory.node);
      updateMachine(peer, memory, cpu);
      rates.update(peer.models[0] ?? null);
      updateFoot(foot, peer, store);
    },
  };
}

/** @param {Peer} peer */
function machineLine(peer) {
  const parts = [peer.backend];
  if (peer.machine.threads !== null) parts.push(plural(peer.machine.threads, "thread"));
  else if (peer.machine.cpus !== null) parts.push(plural(peer.machine.cpus, "CPU"));
  parts.push(`round trip ${seconds(peer.rtt)}`);
  return parts.join("  ·  ");
}

/** @param {import("./types.js").Model} model @param {Peer} peer */
function modelLine(model, peer) {
  const facts = [];
  if (peer.lanes.length > 1 && model.lane) facts.push(`on ${model.lane}`);
  if (model.parameters) facts.push(parameters(model.parameters));
  if (model.quantization) facts.push(model.quantization);
  if (model.size) facts.push(bytes(model.size));
  if (model.context) facts.push(`${context(model.context)} context`);
  if (model.loads > 0) facts.push(`loads, ${model.loads} s`);
  return h("li", null, h("strong", { title: model.digest ? `sha256 ${model.digest}` : null }, model.name), h("span", { class: "hint" }, facts.join(" · ")));
}

/** What one lane is and does, in words. @param {import("./types.js").Lane} lane */
function laneFacts(lane) {
  const facts = [lane.simulated ? `${lane.backend} (simulated)` : lane.backend, `${lane.load.busy} / ${lane.load.slots} busy`];
  if (lane.load.queued) facts.push(`${lane.load.queued} wait`);
  if (lane.load.draining) facts.push("leaves");
  else if (lane.state !== "ready") facts.push(lane.reason ? `${lane.state}: ${lane.reason}` : lane.state);
  return facts.join(" · ");
}

/** The backends of a listener, where it has several or its only one is not ready. */
function lanesList() {
  const node = h("ul", { class: "card-models card-lanes", "aria-label": "Lanes" });
  return {
    node,
    /** @param {Peer} peer */
    update(peer) {
      const shown = peer.lanes.length > 1 || peer.lanes.some((lane) => lane.state !== "ready");
      show(node, shown);
      keyed(node, shown ? peer.lanes : [], (lane) => lane.id, (lane) => {
        const facts = h("span", { class: "hint" });
        return { node: h("li", null, h("strong", null, lane.id || lane.backend), facts), update: (newer) => setText(facts, laneFacts(newer)) };
      });
      setAttribute(node, "title", peer.more_lanes ? `and ${peer.more_lanes} more` : null);
    },
  };
}

function slotsMeter() {
  const boxes = h("span", { class: "slots", "aria-hidden": "true" });
  const value = h("span", { class: "meter-value num" });
  const node = h("div", { class: "meter" }, h("span", { class: "meter-name" }, "Slots"), boxes, value);
  return {
    node,
    /** @param {Peer} peer */
    update(peer) {
      const { slots, busy, queued, queue_limit: limit } = peer.load;
      const drawn = Math.min(slots, 16);
      while (boxes.children.length > drawn) boxes.lastChild.remove();
      while (boxes.children.length < drawn) boxes.append(h("i"));
      const full = Math.min(drawn, Math.round((busy / Math.max(1, slots)) * drawn));
      [...boxes.children].forEach((box, index) => setAttribute(box, "data-busy", index < full));
      setText(value, `${busy} / ${slots}${queued ? `, ${queued} wait` : ""}`);
      setAttribute(value, "title", `${busy} of ${slots} slots busy; ${queued} of ${limit} places in the queue taken`);
    },
  };
}

/** @param {Peer} peer */
function updateGpus(peer, gpus, meters, before) {
  while (gpus.length < Math.min(4, peer.gpus.length)) {
    const added = meter(peer.gpus.length > 1 ? `VRAM ${gpus.length}` : "VRAM");
    meters.insertBefore(added.node, before);
    gpus.push(added);
  }
  gpus.forEach((one, index) => {
    const gpu = peer.gpus[index];
    if (!gpu) return one.hide();
    const used = gpu.memory_free === null ? null : gpu.memory - gpu.memory_free;
    one.update(used === null ? null : used / gpu.memory, ofBytes(used, gpu.memory), gpu.usage === null ? gpu.name : `${gpu.name}, ${share(gpu.usage)} busy`);
  });
}

/** @param {Peer} peer */
function updateMachine(peer, memory, cpu) {
  const { memory: all, memory_free: free, cpu_usage: usage, cpus } = peer.machine;
  if (all === null) memory.hide();
  else memory.update(free === null ? null : (all - free) / all, ofBytes(free === null ? null : all - free, all));
  if (usage === null) cpu.hide();
  else cpu.update(usage, share(usage), cpus === null ? undefined : plural(cpus, "logical CPU"));
}

/** Measured beside claimed, of one model. */
function ratesTable() {
  const cell = () => h("td", { class: "num" });
  const cells = { prefill: [cell(), cell()], decode: [cell(), cell()] };
  const row = (name, text) => h("tr", null, h("th", { scope: "row" }, text), ...cells[name]);
  const node = h(
    "table",
    { class: "rates" },
    h("caption", { class: "unseen" }, "Tokens per second"),
    h("thead", null, h("tr", null, h("th", { scope: "col" }, "tokens / s"), h("th", { scope: "col" }, "measured"), h("th", { scope: "col" }, "claimed"))),
    h("tbody", null, row("prefill", "Prompt"), row("decode", "Answer")),
  );
  return {
    node,
    /** @param {?import("./types.js").Model} model */
    update(model) {
      for (const name of /** @type {const} */ (["prefill", "decode"])) {
        const value = model?.[name] ?? { measured: null, claimed: null, samples: 0, believed: false };
        setText(cells[name][0], rate(value.measured));
        setText(cells[name][1], rate(value.claimed));
        setAttribute(cells[name][0], "title", value.samples ? `from ${plural(value.samples, "answer")}` : null);
        setAttribute(cells[name][0], "data-used", value.believed);
        setAttribute(cells[name][1], "data-used", !value.believed && value.claimed !== null);
      }
    },
  };
}

/** The requests of ours that run there now. @param {Element} foot @param {Peer} peer */
function updateFoot(foot, peer, store) {
  const here = [...store.requests.values()].filter((row) => row.seconds === null && row.peer === peer.id).slice(-6);
  const quiet = peer.faults > 0 ? `${share(peer.faults)} of its recent answers failed` : "Idle for this gateway";
  keyed(foot, here.length ? here : [null], (row) => (row ? row.n : quiet), (row) => {
    if (!row) return { node: h("span", { class: "hint" }, quiet), update() {} };
    return { node: h("a", { class: "chip mono", href: storyAddress(row.id), title: row.id }, icon("play"), requestName(row.id)), update() {} };
  });
}

// ---- the table ----

function peerTable() {
  const body = h("tbody");
  const heads = ["Peer", "Backend", "Lanes", "Model", "Slots", "Queue", "Prompt tok/s", "Answer tok/s", "VRAM", "Memory", "CPU", "Round trip", "State"];
  const node = h(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-labelledby": "peers-title" },
    h("table", { class: "grid" }, h("caption", { class: "unseen" }, "Peers of this namespace; a rate with ~ is claimed and not measured yet"), h("thead", null, h("tr", null, ...heads.map((head) => h("th", { scope: "col" }, head)))), body),
  );
  return {
    node,
    /** @param {Peer[]} peers */
    update(peers) {
      keyed(body, peers, (peer) => peer.id, (peer) => {
        const cells = heads.slice(1).map(() => h("td"));
        const row = h("tr", null, h("th", { scope: "row" }, peerMark(peer.id)), ...cells);
        return { node: row, update: (newer) => tableCells(newer).forEach((text, index) => setText(cells[index], text)) };
      });
    },
  };
}

/** @param {Peer} peer */
function tableCells(peer) {
  const model = peer.models[0];
  const shown = (value) => {
    const { text, note } = best(value);
    return note === "claimed" ? `~${text}` : text;
  };
  const all = peer.gpus.reduce((sum, gpu) => sum + gpu.memory, 0);
  const free = peer.gpus.reduce((sum, gpu) => sum + (gpu.memory_free ?? 0), 0);
  return [
    peer.simulated ? `${peer.backend} (simulated)` : peer.backend,
    peer.lanes.length > 1 ? peer.lanes.map((lane) => `${lane.id} ${lane.load.busy}/${lane.load.slots}${lane.state === "ready" ? "" : ` ${lane.state}`}`).join(", ") : peer.lanes[0]?.state ?? "–",
    model ? `${model.name}${peer.models.length > 1 ? ` +${peer.models.length - 1}` : ""}` : "–",
    `${peer.load.busy}/${peer.load.slots}`,
    `${count(peer.load.queued)}/${count(peer.load.queue_limit)}`,
    model ? shown(model.prefill) : "–",
    model ? shown(model.decode) : "–",
    all ? ofBytes(all - free, all) : "–",
    peer.machine.memory === null ? "–" : ofBytes(peer.machine.memory_free === null ? null : peer.machine.memory - peer.machine.memory_free, peer.machine.memory),
    share(peer.machine.cpu_usage),
    seconds(peer.rtt),
    healthOf(peer).text,
  ];
}

