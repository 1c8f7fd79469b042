// "Connect a program": lines that are ready to be copied, with the address this page was reached at.

import { copyButton } from "./clipboard.js";
import { h, replace, setText, show } from "./dom.js";
import { isSafe, PLACEHOLDER, programsFor } from "./lines.js";
import { sectionHead } from "./marks.js";
import { key } from "./session.js";

// Models to choose from: a list that one can look through.
const MOST_MODELS = 200;

/** @param {Element} root @param {import("./store.js").Store} store */
export function connect(root, store) {
  const model = h("select", { id: "connect-model", onchange: draw });
  const keys = h("p", { class: "sub" });
  const list = h("div", { class: "programs" });
  replace(
    root,
    h("header", { class: "view-head" }, h("h1", { id: "title-connect", tabindex: "-1" }, "Connect a program"), keys, h("label", { class: "field", for: "connect-model" }, h("span", null, "Model"), model)),
    list,
  );
  let offered = "";
  let drawn = "";

  function fillModels() {
    const names = [...new Set([...store.peers.values()].flatMap((peer) => peer.models.map((each) => each.name)))];
    const shown = names.filter(isSafe).sort().slice(0, MOST_MODELS);
    if (JSON.stringify(shown) === offered) return;
    offered = JSON.stringify(shown);
    // A model that was chosen stays chosen, though its last peer may have gone.
    const chosen = model.value || "auto";
    const all = shown.includes(chosen) || chosen === "auto" ? shown : [chosen, ...shown];
    replace(model, h("option", { value: "auto" }, "auto: the router chooses"), ...all.filter((name) => name !== "auto").map((name) => h("option", { value: name }, name)));
    model.value = chosen;
  }

  function draw() {
    const programs = programsFor(location.origin, model.value || "auto");
    if (JSON.stringify(programs) === drawn) return;
    drawn = JSON.stringify(programs);
    replace(list, ...programs.map(programPanel));
  }

  function update() {
    fillModels();
    draw();
    setText(keys, key() === null ? `This gateway asks for no key: leave ${PLACEHOLDER} as it is.` : `Put a key in the place of ${PLACEHOLDER}: punch keys create makes one.`);
    show(keys, store.ready);
  }
  update();
  return { update };
}

/** @param {import("./lines.js").Program} program */
function programPanel(program) {
  const title = `connect-${program.id}`;
  return h("section", { class: "section panel program", "aria-labelledby": title }, sectionHead(title, program.name), ...program.blocks.map((block) => blockPart(program, block)), program.hint && h("p", { class: "hint" }, program.hint));
}

/** @param {import("./lines.js").Program} program @param {import("./lines.js").Block} block */
function blockPart(program, block) {
  const text = h("code", null, block.text);
  const name = `${program.name}, ${block.where}`;
  const button = copyButton(text, name);
  return h("div", { class: "block-lines" }, h("div", { class: "block-head" }, h("span", { class: "hint" }, block.where), button), h("pre", { class: "lines", tabindex: "0", role: "region", "aria-label": name }, text));
}
