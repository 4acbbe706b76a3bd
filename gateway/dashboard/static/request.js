// One request: what came of it, its Attempts on a time line, who else might have answered and why not, what it cost.

import { get } from "./api.js";
import { chart } from "./chart.js";
import { outcome } from "./chips.js";
import { card, el, empty, loading } from "./dom.js";
import { count, exactUsd, moment, ms, percent, seconds, usd } from "./format.js";
import { urlTo } from "./place.js";
import { downloads, table } from "./table.js";

const ASKED_BY = { app: "App", referer: "Referer", user: "User", session: "Session", tags: "Tags" };
const WITHOUT_LINES = {
  none: "It was refused, or never reached anybody: nothing is owed.",
  provider: "As the provider says that it charged; it gives no lines.",
};

/** Fill the page with one request. */
export function renderRequest(page, id) {
  page.append(
    el("p", { class: "back" }, el("a", { href: urlTo("requests") }, "All requests")),
    el("div", { class: "page-head" }, el("h1", {}, "Request"), el("code", { class: "id" }, id)),
    loading(async () => whole(await get(`requests/${encodeURIComponent(id)}`), id), 400),
  );
  return null;
}

function whole(request, id) {
  return el("div", { class: "stack" },
    facts(request),
    card("Attempts", { wide: true, note: "From the decision on. What was sent first, what took over, and when." }, attempts(request)),
    request.decision
      ? card("The decision", { wide: true, note: `Policy ${request.decision.policy} on route ${request.decision.route}: who could be asked, in this order, and who could not.` }, decision(request.decision))
      : card("The decision", { wide: true }, empty("The decision record is no longer kept (seven days). What was billed is below.")),
    card("Cost", { wide: true }, costs(request.costs || [])),
    downloads({ path: `requests/${encodeURIComponent(id)}`, name: id, csv: false }),
  );
}

function story(request) {
  const tried = request.attempts || [];
  const last = tried[tried.length - 1];
  const before = tried.length > 1 ? ` after ${count(tried.length - 1)} other ${tried.length === 2 ? "Attempt" : "Attempts"}` : "";
  if (!last) return request.outcome === "ok" ? "Answered without asking any provider." : `Refused before anybody was asked${request.code ? `: ${request.code}` : ""}.`;
  if (request.outcome === "ok") return `Answered by ${last.endpoint}${before}.`;
  if (request.outcome === "cancelled") return `The client left while ${last.endpoint} was answering${before}.`;
  return `Failed at ${last.endpoint}${before}${request.code ? `: ${request.code}` : ""}.`;
}

function facts(request) {
  const asked = request.asked_by || {};
  const rows = [
    ["Outcome", outcome(request.outcome, request.code)],
    ["Time", moment(request.time), request.time],
    ["Asked for", (request.requested || []).join(", ") || "—"],
    ["Route and policy", [request.route || "—", request.policy ? ` · ${request.policy}` : ""]],
    ["Took", ms(request.duration_ms)],
    ["Cost", usd(request.cost_usd, 6), exactUsd(request.cost_usd)],
    ["Key", request.caller || "—"],
    ["API", request.surface || "—"],
    ...Object.entries(ASKED_BY).filter(([name]) => asked[name] && asked[name].length).map(([name, title]) => [title, [asked[name]].flat().join(", ")]),
  ];
  const saved = request.rescued;
  return el("section", { class: "card wide", "aria-label": "What came of it" },
    el("p", { class: "headline" }, story(request)),
    saved ? el("p", { class: "note" }, `The answer of ${saved.cut} was cut after ${count(saved.after_chars)} characters; ${saved.continued} went on (${saved.by}).`) : null,
    el("dl", { class: "facts" }, rows.map(([title, value, hint]) => el("div", {}, el("dt", {}, title), el("dd", { title: hint || null }, value)))));
}

