// Endpoints: who is up, how fast, who rests and why, and what each costs.

import { get } from "./api.js";
import { chart, hide, say } from "./chart.js";
import { standing } from "./chips.js";
import { card, el, empty, loading } from "./dom.js";
import { pick } from "./filters.js";
import { age, count, day, hour, moment, percent, seconds } from "./format.js";
import { urlTo } from "./place.js";
import { table } from "./table.js";

const DAYS = 30;
const SHOWN = [["", "all"], ["on", "switched on"], ["healthy", "healthy"], ["degraded", "degraded"], ["probing", "probing"], ["parked", "parked"], ["open", "open"], ["off", "off"]];

/** Fill the page. */
export function render(page, { rest, filters }) {
  if (filters.endpoint || rest) return one(page, filters.endpoint || rest);
  const shown = filters.standing ?? "on";
  const endpoints = once(() => get("endpoints"));
  page.append(
    el("div", { class: "page-head" }, el("h1", {}, "Endpoints"), el("p", { class: "sub" }, "Measured by your own traffic. Uptime leaves out what was the request's own fault and rate limits.")),
    el("div", { class: "controls" }, pick("standing", "Show", SHOWN, shown)),
    card("Health", { wide: true }, loading(() => health(endpoints, shown), 300)),
    card("Speed", { wide: true, note: "Of the last day: time to the first token, and tokens per second (p99 is the slow tail)." }, loading(() => speed(endpoints, shown), 200)),
    card("Prices", { wide: true, note: "USD per million tokens." }, loading(() => prices(), 200)),
    card("What happened", { wide: true, note: "The last seven days." }, loading(() => events({}), 120)),
  );
  return null;
}

function fits(shown) {
  return (row) => !shown || (shown === "on" ? !["off", "disabled"].includes(row.standing) : row.standing === shown);
}

// What two cards show is asked for once; anew where it could not be had.
function once(ask) {
  let asked = null;
  return () => {
    asked ||= ask().catch((error) => {
      asked = null;
      throw error;
    });
    return asked;
  };
}

async function health(endpoints, shown) {
  const [all, days] = await Promise.all([endpoints(), get("endpoints/days", { days: DAYS })]);
  const byEndpoint = Map.groupBy ? Map.groupBy(days.data, (row) => row.endpoint) : grouped(days.data);
  const now = Date.parse(all.now);
  const days30 = (row) => bars(byEndpoint.get(row.endpoint) || [], now);
  return el("div", {}, table({
    caption: "Health of endpoints", source: { path: "endpoints" }, rows: all.data.filter(fits(shown)), none: "No endpoint like this.",
    columns: [
      { title: "Endpoint", wide: true, show: (row) => [el("a", { href: urlTo("endpoints", { endpoint: row.endpoint }) }, row.endpoint), el("div", { class: "only-phone" }, days30(row))] },
      { title: "Standing", show: (row) => [standing(row.standing), reason(row, now)] },
      { title: `Last ${DAYS} days`, hide: "phone", show: days30 },
      { title: "5 min", number: true, hide: "phone", show: (row) => percent(row.uptime_5m) },
      { title: "30 min", number: true, hide: "phone", show: (row) => percent(row.uptime_30m) },
      { title: "1 day", number: true, show: (row) => percent(row.uptime_1d) },
      { title: "30 days", number: true, show: (row) => percent(row.uptime_30d) },
    ],
  }));
}

function grouped(rows) {
  const groups = new Map();
  for (const row of rows) {
    if (!groups.has(row.endpoint)) groups.set(row.endpoint, []);
    groups.get(row.endpoint).push(row);
  }
  return groups;
}

function reason(row, now) {
  if (!row.why && !row.since) return null;
  const words = [row.why, row.since ? `for ${age(now - Date.parse(row.since))}` : null, row.back_in_s ? `back in ${seconds(row.back_in_s)}` : null];
  return el("div", { class: "why" }, words.filter(Boolean).join(", "));
}

// One cell per day: a status list, so that each day has its words.
function bars(rows, now) {
  const known = new Map(rows.map((row) => [row.day.slice(0, 10), row]));
  const cells = [];
  for (let back = DAYS - 1; back >= 0; back -= 1) {
    const date = new Date(now - back * 86400e3).toISOString().slice(0, 10);
    const row = known.get(date);
    const uptime = row ? row.uptime : null;
    const level = uptime === null ? "none" : uptime >= 99.5 ? "good" : uptime >= 95 ? "warn" : "bad";
    const words = uptime === null ? `${day(date)}: no traffic` : `${day(date)}: ${percent(uptime)}, ${count(row.failed)} of ${count(row.ok + row.failed)} failed`;
    cells.push(el("li", { class: `day ${level}`, "aria-label": words, onpointerenter: (event) => say(event.target), onpointerleave: hide }));
  }
  return el("ul", { class: "days", "aria-label": `Uptime of the last ${DAYS} days, oldest first` }, cells);
}

async function speed(endpoints, shown) {
  const all = await endpoints();
  const rows = all.data.filter(fits(shown)).filter((row) => row.ttft_p50_s !== null || row.tokens_per_s_p50 !== null);
  const rate = (value) => (value === null ? "—" : value.toFixed(value < 10 ? 1 : 0));
  return table({
    caption: "Speed of endpoints", source: { path: "endpoints" }, rows, none: "No endpoint has answered in the last day. Figures come with traffic.",
    columns: [
      { title: "Endpoint", wide: true, show: (row) => row.endpoint },
      ...["p50", "p75", "p90", "p99"].map((at) => ({ title: `First token ${at}`, number: true, show: (row) => seconds(row[`ttft_${at}_s`]) })),
      ...["p50", "p75", "p90", "p99"].map((at) => ({ title: `Tokens/s ${at}`, number: true, show: (row) => rate(row[`tokens_per_s_${at}`]) })),
      { title: "Attempts", number: true, show: (row) => count(row.attempts_1d) },
      { title: "Failed", number: true, show: (row) => count(row.failed_1d) },
      { title: "Rate-limited", number: true, show: (row) => count(row.rate_limited_1d) },
    ],
  });
}

