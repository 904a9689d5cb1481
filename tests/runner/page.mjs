// Segments with the modules of examples/web what a JSON file lists, and prints what came of each case.

import { readFile, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";

const source = new URL("../../examples/web/src/", import.meta.url);
const { UserError } = await import(new URL("errors.js", source));
const { readImage, writeLabels } = await import(new URL("nifti.js", source));
const { checkNetwork, checkPipeline } = await import(new URL("pipeline.js", source));
const { measure, preprocess, segment } = await import(new URL("segment.js", source));

const cases = JSON.parse(await readFile(process.argv[2], "utf-8"));
const results = [];
for (const each of cases) results.push(await run(each).catch((error) => (error instanceof UserError ? { error: error.message } : Promise.reject(error))));
console.log(JSON.stringify(results));

async function run({ folder, image, output, runtime }) {
  const pipeline = JSON.parse(await readFile(join(folder, "pipeline.json"), "utf-8"));
  checkPipeline(pipeline, basename(folder));
  const bytes = new Uint8Array(await readFile(join(folder, pipeline.network.files[0])));
  await checkNetwork(bytes, pipeline, basename(folder));
  const predict = runtime ? await withRuntime(runtime, bytes, pipeline.windows.shape) : (window) => standIn(window, pipeline.windows.shape);
  const opened = await readImage(new File([await readFile(image)], basename(image)));
  const labels = await segment(opened, pipeline, predict);
  await writeFile(output, writeLabels(labels, opened));
  const { voxels, shape } = preprocess(opened, pipeline);
  await writeFile(`${output}.raw`, voxels);
  return { shape, volumes: measure(labels, opened, pipeline.labels), notes: opened.notes };
}

/** Three logits for each voxel: its value, 0.5 less its value, and a ramp along the last axis of the window. */
async function standIn(window, size) {
  const logits = new Float32Array(3 * window.length);
  window.forEach((value, index) => {
    logits[index] = value;
    logits[window.length + index] = 0.5 - value;
    logits[2 * window.length + index] = (index % size[2]) / 8 - 0.5;
  });
  return logits;
}

async function withRuntime(path, bytes, size) {
  const ort = await import(path);
  const { findNodes, loadNetwork } = await import(new URL("network.js", source));
  if (String(findNodes(bytes, "Conv")) !== "first") throw new Error("the nodes of the network were not found");
  ort.env.wasm.numThreads = 1;
  return loadNetwork(ort, bytes, size, "wasm");
}
