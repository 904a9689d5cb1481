// Sums, deviations and percentiles with numpy's rounding.

import { rint } from "./grid.js";

const { fround } = Math;
// values above which MONAI takes percentiles by numpy instead of torch
const MANY = 1_000_000;

/** Mean and standard deviation in float64. */
export function momentsOf(values) {
  const mean = preciseSum(values, (value) => value) / values.length;
  return { mean, deviation: Math.sqrt(preciseSum(values, (value) => (value - mean) ** 2) / values.length) };
}

/** The values that are chosen, without the numbers on the heap of which a browser has too few for filter(). */
export function chosen(values, isChosen) {
  let count = 0;
  for (let index = 0; index < values.length; index++) if (isChosen(values[index], index)) count++;
  const found = new Float32Array(count);
  count = 0;
  for (let index = 0; index < values.length; index++) if (isChosen(values[index], index)) found[count++] = values[index];
  return found;
}

export function rangeOf(values) {
  let low = Infinity, high = -Infinity;
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return [low, high];
}

/** Percentiles in float64 of values that are sorted here. */
export function percentiles(values, percents) {
  const ordered = values.slice().sort();
  return percents.map((percent) => interpolated(ordered, (ordered.length - 1) * (percent / 100), (value) => value));
}

/** Percentiles in float32, as MONAI computes them. */
export function percentilesLikeMonai(values, percents) {
  const ordered = values.slice().sort();
  const last = ordered.length - 1;
  const place = (percent) => (ordered.length > MANY ? last * (percent / 100) : fround(fround(percent / 100) * fround(last)));
  return percents.map((percent) => interpolated(ordered, place(percent), fround));
}

/** The lower of the two in the middle. */
export function lowerMedian(values) {
  return values.slice().sort()[(values.length - 1) >> 1];
}

/** The commonest value, and the keys that are equal to it; the lowest of several. */
export function commonest(values, tolerance) {
  const step = fround(tolerance);
  const keys = tolerance ? values.map((value) => rint(fround(value / step))) : values;
  const ordered = keys.slice().sort();
  let best = ordered[0], most = 0, count = 0;
  ordered.forEach((key, index) => {
    count = index && key === ordered[index - 1] ? count + 1 : 1;
    if (count > most) [best, most] = [key, count];
  });
  const same = values.filter((_, index) => keys[index] === best).sort();
  const middle = same.length >> 1;
  const value = same.length % 2 ? same[middle] : fround(fround(same[middle - 1] + same[middle]) / 2);
  return { value, count: most, isSame: (index) => keys[index] === best };
}

function interpolated(ordered, place, round) {
  const below = Math.floor(place);
  const low = ordered[below], high = ordered[Math.ceil(place)];
  const weight = round(place - below), extent = round(high - low);
  if (weight < 0.5) return round(low + round(extent * weight));
  return round(high - round(extent * round(1 - weight)));
}

/** With the rounding errors added up as well (Neumaier). */
function preciseSum(values, change) {
  let sum = 0, rest = 0;
  for (let index = 0; index < values.length; index++) {
    const value = change(values[index]);
    const next = sum + value;
    rest += Math.abs(sum) >= Math.abs(value) ? sum - next + value : value - next + sum;
    sum = next;
  }
  return sum + rest;
}
