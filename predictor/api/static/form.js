// A form for a JSON schema. A field is { node, read(problems), set(value) }; `read` returns undefined for
// what is left out, and adds { path, text } to `problems` for what the server would refuse.

import { h } from "./dom.js";

let count = 0;

/** A schema with what it refers to in the document `root`. */
export function resolve(schema, root) {
  let found = schema ?? {};
  for (let depth = 0; depth < 20; depth++) {
    const [only] = found.allOf?.length === 1 ? found.allOf : [];
    const next = only ?? (found.$ref && found.$ref.split("/").slice(1).reduce((at, name) => at?.[name], root));
    if (!next) break;
    const { $ref, allOf, ...rest } = found;
    found = { ...next, ...rest };
  }
  return found;
}

export class Form {
  constructor(schema, root) {
    this.root = root;
    this.messages = new Map();
    this.field = this.#field(schema, { path: "input", label: "Input", required: true });
  }

  get node() {
    return this.field.node;
  }

  /** The value; null if there are problems, which are shown. `quiet`: they are not. */
  read(quiet = false) {
    const problems = [];
    const value = this.field.read(problems);
    if (!quiet) this.show(problems);
    return problems.length ? null : { value };
  }

  /** Show problems at their fields; returns those whose field is not here. */
  show(problems) {
    for (const { message, input } of this.messages.values()) {
      message.textContent = "";
      input?.removeAttribute("aria-invalid");
    }
    return problems.filter(({ path, text }, index) => {
      const found = this.messages.get(path);
      if (!found) return true;
      found.message.textContent = text;
      found.input?.setAttribute("aria-invalid", "true");
      if (index === 0) found.input?.focus();
      return false;
    });
  }

