// Keys and budgets, to look at: what each key may spend, has spent, and when its count starts anew.

import { get } from "./api.js";
import { card, el, loading } from "./dom.js";
import { PERIODS, choice } from "./filters.js";
import { count, decimalsFor, exactUsd, moment, named, usd } from "./format.js";
import { urlTo } from "./place.js";
import { table } from "./table.js";

/** Fill the page. */
export function render(page, { filters }) {
  const since = filters.since || "30d";
  page.append(
    el("div", { class: "page-head" }, el("h1", {}, "Keys and budgets"),
      el("p", { class: "sub" }, "Keys are made and changed with ", el("code", {}, "mixgate keys"), ".")),
    card("Budgets", { wide: true }, loading(budgets, 160)),
    el("div", { class: "controls" }, choice("since", "Period", PERIODS, since)),
    card("Spend by key", { wide: true }, loading(() => spend({ since, until: filters.until }), 160)),
  );
  return null;
}

async function budgets() {
  const answer = await get("budgets");
  return table({
    caption: "Budgets", source: { path: "budgets" }, rows: answer.data,
    none: "No key has a budget. Set one with: mixgate keys update <key> --budget 10 --window month",
    columns: [
      { title: "Key", wide: true, show: (row) => el("a", { href: urlTo("requests", { key: row.key, since: "7d" }) }, row.label || row.key) },
      { title: "Window", show: (row) => row.window },
      { title: "Spent", number: true, show: (row) => usd(row.spent_usd, 4), hint: (row) => exactUsd(row.spent_usd) },
      { title: "Reserved", number: true, hide: "phone", show: (row) => usd(row.reserved_usd, 4), hint: (row) => exactUsd(row.reserved_usd) },
      { title: "Budget", number: true, show: (row) => usd(row.budget_usd, 2), hint: (row) => exactUsd(row.budget_usd) },
      { title: "Left", number: true, show: (row) => usd(row.left_usd, 4), hint: (row) => exactUsd(row.left_usd) },
      { title: "Used", show: used },
      { title: "Starts anew", hide: "phone", show: (row) => (row.resets_at ? moment(row.resets_at) : "never") },
    ],
  });
}

function used(row) {
  const whole = Number(row.budget_usd);
  const part = whole > 0 ? Math.min(1, (Number(row.spent_usd) + Number(row.reserved_usd)) / whole) : 0;
  const fillBar = el("span", { class: part >= 0.9 ? "bad" : part >= 0.75 ? "warn" : "good" });
  fillBar.style.width = `${part * 100}%`;
  return el("span", { class: "used" }, el("span", { class: "meter", "aria-hidden": "true" }, fillBar), `${Math.round(part * 100)} %`);
}

async function spend(window) {
  const source = { path: "spend", parameters: { by: "key", ...window, top: 50 } };
  const answer = await get(source.path, source.parameters);
  const decimals = decimalsFor(answer.data.map((row) => row.cost_usd));
  return table({
    caption: "Spend by key", source, rows: answer.data, none: "No key has spent anything in this time.",
    columns: [
      { title: "Key", wide: true, show: (row) => (row.others ? "others" : row.name ? el("a", { href: urlTo("requests", { key: row.name, ...window }) }, named(row)) : named(row)) },
      { title: "Cost", number: true, show: (row) => usd(row.cost_usd, decimals), hint: (row) => exactUsd(row.cost_usd) },
      { title: "Requests", number: true, show: (row) => count(row.requests) },
      { title: "Failed", number: true, show: (row) => count(row.failed) },
      { title: "Tokens in", number: true, hide: "phone", show: (row) => count(row.input_tokens) },
      { title: "Tokens out", number: true, hide: "phone", show: (row) => count(row.output_tokens) },
    ],
  });
}
