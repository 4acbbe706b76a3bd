// Figures and times as people read them. Money comes as decimal strings and is cut as text, never through a float.

const COUNT = new Intl.NumberFormat("en-US");
const DAY = new Intl.DateTimeFormat("en-US", { month: "short", day: "numeric", timeZone: "UTC" });
const MOMENT = new Intl.DateTimeFormat("en-US", {
  month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23", timeZone: "UTC",
});

/**
 * Decimal USD with a fixed number of decimals, rounded half up as text; "—" where nobody knows.
 * What is more than zero but would read as zero says so.
 */
export function usd(text, decimals = 4) {
  if (text === null || text === undefined) return "—";
  const negative = text.startsWith("-");
  const [whole, fraction = ""] = text.replace("-", "").split(".");
  const digits = fraction.padEnd(decimals + 1, "0");
  let units = BigInt(whole + digits.slice(0, decimals));
  if (digits[decimals] >= "5") units += 1n;
  if (units === 0n && /[1-9]/.test(text)) return `<$${(0.1 ** decimals).toFixed(decimals)}`;
  const shown = units.toString().padStart(decimals + 1, "0");
  const front = COUNT.format(BigInt(decimals ? shown.slice(0, -decimals) : shown));
  return `${negative ? "-" : ""}$${front}${decimals ? `.${shown.slice(-decimals)}` : ""}`;
}

/** All decimals, for a title. */
export function exactUsd(text) {
  return text === null || text === undefined ? "not known" : `$${text}`;
}

/** How many decimals make a column of amounts readable: two where one reaches ten dollars, else four, six for tiny ones. */
export function decimalsFor(amounts) {
  const most = Math.max(0, ...amounts.filter((one) => one !== null).map(Number));
  if (most >= 10) return 2;
  return most >= 0.01 ? 4 : 6;
}

/** A whole number with separators. */
export function count(value) {
  return value === null || value === undefined ? "—" : COUNT.format(value);
}

/** A number in few letters: 12.3k, 4.56M. */
export function short(value) {
  if (value === null || value === undefined) return "—";
  for (const [size, letter] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e4, "k"]]) {
    if (Math.abs(value) >= size) return `${Number((value / (letter === "k" ? 1e3 : size)).toPrecision(3))}${letter}`;
  }
  return COUNT.format(value);
}

/** Per cent with what matters near a hundred. */
export function percent(value) {
  if (value === null || value === undefined) return "—";
  return `${value >= 99.995 ? "100" : value.toFixed(value >= 99 ? 2 : 1)} %`;
}

/** Milliseconds as ms, s or min. */
export function ms(value) {
  if (value === null || value === undefined) return "—";
  if (value < 1000) return `${Math.round(value)} ms`;
  if (value < 60000) return `${(value / 1000).toFixed(value < 10000 ? 2 : 1)} s`;
  return `${Math.floor(value / 60000)} min ${Math.round((value % 60000) / 1000)} s`;
}

/** Seconds as ms or s. */
export function seconds(value) {
  return value === null || value === undefined ? "—" : ms(value * 1000);
}

/** Nov 22 (UTC). */
export function day(time) {
  return DAY.format(new Date(time));
}

/** Nov 22, 06:40:12 (UTC). */
export function moment(time) {
  return time === null || time === undefined ? "—" : MOMENT.format(new Date(time));
}

/** 06:40 (UTC). */
export function hour(time) {
  return new Date(time).toISOString().slice(11, 16);
}

/** How long since a time, in one unit. */
export function age(milliseconds) {
  const whole = Math.max(0, milliseconds / 1000);
  if (whole < 60) return `${whole.toFixed(whole < 10 ? 1 : 0)} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min`;
  if (whole < 172800) return `${Math.floor(whole / 3600)} h`;
  return `${Math.floor(whole / 86400)} days`;
}

/** A name that may be absent. */
export function named(row) {
  return row.label || row.name || "(none)";
}
