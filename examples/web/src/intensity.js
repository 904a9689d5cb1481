// Steps that change the values of an image, in float32 as the runner in Python does.

import { findBlack, searchSurround } from "./surround.js";
import { chosen, lowerMedian, momentsOf, percentilesLikeMonai, rangeOf } from "./statistics.js";

const { fround } = Math;
const MEDIAN_PIXELS = 2 ** 20;

/** Make the surround 0 and what it surrounds positive. */
export function levelSurround(volume) {
  const found = searchSurround(volume.voxels, volume.shape);
  if (!found || found.share === 1) return;
  const black = findBlack(chosen(volume.voxels, (_, index) => !found.mask[index]), found.value);
  if (!black && !rangeOf(volume.voxels)[0] && found.constants === 1) return;
  const shift = fround(black);
  change(volume, (value, index) => (found.mask[index] ? 0 : Math.max(fround(value - shift), 0)));
}

/** Bring what lies beyond two percentiles to these. */
export function clipPercentiles(volume, { lower, upper }) {
  const [low, high] = percentilesLikeMonai(volume.voxels, [lower || 0, upper ?? 100]);
  change(volume, (value) => Math.min(Math.max(value, low), high));
}

/** Let two percentiles become `b_min` and `b_max`. */
export function scaleRangePercentiles(volume, settings) {
  scale(volume, percentilesLikeMonai(volume.voxels, [settings.lower, settings.upper]), settings);
}

/** Let `a_min` and `a_max` become `b_min` and `b_max`. */
export function scaleRange(volume, settings) {
  scale(volume, [settings.a_min, settings.a_max], settings);
}

/** Let the lowest and the highest value become 0 and 1. */
export function scaleToUnit(volume) {
  const [low, high] = rangeOf(volume.voxels);
  const extent = fround(high - low);
  change(volume, (value) => (extent ? fround(value - low) / extent : 0));
}

/** Make an image whose median is above the middle of the range its negative. */
export function invertBrightBackground(volume, { low, high }) {
  const step = Math.max(1, Math.floor(volume.voxels.length / MEDIAN_PIXELS));
  const sample = chosen(volume.voxels, (_, index) => index % step === 0);
  const sum = fround(low + high);
  if (lowerMedian(sample) > fround((low + high) / 2)) change(volume, (value) => sum - value);
}

/** Raise what is scaled to 0 to 1 to the power of `gamma`, and scale it back. */
export function adjustContrast(volume, { gamma }) {
  const [low, high] = rangeOf(volume.voxels);
  const extent = fround(high - low);
  const divisor = fround(extent + fround(1e-7));
  change(volume, (value) => fround(fround(fround(fround(value - low) / divisor) ** gamma) * extent) + low);
}

/** Mean 0 and standard deviation 1, if so wanted of what the surround leaves. */
export function standardize(volume, { inside_surround: insideSurround }) {
  const found = insideSurround ? searchSurround(volume.voxels, volume.shape) : null;
  const leaves = found && found.share < 1;
  const counted = leaves ? chosen(volume.voxels, (_, index) => !found.mask[index]) : volume.voxels;
  normalizeWhere(volume, counted, () => true);
}

/** The same, if so wanted of what is not 0. */
export function normalize(volume, { nonzero }) {
  const inside = nonzero ? chosen(volume.voxels, (value) => value !== 0) : volume.voxels;
  if (inside.length) normalizeWhere(volume, inside, (value) => !nonzero || value !== 0);
}

function normalizeWhere(volume, values, isInside) {
  const moments = momentsOf(values);
  const mean = fround(moments.mean), deviation = fround(moments.deviation || 1);
  change(volume, (value) => (isInside(value) ? fround(value - mean) / deviation : value));
}

function scale(volume, [low, high], { b_min: least, b_max: most, clip }) {
  const [base, extent] = [fround(low), fround(high - low)];
  const scaled = (value) => {
    const part = extent ? fround(fround(value - base) / extent) : fround(value - base);
    if (!extent) return fround(part + fround(least || 0));
    return least === null || most === null ? part : fround(part * fround(most - least)) + fround(least);
  };
  const clipped = (value) => Math.min(Math.max(value, least ?? -Infinity), most ?? Infinity);
  change(volume, clip && extent ? (value) => clipped(fround(scaled(value))) : scaled);
}

function change(volume, by) {
  volume.voxels = volume.voxels.map(by);
}
