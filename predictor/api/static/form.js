// A form for a JSON schema. A field is { node, read(problems), set(value) }; `read` returns undefined for
// what is left out, and adds { path, text } to `problems` for what the server would refuse.

import { parse } from "./api.js";
import { button, h } from "./dom.js";

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
    this.node = this.field.node;
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
      return this.#choice(real, { ...at, nullable: isNullable });
    }
    const { type } = schema;
    if ("const" in schema) return { node: h("div", { hidden: true }), read: () => schema.const, set() {} };
    if (schema.enum) return this.#select(schema, at);
    if (type === "object" && schema.properties && at.depth !== 6) return this.#object(schema, at);
    if (type === "array" && schema.items && at.depth !== 6) return this.#list(schema, at);
    if (type === "boolean") return this.#boolean(schema, at);
    if (type === "integer" || type === "number") return this.#number(schema, at);
    if (type === "string") return isBytes(schema) ? this.#file(schema, at) : this.#text(schema, at);
    return this.#json(schema, at);
  }

  /** A label, the input, its hint, and a place for its problem. */
  #labelled(input, schema, at, hint = "") {
    const id = `field-${++count}`;
    input.id = id;
    const message = h("p.problem", { id: `${id}-problem` });
    const note = [schema.description, hint].filter(Boolean).join(" ");
    const about = h("p.hint", { id: `${id}-hint` }, note);
    input.setAttribute("aria-describedby", `${id}-hint ${id}-problem`);
    if (at.required && !at.nullable) input.setAttribute("aria-required", "true");
    this.messages.set(at.path, { message, input });
    return h(input.tagName === "TEXTAREA" ? "div.field.wide" : "div.field", {}, h("label", { for: id }, ...name(at)), input, note ? about : null, message);
  }

  #leaf(input, schema, at, hint, parse, format = String) {
    const set = (value) => (input.value = (value ?? null) === null ? "" : format(value));
    set(schema.default ?? (at.required ? schema.examples?.[0] : undefined));
    // Empty text is a value where text is required, or takes the place of a default.
    const isText = schema.type === "string" && (typeof schema.default === "string" || (at.required && !at.nullable));
    const read = (problems) => {
      if (input.value === "" && !isText) return none(schema, at, problems);
      const parsed = parse(input.value);
      if (parsed instanceof Error) problems.push({ path: at.path, text: parsed.message });
      return parsed;
    };
    return { node: this.#labelled(input, schema, at, hint), read, set };
  }

  #text(schema, at) {
    const { format, minLength: least, maxLength: most, pattern } = schema;
    const types = { date: "date", time: "time", email: "email", uri: "url" };
    const isShort = format || most <= 200;
    const input = isShort ? h("input", { type: types[format] ?? "text" }) : h("textarea", { rows: at.depth ? 2 : 4 });
    const size = range(least, most);
    const hint = size ? `${size} characters` : format === "date-time" ? "e.g. 2026-01-31T12:00:00Z" : "";
    return this.#leaf(input, schema, at, hint, (text) => {
      const size = [...text].length;
      if (size < least) return must(`have at least ${least} characters`);
      if (size > most) return must(`have at most ${most} characters, not ${size}`);
      if (pattern && !matches(pattern, text)) return must(`match ${pattern}`);
      return text;
    });
  }

  #number(schema, at) {
    const { minimum: low, maximum: high, exclusiveMinimum: above, exclusiveMaximum: below, multipleOf } = schema;
    const isWhole = schema.type === "integer";
    const input = h("input", { type: "number", min: low, max: high, step: multipleOf ?? (isWhole ? 1 : "any"), inputMode: isWhole ? "numeric" : "decimal" });
    const bounds = [range(low, high), above !== undefined && `more than ${above}`, below !== undefined && `less than ${below}`];
    return this.#leaf(input, schema, at, bounds.filter(Boolean).join(", "), (text) => {
      const number = Number(text);
      if (!Number.isFinite(number)) return must("be a number");
      const exact = JSON.rawJSON && /^-?[1-9]\d*$/.test(text);
      if (isWhole && !exact && !Number.isSafeInteger(number)) return must("be a whole number, in digits");
      if (number < low) return must(`be greater than or equal to ${low}`);
      if (number > high) return must(`be less than or equal to ${high}`);
      if (number <= above) return must(`be greater than ${above}`);
      if (number >= below) return must(`be less than ${below}`);
      return exact ? parse(text) : number;
    }, (value) => (Math.abs(value) > 2 ** 53 ? "" : value));
  }

  #boolean(schema, at) {
    if (at.nullable || (!at.required && schema.default === undefined)) return this.#select({ ...schema, enum: [true, false] }, at);
    const input = h("input", { type: "checkbox", checked: schema.default === true });
    const node = this.#labelled(input, schema, { ...at, required: true });
    node.classList.add("check");
    return { node, read: () => input.checked, set: (value) => (input.checked = value === true) };
  }

  #select(schema, at) {
    const blank = !at.required || at.nullable;
    const input = h("select", {}, blank ? h("option", { value: "" }, "–") : null, ...options(schema.enum));
    const set = (value) => (input.value = schema.enum.includes(value) ? schema.enum.indexOf(value) : blank ? "" : 0);
    set(schema.default);
    const read = () => (input.value === "" ? none(schema, at) : schema.enum[input.value]);
    return { node: this.#labelled(input, schema, at), read, set };
  }

  #file(schema, at) {
    const input = h("input", { type: "file" });
    let content = null;
    input.addEventListener("change", async () => {
      content = input.files[0] ? await base64(input.files[0]) : null;
      input.dispatchEvent(new Event("input", { bubbles: true }));
    });
    const read = (problems) => content ?? none(schema, at, problems);
    return { node: this.#labelled(input, schema, at), read, set() {} };
  }

  #json(schema, at) {
    const input = h("textarea.code", { rows: 5, spellcheck: false });
    return this.#leaf(input, schema, at, "JSON; text that is no JSON is sent as a string.", (text) => {
      try {
        return parse(text);
      } catch {
        return schema.type && schema.type !== "string" ? must(`be JSON (${schema.type})`) : text;
      }
    }, (value) => JSON.stringify(value, null, 2));
  }

  #group(schema, at, ...children) {
    const message = h("p.problem");
    this.messages.set(at.path, { message });
    if (at.path === "input") return h("div.members", {}, message, ...children);
    const about = schema.description ? h("p.hint.wide", {}, schema.description) : null;
    const legend = h("legend", {}, ...name(at));
    return h("fieldset", {}, legend, h("div.members", {}, about, message, ...children));
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
    return optional(at, this.#group(schema, at, ...fields.map(([, field]) => field.node)), read, set);
  }

  #list(schema, at) {
    const { minItems: least, maxItems: most } = schema;
    const items = h("div.items");
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
    const buttons = h("div.actions", {}, button("Add", changed(() => add())), button("Remove last", changed(remove)));
    const set = (values) => {
      while (fields.length) remove();
      (values ?? []).forEach(add);
    };
    set(schema.default ?? (at.required ? Array.from({ length: least || 1 }) : []));
    const read = (problems) => {
      if (fields.length < least) problems.push({ path: at.path, text: `must have at least ${least} items.` });
      if (fields.length > most) problems.push({ path: at.path, text: `must have at most ${most} items.` });
      return fields.map((field) => field.read(problems));
    };
    return optional(at, this.#group(schema, at, items, buttons), read, set);
  }

  #choice(variants, at) {
    const names = variants.map((each) => each.title ?? each.type ?? "value");
    const select = h("select", { "aria-label": `Kind of ${at.label}` }, options(names));
    const place = h("div");
    let field;
    const choose = () => {
      field = this.#field(variants[select.value], at);
      place.replaceChildren(field.node);
    };
    select.addEventListener("change", choose);
    choose();
    return optional(at, h("div.choice", {}, select, place), (problems) => field.read(problems), (value) => field.set(value));
  }
}

