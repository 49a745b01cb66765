// Run lengths of masks straight from low-resolution logits: what maskwire_core/masks/rle.py and maskwire/bilinear.py do,
// bit for bit. Only cells of samples whose corners differ are looked at, and no picture is made, however large the image is.

const { fround } = Math;
const SMALL = 128; // width and height together, up to which torch adds in another order
const TINY = 1e-30;

/** factor * other + onto, rounded to fp32 once: the product of two fp32 is exact in fp64. */
const sum = (factor, other, onto) => fround(factor * other + onto);
const between = (before, after, weight) => sum(before, fround(1 - weight), fround(after * weight));

/** Where the pixels of an axis lie between the samples: {scale, weight, low, high, first}; see `Axis` in bilinear.py. */
function axis(samples, pixels) {
  const scale = fround(samples / pixels);
  const [weight, low, high] = [new Float32Array(pixels), new Int32Array(pixels), new Int32Array(pixels)];
  const first = new Int32Array(samples + 1);
  for (let pixel = 0; pixel < pixels; pixel++) {
    const place = Math.max(0, sum(fround(pixel + 0.5), scale, -0.5));
    low[pixel] = Math.min(Math.trunc(place), samples - 1);
    weight[pixel] = Math.min(1, Math.max(0, fround(place - low[pixel])));
    high[pixel] = Math.min(low[pixel] + 1, samples - 1);
  }
  for (let sample = 0, pixel = 0; sample <= samples; sample++) {
    while (pixel < pixels && low[pixel] < sample) pixel++;
    first[sample] = pixel;
  }
  return { scale, weight, low, high, first };
}

/**
 * Encodes the mask where logits, enlarged to the image's size, are above 0.
 *
 * @param logits Float32Array, size x size
 * @returns {size: [height, width], counts}, as pycocotools writes it
 */
export function rle(logits, size, width, height) {
  const [x, y] = [axis(size, width), axis(size, height)];
  const changes = width + height <= SMALL ? smallChanges(logits, size, x, y) : largeChanges(logits, size, x, y);
  const counts = [];
  let last = 0;
  for (const place of changes) {
    counts.push(place - last);
    last = place;
  }
  if (last < width * height || !counts.length) counts.push(width * height - last);
  return { size: [height, width], counts: encodeCounts(counts) };
}

/** The places where the mask changes, read column by column, in increasing order. */
function largeChanges(logits, size, x, y) {
  const [width, height] = [x.weight.length, y.weight.length];
  const changes = [];
  // Twice at one place is no change.
  const change = (place) => (changes.at(-1) === place ? changes.pop() : changes.push(place));
  for (let left = 0; left < size; left++) {
    const right = Math.min(left + 1, size - 1);
    const rows = crossedRows(logits, size, left, right);
    for (let pixel = x.first[left]; pixel < x.first[left + 1]; pixel++) {
      const at = (row) => between(logits[row * size + left], logits[row * size + right], x.weight[pixel]);
      if (at(0) > 0) change(pixel * height);
      for (const row of rows) {
        const [top, bottom] = [at(row), at(row + 1)];
        if (top > 0 !== bottom > 0) change(pixel * height + firstBelow(top, bottom, row, y));
      }
      if (at(size - 1) > 0) change(pixel * height + height);
    }
  }
  if (changes.at(-1) === width * height) changes.pop();
  return changes;
}

/** The rows of samples between which and the next the mask may change, in the columns of pixels between two samples. */
function crossedRows(logits, size, left, right) {
  const rows = [];
  const sides = (row) => (logits[row * size + left] > 0) + (logits[row * size + right] > 0);
  for (let row = 0, above = sides(0); row + 1 < size; row++) {
    const below = sides(row + 1);
    if (above + below > 0 && above + below < 4) rows.push(row);
    above = below;
  }
  return rows;
}

/** The first pixel with the sign of `bottom`, between samples at `row` and after it that differ in sign. */
function firstBelow(top, bottom, row, { scale, weight, first }) {
  const [start, end] = [first[row], first[row + 1]];
  const place = (row + fround(top / fround(top - bottom)) + 0.5) / scale - 0.5;
  let found = Math.min(end, Math.max(start, Math.ceil(place)));
  const apart = Math.abs(place - Math.round(place));
  if (apart > 0.01 + 1e-4 / scale && Math.abs(fround(top - bottom)) > TINY) return found;
  // At a pixel's centre, as far as fp32 can tell: the pixels' own arithmetic decides.
  const below = (pixel) => between(top, bottom, weight[Math.min(weight.length - 1, Math.max(0, pixel))]) > 0 === bottom > 0;
  while (found > start && below(found - 1)) found--;
  while (found < end && !below(found)) found++;
  return found;
}

function smallChanges(logits, size, x, y) {
  const height = y.weight.length;
  const changes = [];
  let inside = false;
  for (let column = 0; column < x.weight.length; column++) {
    const [across, low, high] = [x.weight[column], x.low[column], x.high[column]];
    const before = fround(1 - across);
    for (let row = 0; row < height; row++) {
      const down = y.weight[row];
      const above = fround(1 - down);
      const [upper, lower] = [y.low[row] * size, y.high[row] * size];
      let total = fround(fround(above * across) * logits[upper + high]);
      total = sum(fround(above * before), logits[upper + low], total);
      total = sum(fround(down * before), logits[lower + low], total);
      total = sum(fround(down * across), logits[lower + high], total);
      if (total > 0 !== inside) {
        inside = !inside;
        changes.push(column * height + row);
      }
    }
  }
  return changes;
}

/** Compresses counts as pycocotools does: the inverse of `decodeCounts` in rle.js. */
export function encodeCounts(counts) {
  const text = [];
  counts.forEach((count, index) => {
    let value = index > 2 ? count - counts[index - 2] : count;
    for (let more = true; more; ) {
      let bits = ((value % 32) + 32) % 32;
      value = Math.floor(value / 32);
      more = bits & 16 ? value !== -1 : value !== 0;
      if (more) bits |= 32;
      text.push(String.fromCharCode(bits + 48));
    }
  });
  return text.join("");
}
