// Questions to the controller. There are GET requests alone, to the page's own origin.

const KEY = "meshd-page-token";
const tags = new Map();

/** The token is wanted, or is wrong. */
export class Denied extends Error {}

export function setToken(token) {
  sessionStorage.setItem(KEY, token);
}

export function forgetToken() {
  sessionStorage.removeItem(KEY);
}

export const hasToken = () => sessionStorage.getItem(KEY) !== null;

/** The answer to a question; `null` where it is the same as the last time, if `once` asks for that. */
export async function ask(path, { once = false } = {}) {
  const headers = {};
  const token = sessionStorage.getItem(KEY);
  // A header takes no other characters, and no token has them.
  if (token !== null) headers.Authorization = `Bearer ${token.replace(/[^\x21-\x7e]/g, "")}`;
  if (once && tags.has(path)) headers["If-None-Match"] = tags.get(path);
  const answer = await fetch(path, { headers, cache: "no-store", credentials: "omit", signal: AbortSignal.timeout(9000) });
  if (answer.status === 304) return null;
  if (answer.status === 401 || answer.status === 429) throw new Denied((await answer.json()).error);
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.hint ? `${body.error}; ${body.hint}` : body.error);
  if (once) tags.set(path, answer.headers.get("ETag"));
  return body;
}

export const forget = () => tags.clear();
