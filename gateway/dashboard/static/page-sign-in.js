// Signing in with the admin's or the viewer's token; or why that is not possible here.

import { signIn } from "./api.js";
import { el } from "./dom.js";

/**
 * @param {Object} session As the gateway gave it.
 * @param {function(): void} done Called once somebody is signed in.
 */
export function signInPage(session, done) {
  if (session.sign_in === "refused") {
    return el("div", { class: "sign-in" }, el("h1", {}, "Sign-in is not possible here"), el("p", { role: "alert" }, session.why || "The gateway refuses it."));
  }
  const said = el("p", { class: "failed", role: "alert", hidden: true });
  const input = el("input", { id: "token", name: "token", type: "password", required: true, autocomplete: "current-password", "aria-describedby": "token-words" });
  const button = el("button", { type: "submit", class: "primary" }, "Sign in");
  const form = el("form", {
    onsubmit: async (event) => {
      event.preventDefault();
      button.disabled = true;
      said.hidden = true;
      try {
        await signIn(input.value);
        done();
      } catch (error) {
        said.textContent = error.message;
        said.hidden = false;
        input.select();
        input.focus();
      } finally {
        button.disabled = false;
      }
    },
  }, el("label", { for: "token" }, "Token"), input,
  el("p", { id: "token-words", class: "sub" }, "The admin or the viewer token of this gateway, as in its configuration (gateway.admin_token, gateway.viewer_token)."),
  said, button);
  return el("div", { class: "sign-in" }, el("h1", {}, "Sign in to Mixgate"), form);
}
