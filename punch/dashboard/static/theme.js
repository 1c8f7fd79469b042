// Dark or light: as the system says, or as was chosen here. Loaded first, so that nothing flashes.

const NAME = "punch.theme";
const NEXT = { system: "light", light: "dark", dark: "system" };
const WORDS = { system: "System", light: "Light", dark: "Dark" };

function chosen() {
  try {
    const value = localStorage.getItem(NAME);
    return value === "light" || value === "dark" ? value : "system";
  } catch {
    return "system";
  }
}

function apply(theme) {
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  const button = document.getElementById("theme");
  button?.setAttribute("aria-label", `Theme: ${WORDS[theme].toLowerCase()}. Change it`);
  const text = document.getElementById("theme-text");
  if (text) text.textContent = WORDS[theme];
}

apply(chosen());

document.getElementById("theme")?.addEventListener("click", () => {
  const theme = NEXT[chosen()];
  try {
    localStorage.setItem(NAME, theme);
  } catch {
    // It lasts as long as the page, then.
  }
  apply(theme);
});
