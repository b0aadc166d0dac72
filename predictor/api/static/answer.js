// What came of a prediction: text, JSON as a tree, an image or a file where it is bytes, times, errors.

import { button, duration, h } from "./dom.js";

const IMAGES = { iVBORw0KGgo: "image/png", "/9j/": "image/jpeg", R0lGOD: "image/gif", UklGR: "image/webp" };
const MOST = 200; // members of a list or an object that are shown at first

/** A value of JSON as elements. `isBytes`: a string is base64. */
export function value(content, isBytes = false) {
  if (isBytes && typeof content === "string") return bytes(content);
  if (content !== null && typeof content === "object") return h("div.tree", {}, tree(content, 0));
  return h("pre.text", {}, typeof content === "string" ? content : JSON.stringify(content));
}

function tree(content, depth, name = null) {
  const isNumber = JSON.isRawJSON?.(content);
  if (content === null || typeof content !== "object" || isNumber) {
    const leaf = h(`span.${isNumber ? "number" : typeof content}`, {}, JSON.stringify(content));
    return h("div", {}, name, leaf);
  }
  const pairs = Object.entries(content);
  const isList = Array.isArray(content);
  if (!pairs.length) return h("div", {}, name, isList ? "[ ]" : "{ }");
  const members = (some) => some.map(([key, child]) => h("li", {}, tree(child, depth + 1, h("span.name", {}, `${isList ? key : JSON.stringify(key)}: `))));
  const list = h("ul", {}, members(pairs.slice(0, MOST)));
  if (pairs.length > MOST) {
    const more = h("li", {}, button(`${pairs.length - MOST} more`, () => more.replaceWith(...members(pairs.slice(MOST, 20 * MOST)))));
    list.append(more);
  }
  const size = `${pairs.length} ${isList ? "item" : "field"}${pairs.length > 1 ? "s" : ""}`;
  return h("details", { open: depth < 3 }, h("summary", {}, name, isList ? `[ ${size} ]` : `{ ${size} }`), list);
}

function bytes(text) {
  const binary = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const start = Object.keys(IMAGES).find((prefix) => text.startsWith(prefix));
  const url = URL.createObjectURL(new Blob([binary], { type: IMAGES[start] ?? "application/octet-stream" }));
  const link = h("a", { href: url, download: "result" }, `Save ${binary.length.toLocaleString("en")} bytes`);
  return h("figure", {}, start ? h("img", { src: url, alt: "The result" }) : null, h("figcaption", {}, link));
}

/** Queue and run time as a bar; `seconds` = { queue, run }. */
export function times(seconds) {
  const parts = Object.entries(seconds);
  const pieces = parts.map(([name]) => h(`span.${name}`));
  parts.forEach(([, part], index) => (pieces[index].style.flexGrow = part * 1e6));
  const legend = parts.map(([name, part]) => h(`span.${name}`, {}, `${name} ${duration(part)}`));
  return h("div.times", {}, h("div.bar", {}, pieces), h("p.legend", {}, legend));
}

/** From `Server-Timing: queue;dur=3.1, run;dur=1002.4`. */
export function timing(header) {
  const found = /queue;dur=([\d.]+), run;dur=([\d.]+)/.exec(header);
  return found && { queue: found[1] / 1000, run: found[2] / 1000 };
}

export function failure(message) {
  return h("div.failure", {}, h("strong", {}, "No result"), h("p", {}, message));
}
