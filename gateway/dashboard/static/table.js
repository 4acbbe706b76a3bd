// A table out of rows: named columns, figures to the right, and the same rows to take home as CSV and JSON.

import { el, empty } from "./dom.js";
import { urlOf } from "./api.js";
import { saveRows } from "./export.js";

/**
 * @param {Object} options
 * @param {string} options.caption What it shows; read out, not seen.
 * @param {Array<{title: string, show: function(Object): any, number?: boolean, hint?: function(Object): string, hide?: string}>} options.columns
 *   `show` gives text or an element; `number` aligns right; `hint` is the full value; `hide` is "phone" for what a narrow screen can do without; `wide` may
 *   break anywhere, `narrow` breaks on a phone.
 * @param {Array<Object>} options.rows
 * @param {{path: string, parameters: Object}|null} options.source Where the rows are from, for CSV and JSON; none: they are
 *   part of something larger, and are written out here.
 * @param {string} [options.none] What is said where there are no rows.
 */
export function table({ caption, columns, rows, source = null, none = "Nothing here yet.", rowClass = null }) {
  if (!rows.length) return el("div", {}, empty(none), source ? downloads(source) : null);
  const head = columns.map((column) => el("th", { scope: "col", class: classOf(column) }, column.title));
  const body = rows.map((row) =>
    el("tr", { class: rowClass ? rowClass(row) : null }, columns.map((column, at) => {
      const hint = column.hint ? column.hint(row) : null;
      return el(at === 0 ? "th" : "td", { scope: at === 0 ? "row" : null, class: classOf(column), title: hint }, column.show(row));
    })),
  );
  return el(
    "div",
    {},
    el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
      el("table", {}, el("caption", { class: "unseen" }, caption), el("thead", {}, el("tr", {}, head)), el("tbody", {}, body)),
    ),
    source ? downloads(source) : ownDownloads(caption, rows),
  );
}

/** Links to the same table as CSV (full precision) and JSON; what is no table has no `csv`. */
export function downloads({ path, parameters = {}, name = null, csv = true }) {
  const file = name || path.split("/").join("-");
  return el(
    "p",
    { class: "downloads" },
    csv ? el("a", { href: urlOf(path, { ...parameters, format: "csv" }), download: `${file}.csv`, "aria-label": `${file} as CSV` }, "CSV") : null,
    el("a", { href: urlOf(path, parameters), download: `${file}.json`, "aria-label": `${file} as JSON` }, "JSON"),
  );
}

function ownDownloads(caption, rows) {
  const file = caption.toLowerCase().replace(/[^a-z0-9]+/g, "-");
  const button = (form) => el("button", { type: "button", class: "link", "aria-label": `${caption} as ${form.toUpperCase()}`, onclick: () => saveRows(rows, file, form) }, form.toUpperCase());
  return el("p", { class: "downloads" }, button("csv"), button("json"));
}

function classOf(column) {
  return [column.number ? "number" : null, column.hide ? `hide-${column.hide}` : null, column.wide ? "wide-cell" : null, column.narrow ? "narrow-cell" : null].filter(Boolean).join(" ") || null;
}
