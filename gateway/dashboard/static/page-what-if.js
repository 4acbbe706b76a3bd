// What if: what the same requests would have cost elsewhere or otherwise, decided by the real router.

import { get } from "./api.js";
import { card, el, empty, loading } from "./dom.js";
import { PERIODS, choice, filterForm } from "./filters.js";
import { count, decimalsFor, exactUsd, usd } from "./format.js";
import { table } from "./table.js";

const WORDS = {
  on: (name) => `All on ${name}`,
  policy: (name) => `Under the policy ${name.replaceAll("_", " ")}`,
  no_cache: () => "Without any cache",
  priciest: () => "Always the priciest that fits",
  cheapest: () => "Always the cheapest that fits",
  first_choice: () => "Without failures: always the first choice",
};

/** Fill the page. */
export function render(page, { filters }) {
  const since = filters.since || "7d";
  const parameters = { since, until: filters.until, on: filters.on, key: filters.key, route: filters.route };
  page.append(
    el("div", { class: "page-head" }, el("h1", {}, "What if"), el("p", { class: "sub" }, "What the same requests would have cost under other rules, decided again by the real router.")),
    el("div", { class: "controls" }, choice("since", "Period", PERIODS, since)),
    filterForm([
      { name: "on", label: "All on model or endpoint", known: "model" },
      { name: "key", label: "Only of key", known: "key" },
      { name: "route", label: "Only of route", known: "route" },
    ]),
    loading(() => answers(parameters), 240),
  );
  return null;
}

async function answers(parameters) {
  const source = { path: "what-if", parameters };
  let answer;
  try {
    answer = await get(source.path, source.parameters);
  } catch (error) {
    if (error.status !== 404) throw error;
    return el("section", { class: "card wide", "aria-label": "Answers" }, empty("This gateway answers such questions on the command line:", el("pre", {}, el("code", {}, "mixgate what-if"))));
  }
  if (!answer.requests) return el("section", { class: "card wide", "aria-label": "Answers" }, empty("There was no request in this time. Choose a longer one."));
  const decimals = decimalsFor(answer.lines.map((line) => line.would_have_usd));
  return el("div", {},
    card("Answers", { wide: true, note: `${count(answer.requests)} requests cost ${usd(answer.as_was_usd, decimals)} in truth.${answer.complete ? "" : " Only the newest are counted: choose a shorter time for all."}` },
      table({
        caption: "Answers", source, rows: answer.lines,
        columns: [
          { title: "If", wide: true, show: (line) => (WORDS[line.kind] ? WORDS[line.kind](line.name) : `${line.kind} ${line.name}`) },
          { title: "Would have cost", number: true, show: (line) => usd(line.would_have_usd, decimals), hint: (line) => exactUsd(line.would_have_usd) },
          { title: "Cost in truth", number: true, hide: "phone", show: (line) => usd(line.as_was_usd, decimals), hint: (line) => exactUsd(line.as_was_usd) },
          { title: "Difference", number: true, show: (line) => difference(line, decimals), hint: (line) => exactUsd(line.difference_usd) },
          { title: "Requests", number: true, show: (line) => count(line.requests) },
          { title: "Billed, priced, estimated", number: true, hide: "phone", show: (line) => [line.from_ledger, line.priced, line.estimated].map(count).join(" / ") },
          { title: "Cannot be told", wide: true, hide: "phone", show: leftOut },
        ],
      })),
    answer.caveats.length ? card("What these figures cannot know", { wide: true }, el("ul", { class: "caveats" }, answer.caveats.map((words) => el("li", {}, words)))) : null,
  );
}

function difference(line, decimals) {
  const amount = Number(line.difference_usd);
  const kind = amount < 0 ? "cheaper" : amount > 0 ? "dearer" : null;
  const words = `${amount > 0 ? "+" : ""}${usd(line.difference_usd, decimals)}`;
  return kind ? el("span", { class: kind }, words, el("span", { class: "unseen" }, `, ${kind}`)) : words;
}

function leftOut(line) {
  const reasons = Array.isArray(line.left_out) ? line.left_out : [];
  return reasons.map((one) => el("div", { class: "why" }, `${count(one.requests)}: ${one.reason}`));
}
