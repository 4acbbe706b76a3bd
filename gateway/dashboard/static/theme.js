// Light, dark, or as the system says. Kept in this browser only.

const KEY = "mixgate-theme";
const ORDER = ["system", "light", "dark"];
const WORDS = { system: "Theme: system", light: "Theme: light", dark: "Theme: dark" };

/** Apply what was chosen here before, and let the button change it. */
export function startTheme(button) {
  const choose = (theme) => {
    if (theme === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    button.textContent = WORDS[theme];
  };
  let theme = kept();
  choose(theme);
  button.addEventListener("click", () => {
    theme = ORDER[(ORDER.indexOf(theme) + 1) % ORDER.length];
    choose(theme);
    try {
      localStorage.setItem(KEY, theme);
    } catch {
      // Storage may be off; the theme then lasts as long as the page.
    }
  });
}

function kept() {
  try {
    const theme = localStorage.getItem(KEY);
    return ORDER.includes(theme) ? theme : "system";
  } catch {
    return "system";
  }
}
