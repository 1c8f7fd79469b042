// The chosen theme, before anything is drawn; the rest is in theme.js.
try {
  const theme = localStorage.getItem("punch.theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // Storage may be off: then the system's theme it is.
}
