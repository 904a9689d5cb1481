// What the page shows and asks.

import { colourOf } from "./colours.js";
import { View } from "./view.js";

const element = (id) => document.getElementById(id);
const asked = new URLSearchParams(location.search);
let view, file, result;
let shown = Promise.resolve();
let worker = startWorker();

// first, as a browser opens files that are dropped on a page that does not listen
listen();
const started = start();
started.catch((error) => fail(error.message));

async function start() {
  const response = await fetch("models/index.json").catch(() => {
    throw new Error("the page's server cannot be reached. Start it again with npm start.");
  });
  // some servers send a page of their own for what is missing
  const folders = response.ok && (await response.json().catch(() => null));
  if (!folders) throw new Error("models/index.json: missing or damaged. Build the page again.");
  for (const { folder, title } of folders) element("folder").add(new Option(title, folder));
  const choices = { folder: folders.map(({ folder }) => folder), device: ["wasm", "webgpu"] };
  for (const [name, known] of Object.entries(choices)) {
    const wanted = asked.get(name);
    if (wanted !== null && !known.includes(wanted)) fail(`${name}: must be one of ${known.join(", ")}, got ${wanted}.`);
    else if (wanted !== null && name === "folder") element(name).value = wanted;
  }
}

function listen() {
  element("file").addEventListener("change", ({ target }) => {
    const [chosen] = target.files;
    // so that choosing the same file again is a change too
    target.value = "";
    if (chosen) run(chosen);
  });
  element("folder").addEventListener("change", () => file && run(file));
  element("opacity").addEventListener("input", ({ target }) => view?.setOpacity(Number(target.value)));
  element("download").addEventListener("click", download);
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("dragenter", () => element("drop").classList.add("over"));
  addEventListener("dragleave", (event) => event.relatedTarget ?? element("drop").classList.remove("over"));
  addEventListener("drop", (event) => {
    event.preventDefault();
    element("drop").classList.remove("over");
    const { files } = event.dataTransfer;
    // which comes first is chance
    if (files.length > 1) showError(`${files.length} files: this page takes one image at a time. Drop one.`);
    else if (files.length) run(files[0]);
  });
}

function startWorker() {
  const started = new Worker("worker.js", { type: "module" });
  // what a worker that was stopped had sent before may come later
  started.addEventListener("message", ({ data }) => started === worker && receive[data.kind](data));
  started.addEventListener("error", ({ message }) => {
    if (started !== worker) return;
    stopWorker();
    fail(message || "worker.js: cannot be loaded. Start the page's server again, or build the page again.");
  });
  return started;
}

/** To stop its work; and after what nobody foresaw, such as a graphics card that was lost, as its networks may be unusable. */
function stopWorker() {
  worker?.terminate();
  worker = null;
}

/** Segment an image, also instead of the one that is in work. */
async function run(chosen) {
  if (document.body.dataset.state === "busy") stopWorker();
  worker ??= startWorker();
  file = chosen;
  result = null;
  element("error").hidden = element("result").hidden = true;
  setBusy(true);
  stage("Reading the image …");
  try {
    await started;
  } catch (error) {
    return fail(error.message);
  }
  if (file === chosen) worker.postMessage({ folder: element("folder").value, file, device: asked.get("device") });
}

const receive = {
  stage: ({ text }) => stage(text),
  progress: ({ done, all }) => {
    stage(`Window ${done} of ${all}`);
    element("progress").value = done / all;
  },
  failed: ({ message, isForeseen }) => {
    if (!isForeseen) stopWorker();
    fail(message);
  },
  done: async (found) => {
    result = found;
    // of what was dropped while it was in work
    element("error").hidden = true;
    stage(`Done in ${found.seconds.toFixed(1)} s (${found.used})`);
    element("progress").value = 1;
    listVolumes(found.volumes);
    element("notes").textContent = found.notes.join(" ");
    element("result").hidden = false;
    // one after the other, as the viewer adds to what it shows
    shown = shown.catch(() => {}).then(() => result === found && show(found));
    try {
      await shown;
    } catch (error) {
      if (result === found) fail(`${file.name}: the viewer cannot show this image (${error.message}). You can still download the labels.`);
      return;
    }
    // another image may have been chosen meanwhile
    if (result !== found) return;
    setBusy(false);
    document.body.dataset.state = "done";
  },
};

async function show(found) {
  view ??= new View(element("canvas"));
  await view.showImage(file);
  if (result === found) await view.showLabels(found.bytes, "labels.nii", found.volumes, Number(element("opacity").value));
}

function listVolumes(volumes) {
  element("volumes").replaceChildren(
    ...volumes.map(({ label, name, ml }) => {
      const row = document.createElement("tr");
      const swatch = document.createElement("span");
      swatch.style.background = `rgb(${colourOf(label)})`;
      const cells = [swatch, name, ml.toFixed(2)].map((content) => {
        const cell = document.createElement("td");
        cell.append(content);
        return cell;
      });
      row.append(...cells);
      return row;
    }),
  );
}

async function download() {
  // another image may be chosen while this one is packed
  const { name } = file;
  const packed = new Response(new Blob([result.bytes]).stream().pipeThrough(new CompressionStream("gzip")));
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await packed.blob());
  link.download = name.replace(/\.nii(\.gz)?$/i, "_seg.nii.gz");
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

function stage(text) {
  element("stage").textContent = `${file.name}: ${text}`;
}

function setBusy(isBusy) {
  document.body.dataset.state = isBusy ? "busy" : "idle";
  element("working").hidden = false;
  if (isBusy) element("progress").removeAttribute("value");
}

function fail(message) {
  setBusy(false);
  element("working").hidden = true;
  showError(message);
  document.body.dataset.state = "failed";
}

function showError(message) {
  element("error").textContent = message;
  element("error").hidden = false;
}
