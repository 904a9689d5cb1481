// Makes dist/, the whole page, from exported folders: node build.mjs FOLDER...

import { build } from "esbuild";
import { cp, mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { checkNetwork, checkPipeline } from "./src/pipeline.js";

const root = dirname(fileURLToPath(import.meta.url));
const dist = join(root, "dist");
const RUNTIME = [
  "ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm",
  "ort.webgpu.min.mjs", "ort-wasm-simd-threaded.asyncify.mjs", "ort-wasm-simd-threaded.asyncify.wasm",
];

try {
  const folders = process.argv.slice(2);
  if (!folders.length) throw new Error("Name one or more folders written by monai-unetpp export --format runner.");
  checkNames(folders);
  const models = await Promise.all(folders.map(describe));
  await rm(dist, { recursive: true, force: true });
  await copyModels(models);
  await copyRuntime();
  await bundle();
  console.log(`${dist}: the page with ${models.map(({ folder }) => folder).join(", ")}. Open it with npm start.`);
} catch (error) {
  console.error(error.message);
  process.exitCode = 2;
}

/** The page tells networks apart by the names of their folders. */
function checkNames(paths) {
  const names = paths.map((path) => basename(resolve(path)));
  const twice = names.findIndex((name, index) => names.indexOf(name) !== index);
  if (twice >= 0) throw new Error(`${paths[twice]}: another folder is also named ${names[twice]}. Rename one of them.`);
}

async function describe(path) {
  const folder = basename(resolve(path));
  const pipeline = JSON.parse(
    await readFile(join(path, "pipeline.json"), "utf-8").catch(() => {
      throw new Error(`${path}: has no pipeline.json. Write the folder with monai-unetpp export --format runner --network_format onnx.`);
    }),
  );
  checkPipeline(pipeline, path);
  const network = join(path, pipeline.network.files[0]);
  await checkNetwork(await readFile(network), pipeline, path);
  const title = `${pipeline.name.replaceAll("_", " ")}, ${pipeline.level}, ${pipeline.network.precision}`;
  return { path, folder, title, files: ["pipeline.json", pipeline.network.files[0]] };
}

async function copyModels(models) {
  for (const { path, folder, files } of models) {
    for (const file of files) await cp(join(path, file), join(dist, "models", folder, file));
  }
  const listed = models.map(({ folder, title }) => ({ folder, title }));
  await writeFile(join(dist, "models", "index.json"), `${JSON.stringify(listed, null, 2)}\n`);
}

async function copyRuntime() {
  const source = join(root, "node_modules", "onnxruntime-web", "dist");
  await mkdir(join(dist, "ort"), { recursive: true });
  for (const file of RUNTIME) await cp(join(source, file), join(dist, "ort", file));
}

async function bundle() {
  for (const file of ["index.html", "page.css"]) await cp(join(root, "src", file), join(dist, file));
  await build({
    entryPoints: ["page.js", "worker.js"].map((file) => join(root, "src", file)),
    outdir: dist, bundle: true, format: "esm", minify: true, target: "es2023", logLevel: "error", legalComments: "linked",
  });
}
