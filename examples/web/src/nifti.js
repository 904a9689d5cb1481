// Reading NIfTI-1 and NIfTI-2 files, and writing label maps on their grid.

import { UserError } from "./errors.js";
import { columnLengths, determinant, linearPart } from "./matrix.js";

// where the fields are: by the size of the header
const LAYOUTS = {
  348: {
    number: "Float32", size: 4, code: "Int16", dim: [40, "Int16", 2], datatype: 70, bitpix: 72, intent: [56, 60, 64],
    intentCode: 68, pixdim: 76, offset: [108, "Float32"], slope: 112, inter: 116, units: 123, calibration: [124, 128],
    description: 148, auxiliary: 228, qformCode: 252, sformCode: 254, quaternion: 256, qoffset: 268, rows: 280,
    intentName: 328, magic: 344,
  },
  540: {
    number: "Float64", size: 8, code: "Int32", dim: [16, "BigInt64", 8], datatype: 12, bitpix: 14, intent: [80, 88, 96],
    intentCode: 504, pixdim: 104, offset: [168, "BigInt64"], slope: 176, inter: 184, units: 500,
    calibration: [192, 200], description: 240, auxiliary: 320, qformCode: 344, sformCode: 348, quaternion: 352,
    qoffset: 376, rows: 400, intentName: 508, magic: 4,
  },
};
const TYPES = {
  2: Uint8Array, 4: Int16Array, 8: Int32Array, 16: Float32Array, 64: Float64Array, 256: Int8Array, 512: Uint16Array,
  768: Uint32Array, 1024: BigInt64Array, 1280: BigUint64Array,
};
const SMALLEST_VOLUME = 1e-6;
// errors of the browser about the file itself
const UNREADABLE = ["NotReadableError", "NotFoundError"];
const MARK = "written by monai-unetpp";
// largest square of the scalar part of a quaternion that counts as 0: by the size of the header, as in nibabel
const ROUNDING = { 348: 3 * 2 ** -23, 540: 3 * 2 ** -52 };

/**
 * Read a NIfTI file.
 *
 * @param {Blob} file with .nii or .nii.gz at the end of its name
 * @returns {Promise<{name, header, shape, affine, voxels, isReal, notes}>} voxels are Float32Array, the last axis fastest
 */
export async function readNifti(file) {
  return content(await open(file));
}

/** Read a NIfTI file as above, but no result of monai-unetpp, which would be segmented without a word. */
export async function readImage(file) {
  const opened = await open(file);
  const { description } = opened.header;
  if (description === MARK || description.startsWith(`${MARK} `)) {
    throw new UserError(`${file.name}: a result of monai-unetpp, not an image. Choose the image.`);
  }
  return content(opened);
}

async function open(file) {
  const name = file.name;
  if (!/\.nii(\.gz)?$/i.test(name)) {
    throw new UserError(`${name}: this page reads only .nii and .nii.gz. Convert the image to NIfTI.`);
  }
  const bytes = await unpacked(file);
  return { name, bytes, header: readHeader(bytes, name) };
}

function content({ name, bytes, header }) {
  const affine = findAffine(header, name);
  return { name, header, affine, ...readVoxels(bytes, header, name), notes: doubts(header) };
}

/** The labels (Uint8Array, the last axis fastest) as the bytes of a NIfTI file with the header of the image. */
export function writeLabels(labels, image) {
  const { layout, view: source, little } = image.header;
  const start = image.header.size + 4;
  const bytes = new Uint8Array(start + labels.length);
  bytes.set(new Uint8Array(source.buffer, source.byteOffset, image.header.size));
  const view = new DataView(bytes.buffer);
  const put = (place, value, kind) => view[`set${kind}`](place, value, little);
  const text = (place, length, value) => bytes.fill(0, place, place + length).set(new TextEncoder().encode(value), place);
  put(layout.datatype, 2, "Int16");
  put(layout.bitpix, 8, "Int16");
  for (const place of [...layout.intent, ...layout.calibration, layout.inter]) put(place, 0, layout.number);
  put(layout.intentCode, 0, layout.code);
  put(layout.slope, 1, layout.number);
  put(layout.offset[0], layout.offset[1] === "BigInt64" ? BigInt(start) : start, layout.offset[1]);
  text(layout.intentName, 16, "");
  text(layout.auxiliary, 24, "");
  text(layout.description, 80, MARK);
  bytes.set(toFileOrder(labels, image.shape), start);
  return bytes;
}