  #field(given, at) {
    const schema = resolve(given, this.root);
    const variants = (schema.anyOf ?? schema.oneOf ?? []).map((each) => resolve(each, this.root));
    if (variants.length) {
      const real = variants.filter((each) => each.type !== "null");
      const isNullable = real.length < variants.length;
      const { anyOf, oneOf, ...rest } = schema;
      // Several inputs may be given as the bare first one: the form shows them all.
      const isShort = !at.depth && at.path === "input" && real.length === 2 && real[0].properties && real[0].required?.length === 1;
      if (real.length === 1 || isShort) return this.#field({ ...real[0], ...rest }, { ...at, nullable: isNullable });
      return this.#choice(real, schema, { ...at, nullable: isNullable });
    }
    if ("const" in schema) return { node: h("div", { hidden: true }), read: () => schema.const, set() {} };
    if (schema.enum) return this.#select(schema, at);
    if (schema.type === "object" && schema.properties && at.depth !== 6) return this.#object(schema, at);
    if (schema.type === "array" && schema.items && at.depth !== 6) return this.#list(schema, at);
    if (schema.type === "boolean") return this.#boolean(schema, at);
    if (schema.type === "integer" || schema.type === "number") return this.#number(schema, at);
    if (schema.type === "string") return isBytes(schema) ? this.#file(schema, at) : this.#text(schema, at);
    return this.#json(schema, at);
  }

  /** A label, the input, its hint, and a place for its problem. */
  #labelled(input, schema, at, hint = "") {
    const id = `field-${++count}`;
    input.id = id;
    const message = h("p", { className: "problem", id: `${id}-problem` });
    const note = [schema.description, hint].filter(Boolean).join(" ");
    const about = h("p", { className: "hint", id: `${id}-hint` }, note);
    input.setAttribute("aria-describedby", `${id}-hint ${id}-problem`);
    if (at.required && !at.nullable) input.setAttribute("aria-required", "true");
    this.messages.set(at.path, { message, input });
    const optional = at.required ? null : h("small", {}, " optional");
    return h("div", { className: input.tagName === "TEXTAREA" ? "field wide" : "field" }, h("label", { for: id }, at.label, optional), input, note ? about : null, message);
  }

  #leaf(input, schema, at, hint, parse, format = String) {
    const first = schema.default ?? (at.required ? schema.examples?.[0] : undefined);
    const set = (value) => (input.value = value === undefined || value === null ? "" : format(value));
    set(first);
    const read = (problems) => {
      if (input.value === "" && schema.type !== "string" || input.value === "" && (!at.required || at.nullable)) {
        if (!at.required) return undefined;
        if (at.nullable) return null;
        problems.push({ path: at.path, text: "is required." });
        return undefined;
      }
      const parsed = parse(input.value);
      if (parsed instanceof Error) problems.push({ path: at.path, text: parsed.message });
      return parsed;
    };
    return { node: this.#labelled(input, schema, at, hint), read, set };
  }

  #text(schema, at) {
    const types = { date: "date", time: "time", email: "email", uri: "url" };
    const isShort = types[schema.format] || schema.format || schema.maxLength <= 200;
    const input = isShort ? h("input", { type: types[schema.format] ?? "text" }) : h("textarea", { rows: at.depth ? 2 : 4 });
    const size = range(schema.minLength, schema.maxLength);
    const hint = size ? `${size} characters` : schema.format === "date-time" ? "e.g. 2026-01-31T12:00:00Z" : "";
    return this.#leaf(input, schema, at, hint, (text) => {
      const size = [...text].length;
      if (size < (schema.minLength ?? 0)) return new Error(`must have at least ${schema.minLength} characters.`);
      if (size > (schema.maxLength ?? Infinity)) return new Error(`must have at most ${schema.maxLength} characters, not ${size}.`);
      if (schema.pattern && !matches(schema.pattern, text)) return new Error(`must match ${schema.pattern}.`);
      return text;
    });
  }

  #number(schema, at) {
    const { minimum: low, maximum: high, exclusiveMinimum: above, exclusiveMaximum: below, multipleOf } = schema;
    const isWhole = schema.type === "integer";
    const input = h("input", { type: "number", step: multipleOf ?? (isWhole ? 1 : "any"), inputMode: isWhole ? "numeric" : "decimal" });
    if (low !== undefined) input.min = low;
    if (high !== undefined) input.max = high;
    const bounds = [range(low, high), above !== undefined && `more than ${above}`, below !== undefined && `less than ${below}`];
    return this.#leaf(input, schema, at, bounds.filter(Boolean).join(", "), (text) => {
      const number = Number(text);
      if (!Number.isFinite(number)) return new Error("must be a number.");
      if (isWhole && !Number.isInteger(number)) return new Error("must be a whole number.");
      if (number < low) return new Error(`must be greater than or equal to ${low}.`);
      if (number > high) return new Error(`must be less than or equal to ${high}.`);
      if (number <= above) return new Error(`must be greater than ${above}.`);
      if (number >= below) return new Error(`must be less than ${below}.`);
      return number;
    });
  }

  #boolean(schema, at) {
    const input = h("input", { type: "checkbox", checked: schema.default === true });
    const node = this.#labelled(input, schema, { ...at, required: true });
    node.classList.add("check");
    return { node, read: () => input.checked, set: (value) => (input.checked = value === true) };
  }

  #select(schema, at) {
    const blank = !at.required || at.nullable;
    const options = schema.enum.map((value, index) => h("option", { value: String(index) }, String(value)));
    const input = h("select", {}, blank ? h("option", { value: "" }, "–") : null, ...options);
    const set = (value) => (input.value = schema.enum.includes(value) ? String(schema.enum.indexOf(value)) : blank ? "" : "0");
    set(schema.default);
    const read = () => (input.value === "" ? (at.required ? null : undefined) : schema.enum[Number(input.value)]);
    return { node: this.#labelled(input, schema, at), read, set };
  }

  #file(schema, at) {
    const input = h("input", { type: "file" });
    let content = null;
    input.addEventListener("change", async () => {
      content = input.files[0] ? await base64(input.files[0]) : null;
      input.dispatchEvent(new Event("input", { bubbles: true }));
    });
    const read = (problems) => {
      if (content !== null) return content;
      if (!at.required || at.nullable) return at.required ? null : undefined;
      problems.push({ path: at.path, text: "choose a file." });
      return undefined;
    };
    return { node: this.#labelled(input, schema, at), read, set() {} };
  }

  #json(schema, at) {
    const input = h("textarea", { rows: 5, className: "code", spellcheck: false });
    const hint = "JSON; text that is no JSON is sent as a string.";
    return this.#leaf(input, schema, at, hint, (text) => {
      try {
        return JSON.parse(text);
      } catch {
        return schema.type && schema.type !== "string" ? new Error(`must be JSON (${schema.type}).`) : text;
      }
    }, (value) => JSON.stringify(value, null, 2));
  }

  #group(schema, at, ...children) {
    const message = h("p", { className: "problem" });
    this.messages.set(at.path, { message });
    if (at.path === "input") return h("div", { className: "members" }, message, ...children);
    const about = schema.description ? h("p", { className: "hint wide" }, schema.description) : null;
    const legend = h("legend", {}, at.label, at.required ? null : h("small", {}, " optional"));
    return h("fieldset", {}, legend, h("div", { className: "members" }, about, message, ...children));
  }

  #object(schema, at) {
    const depth = (at.depth ?? 0) + 1;
    const fields = Object.entries(schema.properties).map(([name, each]) => {
      const required = schema.required?.includes(name) ?? false;
      const inside = { path: `${at.path}.${name}`, label: name, required, depth };
      return [name, this.#field(each, inside)];
    });
    const read = (problems) => {
      const before = problems.length;
      const pairs = fields.map(([name, field]) => [name, field.read(problems)]).filter(([, value]) => value !== undefined);
      if (!at.required && !pairs.length) {
        problems.length = before;
        return undefined;
      }
      return Object.fromEntries(pairs);
    };
    const set = (value) => fields.forEach(([name, field]) => field.set(value?.[name]));
    if (schema.default) set(schema.default);
    return { node: this.#group(schema, at, ...fields.map(([, field]) => field.node)), read, set };
  }

  #list(schema, at) {
    const items = h("div", { className: "items" });
    let fields = [];
    const add = (value) => {
      const inside = { path: `${at.path}[${fields.length}]`, label: `${at.label} ${fields.length + 1}`, required: true, depth: (at.depth ?? 0) + 1 };
      const field = this.#field(schema.items, inside);
      if (value !== undefined) field.set(value);
      fields.push(field);
      items.append(field.node);
    };
    const remove = () => fields.pop()?.node.remove();
    const changed = (change) => () => {
      change();
      items.dispatchEvent(new Event("input", { bubbles: true }));
    };
    const buttons = h("div", { className: "actions" },
      h("button", { type: "button", className: "plain", onclick: changed(() => add()) }, "Add"),
      h("button", { type: "button", className: "plain", onclick: changed(remove) }, "Remove last"));
    const set = (values) => {
      while (fields.length) remove();
      (values ?? []).forEach(add);
    };
    set(schema.default ?? (at.required ? Array.from({ length: Math.max(1, schema.minItems ?? 0) }) : []));
    const read = (problems) => {
      if (!at.required && !fields.length) return undefined;
      if (fields.length < (schema.minItems ?? 0)) problems.push({ path: at.path, text: `must have at least ${schema.minItems} items.` });
      if (fields.length > (schema.maxItems ?? Infinity)) problems.push({ path: at.path, text: `must have at most ${schema.maxItems} items.` });
      return fields.map((field) => field.read(problems));
    };
    return { node: this.#group(schema, at, items, buttons), read, set };
  }

  #choice(variants, schema, at) {
    const names = variants.map((each) => each.title ?? each.type ?? "value");
    const select = h("select", { "aria-label": `Kind of ${at.label}` }, names.map((name, index) => h("option", { value: String(index) }, name)));
    const place = h("div");
    let field;
    const choose = () => {
      field = this.#field(variants[Number(select.value)], { ...at, label: at.label });
      place.replaceChildren(field.node);
    };
    select.addEventListener("change", choose);
    choose();
    return { node: h("div", { className: "choice" }, select, place), read: (problems) => field.read(problems), set: (value) => field.set(value) };
  }
}

function range(low, high) {
  if (low !== undefined && high !== undefined) return `${low} to ${high}`;
  if (low !== undefined) return `at least ${low}`;
  return high === undefined ? "" : `at most ${high}`;
}

export const isBytes = (schema) => schema.contentEncoding === "base64" || ["binary", "base64", "base64url"].includes(schema.format);

function matches(pattern, text) {
  try {
    return new RegExp(pattern, "u").test(text);
  } catch {
    return true; // not JavaScript's dialect: the server decides
  }
}

function base64(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onerror = () => reject(reader.error);
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.readAsDataURL(file);
  });
}
