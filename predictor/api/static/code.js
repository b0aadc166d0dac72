// The request of the form as code to copy.

const shell = (text) => `'${text.replaceAll("'", `'\\''`)}'`;
const python = (value) => {
  if ((value ?? null) === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (Array.isArray(value)) return `[${value.map(python).join(", ")}]`;
  if (typeof value === "object" && !JSON.isRawJSON?.(value)) return `{${Object.entries(value).map(([name, each]) => `${JSON.stringify(name)}: ${python(each)}`).join(", ")}}`;
  return JSON.stringify(value);
};

/** `base`: the URL of the API; `hasKey`: whether requests carry one. */
export function snippet(language, { base, mode, value, hasKey }) {
  return { curl, python: inPython, javascript }[language](`${base}predict`, mode, value, hasKey);
}

export const headers = (mode, key) => ({
  "Content-Type": "application/json",
  ...(mode === "async" && { "Async-Mode": "true" }),
  ...(mode === "stream" && { Accept: "text/event-stream" }),
  ...(key && { Authorization: `Bearer ${key}` }),
});

function curl(url, mode, value, hasKey) {
  const lines = Object.entries(headers(mode, hasKey && "$PREDICTOR_API_KEY")).map(([name, each]) => `-H "${name}: ${each}"`);
  return [`curl -s${mode === "stream" ? "N" : ""} ${url}`, ...lines, `-d ${shell(JSON.stringify({ input: value }))}`].join(" \\\n  ");
}

function inPython(url, mode, value, hasKey) {
  const base = url.slice(0, -"/predict".length);
  const client = `Client(${JSON.stringify(base)}${hasKey ? ', api_key=os.environ["PREDICTOR_API_KEY"]' : ""})`;
  const calls = {
    sync: `    print(client.predict(${python(value)}))`,
    async: `    prediction = client.submit(${python(value)})\n    print(prediction.id, prediction.wait())`,
    stream: `    for piece in client.stream(${python(value)}):\n        print(piece, end="", flush=True)`,
  };
  return `${hasKey ? "import os\n\n" : ""}from predictor.client import Client\n\nwith ${client} as client:\n${calls[mode]}`;
}

function javascript(url, mode, value, hasKey) {
  const request = `const response = await fetch(${JSON.stringify(url)}, {
  method: "POST",
  headers: ${JSON.stringify(headers(mode, hasKey && "YOUR_KEY"))},
  body: JSON.stringify({ input: ${JSON.stringify(value)} }),
});`;
  const rest = {
    sync: "console.log((await response.json()).result);",
    async: `const { prediction_id: id } = await response.json();
let answer = response;
while (answer.status === 202) {
  answer = await fetch(\`${url}/\${id}\`, { headers: { Prefer: "wait=30"${hasKey ? ', Authorization: "Bearer YOUR_KEY"' : ""} } });
}
console.log((await answer.json()).output.result);`,
    stream: `for await (const text of response.body.pipeThrough(new TextDecoderStream())) {
  console.log(text);
}`,
  };
  return `${request}\n${rest[mode]}`;
}