async function unpacked(file) {
  let isPacked = false;
  try {
    const start = new Uint8Array(await file.slice(0, 2).arrayBuffer());
    if (!start.length) throw new UserError(`${file.name}: empty, it has 0 bytes. Export or copy it again.`);
    isPacked = start[0] === 0x1f && start[1] === 0x8b;
    // by way of a blob, as what is too large for a buffer would fail like what is damaged
    const whole = isPacked ? await new Response(file.stream().pipeThrough(new DecompressionStream("gzip"))).blob() : file;
    return await whole.arrayBuffer();
  } catch (error) {
    if (error instanceof RangeError || error instanceof UserError) throw error;
    if (isPacked && !UNREADABLE.includes(error.name)) {
      throw new UserError(`${file.name}: damaged or cut off, or packed in several parts, which browsers do not read. Export or pack it again.`);
    }
    throw new UserError(`${file.name}: cannot be read (${error.name}). It may have changed since it was chosen, or be too large for the browser. Choose it again.`);
  }
}

function readHeader(bytes, name) {
  const refused = new UserError(`${name}: not a NIfTI image, despite its name. Export or copy it again.`);
  if (bytes.byteLength < 348) throw refused;
  const view = new DataView(bytes);
  const little = LAYOUTS[view.getInt32(0, true)] !== undefined;
  const size = view.getInt32(0, little);
  const layout = LAYOUTS[size];
  if (!layout || bytes.byteLength < size || view.getUint8(layout.magic) !== 0x6e) throw refused;
  const number = (place, kind = layout.number) => Number(view[`get${kind}`](place, little));
  const list = (place, count) => Array.from({ length: count }, (_, index) => number(place + index * layout.size));
  const [dim, kind, step] = layout.dim;
  const axes = number(dim, kind);
  if (!(axes >= 1 && axes <= 7)) throw new UserError(`${name}: its header gives ${axes} axes, NIfTI allows 1 to 7. Export or copy it again.`);
  const shape = Array.from({ length: axes }, (_, index) => number(dim + (index + 1) * step, kind));
  return {
    layout, view, little, size, shape,
    datatype: number(layout.datatype, "Int16"),
    pixdim: list(layout.pixdim, 4),
    offset: number(...layout.offset),
    slope: number(layout.slope),
    inter: number(layout.inter),
    units: view.getUint8(size === 348 || little ? layout.units : layout.units + 3) & 7,
    qformCode: number(layout.qformCode, layout.code),
    sformCode: number(layout.sformCode, layout.code),
    description: textAt(view, layout.description, 80),
    quaternion: list(layout.quaternion, 3),
    qoffset: list(layout.qoffset, 3),
    rows: [0, 4, 8].map((first) => list(layout.rows + first * layout.size, 4)),
  };
}

function textAt(view, place, length) {
  const bytes = new Uint8Array(view.buffer, view.byteOffset + place, length);
  const end = bytes.indexOf(0);
  return new TextDecoder("latin1").decode(end < 0 ? bytes : bytes.subarray(0, end));
}

function findAffine(header, name) {
  const { shape, sformCode, qformCode } = header;
  const spacing = header.pixdim.slice(1);
  if (sformCode <= 0 && !spacing.every((size, axis) => (size > 0 && Number.isFinite(size)) || !(shape[axis] > 1))) {
    throw new UserError(`${name}: its header gives the impossible voxel size ${spacing.join(" x ")} mm. Correct the header.`);
  }
  // an axis of one voxel may have no size
  const sizes = spacing.map((size) => size || 1);
  let rows;
  if (sformCode > 0) rows = header.rows;
  else if (qformCode > 0) rows = rotated({ ...header, pixdim: [header.pixdim[0], ...sizes] }, name);
  else rows = sizes.map((size, axis) => {
    const row = [0, 0, 0, ((axis ? -1 : 1) * size * ((shape[axis] ?? 1) - 1)) / 2];
    row[axis] = axis ? size : -size;
    return row;
  });
  const affine = [...rows, [0, 0, 0, 1]];
  const lengths = columnLengths(linearPart(affine));
  const unit = linearPart(affine).map((row) => row.map((value, axis) => value / lengths[axis]));
  if (!affine.flat().every(Number.isFinite) || !(Math.abs(determinant(unit)) >= SMALLEST_VOLUME)) {
    throw new UserError(`${name}: its affine is singular, so positions are undefined. Repair its sform or qform.`);
  }
  return affine;
}

