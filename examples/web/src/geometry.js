// Steps that change the grid of an image, each with its way back: orientation, voxel size, crop.
// A volume is {name, voxels, shape, affine, inverses}; the last axis of voxels is the fastest.

import { UserError } from "./errors.js";
import {
  HEADER_ROUNDING, checkResampledSize, chooseSpacing, findTargetGrid, isSamePlace, leadFromTo, roundHalfToEven,
} from "./grid.js";
import { columnLengths, linearPart, moveOrigin, multiply, nearestRotation, transpose } from "./matrix.js";
import { momentsOf } from "./statistics.js";
import { searchSurround } from "./surround.js";

const CODES = { L: [0, -1], R: [0, 1], P: [1, -1], A: [1, 1], I: [2, -1], S: [2, 1] };
/** Distance to a voxel, in voxels, that is rounding. */
const ON_VOXEL = 1e-6;
/** What lies below this share of the largest value is rounding, too. */
const TRACE = 1e-9;
const TINY_TURN = [[1, -0.31e-6, 0.59e-6], [0.31e-6, 1, -1e-6], [-0.59e-6, 1e-6, 1]];

/** The affine for the steps, turned by a millionth where rounding alone would decide which axis is which. */
export function breakTies(affine) {
  const [turned, other] = [TINY_TURN, transpose(TINY_TURN)].map((turning) => {
    const axes = multiply(turning, linearPart(affine));
    return affine.map((row, index) => (index < 3 ? [...axes[index], row[3]] : row));
  });
  return String(findOrientation(turned)) === String(findOrientation(other)) ? affine : turned;
}

/** Turn and mirror the axes so that they run towards `axcodes`, such as "RAS". */
export function orient(volume, { axcodes }) {
  const { shape, affine } = volume;
  const own = findOrientation(affine);
  const wanted = [...axcodes].map((code) => CODES[code]);
  const axes = wanted.map(([world]) => own.findIndex(([other]) => other === world));
  const flips = wanted.map(([, sign], axis) => sign !== own[axes[axis]][1]);
  volume.voxels = turn(volume.voxels, shape, axes, flips);
  volume.shape = axes.map((axis) => shape[axis]);
  volume.affine = multiply(affine, wayToSource(axes, flips, shape));
  const back = [0, 1, 2].map((axis) => axes.indexOf(axis));
  volume.inverses.push((found) => ({
    labels: turn(found.labels, found.shape, back, back.map((axis) => flips[axis])), shape, affine,
  }));
}

/** Resample to voxels of `pixdim` mm, linearly; labels go back by the nearest voxel. */
export function spacing(volume, { pixdim, padding, diagonal }) {
  const { shape, affine } = volume;
  const own = columnLengths(linearPart(affine));
  const wanted = chooseSpacing(own, pixdim);
  const { size, target } = findTargetGrid(shape, affine, wanted, diagonal);
  checkResampledSize(volume.name, shape, own, size, wanted);
  const matrix = leadFromTo(affine, target);
  if (!(String(size) === String(shape) && isSamePlace(matrix, size))) {
    volume.voxels = interpolate(volume.voxels, shape, matrix, size, padding === "border");
  }
  volume.shape = size;
  volume.affine = target;
  volume.inverses.push((found) => {
    const there = leadFromTo(found.affine, affine);
    const same = String(found.shape) === String(shape) && isSamePlace(there, shape);
    return { labels: same ? found.labels : pickNearest(found.labels, found.shape, there, shape, padding), shape, affine };
  });
}

/** Crop away the surround, or, where there is none, what is not above 0. */
export function cropBackground(volume, settings) {
  const found = searchSurround(volume.voxels, volume.shape);
  crop(volume, found ? (index) => !found.mask[index] : (index) => volume.voxels[index] > 0, settings);
}

/** Crop to what is above 0. */
export function cropForeground(volume, settings) {
  crop(volume, (index) => volume.voxels[index] > 0, settings);
}

/** Crop to what is brighter than a part of the mean. */
export function cropAboveMean(volume, { part, ...settings }) {
  const limit = Math.fround(part * momentsOf(volume.voxels).mean);
  crop(volume, (index) => volume.voxels[index] > limit, settings);
}

/** For each axis of the image the axis of the world it runs along, and whether towards right, anterior, superior. */
function findOrientation(affine) {
  const linear = linearPart(affine);
  const lengths = columnLengths(linear);
  const rotation = nearestRotation(linear.map((row) => row.map((value, axis) => value / lengths[axis])));
  const strength = transpose(rotation).map((column) => Math.max(...column.map((value) => value ** 2)));
  const found = [];
  const left = new Set([0, 1, 2]);
  for (const axis of [0, 1, 2].sort((a, b) => strength[b] - strength[a])) {
    const world = [...left].reduce((best, row) => (Math.abs(rotation[row][axis]) > Math.abs(rotation[best][axis]) ? row : best));
    found[axis] = [world, rotation[world][axis] < 0 ? -1 : 1];
    left.delete(world);
  }
  return found;
}

function wayToSource(axes, flips, shape) {
  const matrix = [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]];
  axes.forEach((source, axis) => {
    matrix[source][axis] = flips[axis] ? -1 : 1;
    matrix[source][3] = flips[axis] ? shape[source] - 1 : 0;
  });
  return matrix;
}

