// Overview: what was spent, what will be, on what, and what the router saved.

import { get } from "./api.js";
import { chart } from "./chart.js";
import { card, el, empty, loading } from "./dom.js";
import { PERIODS, choice, days, pick } from "./filters.js";
import { age, count, day, decimalsFor, exactUsd, named, short, usd } from "./format.js";
import { urlTo } from "./place.js";
import { spendChart, stepLabel, tokensChart } from "./series.js";
import { downloads, table } from "./table.js";

const DIMENSIONS = [["model", "Model"], ["provider", "Provider"], ["endpoint", "Endpoint"], ["key", "Key"], ["app", "App"], ["tag", "Tag"], ["route", "Route"]];

/** Fill the page. */
export function render(page, { filters }) {
  const since = filters.since || "7d";
  const window = { since, until: filters.until };
  const by = DIMENSIONS.some(([name]) => name === filters.by) ? filters.by : "model";
  const step = filters.step || (["24h", "48h"].includes(since) ? "hour" : "day");
  const overview = get("overview");
  page.append(
    el("h1", { class: "unseen" }, "Overview"),
    loading(async () => tiles(await overview), 96),
    el("div", { class: "controls" }, choice("since", "Period", PERIODS, since), days(filters), pick("by", "By", DIMENSIONS, by)),
    card("Spend over time", { wide: true }, loading(() => spend(by, step, window), 320)),
    el("div", { class: "grid" },
      card("Tokens", {}, loading(() => tokens(step, window), 260)),
      card("Cost per request", {}, loading(() => distribution(window), 260)),
      card("Top apps", {}, loading(() => apps(window), 200)),
      card("Savings", { note: "What the router kept going, and what that cost or spared." }, loading(() => savings(window), 200)),
    ),
  );
}

function tile(title, value, hint, sub, level = null) {
  return el("div", { class: level ? `tile ${level}` : "tile" },
    el("div", { class: "tile-title" }, title), el("div", { class: "tile-value", title: hint }, value), el("div", { class: "tile-sub" }, sub));
}

function tiles(all) {
  const { today, month, forecast, budgets, endpoints } = all;
  const tight = budgets.filter((one) => Number(one.budget_usd) > 0).sort((one, other) => share(one) - share(other))[0];
  const down = endpoints.open + endpoints.parked;
  const unknown = (span) => (span.unknown_cost ? `, ${count(span.unknown_cost)} of unknown cost` : "");
  return el("div", { class: "tiles" },
    tile("Today", usd(today.cost_usd, 2), exactUsd(today.cost_usd), `${count(today.requests)} requests${unknown(today)}`),
    tile("This month", usd(month.cost_usd, 2), exactUsd(month.cost_usd), `${count(month.requests)} requests${unknown(month)}`),
    tile("Forecast for the month", forecast && forecast.cost_usd !== null ? usd(forecast.cost_usd, 2) : "—", forecast ? forecast.method : null,
      forecast && forecast.from_days ? `from the last ${forecast.from_days} days` : "needs a day of traffic"),
    tight
      ? tile("Budget left", usd(tight.left_usd, 2), exactUsd(tight.left_usd), [el("a", { href: urlTo("keys") }, tight.label || tight.key), ` of ${usd(tight.budget_usd, 2)} a ${tight.window}`],
        share(tight) < 0.1 ? "bad" : share(tight) < 0.25 ? "warn" : null)
      : tile("Budget left", "—", null, el("a", { href: urlTo("keys") }, "no key has a budget")),
    tile("On their way", count(all.in_flight), null, el("a", { href: urlTo("live") }, "see them live")),
    tile("Endpoints", `${endpoints.healthy} healthy`, null, el("a", { href: urlTo("endpoints") }, down ? `${down} resting` : endpoints.off ? `${endpoints.off} off` : "all are on"), down ? "warn" : null),
  );
}

function share(budget) {
  return Number(budget.left_usd) / Number(budget.budget_usd);
}

async function spend(by, step, window) {
  const source = { path: "spend/series", parameters: { by, step, ...window, top: 8 } };
  const answer = await get(source.path, source.parameters);
  const decimals = decimalsFor(answer.data.map((row) => row.cost_usd));
  const rows = table({
    caption: `Spend by ${by} and ${step}`, source, rows: answer.data,
    columns: [
      { title: step === "hour" ? "Hour" : "Day", show: (row) => stepLabel(Date.parse(row.time), step) },
      { title: "Name", show: (row) => (row.others ? "others" : named(row)), wide: true },
      { title: "Cost", number: true, show: (row) => usd(row.cost_usd, decimals), hint: (row) => exactUsd(row.cost_usd) },
      { title: "Requests", number: true, show: (row) => count(row.requests) },
      { title: "Tokens in", number: true, hide: "phone", show: (row) => count(row.input_tokens) },
      { title: "Tokens out", number: true, hide: "phone", show: (row) => count(row.output_tokens) },
    ],
  });
  return chart(spendChart(answer, by), { table: rows, legend: true, none: "Nothing was spent in this time. Send a request through the gateway, or choose a longer period." });
}

