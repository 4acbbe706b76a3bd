// From rows of "step and name" to a chart's columns of numbers.

import { count, day, hour, usd } from "./format.js";
import { urlTo } from "./place.js";

export const OTHERS_COLOUR = 8;
const STEP_MS = { hour: 3600e3, day: 86400e3 };
const MOST_POINTS = 120;
// A dimension's name as the explorer's filter; what is missing cannot be filtered by.
const FILTERS = { model: "model", provider: "provider", endpoint: "endpoint", key: "key", app: "app", route: "route", tag: "tag" };

/** The steps of a window, oldest first. */
export function stepsOf(answer) {
  const size = STEP_MS[answer.step];
  const steps = [];
  for (let at = Date.parse(answer.since); at < Date.parse(answer.until); at += size) steps.push(at);
  return steps.slice(-MOST_POINTS);
}

/** What is written under a step. */
export function stepLabel(at, step) {
  return step === "hour" ? `${day(at)}, ${hour(at)}` : day(at);
}

/** The requests behind one name (none: all) in one step. */
export function behind(by, name, at, step) {
  const filter = by === "all" ? {} : { [FILTERS[by]]: name };
  return urlTo("requests", { ...filter, since: iso(at), until: iso(at + STEP_MS[step]) });
}

/** One colour per name, a value per step: spend. */
export function spendChart(answer, by) {
  const steps = stepsOf(answer);
  const rows = new Map(answer.data.map((row) => [`${row.others ? "\u0000" : ""}${row.name}\u0000${Date.parse(row.time)}`, row]));
  const series = answer.names.map((one, at) => {
    const title = one.others ? "others" : one.label || one.name || "(none)";
    const found = steps.map((step) => rows.get(`${one.others ? "\u0000" : ""}${one.name}\u0000${step}`) || null);
    const linked = !one.others && one.name !== "" && by in FILTERS;
    return {
      name: title,
      colour: one.others ? OTHERS_COLOUR : at,
      values: found.map((row) => (row ? Number(row.cost_usd) : 0)),
      texts: found.map((row, index) => `${title}, ${stepLabel(steps[index], answer.step)}: ${usd(row ? row.cost_usd : "0")}${row ? `, ${count(row.requests)} requests` : ""}`),
      links: steps.map((step) => (linked ? behind(by, one.name, step, answer.step) : null)),
    };
  });
  return {
    kind: "stacked-bars", unit: "usd", height: 280, label: `Spend over time by ${by}; arrow keys move between bars`,
    labels: steps.map((step) => stepLabel(step, answer.step)), series,
  };
}

/** Tokens in and out per step, of rows that are one per step. */
export function tokensChart(answer) {
  const steps = stepsOf(answer);
  const rows = new Map(answer.data.map((row) => [Date.parse(row.time), row]));
  const kinds = [
    ["Input, not cached", (row) => row.input_tokens - row.cached_tokens, 0],
    ["Input, cached", (row) => row.cached_tokens, 1],
    ["Output", (row) => row.output_tokens, 2],
  ];
  return {
    kind: "stacked-bars", unit: "count", height: 220, label: `Tokens per ${answer.step}; arrow keys move between bars`,
    labels: steps.map((step) => stepLabel(step, answer.step)),
    series: kinds.map(([name, value, colour]) => ({
      name, colour,
      values: steps.map((step) => (rows.has(step) ? Math.max(0, value(rows.get(step))) : 0)),
      texts: steps.map((step) => `${name}, ${stepLabel(step, answer.step)}: ${count(rows.has(step) ? Math.max(0, value(rows.get(step))) : 0)} tokens`),
      links: steps.map((step) => behind("all", "", step, answer.step)),
    })),
  };
}

/** A time for a URL. */
export function iso(at) {
  return new Date(at).toISOString().replace(".000Z", "Z");
}
