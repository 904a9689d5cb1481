// pipeline.json of an exported folder: whether this page can follow it, and whether the network is the one it means.

import { UserError } from "./errors.js";
import * as geometry from "./geometry.js";
import * as intensity from "./intensity.js";

const VERSION = 2;
export const STEPS = {
  orient: geometry.orient,
  spacing: geometry.spacing,
  crop_above_mean: geometry.cropAboveMean,
  crop_background: geometry.cropBackground,
  crop_foreground: geometry.cropForeground,
  level_surround: intensity.levelSurround,
  clip_percentiles: intensity.clipPercentiles,
  scale_range_percentiles: intensity.scaleRangePercentiles,
  scale_range: intensity.scaleRange,
  scale: intensity.scaleToUnit,
  invert_bright_background: intensity.invertBrightBackground,
  adjust_contrast: intensity.adjustContrast,
  standardize: intensity.standardize,
  normalize: intensity.normalize,
};
const CLEAR_BACKGROUND = "clear_background", INVERT_PROBABILITIES = "invert_probabilities", MAP_LABELS = "map_labels";

/** Refuse a folder that this page cannot follow, in one line. */
export function checkPipeline(pipeline, name) {
  const refuse = (reason) => {
    throw new UserError(`${name}: ${reason}`);
  };
  if (pipeline?.version !== VERSION) refuse(`version must be ${VERSION}, got ${pipeline?.version}. Export the bundle again.`);
  if (pipeline.network.format !== "onnx") refuse("its network is not an ONNX file. Export it with --network_format onnx.");
  if (pipeline.spatial_dims !== 3 || pipeline.reading.channels !== 1) {
    refuse("this page supports only 3D networks with one channel. Use python -m monai_unetpp.runner instead.");
  }
  if (pipeline.postprocessing.some(({ step }) => step === INVERT_PROBABILITIES)) {
    const remedy = "Export it with --no_smooth, or use python -m monai_unetpp.runner instead.";
    refuse(`it resamples probabilities (smooth), which this page does not support. ${remedy}`);
  }
  if (pipeline.postprocessing.some(({ step }) => step === MAP_LABELS)) {
    refuse("its label values are not 0, 1, 2, ..., which this page does not support. Use python -m monai_unetpp.runner instead.");
  }
  const unknown = [
    ...pipeline.preprocessing.filter(({ step }) => !Object.hasOwn(STEPS, step)),
    ...pipeline.postprocessing.filter(({ step }) => step !== CLEAR_BACKGROUND),
  ];
  if (unknown.length) refuse(`unknown step "${unknown[0].step}". Use the page of the version that exported the folder.`);
}

/** Refuse a network other than the one that was exported. */
export async function checkNetwork(bytes, pipeline, name) {
  if (!crypto.subtle) throw new UserError(`${name}: cannot be checked, as browsers allow it over https or on localhost only. Serve the page so.`);
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  const found = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  if (found !== pipeline.network.sha256) throw new UserError(`${name}: its network is damaged. Export the bundle again.`);
}
