// Edits of masks by hand, as runs of rows in each column: what a brush covers, and what polygons enclose.

import { encodeCounts } from "./decoder/runs.js";
import { Mask } from "./rle.js";

/** The run lengths of columns, each [start, end, start, end, ...] with exclusive ends, as in Mask.columns. */
export function countsOf(columns, height) {
  const counts = [];
  let last = 0;
  columns.forEach((column, x) => {
    for (const y of column) {
      const place = x * height + y;
      // A run that goes on from the column before is the same run.
      if (place === last && counts.length && counts.length % 2 === 0) last -= counts.pop();
      else {
        counts.push(place - last);
        last = place;
      }
    }
  });
  if (last < columns.length * height || !counts.length) counts.push(columns.length * height - last);
  return encodeCounts(counts);
}

/** Combines two lists of runs: rows that `keep(first, second)` chooses. */
function combined(first, second, keep) {
  if (!second.length) return keep(true, false) ? first : [];
  const rows = [...new Set([...first, ...second])].sort((a, b) => a - b);
  const inside = (runs, y) => runs.some((start, i) => i % 2 === 0 && y >= start && y < runs[i + 1]);
  const found = [];
  let was = false;
  for (const y of rows) {
    const is = keep(inside(first, y), inside(second, y));
    if (is !== was) found.push(y);
    was = is;
  }
  return found;
}

/**
 * A mask after an edit.
 *
 * @param mask or null, for nothing
 * @param edit {size: [height, width], added, removed}: compressed counts of pixels; either may be absent
 */
export function edited(mask, { size, added, removed }) {
  const [height, width] = size;
  let columns = mask?.columns ?? Array.from({ length: width }, () => []);
  const change = (counts, keep) => {
    const other = new Mask({ size, counts }).columns;
    columns = columns.map((column, x) => combined(column, other[x], keep));
  };
  if (added) change(added, (here, there) => here || there);
  if (removed) change(removed, (here, there) => here && !there);
  return new Mask({ size, counts: countsOf(columns, height) });
}

/** The pixels of some compressed counts that others do not have. */
export function difference(counts, others, size) {
  const [here, there] = [counts, others].map((one) => new Mask({ size, counts: one }).columns);
  return countsOf(here.map((column, x) => combined(column, there[x], (inside, other) => inside && !other)), size[0]);
}

/**
 * The pixels whose centres a round brush covers on its way.
 *
 * @param points [[x, y], ...] of the way, in pixels
 * @returns compressed counts
 */
export function brushed(points, radius, [height, width]) {
  const columns = Array.from({ length: width }, () => []);
  points.forEach((to, index) => {
    const from = points[Math.max(0, index - 1)];
    const first = Math.max(0, Math.floor(Math.min(from[0], to[0]) - radius));
    const last = Math.min(width - 1, Math.ceil(Math.max(from[0], to[0]) + radius));
    for (let x = first; x <= last; x++) {
      const range = capsule(from, to, radius, x + 0.5);
      if (!range) continue;
      const run = range.map((y) => Math.min(height, Math.max(0, Math.ceil(y - 0.5))));
      if (run[0] < run[1]) columns[x] = combined(columns[x], run, (here, there) => here || there);
    }
  });
  return countsOf(columns, height);
}

/** Where the vertical line at x runs within a radius of a segment: [from, to], or null. */
function capsule([ax, ay], [bx, by], radius, x) {
  const found = [];
  for (const [px, py] of [[ax, ay], [bx, by]]) {
    const half = Math.sqrt(radius ** 2 - (x - px) ** 2);
    if (half >= 0) found.push(py - half, py + half);
  }
  const length = Math.hypot(bx - ax, by - ay);
  if (length) {
    const [dx, dy] = [(-(by - ay) / length) * radius, ((bx - ax) / length) * radius];
    for (const side of [1, -1]) {
      const [sx, ex] = [ax + side * dx, bx + side * dx];
      if (sx === ex || (x - sx) * (x - ex) > 0) continue;
      found.push(ay + side * dy + ((x - sx) / (ex - sx)) * (by - ay));
    }
  }
  return found.length ? [Math.min(...found), Math.max(...found)] : null;
}

/** The pixels whose centres lie within lines, by the even-odd rule: compressed counts. */
export function enclosed(lines, [height, width]) {
  const crossings = Array.from({ length: width }, () => []);
  for (const line of lines) {
    line.forEach(([ax, ay], index) => {
      const [bx, by] = line[(index + 1) % line.length];
      const [first, last] = [Math.ceil(Math.min(ax, bx) - 0.5), Math.ceil(Math.max(ax, bx) - 0.5)];
      for (let x = Math.max(0, first); x < Math.min(width, last); x++) {
        const y = ay + ((x + 0.5 - ax) / (bx - ax)) * (by - ay);
        crossings[x].push(Math.min(height, Math.max(0, Math.ceil(y - 0.5))));
      }
    });
  }
  const columns = crossings.map((column) => {
    const sorted = column.sort((a, b) => a - b);
    return combined(sorted.filter((y, i) => sorted[i ^ 1] !== y), [0, 0], (here) => here);
  });
  return countsOf(columns, height);
}