function turn(values, shape, axes, flips) {
  const strides = [shape[1] * shape[2], shape[2], 1];
  const size = axes.map((axis) => shape[axis]);
  const steps = axes.map((axis, index) => (flips[index] ? -strides[axis] : strides[axis]));
  const start = axes.reduce((sum, axis, index) => sum + (flips[index] ? (shape[axis] - 1) * strides[axis] : 0), 0);
  const result = new values.constructor(values.length);
  let written = 0;
  for (let i = 0; i < size[0]; i++)
    for (let j = 0; j < size[1]; j++) {
      let read = start + i * steps[0] + j * steps[1];
      for (let k = 0; k < size[2]; k++, read += steps[2]) result[written++] = values[read];
    }
  return result;
}

/** Linearly; `matrix` leads from voxels of the result to those of the image. */
function interpolate(voxels, shape, matrix, size, isBorder) {
  const result = new Float32Array(size[0] * size[1] * size[2]);
  const [height, width, depth] = shape;
  const [a, b, c] = matrix;
  const at = (i, j, k) =>
    i < 0 || j < 0 || k < 0 || i >= height || j >= width || k >= depth ? 0 : voxels[(i * width + j) * depth + k];
  const place = (row, length, i, j, k) => {
    const found = row[0] * i + row[1] * j + row[2] * k + row[3];
    const whole = Math.round(found);
    const snapped = Math.abs(found - whole) < ON_VOXEL ? whole : found;
    return isBorder ? Math.min(Math.max(snapped, 0), length - 1) : snapped;
  };
  let written = 0;
  for (let i = 0; i < size[0]; i++)
    for (let j = 0; j < size[1]; j++)
      for (let k = 0; k < size[2]; k++) {
        const x = place(a, height, i, j, k), y = place(b, width, i, j, k), z = place(c, depth, i, j, k);
        const p = Math.floor(x), q = Math.floor(y), r = Math.floor(z);
        const u = x - p, v = y - q, w = z - r;
        const near = (1 - v) * ((1 - w) * at(p, q, r) + w * at(p, q, r + 1)) + v * ((1 - w) * at(p, q + 1, r) + w * at(p, q + 1, r + 1));
        const far = (1 - v) * ((1 - w) * at(p + 1, q, r) + w * at(p + 1, q, r + 1)) + v * ((1 - w) * at(p + 1, q + 1, r) + w * at(p + 1, q + 1, r + 1));
        result[written++] = (1 - u) * near + u * far;
      }
  const least = TRACE * voxels.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  return result.map((value) => (Math.abs(value) < least ? 0 : value));
}

function pickNearest(labels, from, matrix, size, padding) {
  const result = new labels.constructor(size[0] * size[1] * size[2]);
  const rounding = HEADER_ROUNDING * Math.max(...from);
  const found = [0, 0, 0];
  let written = 0;
  for (let i = 0; i < size[0]; i++)
    for (let j = 0; j < size[1]; j++)
      for (let k = 0; k < size[2]; k++) {
        let isOutside = false;
        for (let axis = 0; axis < 3; axis++) {
          const row = matrix[axis];
          const nearest = roundHalfToEven(row[3] + row[0] * i + row[1] * j + row[2] * k, rounding);
          isOutside ||= nearest < 0 || nearest >= from[axis];
          found[axis] = Math.min(Math.max(nearest, 0), from[axis] - 1);
        }
        const value = labels[(found[0] * from[1] + found[1]) * from[2] + found[2]];
        result[written++] = isOutside && padding === "zeros" ? 0 : value;
      }
  return result;
}

function crop(volume, isForeground, { margin, allow_smaller: allowSmaller }) {
  const { shape, affine } = volume;
  const [low, high] = boundingBox(shape, isForeground);
  if (high[0] < 0) throw new UserError(`${volume.name}: has no foreground: no voxel is bright enough. Choose another image.`);
  const margins = typeof margin === "number" ? [margin, margin, margin] : margin;
  const start = low.map((first, axis) => (allowSmaller ? Math.max(first - margins[axis], 0) : first - margins[axis]));
  const stop = high.map((last, axis) => (allowSmaller ? Math.min(last + margins[axis] + 1, shape[axis]) : last + margins[axis] + 1));
  const size = stop.map((end, axis) => end - start[axis]);
  volume.voxels = copyBox(volume.voxels, shape, start, size);
  volume.shape = size;
  volume.affine = moveOrigin(affine, start);
  volume.inverses.push((found) => ({
    labels: copyBox(found.labels, found.shape, start.map((first) => -first), shape), shape, affine,
  }));
}

function boundingBox(shape, isInside) {
  const low = [Infinity, Infinity, Infinity], high = [-1, -1, -1];
  let index = 0;
  for (let i = 0; i < shape[0]; i++)
    for (let j = 0; j < shape[1]; j++)
      for (let k = 0; k < shape[2]; k++) {
        if (!isInside(index++)) continue;
        low[0] = Math.min(low[0], i); low[1] = Math.min(low[1], j); low[2] = Math.min(low[2], k);
        high[0] = Math.max(high[0], i); high[1] = Math.max(high[1], j); high[2] = Math.max(high[2], k);
      }
  return [low, high];
}

/** The box of `size` that begins at `start`; what lies outside the image is 0. */
function copyBox(values, shape, start, size) {
  const result = new values.constructor(size[0] * size[1] * size[2]);
  const first = Math.max(0, start[2]), last = Math.min(shape[2], start[2] + size[2]);
  for (let i = 0; i < size[0]; i++)
    for (let j = 0; j < size[1]; j++) {
      const y = start[0] + i, x = start[1] + j;
      if (y < 0 || x < 0 || y >= shape[0] || x >= shape[1] || last <= first) continue;
      const row = (y * shape[1] + x) * shape[2];
      result.set(values.subarray(row + first, row + last), (i * size[1] + j) * size[2] + first - start[2]);
    }
  return result;
}
