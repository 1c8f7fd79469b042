// A button that copies what stands beside it.

import { announce } from "./announce.js";
import { h, setText } from "./dom.js";
import { icon } from "./icons.js";

// How long a button says that it has copied, in milliseconds.
const SAID = 2000;

/** @param {Element} node what is copied @param {string} name what to call it */
export function copyButton(node, name) {
  const said = h("span", null, "Copy");
  const button = h("button", { type: "button", class: "button copy", "aria-label": `Copy: ${name}` }, icon("copy"), said);
  let timer = 0;
  button.addEventListener("click", async () => {
    const outcome = (await copied(node)) ? "Copied" : "Selected";
    setText(said, outcome);
    announce(outcome === "Copied" ? `Copied: ${name}` : "Selected: press Control and C");
    clearTimeout(timer);
    timer = window.setTimeout(() => setText(said, "Copy"), SAID);
  });
  return button;
}

/** Copy what *node* says; where the browser has no clipboard (plain HTTP from afar) it is selected. */
async function copied(node) {
  try {
    await navigator.clipboard.writeText(node.textContent);
    return true;
  } catch {
    getSelection()?.selectAllChildren(node);
    return document.execCommand("copy");
  }
}
