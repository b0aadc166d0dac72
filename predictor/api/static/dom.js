// Elements. Text is always text: nothing here parses HTML.

export const $ = (id) => document.getElementById(id);

/** An element, as `tag.class`, with properties, attributes (as `aria-…`), listeners and children. */
export function h(tag, properties = {}, ...children) {
  const [kind, ...classes] = tag.split(".");
  const element = document.createElement(kind);
  element.classList.add(...classes);
  for (const [name, value] of Object.entries(properties)) {
    if ((value ?? false) === false) continue;
    if (name in element && !name.includes("-")) element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => (child ?? null) !== null));
  return element;
}

/** A button that is no more than its label. */
export const button = (label, onclick) => h("button.plain", { type: "button", onclick }, label);

export async function copy(text, button) {
  const label = (button.dataset.label ??= button.textContent);
  const isCopied = await navigator.clipboard?.writeText(text).then(() => true, () => false);
  button.textContent = isCopied || select(text, button) ? "Copied" : "Not copied";
  setTimeout(() => (button.textContent = label), 1500);
}

/** Copy as browsers can on plain HTTP, too: what is selected. */
function select(text, button) {
  const area = h("textarea.unseen", { value: text });
  button.after(area);
  area.select();
  const isCopied = document.execCommand("copy");
  area.remove();
  button.focus();
  return isCopied;
}

/** Seconds as a person writes them: 340 ms, 2.4 s, 3 min 05 s. */
export function duration(seconds) {
  if (!Number.isFinite(seconds)) return "–";
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  const [minutes, rest] = [Math.floor(whole / 60), String(whole % 60).padStart(2, "0")];
  return minutes < 60 ? `${minutes} min ${rest} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}
