// Requests: the explorer, and one request's record where the URL names one.

import { currentSession, get } from "./api.js";
import { el, loading } from "./dom.js";
import { outcome } from "./chips.js";
import { filterForm, pick } from "./filters.js";
import { count, decimalsFor, exactUsd, moment, ms, usd } from "./format.js";
import { urlTo } from "./place.js";
import { renderRequest } from "./request.js";
import { table } from "./table.js";

const FIELDS = [
  { name: "since", label: "From", hint: "24h, 7d, 2026-11-01" },
  { name: "until", label: "To", hint: "now" },
  { name: "model", label: "Model", known: "model" },
  { name: "endpoint", label: "Endpoint", known: "endpoint" },
  { name: "provider", label: "Provider", known: "provider" },
  { name: "key", label: "Key", known: "key" },
  { name: "app", label: "App", known: "app" },
  { name: "route", label: "Route", known: "route" },
  { name: "tag", label: "Tag", known: "tag" },
  { name: "min_cost", label: "Cost from (USD)", hint: "0.01", inputmode: "decimal" },
];
const FOR_ADMINS = [{ name: "user", label: "User" }, { name: "session", label: "Session" }];
const OUTCOMES = [["", "any"], ["ok", "ok"], ["failed", "failed"], ["cancelled", "cancelled"]];
const KNOWN = new Set([...FIELDS, ...FOR_ADMINS].map((field) => field.name).concat(["outcome", "before"]));

/** Fill the page. */
export function render(page, { rest, filters }) {
  if (rest) return renderRequest(page, rest);
  const admin = currentSession().role !== "viewer";
  const asked = Object.fromEntries(Object.entries(filters).filter(([name]) => KNOWN.has(name)));
  const fields = [...FIELDS, ...(admin ? FOR_ADMINS : [])];
  page.append(
    el("div", { class: "page-head" }, el("h1", {}, "Requests"), el("p", { class: "sub" }, "One row per Attempt, newest first. Times are UTC.")),
    filterForm(fields, [pick("outcome", "Outcome", OUTCOMES, filters.outcome || "")]),
    loading(() => list(asked), 300),
  );
  return null;
}

async function list(asked) {
  const source = { path: "requests", parameters: { ...asked, count: 50 } };
  const answer = await get(source.path, source.parameters);
  const decimals = decimalsFor(answer.data.map((row) => row.cost_usd));
  const filtered = Object.keys(asked).length > 0;
  return el("section", { class: "card wide", "aria-label": "Requests found" },
    table({
      caption: "Requests", source, rows: answer.data, rowClass: (row) => (row.outcome === "failed" ? "row-failed" : null),
      none: filtered ? "No request fits these filters. Clear one, or choose a longer time." : "No request yet. Point a client at this gateway and it will show up here within a second.",
      columns: [
        { title: "Time", narrow: true, show: (row) => el("a", { href: urlTo("requests", {}, row.id) }, moment(row.time)), hint: (row) => row.id },
        { title: "Model", wide: true, show: (row) => row.model || "—" },
        { title: "Endpoint", wide: true, hide: "phone", show: (row) => row.endpoint || "—" },
        { title: "Outcome", show: (row) => outcome(row.outcome, row.code) },
        { title: "In", number: true, hide: "phone", show: (row) => count(row.input_tokens) },
        { title: "Out", number: true, hide: "phone", show: (row) => count(row.output_tokens) },
        { title: "Cost", number: true, show: (row) => usd(row.cost_usd, decimals), hint: (row) => `${exactUsd(row.cost_usd)} (${row.cost_source})` },
        { title: "First token", number: true, hide: "phone", show: (row) => ms(row.ttft_ms) },
        { title: "Took", number: true, show: (row) => ms(row.duration_ms) },
        { title: "App", wide: true, hide: "phone", show: (row) => row.app || "" },
        { title: "Key", wide: true, hide: "phone", show: (row) => row.label || row.key || "" },
        { title: "Tags", wide: true, hide: "phone", show: (row) => (row.tags || []).join(", ") },
      ],
    }),
    el("nav", { class: "turn", "aria-label": "Further requests" },
      asked.before ? el("a", { href: urlTo("requests", { ...asked, before: "" }) }, "Newest") : null,
      answer.next ? el("a", { href: urlTo("requests", { ...asked, before: answer.next }), rel: "next" }, "Older") : null),
  );
}
