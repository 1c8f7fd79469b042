// A colour for each peer. Never the only sign: the name always stands beside it.

const COLOURS = 8;

/** @type {Map<string, number>} */
const given = new Map();
/** How many peers have each colour. */
const taken = new Array(COLOURS).fill(0);

/** FNV-1a: the same peer gets the same colour after a reload, if it is free. */
function hash(text) {
  let value = 0x811c9dc5;
  for (let index = 0; index < text.length; index += 1) {
    value = Math.imul(value ^ text.charCodeAt(index), 0x01000193);
  }
  return value >>> 0;
}

/** The CSS colour of a peer. @param {?string} peer */
export function colourOf(peer) {
  if (!peer) return "var(--ink-3)";
  let index = given.get(peer);
  if (index === undefined) {
    const wish = hash(peer) % COLOURS;
    const least = Math.min(...taken);
    index = wish;
    while (taken[index] > least) index = (index + 1) % COLOURS;
    taken[index] += 1;
    given.set(peer, index);
  }
  return `var(--peer-${index})`;
}
