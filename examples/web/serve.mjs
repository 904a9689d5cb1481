// Serves dist/ to this computer alone: node serve.mjs [PORT]

import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { createServer } from "node:http";
import { dirname, extname, join, posix } from "node:path";
import { pipeline } from "node:stream";
import { fileURLToPath } from "node:url";

const TYPES = {
  ".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".mjs": "text/javascript",
  ".json": "application/json", ".wasm": "application/wasm",
};
// with the first two the browser lets WebAssembly use several threads
const HEADERS = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
  "Cache-Control": "no-cache",
};

export const NOT_BUILT = "dist/: holds no page. Build it first: npm run build -- FOLDER...";
export const isBuilt = async (folder) => (await stat(join(folder, "index.html")).catch(() => null)) !== null;

/** A server of a folder at 127.0.0.1; port 0 takes a free one. */
export async function serve(folder, port) {
  const server = createServer(async (request, response) => {
    const name = pathOf(request.url);
    if (name === null) return response.writeHead(400).end();
    const path = join(folder, name.endsWith("/") ? `${name}index.html` : name);
    const found = await stat(path).catch(() => null);
    if (!found?.isFile()) return response.writeHead(404).end();
    const type = TYPES[extname(path)] ?? "application/octet-stream";
    response.writeHead(200, { ...HEADERS, "Content-Type": type, "Content-Length": found.size });
    // it may have been removed meanwhile
    pipeline(createReadStream(path), response, () => response.destroy());
  });
  await new Promise((ready, failed) => server.once("error", failed).listen(port, "127.0.0.1", ready));
  return server;
}

/** The path in a request, without what leads out of the folder; null if it cannot be decoded. */
function pathOf(url) {
  try {
    // on Windows, join would take a backslash for a separator too
    return posix.normalize(decodeURIComponent(new URL(url, "http://localhost").pathname).replaceAll("\\", "/"));
  } catch {
    return null;
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const port = Number(process.argv[2] ?? 8080);
  const dist = join(dirname(fileURLToPath(import.meta.url)), "dist");
  try {
    const server = await serve(dist, port);
    if (await isBuilt(dist)) console.log(`http://127.0.0.1:${server.address().port}/`);
    else {
      server.close();
      console.error(NOT_BUILT);
      process.exitCode = 2;
    }
  } catch (error) {
    const reason = error.code === "EADDRINUSE" ? "it is in use" : error.message.replace(/\.$/, "");
    console.error(`port ${process.argv[2] ?? 8080}: ${reason}. Give another one: npm start -- PORT`);
    process.exitCode = 2;
  }
}
