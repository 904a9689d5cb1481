// Where a resampled volume begins, and how many voxels it has: the same rules as in monai_unetpp/data.

import { UserError } from "./errors.js";
import { columnLengths, linearPart, multiply, orthonormal, solve, transpose } from "./matrix.js";

// relative error of a number in a header
export const HEADER_ROUNDING = 2e-6;
const RIGHT_ANGLE = 1e-4;
const SAME_PLACE_VOXELS = 1e-3;
const SAME_SPACING = 1e-3;
const LOST = { factor: 10, voxels: 4 };

/** To the nearest integer, from the middle to the even one. */
export function rint(value) {
  const rounded = Math.round(value);
  return Math.abs(value % 1) === 0.5 && rounded % 2 !== 0 ? rounded - 1 : rounded;
}

/** The same, where everything within `tolerance` of the middle counts as the middle. */
export function roundHalfToEven(value, tolerance) {
  const half = rint(value * 2) / 2;
  return rint(Math.abs(value - half) <= tolerance ? half : value);
}

/** The voxel size to resample to: the volume's own where that is as good as wanted. */
export function chooseSpacing(own, wanted) {
  return own.map((size, axis) => {
    const goal = wanted[Math.min(axis, wanted.length - 1)];
    return goal <= 0 || Math.abs(size - goal) <= Math.min(SAME_SPACING, SAME_SPACING * goal) ? size : goal;
  });
}

/** Shape and affine of the grid of voxels of `spacing` mm over a volume. */
export function findTargetGrid(shape, affine, spacing, diagonal) {
  const linear = linearPart(affine);
  const axes = scaleAxes(linear, spacing, diagonal);
  const corners = transpose(cornersOf(shape));
  const reached = multiply(solve(axes, linear), corners);
  const least = reached.map((row) => Math.min(...row));
  const extent = reached.map((row, axis) => Math.max(...row) - least[axis]);
  const rounding = HEADER_ROUNDING * Math.max(1, ...extent);
  const first = corners[0].findIndex((_, corner) => reached.every((row, axis) => row[corner] - least[axis] < rounding));
  const begin = first >= 0 ? multiply(linear, corners.map((row) => [row[first]])) : multiply(axes, least.map((value) => [value]));
  const target = [...axes.map((row, axis) => [...row, affine[axis][3] + begin[axis][0]]), [0, 0, 0, 1]];
  return { size: extent.map((length) => roundHalfToEven(length + 1, rounding)), target };
}

/** The matrix from voxels of `target` to those of `source`. */
export function leadFromTo(source, target) {
  const matrix = solve(source, target);
  const largest = Math.max(...linearPart(matrix).flat().map(Math.abs));
  return matrix.map((row, i) =>
    row.map((value, j) => (i < 3 && j < 3 && Math.abs(value) < HEADER_ROUNDING ** 2 * largest ? 0 : value)),
  );
}

/** Whether a matrix leads from every voxel of a volume to, nearly, the same voxel. */
export function isSamePlace(matrix, size) {
  return [0, 1, 2].every((row) => {
    const moved = matrix[row].map((value, column) => Math.abs(value - Number(row === column)));
    return size.reduce((sum, length, axis) => sum + moved[axis] * Math.max(length - 1, 1), moved[3]) <= SAME_PLACE_VOXELS;
  });
}

/** Refuse a volume of which resampling would leave nothing, or make more than a browser holds. */
export function checkResampledSize(name, shape, own, size, wanted, mostVoxels = 2 ** 29) {
  const lost = shape.some((length, axis) => length > 1 && wanted[axis] / own[axis] >= LOST.factor && size[axis] < LOST.voxels);
  if (!lost && size[0] * size[1] * size[2] <= mostVoxels) return;
  const [before, after] = [shape.join(" x "), size.join(" x ")];
  const trouble = lost ? `leave almost nothing (${after})` : `give ${after} voxels, more than a browser can hold`;
  throw new UserError(`${name}: resampling its ${before} voxels would ${trouble}. Correct the voxel size in its header.`);
}

function cornersOf(shape) {
  const [h, w, d] = shape.map((length) => [0, length - 1]);
  return h.flatMap((i) => w.flatMap((j) => d.map((k) => [i, j, k])));
}

function scaleAxes(axes, spacing, diagonal) {
  const scaled = (matrix, factors) => matrix.map((row) => row.map((value, column) => value * factors[column]));
  if (diagonal) return scaled([[1, 0, 0], [0, 1, 0], [0, 0, 1]], spacing);
  const one = (list) => list.filter((value) => value !== 0).length === 1;
  if (axes.every(one) && transpose(axes).every(one)) return scaled(axes.map((row) => row.map(Math.sign)), spacing);
  const lengths = columnLengths(axes);
  const unit = scaled(axes, lengths.map((length) => 1 / length));
  const cosines = multiply(transpose(unit), unit).flatMap((row, i) => row.map((value, j) => Math.abs(value - Number(i === j))));
  if (Math.max(...cosines) <= RIGHT_ANGLE) return scaled(axes, spacing.map((size, axis) => size / lengths[axis]));
  return scaled(orthonormal(axes), spacing);
}
