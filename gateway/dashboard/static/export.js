// Rows of a table that has no address of its own, as a file: made here, out of what the gateway said.

const TYPES = { csv: "text/csv;charset=utf-8", json: "application/json" };

/**
 * Save rows as a file.
 * @param {Array<Object>} rows As the gateway gave them.
 * @param {string} name Of the file, without its end.
 * @param {"csv"|"json"} form
 */
export function saveRows(rows, name, form) {
  const text = form === "csv" ? csvOf(rows) : `${JSON.stringify(rows, null, 2)}\n`;
  const url = URL.createObjectURL(new Blob([text], { type: TYPES[form] }));
  const link = document.createElement("a");
  link.href = url;
  link.download = `${name}.${form}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

function csvOf(rows) {
  const columns = [...new Set(rows.flatMap((row) => Object.keys(row)))];
  return [columns, ...rows.map((row) => columns.map((column) => row[column]))].map((cells) => `${cells.map(cell).join(",")}\n`).join("");
}

// As the gateway spells them: what a spreadsheet would take for a formula is marked as text.
function cell(value) {
  if (value === null || value === undefined) return "";
  const text = Array.isArray(value) ? value.join(";") : typeof value === "object" ? JSON.stringify(value) : String(value);
  const marked = /^[=+\-@\t\r]/.test(text) && !/^-?\d+(\.\d+)?(e-?\d+)?$/.test(text) ? `'${text}` : text;
  return /[",\n\r]/.test(marked) ? `"${marked.replaceAll('"', '""')}"` : marked;
}
