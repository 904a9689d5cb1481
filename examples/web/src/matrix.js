// Small dense matrices as arrays of rows.

export const identity = (size) =>
  Array.from({ length: size }, (_, row) => Array.from({ length: size }, (_, column) => Number(row === column)));

export const multiply = (a, b) =>
  a.map((row) => b[0].map((_, column) => row.reduce((sum, value, index) => sum + value * b[index][column], 0)));

export const transpose = (a) => a[0].map((_, column) => a.map((row) => row[column]));

/** The part of an affine that turns and stretches. */
export const linearPart = (affine) => affine.slice(0, 3).map((row) => row.slice(0, 3));

/** The lengths of the columns. */
export const columnLengths = (a) => transpose(a).map((column) => Math.hypot(...column));

/** An affine whose origin is moved to a place given in voxels. */
export function moveOrigin(affine, voxels) {
  return affine.map((row, axis) =>
    axis < 3 ? [...row.slice(0, 3), row[3] + row[0] * voxels[0] + row[1] * voxels[1] + row[2] * voxels[2]] : [...row],
  );
}

export function determinant([[a, b, c], [d, e, f], [g, h, i]]) {
  return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g);
}

/** X of A X = B, by elimination with row pivots. */
export function solve(a, b) {
  const rows = a.map((row, index) => [...row, ...b[index]]);
  const size = a.length;
  for (let column = 0; column < size; column++) {
    let pivot = column;
    for (let row = column + 1; row < size; row++) {
      if (Math.abs(rows[row][column]) > Math.abs(rows[pivot][column])) pivot = row;
    }
    [rows[column], rows[pivot]] = [rows[pivot], rows[column]];
    for (let row = column + 1; row < size; row++) {
      const factor = rows[row][column] / rows[column][column];
      for (let k = column; k < rows[row].length; k++) rows[row][k] -= factor * rows[column][k];
    }
  }
  for (let column = size - 1; column >= 0; column--) {
    for (let k = size; k < rows[column].length; k++) {
      let value = rows[column][k];
      for (let other = column + 1; other < size; other++) value -= rows[column][other] * rows[other][k];
      rows[column][k] = value / rows[column][column];
    }
  }
  return rows.map((row) => row.slice(size));
}

/** The rotation that is nearest to a matrix, by Newton's iteration for the polar decomposition. */
export function nearestRotation(a) {
  let current = a;
  for (let round = 0; round < 50; round++) {
    const inverse = transpose(solve(current, identity(3)));
    const next = current.map((row, i) => row.map((value, j) => (value + inverse[i][j]) / 2));
    const change = Math.max(...next.flatMap((row, i) => row.map((value, j) => Math.abs(value - current[i][j]))));
    current = next;
    if (change < 1e-15) break;
  }
  return current;
}

/** Columns at right angles, the first one with its direction, each of length 1 (Gram and Schmidt). */
export function orthonormal(a) {
  const found = [];
  for (const column of transpose(a)) {
    let rest = column;
    for (const other of found) {
      const along = rest.reduce((sum, value, index) => sum + value * other[index], 0);
      rest = rest.map((value, index) => value - along * other[index]);
    }
    const length = Math.hypot(...rest);
    found.push(rest.map((value) => value / length));
  }
  return transpose(found);
}
