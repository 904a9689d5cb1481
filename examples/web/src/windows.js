// A whole image through the network, window by window, to a label map in bounded memory.

import { UserError } from "./errors.js";

const { fround } = Math;
const LEAST_WEIGHT = 1e-3;

/**
 * The class of the highest logit at each voxel; for one channel whether its logit is above 0.
 *
 * No more logits are held than of one window's length along one axis.
 *
 * @param {Float32Array} voxels of the image
 * @param {number[]} shape of it
 * @param {object} windows of pipeline.json
 * @param {(window: Float32Array) => Promise<Float32Array>} predict logits of a window, class by class
 * @param {(done: number, all: number) => void} tell is called after each window
 */
export async function labelImage(voxels, shape, windows, predict, tell = () => {}) {
  const layout = layOut(shape, windows);
  const read = windowReader(voxels, shape, layout, windows);
  let ask = averagingFlips(predict, layout.windowSize, windows.flips);
  if (windows.skip_constant) ask = rememberingConstants(ask);
  let stitcher;
  for (const [index, position] of layout.positions.entries()) {
    const logits = await ask(read(position));
    stitcher ??= new LabelStitcher(layout, logits.length / volumeOf(layout.windowSize), windows);
    stitcher.add(position, logits);
    tell(index + 1, layout.positions.length);
  }
  return stitcher.result();
}

/** Where windows of `length` start that cover an axis of `size >= length`. */
export function overlappingStarts(size, length, overlap) {
  const step = Math.max(Math.trunc(length * (1 - overlap)), 1);
  const count = length === size ? 1 : Math.ceil((size - length) / step) + 1;
  return Array.from({ length: count }, (_, index) => Math.min(index * step, size - length));
}

/** How much each voxel of a window counts: most in the middle. */
export function gaussianWeights(size, sigmaScale) {
  const along = size.map((length, axis) => {
    const sigma = length * (sigmaScale[axis] ?? sigmaScale);
    return Float32Array.from({ length }, (_, index) => Math.exp((index - (length - 1) / 2) ** 2 / (-2 * sigma ** 2)));
  });
  const weights = new Float32Array(volumeOf(size));
  let written = 0;
  for (const a of along[0]) for (const b of along[1]) for (const c of along[2]) weights[written++] = fround(a * b) * c;
  const least = fround(Math.max(weights.reduce((low, value) => Math.min(low, value), Infinity), LEAST_WEIGHT));
  return weights.map((value) => Math.max(value, least));
}

export function layOut(shape, windows) {
  const windowSize = windows.shape;
  const paddedSize = shape.map((length, axis) => Math.max(length, windowSize[axis]));
  const before = shape.map((length, axis) => Math.floor((paddedSize[axis] - length) / 2));
  const starts = paddedSize.map((length, axis) => overlappingStarts(length, windowSize[axis], windows.overlap[axis] ?? windows.overlap));
  const parts = windowSize.map((length, axis) => length / paddedSize[axis]);
  const slabAxis = parts.indexOf(Math.min(...parts));
  const others = [0, 1, 2].filter((axis) => axis !== slabAxis);
  const positions = starts[slabAxis].flatMap((slab) =>
    starts[others[0]].flatMap((first) =>
      starts[others[1]].map((second) => {
        const position = [];
        [position[slabAxis], position[others[0]], position[others[1]]] = [slab, first, second];
        return position;
      }),
    ),
  );
  return { imageSize: shape, windowSize, paddedSize, before, slabAxis, others, positions };
}

function windowReader(voxels, shape, layout, { padding_mode: mode, cval }) {
  const sources = shape.map((length, axis) =>
    Int32Array.from({ length: layout.paddedSize[axis] }, (_, index) => sourceIndex(index - layout.before[axis], length, mode)),
  );
  return (position) => {
    const [rows, columns, depths] = position.map((start, axis) => sources[axis].subarray(start, start + layout.windowSize[axis]));
    const window = new Float32Array(volumeOf(layout.windowSize));
    let written = 0;
    for (const i of rows)
      for (const j of columns) {
        const row = (i * shape[1] + j) * shape[2];
        for (const k of depths) window[written++] = i < 0 || j < 0 || k < 0 ? cval : voxels[row + k];
      }
    return window;
  };
}

/** The voxel that stands at a place along an axis, which may lie in the padding; -1 for the constant. */
function sourceIndex(index, length, mode) {
  if (index >= 0 && index < length) return index;
  if (mode === "constant") return -1;
  if (mode === "replicate") return index < 0 ? 0 : length - 1;
  const wrapped = (value, period) => ((value % period) + period) % period;
  if (mode === "circular") return wrapped(index, length);
  if (length === 1) return 0;
  const place = wrapped(index, 2 * (length - 1));
  return place < length ? place : 2 * (length - 1) - place;
}