function rotated({ quaternion: [b, c, d], pixdim, qoffset, size }, name) {
  const square = 1 - (b * b + c * c + d * d);
  const rounding = ROUNDING[size];
  if (square < -rounding) {
    throw new UserError(`${name}: its qform is not a rotation. Correct the quaternion in its header.`);
  }
  const a = Math.abs(square) <= rounding ? 0 : Math.sqrt(square);
  const s = 2 / (a * a + b * b + c * c + d * d);
  const rotation = [
    [1 - s * (c * c + d * d), s * (b * c - a * d), s * (b * d + a * c)],
    [s * (b * c + a * d), 1 - s * (b * b + d * d), s * (c * d - a * b)],
    [s * (b * d - a * c), s * (c * d + a * b), 1 - s * (b * b + c * c)],
  ];
  const scales = [pixdim[1], pixdim[2], pixdim[0] === -1 ? -pixdim[3] : pixdim[3]];
  return rotation.map((row, axis) => [...row.map((value, column) => value * scales[column]), qoffset[axis]]);
}

function readVoxels(bytes, header, name) {
  const shape = [...header.shape];
  while (shape.length > 3 && shape.at(-1) === 1) shape.pop();
  if (shape.length !== 3 || shape.some((length) => !(length > 0))) {
    throw new UserError(`${name}: must have 3 axes and 1 channel, got shape (${header.shape.join(", ")}). Store one volume in a separate file.`);
  }
  const Kind = TYPES[header.datatype];
  if (!Kind) throw new UserError(`${name}: holds colours, complex numbers or 128-bit floats. Convert it to grey values.`);
  const count = shape[0] * shape[1] * shape[2];
  const length = count * Kind.BYTES_PER_ELEMENT;
  if (!(header.offset >= header.size) || header.offset + length > bytes.byteLength) {
    throw new UserError(`${name}: damaged or cut off. Export or copy it again.`);
  }
  const stored = bytes.slice(header.offset, header.offset + length);
  if (!header.little) swapBytes(new Uint8Array(stored), Kind.BYTES_PER_ELEMENT);
  const scaled = Number.isFinite(header.slope) && header.slope !== 0;
  const [slope, inter] = scaled ? [header.slope, header.inter] : [1, 0];
  const values = new Kind(stored);
  const isBig = Kind === BigInt64Array || Kind === BigUint64Array;
  const voxels = fromFileOrder(values, shape, isBig ? (value) => Number(value) * slope + inter : (value) => value * slope + inter);
  return { shape, voxels };
}

function swapBytes(bytes, size) {
  for (let start = 0; size > 1 && start < bytes.length; start += size) bytes.subarray(start, start + size).reverse();
}

function fromFileOrder(values, [height, width, depth], change) {
  const voxels = new Float32Array(values.length);
  let index = 0;
  for (let k = 0; k < depth; k++)
    for (let j = 0; j < width; j++)
      for (let i = 0; i < height; i++) voxels[(i * width + j) * depth + k] = change(values[index++]);
  return voxels;
}

function toFileOrder(labels, [height, width, depth]) {
  const values = new Uint8Array(labels.length);
  let index = 0;
  for (let k = 0; k < depth; k++)
    for (let j = 0; j < width; j++)
      for (let i = 0; i < height; i++) values[index++] = labels[(i * width + j) * depth + k];
  return values;
}

function doubts(header) {
  const notes = [];
  if (header.sformCode <= 0 && header.qformCode <= 0) {
    notes.push("Neither sform nor qform is set: left and right may be swapped.");
  }
  if (![0, 2].includes(header.units)) notes.push("The header gives lengths in a unit other than mm; they are read as mm.");
  return notes;
}
