// Masks in COCO's run-length encoding: lengths of runs, column by column, alternately outside and inside.

/** Decodes compressed counts as pycocotools does: 5 bits a character; from the fourth on, differences to the second last. */
export function decodeCounts(text) {
  const counts = [];
  let at = 0;
  while (at < text.length) {
    let value = 0;
    let shift = 0;
    let bits;
    do {
      bits = text.charCodeAt(at++) - 48;
      value += (bits & 0x1f) * 2 ** shift; // not <<, which is limited to 32 bits
      shift += 5;
    } while (bits & 0x20 && at < text.length);
    if (bits & 0x10) value -= 2 ** shift;
    if (counts.length > 2) value += counts[counts.length - 2];
    counts.push(value);
  }
  return counts;
}

/** A mask of an image. Pixel (x, y) covers the square from (x, y) to (x + 1, y + 1). */
export class Mask {
  /** @param rle {size: [height, width], counts} with compressed counts */
  constructor(rle) {
    [this.height, this.width] = rle.size;
    this.counts = rle.counts;
    this._columns = null;
  }

  /** For each column, the runs of rows inside: [start, end, start, end, ...], with exclusive ends. */
  get columns() {
    if (this._columns) return this._columns;
    const { width, height } = this;
    const columns = Array.from({ length: width }, () => []);
    const counts = decodeCounts(this.counts);
    let start = 0;
    for (let i = 0; i < counts.length; i++) {
      const end = start + counts[i];
      if (i % 2) {
        for (let from = start; from < end; ) {
          const x = Math.floor(from / height);
          const to = Math.min(end, (x + 1) * height);
          if (x >= width) break;
          columns[x].push(from - x * height, to - x * height);
          from = to;
        }
      }
      start = end;
    }
    return (this._columns = columns);
  }

  /** Number of pixels inside. */
  get area() {
    return this.columns.reduce((sum, column) => sum + column.reduce((s, y, i) => s + (i % 2 ? y : -y), 0), 0);
  }

  /** Bounding box as in COCO: x, y, width, height in whole pixels; zeros if the mask is empty. */
  get box() {
    let [x0, x1, y0, y1] = [Infinity, 0, Infinity, 0];
    this.columns.forEach((column, x) => {
      if (!column.length) return;
      x0 = Math.min(x0, x);
      x1 = x + 1;
      y0 = Math.min(y0, column[0]);
      y1 = Math.max(y1, column[column.length - 1]);
    });
    return x1 ? [x0, y0, x1 - x0, y1 - y0] : [0, 0, 0, 0];
  }

  /** Whether the pixel at a point is inside. */
  contains(x, y) {
    const column = this.columns[Math.floor(x)];
    if (!column) return false;
    for (let i = 0; i < column.length; i += 2) if (y >= column[i] && y < column[i + 1]) return true;
    return false;
  }

  /** One byte for each pixel of a box {x, y, width, height}, row by row: 255 or 0. */
  within([left, top, width, height]) {
    const bytes = new Uint8Array(width * height);
    for (let x = 0; x < width; x++) {
      const column = this.columns[left + x];
      for (let i = 0; i < column.length; i += 2) {
        for (let y = column[i]; y < column[i + 1]; y++) if (y >= top && y < top + height) bytes[(y - top) * width + x] = 255;
      }
    }
    return bytes;
  }

  /** One byte per pixel, row by row: `inside` or 0. */
  bytes(inside = 255) {
    const bytes = new Uint8Array(this.width * this.height);
    this.columns.forEach((column, x) => {
      for (let i = 0; i < column.length; i += 2) {
        for (let y = column[i]; y < column[i + 1]; y++) bytes[y * this.width + x] = inside;
      }
    });
    return bytes;
  }
}
