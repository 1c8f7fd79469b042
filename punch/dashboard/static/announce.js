// What is said to who listens instead of looking: changes that matter, not every number.

// Sentences that come close together are said as one, and never more often than this.
const EVERY = 4000;

let waiting = [];
let timer = 0;
let last = 0;

/** Say a sentence, soon. @param {string} text */
export function announce(text) {
  if (waiting[waiting.length - 1] === text) return;
  waiting.push(text);
  if (!timer) timer = window.setTimeout(say, Math.max(300, last + EVERY - Date.now()));
}

function say() {
  const region = document.getElementById("announcer");
  const more = waiting.length > 3 ? `, and ${waiting.length - 3} more changes` : "";
  if (region) region.textContent = `${waiting.slice(0, 3).join(". ")}${more}.`;
  waiting = [];
  timer = 0;
  last = Date.now();
}
