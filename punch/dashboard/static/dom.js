// Elements without markup: everything that comes from outside goes in as text, and as nothing else.

const SVG = "http://www.w3.org/2000/svg";

/**
 * An element. Properties that begin with "on" are listeners, "class" and "data-..." and
 * "aria-..." are attributes, "style" is an object of custom properties; null leaves one out.
 * @param {string} tag
 * @param {?Object<string, any>} [given]
 * @param {...(Node|string|number|null|undefined|false)} children
 * @returns {any}
 */
export function h(tag, given, ...children) {
  return fill(document.createElement(tag), given, children);
}

/** The same for SVG. @returns {any} */
export function s(tag, given, ...children) {
  return fill(document.createElementNS(SVG, tag), given, children);
}

function fill(element, given, children) {
  for (const [name, value] of Object.entries(given ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") {
      for (const [key, text] of Object.entries(value)) element.style.setProperty(key, text);
    } else element.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children) {
    if (child !== null && child !== undefined && child !== false) element.append(child);
  }
  return element;
}

/** Text of a node, touched only if it changes: what stays the same is not read out again. */
export function setText(node, text) {
  const wanted = String(text);
  if (node.textContent !== wanted) node.textContent = wanted;
}

/** An attribute, touched only if it changes; null removes it. */
export function setAttribute(node, name, value) {
  if (value === null || value === undefined || value === false) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
  } else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

/** A custom property, for widths and colours: the policy allows no style in the markup. */
export function setStyle(node, name, value) {
  if (node.style.getPropertyValue(name) !== value) node.style.setProperty(name, value);
}

/** Show or hide. */
export function show(node, shown) {
  if (node.hidden === shown) node.hidden = !shown;
}

/** Children replaced by these. */
export function replace(node, ...children) {
  node.replaceChildren(...children.filter((child) => child !== null && child !== undefined && child !== false));
}

/**
 * A list whose elements are kept while their items are there: focus, selection and open parts
 * survive every update.
 * @template T
 * @param {Element} container
 * @param {T[]} items
 * @param {(item: T) => string|number} keyOf
 * @param {(item: T) => {node: Element, update: (item: T) => void}} make
 */
export function keyed(container, items, keyOf, make) {
  const known = container.__keyed ?? (container.__keyed = new Map());
  const wanted = new Set();
  let place = container.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    wanted.add(key);
    let part = known.get(key);
    if (!part) {
      part = make(item);
      known.set(key, part);
    }
    part.update(item);
    if (part.node === place) place = place.nextElementSibling;
    else container.insertBefore(part.node, place);
  }
  for (const [key, part] of known) {
    if (!wanted.has(key)) {
      known.delete(key);
      part.node.remove();
    }
  }
}

/** Whether the reader asked for less movement. */
export const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;
