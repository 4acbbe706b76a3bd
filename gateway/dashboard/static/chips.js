// Small words in a colour. The colour never says anything that the words do not.

import { el } from "./dom.js";

/** How something ended, in a colour and in words. */
export function outcome(how, code = null) {
  const kind = how === "ok" ? "good" : how === "failed" ? "bad" : "quiet";
  return el("span", {}, el("span", { class: `chip ${kind}` }, how), code ? el("span", { class: "why" }, ` ${code}`) : null);
}

const STANDINGS = { healthy: "good", degraded: "warn", probing: "warn", parked: "warn", open: "bad", disabled: "quiet", off: "quiet" };

/** How an Endpoint stands. */
export function standing(name) {
  return el("span", { class: `chip ${STANDINGS[name] || "quiet"}` }, name);
}