async function tokens(step, window) {
  const source = { path: "spend/series", parameters: { by: "all", step, ...window } };
  const answer = await get(source.path, source.parameters);
  const rows = table({
    caption: `Tokens per ${step}`, source: { ...source, name: "tokens" }, rows: answer.data,
    columns: [
      { title: step === "hour" ? "Hour" : "Day", show: (row) => stepLabel(Date.parse(row.time), step) },
      { title: "Input", number: true, show: (row) => count(row.input_tokens) },
      { title: "Cached", number: true, show: (row) => count(row.cached_tokens) },
      { title: "Output", number: true, show: (row) => count(row.output_tokens) },
    ],
  });
  return chart(tokensChart(answer), { table: rows, none: "No tokens in this time." });
}

async function apps(window) {
  const source = { path: "spend", parameters: { by: "app", ...window, top: 10 } };
  const answer = await get(source.path, source.parameters);
  const decimals = decimalsFor(answer.data.map((row) => row.cost_usd));
  return table({
    caption: "Apps by spend", source: { ...source, name: "apps" }, rows: answer.data,
    none: "No app has sent anything in this time. Apps name themselves with the header X-Title.",
    columns: [
      { title: "App", wide: true, show: (row) => (row.others ? "others" : row.name ? el("a", { href: urlTo("requests", { app: row.name, ...window }) }, row.name) : "(none given)") },
      { title: "Cost", number: true, show: (row) => usd(row.cost_usd, decimals), hint: (row) => exactUsd(row.cost_usd) },
      { title: "Requests", number: true, show: (row) => count(row.requests) },
      { title: "Tokens", number: true, show: (row) => short(row.input_tokens + row.output_tokens), hint: (row) => count(row.input_tokens + row.output_tokens) },
      { title: "Failed", number: true, hide: "phone", show: (row) => count(row.failed) },
    ],
  });
}

function range(row) {
  if (Number(row.from_usd) === 0 && row.to_usd !== null && Number(row.to_usd) === 0) return "free";
  return row.to_usd === null ? `> ${edge(row.from_usd)}` : `≤ ${edge(row.to_usd)}`;
}

function edge(text) {
  return `$${Number(text).toLocaleString("en-US", { maximumSignificantDigits: 3, maximumFractionDigits: 9 })}`;
}

async function distribution(window) {
  const source = { path: "cost-distribution", parameters: window };
  const answer = await get(source.path, source.parameters);
  // Empty ends say nothing; what lies between is kept, so that the axis is even, and a neighbour to compare with.
  const used = answer.data.map((row, at) => (row.requests ? at : -1)).filter((at) => at >= 0);
  const rows = used.length ? answer.data.slice(Math.max(0, used[0] - 1), used[used.length - 1] + 2) : [];
  const spec = {
    kind: "bars", unit: "count", height: 220, label: "Requests by what they cost; arrow keys move between bars",
    labels: rows.map(range),
    series: [{
      name: "Requests", colour: 0, values: rows.map((row) => row.requests),
      texts: rows.map((row) => `${range(row)}: ${count(row.requests)} requests, ${usd(row.cost_usd)} together`),
      links: rows.map((row) => (Number(row.from_usd) > 0 ? urlTo("requests", { ...window, min_cost: row.from_usd }) : null)),
    }],
  };
  const list = table({
    caption: "Requests by cost", source, rows,
    columns: [
      { title: "Cost of a request", show: range },
      { title: "Requests", number: true, show: (row) => count(row.requests) },
      { title: "Together", number: true, show: (row) => usd(row.cost_usd), hint: (row) => exactUsd(row.cost_usd) },
    ],
  });
  return el("div", {}, chart(spec, { table: list, none: "No request in this time has a known cost." }),
    answer.unknown ? el("p", { class: "sub" }, `${count(answer.unknown)} requests of unknown cost are not in it.`) : null);
}

async function savings(window) {
  const answer = await get("savings", { since: window.since, until: window.until });
  const rows = [
    ["failovers", "Failovers", answer.failovers, "answered elsewhere after a failure", "wasted_usd", "spent on what failed"],
    ["rescues", "Rescues", answer.rescues, "cut answers that went on elsewhere", "kept_usd", "of output kept"],
    ["retries", "Retries", answer.retries, "answered at the second try", "wasted_usd", "spent on what failed"],
    ["cache", "Cache", answer.cache, "answered without asking anybody", "saved_usd", "saved"],
  ];
  if (!rows.some(([, , one]) => one && one.requests)) {
    return empty("Nothing had to be saved in this time: no failover, no rescue, no answer from the cache.");
  }
  return el("div", {},
    el("dl", { class: "savings" }, rows.map(([name, title, one, what, money, words]) => el("div", { title: (answer.method || {})[name] || null },
      el("dt", {}, title),
      el("dd", {}, one ? el("b", {}, count(one.requests)) : "off", one ? ` ${what}` : " (the cache is not configured)",
        one && Number(one[money]) ? el("span", { class: "money", title: exactUsd(one[money]) }, `${usd(one[money], 4)} ${words}`) : null),
    ))),
    el("p", { class: "sub" }, `Since ${day(answer.since)}, ${age(Date.parse(answer.until) - Date.parse(answer.since))}.`),
    downloads({ path: "savings", parameters: { since: window.since, until: window.until } }),
  );
}
