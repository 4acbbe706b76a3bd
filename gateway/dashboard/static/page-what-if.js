// What if: what the same requests would have cost elsewhere or otherwise, decided by the real router.

import { el, empty } from "./dom.js";

/** Fill the page. */
export function render(page) {
  page.append(
    el("div", { class: "page-head" }, el("h1", {}, "What if")),
    el("section", { class: "card wide", "aria-label": "What if" },
      empty("What would the same requests have cost on another model, or under another policy? On the command line:",
        el("pre", {}, el("code", {}, "mixgate simulate --from-ledger")))),
  );
  return null;
}
