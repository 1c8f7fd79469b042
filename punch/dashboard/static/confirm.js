// A question before something that cannot be taken back.

import { h } from "./dom.js";

let count = 0;

/**
 * Whether a person says so. Escape, and the button that has the focus first, say no.
 * @param {string} title
 * @param {string} text
 * @param {string} word what the button says that does it
 * @returns {Promise<boolean>}
 */
export function confirmed(title, text, word) {
  count += 1;
  const no = h("button", { type: "button", class: "button", onclick: () => dialog.close("no") }, "Cancel");
  const yes = h("button", { type: "button", class: "primary danger", onclick: () => dialog.close("yes") }, word);
  const dialog = h("dialog", { class: "sign-in confirm", "aria-labelledby": `confirm-${count}` }, h("h2", { id: `confirm-${count}` }, title), h("p", null, text), h("div", { class: "buttons" }, no, yes));
  document.body.append(dialog);
  dialog.showModal();
  no.focus();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      resolve(dialog.returnValue === "yes");
      dialog.remove();
    });
  });
}