async function prices(only = null) {
  const all = await get("prices");
  const dollars = (name) => (row) => (row[name] === null ? "—" : `$${row[name]}`);
  return table({
    caption: "Prices", source: { path: "prices" }, rows: only ? all.data.filter((row) => row.endpoint === only) : all.data, none: "No endpoint is configured. `mixgate doctor` says what is missing.",
    columns: [
      { title: "Endpoint", wide: true, show: (row) => row.endpoint },
      { title: "Model", wide: true, hide: "phone", show: (row) => row.model },
      { title: "Input", number: true, show: dollars("input_usd_per_mtok") },
      { title: "Output", number: true, show: dollars("output_usd_per_mtok") },
      { title: "Cache read", number: true, hide: "phone", show: dollars("cache_read_usd_per_mtok") },
      { title: "Cache write", number: true, hide: "phone", show: dollars("cache_write_usd_per_mtok") },
      { title: "Context", number: true, hide: "phone", show: (row) => count(row.context_tokens) },
      { title: "When", wide: true, show: (row) => row.condition || "" },
    ],
  });
}

async function events(of) {
  const source = { path: "events", parameters: { ...of, since: "7d", count: 100 } };
  const answer = await get(source.path, source.parameters);
  return table({
    caption: "Changes of standing", source, rows: answer.data, none: "Nothing changed its standing: all quiet.",
    columns: [
      { title: "Time", show: (row) => moment(row.time) },
      { title: "Endpoint", wide: true, show: (row) => row.endpoint },
      { title: "Standing", show: (row) => standing(row.standing) },
      { title: "Cause", wide: true, show: (row) => row.cause },
    ],
  });
}

function one(page, endpoint) {
  page.append(
    el("p", { class: "back" }, el("a", { href: urlTo("endpoints") }, "All endpoints")),
    el("div", { class: "page-head" }, el("h1", {}, "Endpoint"), el("code", { class: "id" }, endpoint)),
    card("Now", { wide: true, tools: [el("a", { href: urlTo("requests", { endpoint, since: "24h" }) }, "Its requests of the last day")] }, loading(() => facts(endpoint), 140)),
    card("First token, by minute", { wide: true }, loading(() => minutes(endpoint), 260)),
    card("Prices", { wide: true, note: "USD per million tokens." }, loading(() => prices(endpoint), 80)),
    card("What happened", { wide: true, note: "The last seven days." }, loading(() => events({ endpoint }), 120)),
  );
  return null;
}

async function facts(endpoint) {
  const [all, days] = await Promise.all([get("endpoints"), get("endpoints/days", { endpoint, days: DAYS })]);
  const row = all.data.find((one) => one.endpoint === endpoint);
  const now = Date.parse(all.now);
  if (!row) return empty("It is not in the configuration any more. What it did is below.");
  const percentiles = (show, name) => ["p50", "p75", "p90", "p99"].map((at) => show(row[name(at)])).join(" / ");
  const rows = [
    ["Standing", [standing(row.standing), reason(row, now)]],
    ["Model", row.model],
    ["In flight", count(row.in_flight)],
    ["Uptime: 5 min, 30 min, 1 day, 30 days", ["5m", "30m", "1d", "30d"].map((span) => percent(row[`uptime_${span}`])).join(" / ")],
    ["First token: p50, p75, p90, p99", percentiles(seconds, (at) => `ttft_${at}_s`)],
    ["Tokens per second: p50, p75, p90, p99", percentiles((value) => (value === null ? "—" : value.toFixed(1)), (at) => `tokens_per_s_${at}`)],
    ["Attempts, failed, rate-limited in a day", [row.attempts_1d, row.failed_1d, row.rate_limited_1d].map(count).join(" / ")],
    [`Last ${DAYS} days`, bars(days.data, now)],
  ];
  return el("dl", { class: "facts roomy" }, rows.map(([title, value]) => el("div", {}, el("dt", {}, title), el("dd", {}, value))));
}

async function minutes(endpoint) {
  const source = { path: "endpoints/minutes", parameters: { endpoint, since: "1h" } };
  const answer = await get(source.path, source.parameters);
  if (!answer.data.length) return empty("It was not asked in the last hour.");
  const rows = answer.data.slice(-120);
  const line = (name, title, colour) => ({
    name: title, colour, values: rows.map((row) => row[name]),
    texts: rows.map((row) => `${title}, ${hour(row.time)}: ${seconds(row[name])}`),
  });
  const spec = {
    kind: "lines", unit: "seconds", height: 220, label: "Time to the first token by minute; arrow keys move between points",
    labels: rows.map((row) => hour(row.time)), series: [line("ttft_p50_s", "p50", 0), line("ttft_p90_s", "p90", 2)],
  };
  const list = table({
    caption: "By minute", source, rows,
    columns: [
      { title: "Minute", show: (row) => moment(row.time) },
      { title: "ok", number: true, show: (row) => count(row.ok) },
      { title: "Failed", number: true, show: (row) => count(row.failed) },
      { title: "Rate-limited", number: true, show: (row) => count(row.rate_limited) },
      { title: "p50", number: true, show: (row) => seconds(row.ttft_p50_s) },
      { title: "p90", number: true, show: (row) => seconds(row.ttft_p90_s) },
    ],
  });
  return chart(spec, { table: list });
}
