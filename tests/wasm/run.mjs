// The C library as WebAssembly, in Node: the digests of tests/data/digests.txt at every level that
// the module has, what it imports, and its size. node tests/wasm/run.mjs LIBSAE.WASM
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { Library, SaeError } from "../../ffi/examples/web/libsae.js";

const GOAL_BYTES = 400_000;
// What the module may not be larger than until the goal is met: it holds the readers of every
// publisher, steering and monitoring.
const MAX_BYTES = 1_500_000;
const UNSUPPORTED = 8; // SAE_STATUS_UNSUPPORTED
const root = join(dirname(fileURLToPath(import.meta.url)), "../..");
const fixtures = join(root, "tests/data/fixtures");
const [wasmPath] = process.argv.slice(2);
const wasm = readFileSync(wasmPath);

assert.ok(wasm.length <= MAX_BYTES, `${wasm.length} bytes, at most ${MAX_BYTES}`);
if (wasm.length > GOAL_BYTES) {
  console.log(`missed: libsae.wasm has ${wasm.length} bytes, the goal is ${GOAL_BYTES}`);
}
const imports = WebAssembly.Module.imports(new WebAssembly.Module(wasm));
assert.deepEqual(
  imports.map(({ module, name }) => `${module}.${name}`).sort(),
  ["env.sae_host_allocate", "env.sae_host_free", "env.sae_host_panic"],
  "the module imports the host's three functions and nothing else",
);

/** The values of a .npy file of f32 in C order. */
export function npy(path) {
  const bytes = readFileSync(path);
  const length = bytes[6] === 1 ? bytes.readUInt16LE(8) : bytes.readUInt32LE(8);
  const start = (bytes[6] === 1 ? 10 : 12) + length;
  const header = bytes.toString("latin1", 0, start);
  assert.ok(header.includes("'<f4'") && header.includes("'fortran_order': False"), path);
  return new Float32Array(bytes.buffer.slice(bytes.byteOffset + start, bytes.byteOffset + bytes.length));
}

/** Folders below `folder` that hold a case.json. */
function cases(folder) {
  if (existsSync(join(folder, "case.json"))) return [folder];
  return readdirSync(folder)
    .map((name) => join(folder, name))
    .filter((path) => statSync(path).isDirectory())
    .flatMap(cases);
}

/** A file of weights, or the first below a folder, and the config beside it. */
function checkpoint(place) {
  const files = statSync(place).isFile()
    ? [place]
    : readdirSync(place, { recursive: true }).sort().map((entry) => join(place, entry));
  for (const path of files) {
    if (/\.(safetensors|npz)$/.test(path) && !path.endsWith("golden.npz")) {
      const config = ["cfg.json", "config.json"].map((name) => join(dirname(path), name));
      const found = config.find((path) => existsSync(path));
      return { path, config: found ? readFileSync(found, "utf8") : null };
    }
  }
  return null;
}

/** As tests/reference/digest.rs: number of features, indices, values; then reconstructions. */
function digest(features, reconstructions) {
  const canonical = (values) => {
    const bits = new Uint32Array(values.slice().buffer);
    values.forEach((value, i) => {
      if (Number.isNaN(value)) bits[i] = 0x7fc00000;
    });
    return bits;
  };
  const hash = createHash("sha256");
  const { rowEnds, indices, values } = features.arrays();
  const bits = canonical(values);
  rowEnds.forEach((end, row) => {
    const start = row === 0 ? 0 : rowEnds[row - 1];
    hash.update(new Uint32Array([end - start]));
    hash.update(indices.slice(start, end));
    hash.update(bits.slice(start, end));
  });
  hash.update(canonical(reconstructions));
  return hash.digest("hex");
}

const library = await Library.load(wasm);
const expected = new Map(
  readFileSync(join(root, "tests/data/digests.txt"), "utf8")
    .trim()
    .split("\n")
    .map((line) => line.split("  ").reverse()),
);
assert.ok(library.levels.includes("simd128"), `levels: ${library.levels}`);

let [passed, skipped] = [0, []];
for (const folder of cases(fixtures)) {
  const name = relative(fixtures, folder).replaceAll("\\", "/");
  if (!expected.has(name)) continue; // a form that the digests do not cover
  const json = JSON.parse(readFileSync(join(folder, "case.json"), "utf8"));
  // The tool embeds the demo's files.
  const files = existsSync(join(folder, json.files[0])) ? folder : join(root, "src/bin/sae", name);
  const found = checkpoint(join(files, json.checkpoint ?? ""));
  assert.ok(found, `${name}: no weights that the library reads without std`);
  const rows = npy(join(files, json.inputs ?? "inputs.npy"));
  const settings = Object.entries(json.open_with ?? {}).map(
    ([key, value]) => `${key}=${JSON.stringify(value)}`,
  );
  for (const level of library.levels) {
    let model;
    try {
      model = library.open(readFileSync(found.path), {
        name: found.path,
        config: found.config,
        settings,
        level,
      });
    } catch (error) {
      if (!(error instanceof SaeError) || error.code !== UNSUPPORTED) throw error;
      skipped.push(`${name} (${error.message})`);
      break;
    }
    assert.equal(model.level, level);
    const features = model.encode(rows);
    const found_digest = digest(features, model.decode(features, rows));
    assert.equal(found_digest, expected.get(name), `${name}, level ${level}`);
    features.destroy();
    model.close();
    passed += 1;
  }
}
assert.equal(library.heap.lent, 0, "all memory was given back");
for (const name of skipped) console.log(`skipped: ${name}`);
console.log(`wasm: ${wasm.length} bytes, levels ${library.levels.join(", ")}`);
console.log(`${passed} passed, 0 failed, ${skipped.length} skipped`);
