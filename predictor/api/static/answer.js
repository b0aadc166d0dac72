// What came of a prediction: text, JSON as a tree, an image or a file where it is bytes, times, errors.

import { h, duration } from "./dom.js";

const IMAGES = { iVBORw0KGgo: "image/png", "/9j/": "image/jpeg", R0lGOD: "image/gif", UklGR: "image/webp" };
const MOST = 200; // members of a list or an object that are shown at first

/** A value of JSON as elements. `isBytes`: a string is base64. */
export function value(content, isBytes = false) {
  if (isBytes && typeof content === "string") return bytes(content);
  if (typeof content === "string") return h("pre", { className: "text" }, content);
  if (content === null || typeof content !== "object") return h("pre", { className: "text" }, JSON.stringify(content));
  return h("div", { className: "tree" }, tree(content, 0));
}

function tree(content, depth, name = null) {
  if (content === null || typeof content !== "object") {
    const leaf = h("span", { className: content === null ? "null" : typeof content }, JSON.stringify(content));
    return h("div", {}, name, leaf);
  }
  const pairs = Object.entries(content);
  const isList = Array.isArray(content);
  if (!pairs.length) return h("div", {}, name, isList ? "[ ]" : "{ }");
  const members = (some) => some.map(([key, child]) => h("li", {}, tree(child, depth + 1, h("span", { className: "name" }, `${isList ? key : JSON.stringify(key)}: `))));
  const list = h("ul", {}, members(pairs.slice(0, MOST)));
  if (pairs.length > MOST) {
    const more = h("button", { type: "button", className: "plain" }, `${pairs.length - MOST} more`);
    more.addEventListener("click", () => {
      more.parentElement.remove();
      list.append(...members(pairs.slice(MOST, 20 * MOST)));
    });
    list.append(h("li", {}, more));
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
export function times({ queue, run }) {
  const bar = h("div", { className: "bar", role: "img", "aria-label": `queued ${duration(queue)}, ran ${duration(run)}` });
  const total = Math.max(queue + run, 1e-6);
  for (const [name, part] of [["queue", queue], ["run", run]]) {
    const piece = h("span", { className: name });
    piece.style.flexGrow = String(part / total);
    bar.append(piece);
  }
  const legend = h("p", { className: "legend" }, h("span", { className: "queue" }, `queue ${duration(queue)}`), h("span", { className: "run" }, `run ${duration(run)}`));
  return h("div", { className: "times" }, bar, legend);
}

/** From `Server-Timing: queue;dur=3.1, run;dur=1002.4`. */
export function timing(header) {
  const [queue, run] = ["queue", "run"].map((name) => Number(new RegExp(`${name};dur=([0-9.]+)`).exec(header ?? "")?.[1] ?? NaN) / 1000);
  return Number.isFinite(queue) && Number.isFinite(run) ? { queue, run } : null;
}

export function failure(message) {
  return h("div", { className: "failure" }, h("strong", {}, "No result"), h("p", {}, message));
}
