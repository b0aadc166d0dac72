// Requests to the API that serves this page, with the key of this tab if the API asks for one.

import { $ } from "./dom.js";

const KEY = "predictor.key";
let asking = null;

/** An answer that is not the one that was asked for. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Show the dialog for the key; whether one was given. One dialog, however many requests need it. */
export function askForKey(refused = null) {
  asking ??= new Promise((resolve) => {
    const dialog = $("key-dialog");
    $("key").value = sessionStorage.getItem(KEY) ?? "";
    $("key-problem").textContent = refused ? "The key was refused." : "";
    dialog.addEventListener("close", () => {
      asking = null;
      const key = $("key").value.trim();
      const isGiven = dialog.returnValue === "use";
      if (isGiven && key) sessionStorage.setItem(KEY, key);
      else if (isGiven) sessionStorage.removeItem(KEY);
      $("key").value = "";
      resolve(isGiven);
    }, { once: true });
    dialog.returnValue = "";
    dialog.showModal();
  });
  return asking;
}

/** The response to a request. `quiet`: do not ask for a key. */
export async function send(path, { headers = {}, quiet = false, ...options } = {}) {
  for (;;) {
    const key = sessionStorage.getItem(KEY);
    const more = key && /^[\x21-\x7e]+$/.test(key) ? { Authorization: `Bearer ${key}` } : {};
    const response = await fetch(path, { cache: "no-store", ...options, headers: { ...headers, ...more } });
    if (response.status !== 401 || quiet) return response;
    if (key !== sessionStorage.getItem(KEY)) continue; // another request has asked meanwhile
    if (!(await askForKey(key))) return response;
  }
}

/** JSON; whole numbers that JavaScript would round stay as written. */
export const parse = (text) => JSON.parse(text, /(?<![.\d])\d{16}/.test(text) && exactly);
const exactly = (_, each, { source } = {}) => (source && Number.isInteger(each) && !Number.isSafeInteger(each) ? JSON.rawJSON(source) : each);

/** The JSON of a response. Throws Refused, with the service's own message. */
export async function json(response, read = parse) {
  const body = await response.text().then(read).catch(() => null);
  if (response.ok && body !== null) return body;
  const { status, statusText } = response;
  throw new Refused(status, status === 401 ? "A key is needed: press “API key”." : (body?.error ?? `${status} ${statusText}`));
}

export const path = (id) => `predict/${encodeURIComponent(id)}`;

/** Cancel a prediction: { status, note }. */
export const cancel = (id) => send(`${path(id)}/cancel`, { method: "POST" }).then(json).catch(({ message }) => ({ note: message }));

export const message = (error) => (error instanceof TypeError ? "The service cannot be reached." : error.message);

/** The server-sent events of a response: { event, data, id }, data parsed. */
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  let event = { event: "message", data: [], id: "" };
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const lines = (text + value).split("\n");
      text = lines.pop();
      for (const line of lines) {
        const [, name, content] = /^([^:]*):? ?(.*)$/s.exec(line.replace(/\r$/, "")) ?? [];
        if (name === "data") event.data.push(content);
        else if (name === "event" || name === "id") event[name] = content;
        else if (!line.trim() && event.data.length) {
          yield { ...event, data: parse(event.data.join("\n") || "null") };
          event = { event: "message", data: [], id: "" };
        }
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

export const pause = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));