function attempts(request) {
  if (!request.attempts || !request.attempts.length) return empty("Nothing was sent to any provider.");
  const tried = [...request.attempts].reverse(); // A scale grows from below: the first one is to be on top.
  const labels = tried.map((one) => `${one.number}. ${one.endpoint}`);
  const bar = (one) => `${one.number}. ${one.endpoint}, ${one.outcome}: began after ${ms(one.started_ms)}, first token ${one.ttft_ms === null ? "never" : `after ${ms(one.ttft_ms)}`}, over after ${ms(one.duration_ms)}`;
  const texts = tried.map(bar);
  const wait = tried.map((one) => (one.ttft_ms === null || one.ttft_ms === undefined ? one.duration_ms : Math.min(one.ttft_ms, one.duration_ms)));
  const shorter = (text) => (text.length > 34 ? `${text.slice(0, 33)}…` : text);
  const phone = document.documentElement.clientWidth < 600;
  const spec = {
    kind: "time-line", unit: "ms", height: 60 + 34 * tried.length, label: "Attempts on a time line; arrow keys move between them",
    labels: phone ? tried.map((one) => `${one.number}.`) : labels.map(shorter),
    series: [
      { name: "before", colour: 12, values: tried.map((one) => one.started_ms) },
      { name: "until the first token", colour: 8, values: wait, texts },
      { name: "answering", colour: 0, values: tried.map((one, at) => Math.max(0, one.duration_ms - wait[at])), texts },
    ],
  };
  const list = table({
    caption: "Attempts", rows: request.attempts,
    columns: [
      { title: "#", show: (one) => one.number },
      { title: "Endpoint", wide: true, show: (one) => one.endpoint },
      { title: "Why", show: (one) => one.why },
      { title: "Outcome", show: (one) => outcome(one.outcome, one.code) },
      { title: "Status", number: true, show: (one) => one.upstream_status ?? "—" },
      { title: "Began", number: true, show: (one) => ms(one.started_ms) },
      { title: "First token", number: true, show: (one) => ms(one.ttft_ms) },
      { title: "Took", number: true, show: (one) => ms(one.duration_ms) },
      { title: "Changed on the way", wide: true, hide: "phone", show: (one) => [...(one.adapted || []), ...(one.emulated || []).map((what) => `${what} emulated`)].join(", ") },
    ],
  });
  return el("div", {}, chart(spec, { legend: false, none: "It took less than a millisecond." }),
    el("ul", { class: "legend" }, [["until the first token", 8], ["answering", 0]].map(([name, number]) => el("li", {}, el("span", { class: `swatch colour-${number}`, "aria-hidden": "true" }), name))), list);
}

function decision(made) {
  const columns = [
    { title: "Endpoint", wide: true, show: (one) => one.endpoint },
    { title: "Standing", show: (one) => one.standing },
    { title: "Score", number: true, show: (one) => (one.score === null ? "—" : Number(one.score.toPrecision(4)).toString()), hint: (one) => String(one.score) },
    { title: "Expected cost", number: true, show: (one) => usd(one.expected_cost, 6), hint: (one) => exactUsd(one.expected_cost) },
    { title: "First token", number: true, show: (one) => seconds(one.ttft_s) },
    { title: "Tokens/s", number: true, hide: "phone", show: (one) => (one.tokens_per_s === null ? "—" : one.tokens_per_s.toFixed(1)) },
    { title: "Uptime", number: true, hide: "phone", show: (one) => (one.uptime === null ? "—" : percent(one.uptime)) },
    { title: "In flight", number: true, hide: "phone", show: (one) => count(one.in_flight) },
  ];
  return el("div", {},
    el("p", { class: "sub" }, `${count(made.prompt_tokens)} prompt tokens, about ${count(made.expected_output_tokens)} expected out`, made.needed.length ? `; needs ${made.needed.join(", ")}` : "", "."),
    table({ caption: "Candidates", rows: made.candidates, columns, none: "Nobody could be asked." }),
    made.resting.length
      ? [el("h3", {}, "Resting"), table({ caption: "Resting", rows: made.resting, columns: [...columns.slice(0, 2), { title: "Back in", number: true, show: (one) => seconds(one.back_in_s) }] })]
      : null,
    el("h3", {}, "Why not the others"),
    table({
      caption: "Excluded", rows: made.excluded, none: "All endpoints of the route could be asked.",
      columns: [
        { title: "Endpoint", wide: true, show: (one) => one.endpoint },
        { title: "Reason", wide: true, show: (one) => one.reason || one.code, hint: (one) => one.code },
        { title: "Wanted", hide: "phone", show: (one) => one.wanted ?? "" },
        { title: "Limit", hide: "phone", show: (one) => one.limit ?? "" },
      ],
    }),
  );
}

function costs(billed) {
  if (!billed.length) return empty("Nothing was billed: no Attempt was sent.");
  return el("div", {}, billed.map((one) => el("div", { class: "bill" },
    el("h3", {}, one.endpoint, " ", el("span", { class: "money", title: exactUsd(one.cost_usd) }, usd(one.cost_usd, 6))),
    el("p", { class: "sub" }, `Cost: ${one.cost_source}. Tokens: ${one.usage_source}.`),
    one.lines
      ? table({
        caption: `Cost of ${one.attempt}`, rows: one.lines, none: "Free.",
        columns: [
          { title: "What", show: (line) => line.what.replaceAll("_", " ") },
          { title: "Count", number: true, show: (line) => count(line.count) },
          { title: "Each", number: true, show: (line) => `$${line.usd_per_unit}` },
          { title: "Cost", number: true, show: (line) => usd(line.cost_usd, 9), hint: (line) => exactUsd(line.cost_usd) },
        ],
      })
      : el("p", { class: "sub" }, WITHOUT_LINES[one.cost_source] || "No price is known for this endpoint at that time."))));
}
