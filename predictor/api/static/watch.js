// The predictions of this browser, followed over one stream of server-sent events, kept over a reload.

import { cancel, events, json, message, pause, send } from "./api.js";
import { $, button, copy, duration, h } from "./dom.js";

const KEPT = "predictor.watched";
const MOST = 300;
const PER_FRAME = 25; // rows that change in one frame, so that it is not late
const ACTIVE = new Set(["queued", "running", "submitted"]);
const isActive = ({ status }) => !status || ACTIVE.has(status.status);

export class Watch {
  #rows = new Map(); // id → { at, status, cells }
  #changed = new Map(); // id → status, to be shown in the next frame
  #stop = new AbortController();
  #timer = 0;
  #isKeyless = false; // the dialog was closed: it is not shown again

  /** `open` is called with the id of a row that is opened. */
  constructor(open) {
    this.open = open;
    for (const { id, at } of kept().reverse()) this.#add(id, at);
    $("clear").addEventListener("click", () => this.#clear());
    setInterval(() => this.#tick(), 1000);
    this.#restart();
  }

  add(id) {
    const at = Date.now();
    this.#add(id, at);
    keep([{ id, at }, ...kept()].slice(0, MOST));
    this.#restart();
  }

  #add(id, at) {
    if (this.#rows.has(id)) return;
    const cells = {
      state: h("span.badge.submitted", {}, "submitted"),
      progress: h("progress", { max: 1, hidden: true, "aria-label": "Progress" }),
      note: h("span.note"),
      time: h("td.number"),
      cancel: button("Cancel", () => this.#cancel(id)),
    };
    const name = button(`…${id.slice(-8)}`, () => copy(id, name));
    name.classList.add("id");
    name.title = `Copy ${id}`;
    const open = button("Open", () => this.open(id));
    cells.row = h("tr", {}, h("td", {}, cells.state), h("td", {}, name), h("td", {}, cells.progress, cells.note), cells.time, h("td.number.row-actions", {}, open, cells.cancel));
    this.#rows.set(id, { at, status: null, cells });
    $("rows").prepend(cells.row);
    while (this.#rows.size > MOST) this.#remove(this.#rows.keys().next().value);
    this.#frame();
  }

  #remove(id) {
    this.#rows.get(id)?.cells.row.remove();
    this.#rows.delete(id);
  }

  #ids(areActive) {
    return [...this.#rows].filter(([, row]) => isActive(row) === areActive).map(([id]) => id);
  }

  #clear() {
    const ended = this.#ids(false);
    ended.forEach((id) => this.#remove(id));
    keep(kept().filter(({ id }) => !ended.includes(id)));
    this.#restart();
    this.#frame();
  }

  async #cancel(id) {
    const { note } = await cancel(id);
    const row = this.#rows.get(id);
    if (row && note) row.cells.note.textContent = note;
  }

  #restart() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#stop.abort();
      this.#stop = new AbortController();
      this.#follow(this.#stop.signal);
    }, 50);
  }

  async #follow(signal) {
    for (let wait = 1; !signal.aborted; wait = Math.min(2 * wait, 10)) {
      const ids = this.#ids(true);
      if (!ids.length) return;
      try {
        const query = new URLSearchParams(ids.map((id) => ["id", id]));
        const response = await send(`events?${query}`, { signal, quiet: this.#isKeyless });
        if (!response.ok) await json(response);
        for await (const { event, data } of events(response)) {
          wait = 0.5;
          this.#note("");
          if (event === "status") this.#changed.set(data.prediction_id, data);
          this.#frame();
        }
      } catch (error) {
        if (signal.aborted) return;
        this.#note(`Not followed at the moment: ${message(error)}`);
        this.#isKeyless ||= error.status === 401;
        if (error.status === 401) return;
      }
      await pause(wait);
    }
  }

  #note(text) {
    const note = $("watch-note");
    set(note, "textContent", text);
    note.hidden = !text && this.#rows.size > 0;
  }

  #frame() {
    if (this.isDue) return;
    this.isDue = true;
    requestAnimationFrame(() => {
      this.isDue = false;
      for (const [id, status] of [...this.#changed].slice(0, PER_FRAME)) {
        this.#changed.delete(id);
        this.#show(id, status);
      }
      if (this.#changed.size) this.#frame();
      const { size } = this.#rows;
      $("watch").querySelector("table").hidden = !size;
      $("clear").hidden = !size;
      if (size && $("watch-note").textContent.startsWith("Async")) $("watch-note").hidden = true;
    });
  }

  #show(id, status) {
    const row = this.#rows.get(id);
    if (!row) return;
    row.status = status;
    const { state, progress, note, cancel } = row.cells;
    set(state, "textContent", status.status.replace("_", " "));
    set(state, "className", `badge ${status.status}`);
    set(progress, "hidden", !(status.status === "running" && status.progress));
    if (status.progress) progress.value = status.progress.fraction;
    set(note, "textContent", about(status));
    cancel.hidden = !ACTIVE.has(status.status);
    this.#time(row);
  }

  #tick() {
    for (const row of this.#rows.values()) if (isActive(row)) this.#time(row);
  }

  #time({ at, status, cells }) {
    const from = new Date(status?.created ?? at);
    const to = new Date(status?.finished ?? Date.now());
    const text = status?.status === "unknown" ? "" : duration(Math.max(0, to - from) / 1000);
    set(cells.time, "textContent", text);
  }
}

/** A write, even of the same, has the browser lay the table out again. */
function set(element, name, value) {
  if (element[name] !== value) element[name] = value;
}

function about({ status, position, estimated_start: start, progress, tries, error }) {
  if (status === "unknown") return "no longer kept";
  if (status === "queued") {
    const wait = Math.max(0, new Date(start) - Date.now()) / 1000;
    return [position && `number ${position}`, start && `starts in ${duration(wait)}`].filter(Boolean).join(", ");
  }
  if (status === "running") return [progress?.message, tries > 1 && `try ${tries}`].filter(Boolean).join(", ");
  return error ?? "";
}

/** Newest first. Other tabs write to the list, too: read it just before. */
const keep = (list) => localStorage.setItem(KEPT, JSON.stringify(list));

function kept() {
  try {
    const list = JSON.parse(localStorage.getItem(KEPT) ?? "[]");
    return list.filter(({ id }) => /^[\w-]{1,64}$/.test(id)).slice(0, MOST);
  } catch {
    return [];
  }
}
