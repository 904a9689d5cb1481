// The search for the constant surround of an image, from its border inwards.

import { chosen, commonest, momentsOf, percentiles } from "./statistics.js";

const { fround } = Math;
// the numbers of monai_unetpp/data/transforms/surround_search.py, which explains them
const MOST_OF_BORDER = 0.95, PART_OF_BORDER = 0.05, LEAST_SOLID = 0.7, MOST_CONSTANTS = 4;
const ROUNDING = 1e-4, RINGING = 0.02, RINGS = 1.02;
const HIGHEST_BLACK = 0.25, FARTHEST_BLACK = 1;
const BLACK_BELOW = 0.15, MEDIAN = 0.59, BLACK_BELOW_BY_MEDIAN = 1.85, LEAST_BELOW = 0.1, MOST_BELOW = 0.4;
const MOST_VOXELS = 2 ** 20;

/**
 * The part of an image that is constant and reaches its border.
 *
 * @returns {{value, mask, constants, share} | null} mask holds 1 where the surround is
 */
export function searchSurround(voxels, shape) {
  const mask = new Uint8Array(voxels.length);
  let value = 0, constants = 0, count = 0;
  while (constants < MOST_CONSTANTS && count < mask.length) {
    const inner = cutBox(voxels, mask, shape);
    const found = constantPart(inner);
    if (!found || (constants && !varies(inner, found.part))) break;
    if (!constants) value = found.value;
    found.part.forEach((isPart, index) => {
      if (isPart) mask[inner.place(index)] = 1;
    });
    count = mask.reduce((sum, isPart) => sum + isPart, 0);
    constants++;
  }
  return constants ? { value, mask, constants, share: count / mask.length } : null;
}

/** The value that is black in an image with a constant surround; `inside` is what is surrounded. */
export function findBlack(inside, value) {
  const step = Math.max(1, Math.floor(inside.length / MOST_VOXELS));
  const sample = step === 1 ? inside : chosen(inside, (_, index) => index % step === 0);
  const [lowest, middle, highest] = percentiles(sample, [0.1, 50, 99.5]);
  const extent = highest - lowest;
  const above = (lowest - value) / extent;
  if (extent === 0 || (above >= -HIGHEST_BLACK && above <= FARTHEST_BLACK)) return value;
  const below = BLACK_BELOW + BLACK_BELOW_BY_MEDIAN * ((middle - lowest) / extent - MEDIAN);
  return lowest - Math.min(Math.max(below, LEAST_BELOW), MOST_BELOW) * extent;
}

/** The box around what is not in `mask`: its voxels, what of it is known, and the way back to the image. */
function cutBox(voxels, mask, shape) {
  const low = [Infinity, Infinity, Infinity], high = [-1, -1, -1];
  for (let index = 0; index < mask.length; index++) {
    if (mask[index]) continue;
    const rest = Math.floor(index / shape[2]);
    const place = [Math.floor(rest / shape[1]), rest % shape[1], index % shape[2]];
    for (let axis = 0; axis < 3; axis++) {
      if (place[axis] < low[axis]) low[axis] = place[axis];
      if (place[axis] > high[axis]) high[axis] = place[axis];
    }
  }
  const size = high.map((last, axis) => last - low[axis] + 1);
  const place = (index) => {
    const rest = Math.floor(index / size[2]);
    return ((low[0] + Math.floor(rest / size[1])) * shape[1] + low[1] + (rest % size[1])) * shape[2] + low[2] + (index % size[2]);
  };
  const values = new Float32Array(size[0] * size[1] * size[2]).map((_, index) => voxels[place(index)]);
  return { values, known: new Uint8Array(values.length).map((_, index) => mask[place(index)]), size, place };
}

/** The commonest value of what is not known on the border, and what is connected to the border with it. */
function constantPart(inner) {
  const border = borderOf(inner.size);
  const open = border.filter((index) => !inner.known[index]);
  if (open.length < PART_OF_BORDER * border.length || !open.length) return null;
  const { deviation } = momentsOf(inner.values);
  const borderValues = Float32Array.from(open, (index) => inner.values[index]);
  for (const rounding of [0, ROUNDING]) {
    const { value, count } = commonest(borderValues, rounding * deviation);
    const share = count / border.length;
    if (share < PART_OF_BORDER) continue;
    let part = flooded(inner, border, value, rounding * deviation);
    if (!inner.values.every((other) => other >= fround(value))) {
      const ringing = flooded(inner, border, value, RINGING * deviation);
      if (total(ringing) > RINGS * total(part)) part = ringing;
    }
    if (share >= MOST_OF_BORDER || solidity(part, inner.size) >= LEAST_SOLID) return { value, part };
  }
  return null;
}

/** What is connected to the border, along the axes, and has the value. */
function flooded({ values, known, size }, border, value, tolerance) {
  const low = fround(value - tolerance), high = fround(value + tolerance);
  const part = new Uint8Array(values.length);
  const waiting = [];
  const visit = (index) => {
    if (part[index] || known[index] || values[index] < low || values[index] > high) return;
    part[index] = 1;
    waiting.push(index);
  };
  border.forEach(visit);
  const plane = size[1] * size[2];
  while (waiting.length) {
    const index = waiting.pop();
    const k = index % size[2], j = Math.floor(index / size[2]) % size[1];
    if (index >= plane) visit(index - plane);
    if (index + plane < part.length) visit(index + plane);
    if (j > 0) visit(index - size[2]);
    if (j < size[1] - 1) visit(index + size[2]);
    if (k > 0) visit(index - 1);
    if (k < size[2] - 1) visit(index + 1);
  }
  return part;
}

/** The voxels on the six sides; those of edges more than once. */
function borderOf([height, width, depth]) {
  const found = [];
  const at = (i, j, k) => found.push((i * width + j) * depth + k);
  for (const i of [0, height - 1]) for (let j = 0; j < width; j++) for (let k = 0; k < depth; k++) at(i, j, k);
  for (const j of [0, width - 1]) for (let i = 0; i < height; i++) for (let k = 0; k < depth; k++) at(i, j, k);
  for (const k of [0, depth - 1]) for (let i = 0; i < height; i++) for (let j = 0; j < width; j++) at(i, j, k);
  return found;
}

/** Share of the next voxels of those in `part`, along all axes, that are in it too. */
function solidity(part, [height, width, depth]) {
  let both = 0, neighbours = 0, index = 0;
  const compare = (isInside, step) => {
    if (!isInside) return;
    neighbours++;
    both += part[index + step];
  };
  for (let i = 0; i < height; i++)
    for (let j = 0; j < width; j++)
      for (let k = 0; k < depth; k++, index++) {
        if (!part[index]) continue;
        compare(i < height - 1, width * depth);
        compare(j < width - 1, depth);
        compare(k < depth - 1, 1);
      }
  return neighbours ? both / neighbours : 0;
}

function varies({ values, known }, part) {
  let first;
  for (let index = 0; index < values.length; index++) {
    if (known[index] || part[index]) continue;
    first ??= values[index];
    if (values[index] !== first) return true;
  }
  return false;
}

const total = (part) => part.reduce((sum, value) => sum + value, 0);
