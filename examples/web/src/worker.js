// Reads, segments and writes away from the page, so that it stays responsive.

import { UserError } from "./errors.js";
import { loadNetwork } from "./network.js";
import { readImage, writeLabels } from "./nifti.js";
import { checkNetwork, checkPipeline } from "./pipeline.js";
import { measure, segment } from "./segment.js";

const MOST_THREADS = 8;
// largest difference of logits between WebGPU and the CPU, relative to the largest logit
const TOLERANCE = 1e-3;
let opened = { key: null };

self.onmessage = async ({ data: { folder, file, device } }) => {
  const tell = (kind, content = {}) => self.postMessage({ kind, ...content });
  try {
    tell("stage", { text: "Reading the image …" });
    const image = await readImage(file);
    tell("stage", { text: "Loading the network …" });
    const { pipeline, predict, used } = await open(folder, device);
    tell("stage", { text: "Preparing the image …" });
    const start = performance.now();
    const labels = await segment(image, pipeline, predict, (done, all) => tell("progress", { done, all }));
    const seconds = (performance.now() - start) / 1000;
    const bytes = writeLabels(labels, image);
    const result = { bytes, volumes: measure(labels, image, pipeline.labels), notes: image.notes, used, seconds };
    self.postMessage({ kind: "done", ...result }, [bytes.buffer]);
  } catch (error) {
    tell("failed", { message: messageOf(error, file.name), isForeseen: error instanceof UserError });
  }
};

function messageOf(error, name) {
  if (error instanceof UserError) return error.message;
  if (error instanceof RangeError) return `${name}: the browser does not have enough memory for this image. Use python -m monai_unetpp.runner instead.`;
  const [reason] = String(error?.message ?? error).split("\n");
  if (reason.startsWith("no available backend")) return `ort/: ONNX Runtime cannot be loaded (${reason.replace(/\.$/, "")}). Build the page again.`;
  return `${name}: ${reason}`;
}

async function open(folder, device) {
  const key = `${folder} ${device}`;
  if (opened.key === key) return opened;
  const models = `models/${encodeURIComponent(folder)}`;
  const pipeline = await fetched(`${models}/pipeline.json`).then((response) =>
    response.json().catch(() => {
      throw new UserError(`${folder}: its pipeline.json is damaged. Export the bundle again.`);
    }),
  );
  checkPipeline(pipeline, folder);
  const bytes = new Uint8Array(await fetched(`${models}/${encodeURIComponent(pipeline.network.files[0])}`).then((r) => r.arrayBuffer()));
  await checkNetwork(bytes, pipeline, folder);
  // not before, as the network is still of use where another one is missing
  await opened.predict?.release();
  opened = { key: null };
  const network = (device !== "wasm" && (await withWebGpu(bytes, pipeline))) || (await withProcessor(bytes, pipeline));
  opened = { key, pipeline, ...network };
  return opened;
}

async function fetched(path) {
  const response = await fetch(path).catch(() => {
    throw new UserError("the page's server cannot be reached. Start it again with npm start.");
  });
  if (!response.ok) throw new UserError(`${path}: missing. Build the page again with this folder.`);
  return response;
}

async function withProcessor(bytes, { windows }) {
  const ort = await runtime("wasm");
  const threads = ort.env.wasm.numThreads;
  return { predict: await loadNetwork(ort, bytes, windows.shape, "wasm"), used: `processor, ${threads} ${threads === 1 ? "thread" : "threads"}` };
}

/** The network on WebGPU, if there is one that gives the logits of the processor. */
async function withWebGpu(bytes, { windows }) {
  if (!(await navigator.gpu?.requestAdapter())) return null;
  let predict, expected;
  let agrees = false;
  try {
    const ort = await runtime("webgpu");
    predict = await loadNetwork(ort, bytes, windows.shape, "webgpu");
    expected = await loadNetwork(ort, bytes, windows.shape, "wasm");
    const trial = Float32Array.from({ length: windows.shape.reduce((a, b) => a * b) }, (_, index) => Math.sin(index * index));
    agrees = areNear(await predict(trial), await expected(trial));
  } catch (error) {
    console.warn(`WebGPU is not used: ${error.message}`);
  }
  await expected?.release();
  if (!agrees) await predict?.release();
  return agrees ? { predict, used: "WebGPU" } : null;
}

function areNear(found, expected) {
  const largest = expected.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  return found.every((value, index) => Math.abs(value - expected[index]) <= TOLERANCE * largest);
}

async function runtime(kind) {
  const path = `ort/ort.${kind}.min.mjs`;
  const ort = await import(new URL(path, self.location).href).catch(() => {
    throw new UserError(`${path}: cannot be loaded. Start the page's server again, or build the page again.`);
  });
  ort.env.wasm.wasmPaths = new URL("ort/", self.location).href;
  ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency, MOST_THREADS) : 1;
  return ort;
}
