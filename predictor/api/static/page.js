// The page: a form for this service's model, its answer, and what runs.

import { failure } from "./answer.js";
import { Refused, askForKey, json, parse, send } from "./api.js";
import { snippet } from "./code.js";
import { $, copy, h } from "./dom.js";
import { Form, isBytes, resolve } from "./form.js";
import { Run } from "./run.js";
import { Watch } from "./watch.js";
import { Well } from "./well.js";

const base = new URL(".", location.href).href;
let form = null;
let current = null;
const languages = ["curl", "python", "javascript"];
let language = "curl";
let givesBytes = false;

const mode = () => document.querySelector('input[name="mode"]:checked').value;

async function load() {
  try {
    const openapi = await json(await send("openapi.json"), JSON.parse);
    const { PredictionRequest, PredictionOutput } = openapi.components.schemas;
    const { summary, description } = openapi.info;
    $("model-name").textContent = summary;
    document.title = `${summary} – Predictor`;
    $("description").textContent = description.split(/(?:^|\n\n)---\n/)[0];
    givesBytes = isBytes(resolve(PredictionOutput.properties.result, openapi));
    form = new Form(PredictionRequest.properties.input, openapi);
    $("fields").replaceChildren(form.node);
    $("run").disabled = false;
    write();
  } catch (error) {
    $("fields").replaceChildren(failure(error.message), h("button", { type: "button", onclick: load }, "Try again"));
  }
}

/** Write the code of the request that the form would send. */
function write() {
  const read = form?.read(true);
  const value = read ? read.value : "…";
  const hasKey = Boolean(sessionStorage.getItem("predictor.key"));
  $("snippet").textContent = snippet(language, { base, mode: mode(), value: shorten(value), hasKey });
  $("snippet").setAttribute("aria-labelledby", `tab-${language}`);
  for (const name of languages) {
    const tab = $(`tab-${name}`);
    tab.ariaSelected = name === language;
    tab.tabIndex = name === language ? 0 : -1;
  }
}

/** Long strings, as files are, would make the page slow. */
const shorten = (value) => parse(JSON.stringify(value, (_, each) => (typeof each === "string" && each.length > 2000 ? `${each.slice(0, 200)}…` : each)));

function begin() {
  current?.leave();
  current = new Run(givesBytes, (run) => {
    if (run !== current) return;
    $("cancel").hidden = run.isOver;
    $("answer").ariaBusy = !run.isOver;
  });
  return current;
}

async function submit(event) {
  event.preventDefault();
  const read = form?.read();
  if (!read) return;
  const run = begin();
  try {
    await run.begin(mode(), read.value, (id) => watch.add(id));
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    $("answer").replaceChildren(failure(error.message));
    form.show(problems(error.message));
  }
}

/** From the service's `Field 'input.a[0]' must be …`, once for each field. */
function problems(message) {
  return [...message.matchAll(/Field '([^']+)' ((?:(?!Field ')[^])*)/g)].map(([, path, text]) => ({ path, text: text.trim() }));
}

const watch = new Watch((id) => {
  begin().open(id);
  $("answer").focus();
});

$("form").addEventListener("submit", submit);
$("form").addEventListener("input", write);
$("form").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("form").requestSubmit();
});
$("cancel").addEventListener("click", () => current?.cancel());
$("copy").addEventListener("click", () => copy($("snippet").textContent, $("copy")));
$("key-button").addEventListener("click", async () => {
  if (await askForKey()) location.reload();
});
languages.forEach((name, index) => {
  const choose = (step) => {
    language = languages.at((index + step) % languages.length);
    write();
    $(`tab-${language}`).focus();
  };
  $(`tab-${name}`).addEventListener("click", () => choose(0));
  $(`tab-${name}`).addEventListener("keydown", ({ key }) => {
    if (key === "ArrowRight") choose(1);
    if (key === "ArrowLeft") choose(-1);
  });
});
load();
new Well();
