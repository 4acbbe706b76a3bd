// Charts: the gateway draws them as SVG; here they get words under the pointer, arrow keys, a legend and their table.

import { el, empty, failed, fill } from "./dom.js";
import { post } from "./api.js";

const hint = document.getElementById("hint");
const redraws = new Set();

/**
 * A chart with its legend and, folded away, its table.
 * @param {Object} spec As `gateway/dashboard/charts.py` says, without width.
 * @param {{table: Node|null, legend?: boolean, none?: string}} options `none` is said where there is nothing to draw.
 */
export function chart(spec, { table = null, legend = spec.series.length > 1, none = "Nothing to draw for this time." } = {}) {
  const drawn = spec.series.some((one) => one.values.some((value) => value));
  if (!drawn) return el("div", {}, empty(none), table ? folded(table) : null);
  const place = el("div", { class: "chart", "aria-busy": "true" });
  place.style.minHeight = `${spec.height}px`;
  const box = el("div", { class: "chart-box" }, place, legend ? legendOf(spec) : null, table ? folded(table) : null);
  const draw = async () => {
    const width = Math.max(120, Math.round(place.clientWidth));
    if (!place.isConnected || width === place.drawnWidth) return;
    place.drawnWidth = width;
    try {
      const text = await post("chart", { ...spec, width, every: everyFor(spec, width) }, "text");
      const svg = new DOMParser().parseFromString(text, "image/svg+xml").documentElement;
      if (svg.localName !== "svg") throw new Error("The chart could not be read.");
      const node = document.importNode(svg, true);
      node.setAttribute("width", width);
      node.setAttribute("height", spec.height);
      fill(place, node);
      attend(node);
    } catch (error) {
      place.drawnWidth = null;
      fill(place, failed(error, draw));
    }
    place.removeAttribute("aria-busy");
  };
  place.redraw = draw;
  redraws.add(place);
  requestAnimationFrame(draw);
  return box;
}

let settle = null;
window.addEventListener("resize", () => {
  clearTimeout(settle);
  settle = setTimeout(() => {
    for (const place of redraws) {
      if (place.isConnected) place.redraw();
      else redraws.delete(place);
    }
  }, 250);
});

// Only so many labels as fit beside one another.
function everyFor(spec, width) {
  const longest = Math.max(1, ...spec.labels.map((label) => label.length));
  return Math.max(1, Math.ceil((spec.labels.length * (longest * 6.5 + 14)) / Math.max(width - 50, 60)));
}

function legendOf(spec) {
  return el("ul", { class: "legend" }, spec.series.map((one, at) => {
    const number = one.colour === undefined ? at : one.colour;
    return el("li", { title: one.name }, el("span", { class: `swatch colour-${number}`, "aria-hidden": "true" }), el("span", { class: "legend-name" }, one.name));
  }));
}

function folded(table) {
  return el("details", { class: "as-table" }, el("summary", {}, "As a table"), table);
}

// One stop for the tab key; the arrows go from point to point and from colour to colour.
function attend(svg) {
  const points = [...svg.querySelectorAll("[data-point]")];
  if (!points.length) return;
  points[0].setAttribute("tabindex", "0");
  for (const point of points) {
    point.addEventListener("pointerenter", () => say(point));
    point.addEventListener("pointerleave", hide);
    point.addEventListener("focus", () => say(point));
    point.addEventListener("blur", hide);
    point.addEventListener("keydown", (event) => step(event, point, points));
  }
}

function step(event, from, points) {
  if (event.key === "Escape") hide();
  const by = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1], Home: [-Infinity, 0], End: [Infinity, 0] }[event.key];
  if (!by) return;
  event.preventDefault();
  const at = Number(from.dataset.point);
  const series = Number(from.dataset.series);
  const along = points.filter((one) => (by[0] ? Number(one.dataset.series) === series : Number(one.dataset.point) === at));
  const order = (one) => Number(by[0] ? one.dataset.point : one.dataset.series);
  along.sort((one, other) => order(one) - order(other));
  const target = Math.min(along.length - 1, Math.max(0, along.indexOf(from) + (by[0] || by[1])));
  from.setAttribute("tabindex", "-1");
  along[target].setAttribute("tabindex", "0");
  along[target].focus();
}

/** Words beside an element. Moved by properties: a strict policy allows those. */
export function say(element) {
  const box = element.getBoundingClientRect();
  hint.textContent = element.getAttribute("aria-label");
  hint.hidden = false;
  const wide = hint.offsetWidth;
  const left = Math.min(Math.max(8, box.left + box.width / 2 - wide / 2), document.documentElement.clientWidth - wide - 8);
  const above = box.top - hint.offsetHeight - 8;
  hint.style.left = `${left}px`;
  hint.style.top = `${above < 8 ? box.bottom + 8 : above}px`;
}

/** Without words. */
export function hide() {
  hint.hidden = true;
}
