// Opens ffi/examples/web/ in headless Chromium and looks at what it shows.
//     node tests/wasm/page.mjs [SCREENSHOT.png]
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { execFile } from "node:child_process";

const root = join(dirname(fileURLToPath(import.meta.url)), "../..");
const types = { ".html": "text/html", ".js": "text/javascript", ".json": "application/json", ".wasm": "application/wasm" };
const server = createServer((request, response) => {
  const path = normalize(decodeURIComponent(new URL(request.url, "http://localhost").pathname));
  const file = join(root, path.endsWith("/") ? `${path}index.html` : path);
  try {
    const body = readFileSync(file);
    response.writeHead(200, { "content-type": types[extname(file)] ?? "application/octet-stream" });
    response.end(body);
  } catch {
    response.writeHead(404).end();
  }
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const profile = mkdtempSync(join(tmpdir(), "libsae-page-"));
const [screenshot] = process.argv.slice(2);
const chromium = process.env.CHROMIUM ?? "chromium";
const flags = [
  "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync",
  `--user-data-dir=${profile}`, "--window-size=1000,760", "--virtual-time-budget=20000",
];
const url = `http://127.0.0.1:${server.address().port}/ffi/examples/web/`;
try {
  const run = promisify(execFile);
  const options = { maxBuffer: 1 << 26, timeout: 120_000 };
  const { stdout: page } = await run(chromium, [...flags, "--dump-dom", url], options);
  const rows = [...page.matchAll(/<td class="number">(\d+)<\/td><td class="number">([\d.]+)<\/td>/g)];
  const status = page.match(/<p id="status"[^>]*>([^<]*)/)?.[1] ?? "";
  assert.match(page, /data-ready="true"/, status);
  assert.match(status, /features fire here.*simd128/);
  assert.ok(rows.length >= 3, `features shown: ${rows.length}`);
  console.log(`page: ${rows.length} features shown, strongest ${rows[0][1]} at ${rows[0][2]}; ${status}`);
  if (screenshot) await run(chromium, [...flags, `--screenshot=${screenshot}`, url], options);
} finally {
  server.close();
  rmSync(profile, { recursive: true, force: true });
}
