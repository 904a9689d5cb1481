// From an image to its labels on the same grid: what monai_unetpp.runner does, in JavaScript.

import { UserError } from "./errors.js";
import { breakTies } from "./geometry.js";
import { determinant, linearPart } from "./matrix.js";
import { STEPS } from "./pipeline.js";
import { rangeOf } from "./statistics.js";
import { searchSurround } from "./surround.js";
import { labelImage } from "./windows.js";

/**
 * The labels of an image, on its own grid.
 *
 * @param {object} image from readNifti
 * @param {object} pipeline from pipeline.json
 * @param {(window: Float32Array) => Promise<Float32Array>} predict
 * @param {(done: number, all: number) => void} tell is called after each window
 * @returns {Promise<Uint8Array>}
 */
export async function segment(image, pipeline, predict, tell) {
  const volume = preprocess(image, pipeline);
  const labels = await labelImage(volume.voxels, volume.shape, pipeline.windows, predict, tell);
  if (pipeline.postprocessing.length) clearBackground(labels, volume);
  return bringBack(labels, volume);
}

/** The image as the network needs it, with the way back. */
export function preprocess(image, pipeline) {
  const { name, shape, affine } = image;
  const volume = { name, shape, affine: breakTies(affine), voxels: usable(image, pipeline.reading), inverses: [] };
  for (const { step, ...settings } of pipeline.preprocessing) STEPS[step](volume, settings);
  return volume;
}

/** The volume of each label in ml, with its name. */
export function measure(labels, image, names) {
  const counts = new Array(256).fill(0);
  for (const label of labels) counts[label]++;
  const voxelMl = Math.abs(determinant(linearPart(image.affine))) / 1000;
  return Object.entries(names)
    .filter(([label]) => label !== "0")
    .map(([label, name]) => ({ label: Number(label), name, ml: counts[label] * voxelMl }));
}

function usable({ name, voxels }, { allow_constant: allowConstant, fill_nonfinite: fill }) {
  const bad = voxels.reduce((count, value) => count + Number(!Number.isFinite(value)), 0);
  if (bad && fill === null) {
    throw new UserError(`${name}: ${bad} of ${voxels.length} voxels are NaN or infinite. Replace them, for example with 0.`);
  }
  const filled = bad ? voxels.map((value) => (Number.isFinite(value) ? value : fill)) : voxels;
  const [low, high] = rangeOf(filled);
  if (low === high && !allowConstant) {
    throw new UserError(`${name}: every voxel has the value ${low}, so there is nothing to segment. Export it again.`);
  }
  return filled;
}

function clearBackground(labels, { voxels, shape }) {
  const found = searchSurround(voxels, shape);
  if (found) labels.forEach((_, index) => found.mask[index] && (labels[index] = 0));
}

function bringBack(labels, { shape, affine, inverses }) {
  let found = { labels, shape, affine };
  for (const inverse of inverses.toReversed()) found = inverse(found);
  return found.labels;
}
