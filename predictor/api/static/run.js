// One prediction from the form, or one that is opened from the list, shown as it comes.

import { failure, times, timing, value } from "./answer.js";
import { Refused, cancel, events, json, message, path, pause, send } from "./api.js";
import { headers } from "./code.js";
import { $, h } from "./dom.js";

const STATES = { 401: "refused", 404: "unknown", 410: "canceled", 504: "timed_out" };

export class Run {
  #stop = new AbortController();
  #state = h("p.state");
  #progress = h("progress", { max: 1, hidden: true, "aria-label": "Progress" });
  #pieces = h("div.pieces");
  id = null;
  isOver = false;

  /** `isBytes`: whether results are base64; `onchange` is called when it begins and ends. */
  constructor(isBytes, onchange) {
    Object.assign(this, { isBytes, onchange });
    $("answer").replaceChildren(this.#state, this.#progress, this.#pieces);
  }

  /** Run an input. `accepted` is called with the id of an async one. Throws Refused. */
  async begin(mode, input, accepted) {
    const began = performance.now();
    this.#say(mode === "async" ? "submitting" : "running");
    await this.#guard(async () => {
      const options = { method: "POST", headers: headers(mode), body: JSON.stringify({ input }), signal: this.#stop.signal };
      const response = await send("predict", options);
      if (mode === "stream" && response.ok) return this.#stream(response, began);
      const body = await json(response);
      if (mode !== "async") return this.#done(body.result, timing(response.headers.get("Server-Timing")));
      accepted(body.prediction_id);
      return this.#follow(body.prediction_id);
    });
  }

  /** Show a prediction that was accepted before. */
  open(id) {
    return this.#guard(() => this.#follow(id));
  }

  /** Cancel it; a sync one by leaving. */
  async cancel() {
    if (!this.id) return this.#stop.abort();
    const { status = "", note } = await cancel(this.id);
    return this.#say(status, note);
  }

  /** Show nothing of it any more; an async one goes on. */
  leave() {
    this.isOver = true;
    this.#stop.abort();
  }

  async #guard(work) {
    this.onchange(this);
    try {
      await work();
    } catch (error) {
      if (error instanceof Refused && error.status === 422 && !this.id) throw error;
      if (this.isOver) return;
      if (error.name === "AbortError") this.#fail("Canceled.", "canceled");
      else this.#fail(message(error), STATES[error.status]);
    } finally {
      this.isOver = true;
      this.#progress.hidden = true;
      this.onchange(this);
    }
  }

  async #follow(id) {
    this.id = id;
    for (let last = ""; !this.isOver; ) {
      try {
        const response = await send(`${path(id)}/events`, { headers: last ? { "Last-Event-ID": last } : {}, signal: this.#stop.signal });
        if (response.status === 204) return await this.#result(id);
        if ([401, 404].includes(response.status)) await json(response);
        if (response.ok) {
          for await (const event of events(response)) {
            last = event.id || last;
            this.#show(event);
            if (event.event === "completed") return await this.#result(id);
          }
        }
      } catch (error) {
        if (error.name === "AbortError" || error instanceof Refused) throw error;
        this.#say("reconnecting", message(error));
      }
      await pause(1);
    }
    return undefined;
  }

  async #result(id) {
    const response = await send(path(id), { headers: { Accept: "application/json" }, signal: this.#stop.signal });
    const body = await json(response);
    this.#done(body.output.result, timing(response.headers.get("Server-Timing")));
  }

  async #stream(response, began) {
    for await (const event of events(response)) {
      this.#show(event);
      if (event.event !== "completed") continue;
      const { output, error, status } = event.data;
      if (!output) return this.#fail(error, status);
      return this.#done(output.result, { queue: 0, run: (performance.now() - began) / 1000 });
    }
    return this.#fail("The stream broke off.");
  }

  #show({ event, data }) {
    if (event === "status") this.#say(data.status, data.try > 1 ? `try ${data.try}` : "");
    if (event === "progress") {
      Object.assign(this.#progress, { hidden: false, value: data.fraction });
      this.#say("running", data.message);
    }
    if (event !== "output") return;
    if (typeof data === "string" && !this.isBytes) this.#pieces.append(data);
    else this.#pieces.append(value(data, this.isBytes));
  }

  #say(state, more = "") {
    this.#state.replaceChildren(h("span", { className: `badge ${state}` }, state.replace("_", " ")), more ? ` ${more}` : "");
  }

  #done(result, took) {
    this.#say("succeeded");
    this.#pieces.replaceChildren(value(result, this.isBytes));
    if (took) this.#pieces.append(times(took));
  }

  #fail(text, state = "failed") {
    this.#say(state);
    this.#pieces.append(failure(text));
  }
}
