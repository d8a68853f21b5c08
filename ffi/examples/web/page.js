// Loads libsae.wasm, the demo's SAE, activations and labels, and shows the features of a token.
// Serve the repository's root and open ffi/examples/web/ (README.md has the two commands).
import { Library } from "./libsae.js";

const DEMO = "../../../src/bin/sae/demo/";
const TOP = 8;
const element = (id) => document.getElementById(id);

async function fetched(path) {
  const response = await fetch(path);
  if (!response.ok) throw new Error(`${path}: ${response.status} ${response.statusText}`);
  return response;
}
const bytes = async (path) => new Uint8Array(await (await fetched(path)).arrayBuffer());
const json = async (path) => (await fetched(path)).json();

/** The values of a version 1 .npy file of f32. */
function npy(file) {
  const start = 10 + new DataView(file.buffer).getUint16(8, true);
  return new Float32Array(file.buffer.slice(start));
}

function cell(row, content, kind = "") {
  const made = row.insertCell();
  made.className = kind;
  made.append(content);
}

async function main() {
  const [wasm, weights, config, rows, tokens, labels] = await Promise.all([
    bytes("libsae.wasm"),
    bytes(`${DEMO}sae/sae_weights.safetensors`),
    fetched(`${DEMO}sae/cfg.json`).then((response) => response.text()),
    bytes(`${DEMO}activations.npy`).then(npy),
    json(`${DEMO}tokens.json`),
    json(`${DEMO}labels.json`),
  ]);
  const library = await Library.load(wasm);
  const model = library.open(weights, { name: "sae_weights.safetensors", config });
  const start = performance.now();
  const features = model.encode(rows);
  const perToken = ((performance.now() - start) / features.length) * 1000;
  const label = new Map(labels.map(({ index, description }) => [index, description]));

  const show = (token) => {
    for (const button of element("tokens").children) {
      button.setAttribute("aria-pressed", String(Number(button.value) === token));
    }
    const found = features.row(token);
    const body = element("features");
    body.replaceChildren();
    for (const { index, value } of found.slice(0, TOP)) {
      const row = body.insertRow();
      cell(row, String(index), "number");
      cell(row, value.toFixed(3), "number");
      const bar = document.createElement("span");
      bar.className = "bar";
      bar.style.width = `${(120 * value) / found[0].value}px`;
      cell(row, bar);
      cell(row, label.get(index) ?? "");
    }
    element("status").textContent =
      `${found.length} of ${model.dSae} features fire here. libsae ${library.version}, ` +
      `${model.level}, ${perToken.toFixed(0)} microseconds per token.`;
  };
  const choose = (sentence) => {
    element("tokens").replaceChildren();
    tokens.tokens.forEach((token, row) => {
      if (token.sentence !== sentence || token.special) return;
      const button = document.createElement("button");
      button.value = row;
      button.textContent = token.token;
      button.addEventListener("click", () => show(row));
      element("tokens").append(button);
    });
    const last = element("tokens").lastElementChild;
    show(Number((last?.previousElementSibling ?? last).value));
  };
  tokens.sentences.forEach((sentence, i) => {
    element("sentence").add(new Option(sentence, i));
  });
  element("sentence").addEventListener("change", (event) => choose(Number(event.target.value)));
  choose(0);
  document.body.dataset.ready = "true";
}

main().catch((error) => {
  element("status").className = "failed";
  element("status").textContent = error.message;
});
