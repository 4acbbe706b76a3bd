// Talking with the gateway's dashboard API: JSON in, JSON out, and words where something is refused.

const BASE = "/dashboard/api/";
let session = null;

/** What the gateway refused, with its code and its words. */
export class Refused extends Error {
  constructor(status, code, message) {
    super(message);
    this.name = "Refused";
    this.status = status;
    this.code = code;
  }
}

/** Who is signed in, as last heard. */
export function currentSession() {
  return session;
}

/** Ask who is signed in. */
export async function loadSession() {
  session = await get("session");
  return session;
}

/** The path and query of a call; parameters that are null, undefined or "" are left out. */
export function urlOf(path, parameters = {}) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== null && value !== undefined && value !== "") query.set(name, value);
  }
  const text = query.toString();
  return BASE + path + (text ? `?${text}` : "");
}

/** GET; `signal` gives up on it. */
export async function get(path, parameters = {}, signal = undefined) {
  return (await call(urlOf(path, parameters), { signal })).json();
}

/** POST of JSON; the answer as `read` ("json", "text" or "nothing"). */
export async function post(path, body, read = "json", signal = undefined) {
  const headers = { "content-type": "application/json" };
  if (session && session.csrf) headers["x-mixgate-csrf"] = session.csrf;
  const answer = await call(BASE + path, { method: "POST", headers, body: JSON.stringify(body), signal });
  if (read === "nothing") return null;
  return read === "text" ? answer.text() : answer.json();
}

/** Sign in with the admin or viewer token. */
export async function signIn(token) {
  session = await post("sign-in", { token });
  return session;
}

/** End the session here and at the gateway. */
export async function signOut() {
  await post("sign-out", {}, "nothing");
  session = null;
}

async function call(url, options, tries = 3) {
  let answer;
  try {
    answer = await fetch(url, { credentials: "same-origin", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "unreachable", "The gateway cannot be reached. Is it running?");
  }
  if (answer.ok) return answer;
  const wait = Number(answer.headers.get("retry-after"));
  if (answer.status === 503 && wait > 0 && wait <= 5 && tries > 1 && (options.method || "GET") === "GET") {
    await new Promise((done) => setTimeout(done, wait * 1000)); // It starts, or is asked a lot.
    return call(url, options, tries - 1);
  }
  let code = "error";
  let message = `The gateway answered ${answer.status}.`;
  try {
    const said = (await answer.json()).error;
    code = said.code || code;
    message = said.message || message;
  } catch {
    // Not JSON: the status says it.
  }
  if (answer.status === 401 && code === "sign_in_required") window.dispatchEvent(new Event("mixgate:signed-out"));
  throw new Refused(answer.status, code, message);
}