/** The mean over all mirror images along `axes`. */
function averagingFlips(predict, size, axes) {
  if (!axes.length) return predict;
  const kinds = axes.reduce((found, axis) => found.flatMap((flips) => [flips, [...flips, axis]]), [[]]);
  return async (window) => {
    let sum;
    for (const flips of kinds) {
      const logits = flip(await predict(flip(window, size, flips)), size, flips);
      sum = sum ? sum.map((value, index) => value + logits[index]) : logits;
    }
    return sum.map((value) => value / kinds.length);
  };
}

/** Mirror `(C, *size)` along axes. */
function flip(values, size, axes) {
  if (!axes.length) return values;
  const [height, width, depth] = size;
  const [i0, j0, k0] = [0, 1, 2].map((axis) => axes.includes(axis));
  const result = new Float32Array(values.length);
  let written = 0;
  for (let start = 0; start < values.length; start += volumeOf(size))
    for (let i = 0; i < height; i++)
      for (let j = 0; j < width; j++) {
        const row = start + ((i0 ? height - 1 - i : i) * width + (j0 ? width - 1 - j : j)) * depth;
        for (let k = 0; k < depth; k++) result[written++] = values[row + (k0 ? depth - 1 - k : k)];
      }
  return result;
}

/** The latest constant window is not computed again. */
function rememberingConstants(predict) {
  let known, value;
  return async (window) => {
    if (!window.every((other) => other === window[0])) return predict(window);
    if (!known || value !== window[0]) [known, value] = [await predict(window), window[0]];
    return known;
  };
}

/** Sums up weighted logits in a slab that moves along the image; what it leaves behind becomes labels. */
class LabelStitcher {
  constructor(layout, channels, windows) {
    if (channels > 256) throw new UserError(`pipeline.json: this page supports at most 256 labels, got ${channels}.`);
    this.layout = layout;
    this.channels = channels;
    // a single window needs no weights
    const isBlended = windows.blending === "gaussian" && layout.positions.length > 1;
    this.weights = isBlended ? gaussianWeights(layout.windowSize, windows.sigma_scale) : null;
    this.length = layout.windowSize[layout.slabAxis];
    this.plane = layout.paddedSize[layout.others[0]] * layout.paddedSize[layout.others[1]];
    this.sums = Array.from({ length: channels }, () => new Float32Array(this.length * this.plane));
    this.labels = new Uint8Array(volumeOf(layout.paddedSize));
    this.begin = 0;
  }

  add(position, logits) {
    const { windowSize, slabAxis, others, paddedSize } = this.layout;
    if (position[slabAxis] > this.begin) this.moveTo(position[slabAxis]);
    const steps = [];
    [steps[slabAxis], steps[others[0]], steps[others[1]]] = [this.plane, paddedSize[others[1]], 1];
    const start = others.reduce((sum, axis) => sum + position[axis] * steps[axis], 0);
    let read = 0;
    for (const sums of this.sums) {
      let place = 0;
      for (let i = 0; i < windowSize[0]; i++)
        for (let j = 0; j < windowSize[1]; j++) {
          let written = start + i * steps[0] + j * steps[1];
          for (let k = 0; k < windowSize[2]; k++, written += steps[2]) {
            sums[written] += this.weights ? logits[read++] * this.weights[place++] : logits[read++];
          }
        }
    }
  }

  result() {
    this.write(this.length);
    const { imageSize, paddedSize, before } = this.layout;
    const inner = new Uint8Array(volumeOf(imageSize));
    for (let i = 0; i < imageSize[0]; i++)
      for (let j = 0; j < imageSize[1]; j++) {
        const row = ((before[0] + i) * paddedSize[1] + before[1] + j) * paddedSize[2] + before[2];
        inner.set(this.labels.subarray(row, row + imageSize[2]), (i * imageSize[1] + j) * imageSize[2]);
      }
    return inner;
  }

  moveTo(begin) {
    const step = begin - this.begin;
    this.write(step);
    for (const sums of this.sums) {
      sums.copyWithin(0, step * this.plane);
      sums.fill(0, (this.length - step) * this.plane);
    }
    this.begin = begin;
  }

  write(planes) {
    const { paddedSize, slabAxis, others } = this.layout;
    const strides = [paddedSize[1] * paddedSize[2], paddedSize[2], 1];
    let read = 0;
    for (let slab = this.begin; slab < this.begin + planes; slab++)
      for (let a = 0; a < paddedSize[others[0]]; a++)
        for (let b = 0; b < paddedSize[others[1]]; b++) {
          this.labels[slab * strides[slabAxis] + a * strides[others[0]] + b * strides[others[1]]] = this.labelAt(read++);
        }
  }

  labelAt(index) {
    let best = 0, highest = this.sums[0][index], isFinite = Number.isFinite(highest);
    for (let channel = 1; channel < this.channels; channel++) {
      const value = this.sums[channel][index];
      isFinite &&= Number.isFinite(value);
      if (value > highest) [best, highest] = [channel, value];
    }
    if (!isFinite) throw new UserError("the network returned NaN or infinity. Its weights are damaged: export the bundle again.");
    return this.channels === 1 ? Number(highest > 0) : best;
  }
}

const volumeOf = (size) => size.reduce((product, length) => product * length, 1);
