// What the page says, in the language that is chosen; and whether it is light or dark.

const remember = (key, value) => {
  try { localStorage.setItem(key, value); } catch { /* a browser that keeps nothing */ }
};
const remembered = (key) => {
  try { return localStorage.getItem(key); } catch { return null; }
};

let all = {};
let language = "en";

export const text = (key, values = {}) =>
  (all[language][key] ?? key).replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");

function write() {
  document.documentElement.lang = language;
  for (const element of document.querySelectorAll("[data-text]")) element.textContent = text(element.dataset.text);
  for (const element of document.querySelectorAll("[data-label]")) element.setAttribute("aria-label", text(element.dataset.label));
}

export const isDark = () => {
  const theme = document.documentElement.dataset.theme;
  return theme === "dark" || (theme !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);
};

/** Load the texts, and call `changed` whenever language or appearance become others. */
export async function setUpTexts(changed) {
  all = await (await fetch("texts.json")).json();
  const wanted = remembered("language") ?? navigator.language.slice(0, 2);
  language = wanted in all ? wanted : "en";
  write();
  const chooser = document.getElementById("language");
  chooser.value = language;
  chooser.addEventListener("change", () => {
    language = chooser.value;
    remember("language", language);
    write();
    changed();
  });
  const theme = document.getElementById("theme");
  const dress = () => {
    if (theme.value === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme.value;
  };
  theme.value = remembered("theme") ?? "auto";
  if (!theme.value) theme.value = "auto";
  dress();
  theme.addEventListener("change", () => { remember("theme", theme.value); dress(); changed(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", changed);
}
