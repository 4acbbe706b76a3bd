// Elements out of data. Text only ever becomes text: nothing here, or elsewhere on these pages, parses HTML.

/**
 * An element with its attributes and children.
 * @param {string} tag
 * @param {Object<string, any>} [attributes] `onclick`-like names add a listener; true is an empty attribute; null, undefined and false none.
 * @param {...(Node|string|number|null|undefined|Array)} children
 */
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  append(element, children);
  return element;
}

/** Put children (nested lists are fine, null is skipped) at an element's end. */
export function append(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return element;
}

/** Make these an element's only children. */
export function fill(element, ...children) {
  element.replaceChildren();
  return append(element, children);
}

/** A section of a page with a heading; `tools` stand at the heading's right. */
export function card(title, { tools = [], note = null, wide = false, id = null } = {}, ...children) {
  const heading = el("h2", {}, title);
  return el(
    "section",
    { class: wide ? "card wide" : "card", id, "aria-label": title },
    el("div", { class: "card-head" }, heading, el("div", { class: "tools" }, tools)),
    note ? el("p", { class: "sub" }, note) : null,
    ...children,
  );
}

/** What stands where there is nothing yet: what it means and what to do. */
export function empty(words, ...more) {
  return el("div", { class: "empty" }, el("p", {}, words), ...more);
}

/** What stands where something went wrong. */
export function failed(error, again) {
  return el(
    "div",
    { class: "failed", role: "alert" },
    el("p", {}, error.message || String(error)),
    again ? el("button", { type: "button", class: "small", onclick: again }, "Try again") : null,
  );
}

/** A place that fills itself: shows that it loads, then what `load` makes, or what went wrong. */
export function loading(load, height = null) {
  const place = el("div", { class: "loading", "aria-busy": "true" });
  if (height !== null) place.style.minHeight = `${height}px`;
  const run = async () => {
    place.setAttribute("aria-busy", "true");
    try {
      const made = await load();
      fill(place, made);
    } catch (error) {
      if (error.name === "AbortError") return;
      fill(place, failed(error, run));
    }
    place.style.minHeight = "";
    place.classList.remove("loading");
    place.removeAttribute("aria-busy");
  };
  run();
  return place;
}
