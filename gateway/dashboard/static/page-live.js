// Live: what is on its way right now. Asks every two seconds while somebody looks.

import { get } from "./api.js";
import { el, empty, failed, fill } from "./dom.js";
import { age, count } from "./format.js";
import { table } from "./table.js";

const EVERY_MS = 2000;

/** Fill the page; gives back how to leave it. */
export function render(page) {
  let timer = null;
  let running = true;
  const number = el("p", { class: "live-count", role: "status" }, "…");
  const place = el("div", {});
  const button = el("button", { type: "button", class: "quiet", "aria-pressed": "false" }, "Pause");
  const stop = new AbortController();
  const tick = async () => {
    clearTimeout(timer);
    if (running && !document.hidden) {
      try {
        const answer = await get("live", {}, stop.signal);
        const words = answer.in_flight === 1 ? "1 request on its way" : `${count(answer.in_flight)} requests on their way`;
        if (number.textContent !== words) number.textContent = words;
        fill(place, rows(answer));
      } catch (error) {
        if (error.name === "AbortError") return;
        fill(place, failed(error));
      }
    }
    timer = setTimeout(tick, EVERY_MS);
  };
  button.addEventListener("click", () => {
    running = !running;
    button.textContent = running ? "Pause" : "Go on";
    button.setAttribute("aria-pressed", String(!running));
    if (running) tick();
  });
  page.append(
    el("div", { class: "page-head" }, el("h1", {}, "Live"), button),
    el("section", { class: "card wide", "aria-label": "On their way" }, number, place),
  );
  tick();
  return () => {
    clearTimeout(timer);
    stop.abort();
  };
}

function rows(answer) {
  if (!answer.data.length) return empty("Nothing is on its way. Requests show up here while they are answered.");
  const now = answer.now ? Date.parse(answer.now) : Date.now();
  return table({
    caption: "Attempts on their way", rows: answer.data, source: { path: "live" },
    columns: [
      { title: "For", number: true, show: (row) => age(now - Date.parse(row.since)), hint: (row) => row.since },
      { title: "Model", wide: true, show: (row) => row.model },
      { title: "Endpoint", wide: true, show: (row) => row.endpoint },
      { title: "Stream", hide: "phone", show: (row) => (row.stream ? "yes" : "no") },
      { title: "Tokens in", number: true, show: (row) => count(row.prompt_tokens) },
      { title: "Out so far", number: true, show: (row) => count(row.output_tokens) },
      { title: "App", wide: true, hide: "phone", show: (row) => row.app || "" },
      { title: "Key", wide: true, hide: "phone", show: (row) => row.label || row.key || "" },
    ],
  });
}
