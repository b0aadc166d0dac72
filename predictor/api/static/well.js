// How the service does: numbers from /metrics, and their last minutes as small charts.

import { json, message, pause, send } from "./api.js";
import { $, duration, h } from "./dom.js";

const EVERY = 2; // seconds
const LONGEST = 15_000; // milliseconds that an answer may take
const KEPT = 150; // samples: five minutes
const SVG = "http://www.w3.org/2000/svg";
const HISTORY = "predictor.history";

/** The samples of Prometheus' text format. */
const parse = (text) => [...text.matchAll(/^predictor_(\w+)(?:\{(.*)\})? (\S+)/gm)].map(([, name, labels = "", value]) => ({ name, labels, value: Number(value) }));
const sum = (samples, name, which = /^/) => samples.filter((each) => each.name === name && which.test(each.labels)).reduce((all, { value }) => all + value, 0);

/** What is shown, from two looks, `seconds` apart. */
function derive(now, before, seconds) {
  const at = (name) => sum(now, name);
  const per = (name, which) => (before ? Math.max(0, sum(now, name, which) - sum(before, name, which)) : NaN);
  const mean = (name) => per(`${name}_sum`) / per(`${name}_count`);
  return {
    queued: at("queue_depth"),
    oldest: at("queue_oldest_seconds"),
    running: at("running"),
    slots: at("slots"),
    workers: at("workers"),
    rate: per("predictions_total") / seconds,
    failed: per("predictions_total", /outcome="(?!succeeded|canceled)/) / seconds,
    wait: mean("queue_wait_seconds"),
    run: mean("run_seconds"),
  };
}

const TILES = [
  ["queued", "Queued", (it) => it.queued, (it) => (it.oldest > 1 ? `oldest ${duration(it.oldest)}` : "")],
  ["running", "Running", (it) => it.running, (it) => `of ${it.slots} slots`],
  ["workers", "Workers", (it) => it.workers, (it) => (it.workers ? "alive" : "none is alive")],
  ["rate", "Ended per second", (it) => number(it.rate), (it) => (it.failed > 0 ? `${number(it.failed)} failed` : "")],
  ["wait", "Mean wait", (it) => duration(it.wait), () => "in the queue"],
  ["run", "Mean run", (it) => duration(it.run), () => ""],
];

const number = (value) => (Number.isFinite(value) ? value.toFixed(value < 10 ? 1 : 0) : "–");

export class Well {
  #history = JSON.parse(sessionStorage.getItem(HISTORY) ?? "[]"); // NaN has become null
  #before = null;
  #tiles = new Map();

  constructor() {
    for (const [name, label] of TILES) {
      const tile = { value: h("p.figure"), note: h("p.note"), chart: chart(label) };
      this.#tiles.set(name, tile);
      $("tiles").append(h("div.tile", { id: `tile-${name}` }, h("h3", {}, label), tile.value, tile.note, tile.chart.node));
    }
    this.#loop();
  }

  async #loop() {
    for (;;) {
      if (!document.hidden) {
        await this.#look().catch(() => {
          this.#health("not reachable");
          this.#note("The service cannot be reached.");
        });
      }
      await pause(EVERY);
    }
  }

  async #look() {
    const options = { quiet: true, signal: AbortSignal.timeout(LONGEST) };
    const [metrics, ready] = await Promise.all(["metrics", "health/ready"].map((path) => send(path, options)));
    this.#health(await json(ready).then(() => "", message));
    if (!metrics.ok) return this.#note(await json(metrics).catch(message));
    this.#note("");
    const now = parse(await metrics.text());
    const at = performance.now() / 1000;
    const it = derive(now, this.#before?.now, this.#before ? at - this.#before.at : EVERY);
    this.#before = { now, at };
    this.#history.push(it);
    if (this.#history.length > KEPT) this.#history.shift();
    sessionStorage.setItem(HISTORY, JSON.stringify(this.#history));
    return this.#show(it);
  }

  #show(it) {
    for (const [name, , value, note] of TILES) {
      const tile = this.#tiles.get(name);
      tile.value.textContent = value(it);
      tile.note.textContent = note(it);
      tile.chart.draw(this.#history.map((each) => each[name]));
    }
    $("tile-workers").classList.toggle("alarm", !it.workers);
  }

  #health(problem) {
    $("health").className = problem ? "unready" : "ready";
    $("health").textContent = problem || "ready";
  }

  #note(text) {
    $("well-note").textContent = text;
    $("well-note").hidden = !text;
    $("tiles").classList.toggle("stale", Boolean(text));
  }
}

/** A line chart without axes: its right end is now, its height the largest value. */
function chart(label) {
  const node = document.createElementNS(SVG, "svg");
  const [line, area] = ["polyline", "polygon"].map((name) => document.createElementNS(SVG, name));
  const attributes = { viewBox: `0 0 ${KEPT - 1} 30`, preserveAspectRatio: "none", role: "img", "aria-label": `${label}, the last five minutes` };
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(area, line);
  const draw = (values) => {
    const most = Math.max(...values.filter(Number.isFinite), 0) || 1;
    const first = KEPT - values.length;
    const points = values.map((value, index) => `${first + index},${(29 - 27 * ((Number.isFinite(value) ? value : 0) / most)).toFixed(1)}`);
    line.setAttribute("points", points.join(" "));
    area.setAttribute("points", `${first},30 ${points.join(" ")} ${KEPT - 1},30`);
  };
  return { node, draw };
}