/** A part that is left out, for its default, until somebody touches it. */
function optional({ required: isTouched }, node, read, fill) {
  node.addEventListener("input", () => (isTouched = true));
  const set = (value) => {
    if (value !== undefined) isTouched = true;
    fill(value);
  };
  return { node, read: (problems) => (isTouched ? read(problems) : undefined), set };
}

/** The value of an empty field: null only where nothing would mean something else. */
function none(schema, at, problems) {
  if (at.nullable && (at.required || (schema.default ?? null) !== null)) return null;
  if (at.required) problems.push({ path: at.path, text: "is required." });
  return undefined;
}

const name = ({ label, required }) => [label, required ? null : h("small", {}, " optional")];
const options = (names) => names.map((name, index) => h("option", { value: index }, String(name)));

const must = (text) => new Error(`must ${text}.`);

function range(low, high) {
  if (low === undefined) return high === undefined ? "" : `at most ${high}`;
  return high === undefined ? `at least ${low}` : `${low} to ${high}`;
}

export const isBytes = (schema) => schema.contentEncoding === "base64" || ["binary", "base64", "base64url"].includes(schema.format);

function matches(pattern, text) {
  try {
    return /\\[wdsb]/i.test(pattern) || new RegExp(pattern, "u").test(text);
  } catch {
    return true; // the server decides
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
