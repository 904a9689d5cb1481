// Segments an image with the built page in headless Chromium, and tells what came of it.

import { mkdir, mkdtemp, readFile, readdir, rm, stat } from "node:fs/promises";
import { cpus, tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import puppeteer from "puppeteer-core";
import { NOT_BUILT, isBuilt, serve } from "./serve.mjs";
import { readNifti } from "./src/nifti.js";

const root = dirname(fileURLToPath(import.meta.url));
const USAGE = "npm run check -- FOLDER IMAGE [--expected LABELS] [--pictures DIR] [--device wasm|webgpu]";
const LIMIT_MS = 20 * 60_000;
// the processor draws, and computes WebGPU where that is asked for
const FLAGS = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--window-size=1280,800"];
const WEBGPU_FLAGS = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan"];

const { options, folder, image } = await readArguments().catch(stop);
const browser = await puppeteer.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: [...FLAGS, ...(options.device === "webgpu" ? WEBGPU_FLAGS : []), ...(process.getuid?.() === 0 ? ["--no-sandbox"] : [])],
  protocolTimeout: LIMIT_MS,
}).catch((error) => stop({ message: `${error.message.split("\n")[0]}. CHROMIUM=PATH names another browser.` }));
const server = await serve(join(root, "dist"), 0);
const scratch = await mkdtemp(join(tmpdir(), "page-"));
try {
  console.log(JSON.stringify(await check(), null, 2));
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
} finally {
  await browser.close();
  server.close();
  await rm(scratch, { recursive: true });
}

/** What can be seen to be wrong before the long work. */
async function readArguments() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { expected: { type: "string" }, pictures: { type: "string" }, device: { type: "string", default: "wasm" } },
  });
  if (positionals.length !== 2 || !["wasm", "webgpu"].includes(values.device)) throw new Error(USAGE);
  if (!(await isBuilt(join(root, "dist")))) throw new Error(NOT_BUILT);
  const [path, image] = positionals;
  for (const file of [image, values.expected].filter((each) => each !== undefined)) {
    if (!(await stat(file).catch(() => null))?.isFile()) throw new Error(`${file}: no such file.`);
  }
  return { options: values, folder: basename(path), image };
}

function stop(error) {
  console.error(error.message);
  process.exit(2);
}

async function check() {
  const page = await browser.newPage();
  await page.setViewport({ width: 1280, height: 800 });
  const seen = watch(page);
  await page.goto(`http://127.0.0.1:${server.address().port}/?folder=${encodeURIComponent(folder)}&device=${options.device}`);
  const picker = await page.waitForSelector("#file");
  await page.waitForFunction(() => document.getElementById("folder").length > 0);
  const shown = await page.$eval("#folder", (found) => found.value);
  if (shown !== folder) throw new Error(`${folder}: not among the networks of the page. Build it with this folder.`);
  const start = performance.now();
  await picker.uploadFile(image);
  await page.waitForFunction(() => ["done", "failed"].includes(document.body.dataset.state), { timeout: LIMIT_MS, polling: 200 });
  const seconds = (performance.now() - start) / 1000;
  const read = (id) => page.$eval(`#${id}`, (found) => found.innerText);
  if (await page.$eval("#error", (found) => !found.hidden)) throw new Error(await read("error"));
  return {
    folder, image: basename(image), stage: await read("stage"), secondsFromChoiceToPicture: Number(seconds.toFixed(1)),
    ...(await cost()), volumes: await read("volumes"), ...(await compare(page)), ...seen,
    pictures: await takePictures(page), browser: await browser.version(), processor: cpus()[0].model,
    ...(await versions()), date: new Date().toISOString().slice(0, 10),
  };
}

function watch(page) {
  const seen = { requestsElsewhere: [], messages: [] };
  page.on("request", (request) => {
    if (!/^(http:\/\/127\.0\.0\.1:|data:|blob:)/.test(request.url())) seen.requestsElsewhere.push(request.url());
  });
  page.on("console", (message) => ["error", "warn"].includes(message.type()) && seen.messages.push(message.text()));
  page.on("pageerror", (error) => seen.messages.push(error.message));
  return seen;
}

/** The labels as the button saves them, against those of a file. */
async function compare(page) {
  const session = await browser.target().createCDPSession();
  await session.send("Browser.setDownloadBehavior", { behavior: "allow", downloadPath: scratch });
  await page.click("#download");
  let name;
  while (!(name = (await readdir(scratch)).find((each) => each.endsWith("_seg.nii.gz")))) await new Promise((next) => setTimeout(next, 100));
  if (options.expected === undefined) return { saved: name };
  const open = async (path) => readNifti(new File([await readFile(path)], basename(path)));
  const [found, expected] = [await open(join(scratch, name)), await open(options.expected)];
  const differing = found.voxels.reduce((count, value, index) => count + Number(value !== expected.voxels[index]), 0);
  const sameGrid = String(found.shape) === String(expected.shape) && String(found.affine) === String(expected.affine);
  return { saved: name, sameGrid, differing, voxels: found.voxels.length };
}

/** Of the process that holds page and worker: what it took of the processor, and its peak of memory (on Linux). */
async function cost() {
  const session = await browser.target().createCDPSession();
  const { processInfo } = await session.send("SystemInfo.getProcessInfo");
  const renderers = processInfo.filter(({ type }) => type === "renderer");
  const { id, cpuTime } = renderers.reduce((most, each) => (each.cpuTime > most.cpuTime ? each : most));
  const status = await readFile(`/proc/${id}/status`, "utf-8").catch(() => "");
  const peak = /VmHWM:\s+(\d+)/.exec(status);
  return { processorSeconds: Number(cpuTime.toFixed(1)), peakMegabytes: peak && Math.round(peak[1] * 1.024e-3) };
}

async function takePictures(page) {
  if (options.pictures === undefined) return [];
  await mkdir(options.pictures, { recursive: true });
  const paths = [];
  for (const value of ["light", "dark"]) {
    await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value }]);
    paths.push(join(options.pictures, `${folder}_${value}.png`));
    await page.screenshot({ path: paths.at(-1) });
  }
  return paths;
}

async function versions() {
  const { dependencies } = JSON.parse(await readFile(join(root, "package.json"), "utf-8"));
  return { versions: dependencies };
}
