// The API key of this tab, and requests that carry it. It is in no address and in no cookie.

const NAME = "punch.key";

/** @type {?string} */
let remembered = null;

/** @returns {?string} */
export function key() {
  try {
    return sessionStorage.getItem(NAME);
  } catch {
    return remembered; // Storage may be off; then the key lasts as long as the page.
  }
}

/** @param {?string} value */
export function setKey(value) {
  remembered = value;
  try {
    if (value === null) sessionStorage.removeItem(NAME);
    else sessionStorage.setItem(NAME, value);
  } catch {
    // See above.
  }
}

/** The gateway wants a key, or another one. */
export class Unauthorized extends Error {}

/**
 * `fetch` with the key.
 * @param {string} path
 * @param {RequestInit & {headers?: Object<string, string>}} [options]
 */
export async function ask(path, options = {}) {
  const headers = { ...options.headers };
  const secret = key();
  if (secret !== null) headers.authorization = `Bearer ${secret}`;
  const response = await fetch(path, { ...options, headers, cache: "no-store", credentials: "omit", redirect: "error" });
  if (response.status === 401) throw new Unauthorized(await problemOf(response));
  return response;
}

/** What an error answer says, for people. @param {Response} response */
export async function problemOf(response) {
  try {
    const body = await response.json();
    return body?.error?.message ?? body?.error ?? `the gateway answered ${response.status}`;
  } catch {
    return `the gateway answered ${response.status}`;
  }
}
