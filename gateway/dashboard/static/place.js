// Where one is: the page and its filters are in the URL, so that back, forward and a copied link work.

const ROOT = "/dashboard/";
const listeners = [];

/** The page's name, what follows it, and its filters. */
export function here() {
  const [page = "", rest = ""] = location.pathname.slice(ROOT.length).split("/");
  return { page: page || "overview", rest: decodeURIComponent(rest), filters: Object.fromEntries(new URLSearchParams(location.search)) };
}

/** The URL of a page with filters; empty ones are left out. */
export function urlTo(page, filters = {}, rest = "") {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(filters)) {
    if (value !== null && value !== undefined && value !== "") query.set(name, value);
  }
  const path = ROOT + (page === "overview" ? "" : page) + (rest ? `/${encodeURIComponent(rest)}` : "");
  const text = query.toString();
  return path + (text ? `?${text}` : "");
}

/** Go there without loading the page anew. */
export function go(url) {
  history.pushState(null, "", url);
  for (const listener of listeners) listener();
}

/** The same page with some filters changed. */
export function change(filters) {
  const now = here();
  go(urlTo(now.page, { ...now.filters, ...filters }, now.rest));
}

/** Call when the place changes; links to pages of ours are followed in place. */
export function follow(listener) {
  listeners.push(listener);
  let last = location.pathname + location.search;
  listeners.push(() => {
    last = location.pathname + location.search;
  });
  window.addEventListener("popstate", () => {
    // A link to a part of the page is no other place.
    if (last === location.pathname + location.search) return;
    for (const one of listeners) one();
  });
  document.addEventListener("click", (event) => {
    const link = event.target.closest ? event.target.closest("a[href]") : null;
    if (!link || event.defaultPrevented || event.button !== 0) return;
    if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    // A link inside a chart is an SVG one: its href attribute is the same.
    const target = link.getAttribute("href");
    const kept = link.getAttribute("download") !== null || link.getAttribute("target");
    if (kept || !target.startsWith(ROOT) || target.startsWith(`${ROOT}api/`)) return;
    event.preventDefault();
    go(target);
  });
}
