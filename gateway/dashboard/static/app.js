// Starts the dashboard: who is signed in, which page the URL names, the theme.

import { currentSession, loadSession, signOut } from "./api.js";
import { el, failed, fill } from "./dom.js";
import { follow, go, here, urlTo } from "./place.js";
import { hide } from "./chart.js";
import { startTheme } from "./theme.js";
import { signInPage } from "./page-sign-in.js";

// A page is fetched when it is first opened.
const PAGES = {
  overview: ["Overview", () => import("./page-overview.js")],
  endpoints: ["Endpoints", () => import("./page-endpoints.js")],
  requests: ["Requests", () => import("./page-requests.js")],
  live: ["Live", () => import("./page-live.js")],
  keys: ["Keys and budgets", () => import("./page-keys.js")],
  "what-if": ["What if", () => import("./page-what-if.js")],
};
const content = document.getElementById("content");
let leave = null;
let shown = "";

async function show() {
  hide();
  if (leave) leave();
  leave = null;
  content.setAttribute("aria-busy", "true");
  const { page } = here();
  const session = currentSession();
  document.getElementById("pages").hidden = !session.signed_in;
  document.getElementById("sign-out").hidden = !(session.signed_in && session.sign_in === "token");
  for (const link of document.querySelectorAll("#pages a")) {
    if (link.dataset.page === page && session.signed_in) {
      link.setAttribute("aria-current", "page");
      link.scrollIntoView({ block: "nearest", inline: "center" });
    }
    else link.removeAttribute("aria-current");
  }
  if (!session.signed_in) {
    document.title = "Sign in · Mixgate";
    put(signInPage(session, show));
    return;
  }
  if (!(page in PAGES)) {
    document.title = "Not found · Mixgate";
    put(el("h1", {}, "There is no such page"), el("p", {}, el("a", { href: urlTo("overview") }, "To the overview")));
    return;
  }
  const [title, load] = PAGES[page];
  document.title = `${title} · Mixgate`;
  const at = location.href;
  try {
    const { render } = await load();
    if (at !== location.href) return; // Somebody was faster.
    const scroll = shown === page ? window.scrollY : 0;
    const holder = el("div", { class: `page page-${page}` });
    leave = render(holder, here()) || null;
    put(holder);
    window.scrollTo(0, scroll);
    if (shown && shown !== page) content.focus({ preventScroll: true });
    shown = page;
  } catch (error) {
    put(failed(error, show));
  }
}

function put(...made) {
  fill(content, ...made);
  content.removeAttribute("aria-busy");
}

async function start() {
  startTheme(document.getElementById("theme"));
  document.getElementById("sign-out").addEventListener("click", async () => {
    try {
      await signOut();
    } finally {
      await loadSession();
      shown = "";
      go(urlTo("overview"));
    }
  });
  window.addEventListener("mixgate:signed-out", async () => {
    await loadSession();
    show();
  });
  try {
    await loadSession();
  } catch (error) {
    put(failed(error, () => location.reload()));
    return;
  }
  follow(show);
  await show();
}

start();
