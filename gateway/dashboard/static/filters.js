// The row of filters at a page's top. Each is a field of the URL; a change goes there, and the page follows.

import { el } from "./dom.js";
import { change, here } from "./place.js";
import { get } from "./api.js";

export const PERIODS = [["24h", "24 hours"], ["7d", "7 days"], ["30d", "30 days"], ["90d", "90 days"]];

/** Buttons of which one is chosen; `name` is the filter in the URL. */
export function choice(name, label, options, chosen) {
  return el("div", { class: "choice", role: "group", "aria-label": label }, options.map(([value, words]) =>
    el("button", { type: "button", "aria-pressed": String(value === chosen), onclick: () => change({ [name]: value, until: "" }) }, words),
  ));
}

/** The period by days, where the buttons beside it are too coarse. The end is the whole of its day. */
export function days(filters) {
  const dated = (value) => (/^\d{4}-\d{2}-\d{2}/.test(value || "") ? value.slice(0, 10) : "");
  const next = (value) => (value ? new Date(Date.parse(value) + 86400e3).toISOString().slice(0, 10) : "");
  const last = dated(filters.until) ? new Date(Date.parse(dated(filters.until)) - 86400e3).toISOString().slice(0, 10) : "";
  const field = (id, label, value, changed) => el("div", { class: "field" }, el("label", { for: id }, label),
    el("input", { id, type: "date", value, onchange: (event) => changed(event.target.value) }));
  return [
    field("day-from", "From", dated(filters.since), (value) => change({ since: value })),
    field("day-to", "To", last, (value) => change({ until: next(value) })),
  ];
}

/** A list of which one is chosen. */
export function pick(name, label, options, chosen) {
  const id = `filter-${name}`;
  const list = el("select", { id, name, onchange: (event) => change({ [name]: event.target.value, before: "" }) },
    options.map(([value, words]) => el("option", { value, selected: value === chosen }, words)),
  );
  return el("div", { class: "field" }, el("label", { for: id }, label), list);
}

/**
 * A form of text filters that are applied together.
 * @param {Array<{name: string, label: string, hint?: string, known?: string, type?: string}>} fields `known`: the dimension whose names are proposed.
 */
export function filterForm(fields, extra = []) {
  const { filters } = here();
  const lists = [];
  const inputs = fields.map((field) => {
    const list = field.known ? `known-${field.name}` : null;
    if (list) lists.push([list, field.known]);
    const id = `filter-${field.name}`;
    return el("div", { class: "field" }, el("label", { for: id }, field.label),
      el("input", { id, name: field.name, type: field.type || "text", value: filters[field.name] || "", placeholder: field.hint || null, list, autocomplete: "off", spellcheck: "false", inputmode: field.inputmode || null }),
      list ? el("datalist", { id: list }) : null,
    );
  });
  const form = el("form", {
    class: "filters", role: "search", "aria-label": "Filters",
    onsubmit: (event) => {
      event.preventDefault();
      change({ ...Object.fromEntries(new FormData(form)), before: "" });
    },
  }, inputs, extra, el("div", { class: "filter-buttons" },
    el("button", { type: "submit" }, "Apply"),
    el("button", { type: "button", class: "quiet", onclick: () => change(Object.fromEntries(Object.keys(here().filters).map((name) => [name, ""]))) }, "Clear"),
  ));
  form.addEventListener("focusin", () => propose(form, lists), { once: true });
  // Folded on a phone, where they would fill the screen; a wide screen shows no summary to fold by.
  const used = Object.keys(filters).filter((name) => name !== "before").length;
  const wide = window.matchMedia("(min-width: 641px)").matches;
  return el("details", { class: "filters-fold", open: wide }, el("summary", {}, used ? `Filters (${used})` : "Filters"), form);
}

// Names that the ledger knows, asked for when somebody is about to type one.
async function propose(form, lists) {
  for (const [id, by] of lists) {
    try {
      const names = (await get("spend", { by, since: "30d", top: 50 })).data;
      const list = form.querySelector(`#${id}`);
      if (list) list.append(...names.filter((row) => row.name && !row.others).map((row) => el("option", { value: row.name }, row.label || "")));
    } catch {
      return; // A proposal less; the field works without.
    }
  }
}
